"""The one door through which pictures from outside come in: files, encoded bytes and arrays.

Whatever comes in leaves as uint8 [h w c] (or [b h w c]) of the asked size and channels, or is
refused in one sentence that names it. Shorter side to the size, then the centre, in one
antialiased bicubic resize; colour profiles are ignored.
"""

import io
import os

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 20_000_000
MAX_PIXELS = 25_000_000
ALLOWED = "allowed are PNG, JPEG and WEBP up to 20 MB and 25 megapixels"


def load_image(
    path: str | os.PathLike, image_size: int, channels: int, turned: bool = True
) -> np.ndarray:
    """Reads a picture file as uint8 [h w c] with h = w = image_size.

    The first frame of an animation, alpha laid on white; `turned` as its EXIF orientation says.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: not an allowed picture, or one that cannot be decoded; the message names it.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"no picture at {path}")
    if not os.path.isfile(path):
        raise ValueError(f"{path}: not a file; {ALLOWED}")
    if (size := os.path.getsize(path)) > MAX_BYTES:
        raise ValueError(f"{path}: {size / 1e6:.1f} MB is too large; {ALLOWED}")
    with open(path, "rb") as file:
        return decode_image(file.read(), path, image_size, channels, turned=turned)


def decode_image(
    data: bytes,
    name: str,
    image_size: int,
    channels: int,
    max_pixels: int = MAX_PIXELS,
    turned: bool = True,
) -> np.ndarray:
    """As load_image, from the bytes of a picture file; `name` stands in the errors."""
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{name}: not a picture of a known kind; {ALLOWED}") from error
    except bombs as error:
        raise ValueError(f"{name}: far too many pixels; {ALLOWED}") from error
    except Exception as error:  # a broken file makes Pillow raise nearly anything
        raise ValueError(f"{name}: cannot be read ({error}); {ALLOWED}") from error
    with image:
        width, height = image.size
        if width * height > max_pixels:
            megapixels = f"{width} x {height} = {width * height / 1e6:.1f} megapixels"
            raise ValueError(
                f"{name}: {megapixels}, more than {max_pixels / 1e6:g} allowed; {ALLOWED}"
            )
        # JPEG can decode at 1/2, 1/4 or 1/8: much faster, and still twice as fine as asked for.
        image.draft(None, (2 * image_size, 2 * image_size))
        try:
            image.load()
            return fit_image(_turned(image) if turned else image, image_size, channels)
        except Exception as error:
            raise ValueError(f"{name}: damaged, cannot be decoded ({error}); {ALLOWED}") from error


def _turned(image: Image.Image) -> Image.Image:
    """As its EXIF orientation says; as it is where that can't be read."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken block makes Pillow raise nearly anything; the pixels are whole
        return image


def size_of(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) of a picture file, read from its head; errors as `load_image`."""
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no picture at {path}")
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.height, image.width
    except Exception as error:  # a broken file makes Pillow raise nearly anything
        raise ValueError(f"{path}: cannot be read ({error}); {ALLOWED}") from error


def fit_image(image: Image.Image, image_size: int, channels: int) -> np.ndarray:
    """A Pillow picture of any mode as uint8 [h w c], h = w = image_size, c = channels (1 or 3)."""
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, not {channels}")
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow would clip 16 bits to 8; 65535 / 257 = 255.
        wide = np.asarray(image).astype(np.float64)
        image = Image.fromarray(np.clip(np.rint(wide / 257), 0, 255).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    width, height = image.size
    if (width, height) != (image_size, image_size):
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        image = image.resize(
            (image_size, image_size),
            Image.Resampling.BICUBIC,
            box=(left, top, left + side, top + side),
        )
    return np.asarray(image).reshape(image_size, image_size, channels)


def fit_arrays(images: np.ndarray, image_size: int, channels: int) -> np.ndarray:
    """uint8 [n h w] or [n h w c], c = 1, 3 or 4 (alpha), as [n h w c] of the asked size."""
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[1:] == (image_size, image_size, channels):
        return np.ascontiguousarray(images)
    fitted = np.empty((len(images), image_size, image_size, channels), np.uint8)
    for n, image in enumerate(images):
        image = image[..., 0] if image.shape[-1] == 1 else image
        fitted[n] = fit_image(Image.fromarray(np.ascontiguousarray(image)), image_size, channels)
    return fitted


def to_uint8(images: np.ndarray, name: str) -> np.ndarray:
    """Pictures as uint8: bool and floats in [0, 1] are scaled; anything else is a ValueError."""
    if images.dtype == np.uint8:
        return images
    if images.dtype == np.bool_:
        return images.astype(np.uint8) * np.uint8(255)
    expected = "expected uint8, or floats in [0, 1]"
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"{name}: pictures of type {images.dtype}; {expected}")
    # Written so that NaN fails as well.
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        low, high = images.min(), images.max()
        raise ValueError(f"{name}: values from {low:.4g} to {high:.4g}; {expected}")
    return np.rint(images * 255).astype(np.uint8)
