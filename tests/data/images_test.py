"""The one door for picture files: every mode gives the documented values, or is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from soda_jax.data import images


def save(path, image, **options):
    image.save(path, **options)
    return path


def gradient(height, width, c=3):
    rows = np.arange(height * width * c) % 251
    return rows.reshape(height, width, c).astype(np.uint8)


def palette():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    return image


# mode -> (picture of one value, what it must become in RGB)
MODES = {
    "1": (Image.new("1", (4, 4), 1), (255, 255, 255)),
    "L": (Image.new("L", (4, 4), 100), (100, 100, 100)),
    "LA": (Image.new("LA", (4, 4), (0, 0)), (255, 255, 255)),
    "P": (palette(), (0, 0, 255)),
    "RGB": (Image.new("RGB", (4, 4), (10, 20, 30)), (10, 20, 30)),
    "RGBA": (Image.new("RGBA", (4, 4), (0, 0, 0, 51)), (204, 204, 204)),
    "I;16": (Image.fromarray(np.full((4, 4), 257 * 200, np.uint16)), (200, 200, 200)),
}


@pytest.mark.parametrize("mode", MODES)
def test_png_of_each_mode(tmp_path, mode):
    image, expected = MODES[mode]
    path = save(tmp_path / "x.png", image)
    out = images.load_image(path, 4, 3)
    assert out.dtype == np.uint8 and out.shape == (4, 4, 3)
    np.testing.assert_array_equal(out, np.broadcast_to(np.array(expected, np.uint8), (4, 4, 3)))
    assert images.load_image(path, 4, 1).shape == (4, 4, 1)


def test_palette_with_transparency_lies_on_white(tmp_path):
    path = save(tmp_path / "x.png", palette(), transparency=1)
    assert (images.load_image(path, 4, 3) == 255).all()


def test_cmyk_jpeg_has_its_colour(tmp_path):
    path = save(tmp_path / "x.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95)
    red = images.load_image(path, 8, 3).reshape(-1, 3).mean(0)
    np.testing.assert_allclose(red, [254, 0, 0], atol=4)


def test_lossless_webp_is_exact(tmp_path):
    x = gradient(8, 8)
    path = save(tmp_path / "x.webp", Image.fromarray(x), lossless=True)
    np.testing.assert_array_equal(images.load_image(path, 8, 3), x)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = gradient(8, 8)
    # What a camera stores so that its orientation tag turns it upright again.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    path = save(tmp_path / "x.png", image, exif=exif)
    np.testing.assert_array_equal(images.load_image(path, 8, 3), upright)


def test_shorter_side_then_centre(tmp_path):
    x = np.zeros((8, 24, 3), np.uint8)
    x[:, 8:16] = gradient(8, 8)
    path = save(tmp_path / "x.png", Image.fromarray(x))
    np.testing.assert_array_equal(images.load_image(path, 8, 3), x[:, 8:16])


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    small = images.fit_image(Image.fromarray(stripes), 8, 1)
    np.testing.assert_allclose(small.astype(int), 128, atol=8)


def test_extreme_shape(tmp_path):
    path = save(tmp_path / "x.png", Image.new("L", (20_000, 1), 7))
    assert (images.load_image(path, 8, 1) == 7).all()


def bytes_of(image, kind):
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


NOISE = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
REFUSED = {
    "text.png": (b"not a picture", "not a picture of a known kind"),
    "empty.png": (b"", "not a picture of a known kind"),
    "a.gif": (bytes_of(Image.new("L", (4, 4)), "GIF"), "not a picture of a known kind"),
    "cut.png": (bytes_of(Image.fromarray(NOISE), "PNG")[:6000], "damaged"),
    "cut.jpg": (bytes_of(Image.fromarray(NOISE), "JPEG")[:1500], "damaged"),
    "huge.png": (bytes_of(Image.new("1", (5001, 5000)), "PNG"), "25.0 megapixels, more than 25"),
    "bomb.png": (bytes_of(Image.new("1", (16_000, 8_000)), "PNG"), "pixels"),
    "heavy.png": (b"\x89PNG" + bytes(20_000_001), "20.0 MB is too large"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line_that_names_the_file(tmp_path, name):
    content, reason = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason) as error:
        images.load_image(tmp_path / name, 8, 3)
    message = str(error.value)
    assert name in message and "PNG, JPEG and WEBP" in message and "\n" not in message


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.png"):
        images.load_image(tmp_path / "nothing.png", 8, 3)
    with pytest.raises(ValueError, match="not a file"):
        images.load_image(tmp_path, 8, 3)


def test_arrays_become_uint8():
    floats = np.array([0.0, 0.5, 1.0], np.float32)
    np.testing.assert_array_equal(images.to_uint8(floats, "x"), [0, 128, 255])
    np.testing.assert_array_equal(images.to_uint8(np.array([False, True]), "x"), [0, 255])
    for bad in ([0.0, 1.5], [-0.1, 0.0], [np.nan, 0.0]):
        with pytest.raises(ValueError, match="floats in \\[0, 1\\]"):
            images.to_uint8(np.array(bad), "x")
    with pytest.raises(ValueError, match="int64"):
        images.to_uint8(np.array([3], np.int64), "x")


def test_a_damaged_exif_block_spoils_no_picture(tmp_path):
    picture = gradient(4, 4)
    path = save(tmp_path / "x.png", Image.fromarray(picture), exif=b"Exif\0\0no block at all")
    np.testing.assert_array_equal(images.load_image(path, 4, 3), picture)
