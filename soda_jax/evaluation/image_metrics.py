"""How near one picture is to another: PSNR, SSIM and MS-SSIM, for each picture of a batch."""

import jax.numpy as jnp
import numpy as np

from soda_jax.array_types import Array

_SIGMA = 1.5
_RADIUS = 5  # 3.5 sigma: a window of 11
_K1, _K2 = 0.01, 0.03
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first [P]


def psnr(x: Array, y: Array, data_range: float) -> Array:
    """Peak signal-to-noise ratio of [b h w c] pictures in decibels: [b]; infinite for equal ones.

    Args:
      x, y: pictures of any number type, on the same scale.
      data_range: the largest value less the smallest possible: 255 for uint8, 2 for [-1, 1].

    Raises:
      ValueError: the shapes differ, or are not [b h w c].
    """
    x, y = _as_float(x, y)
    mean_squared_error = jnp.mean(jnp.square(x - y), axis=(1, 2, 3))
    return 10.0 * jnp.log10(data_range**2 / mean_squared_error)


def ssim(x: Array, y: Array, data_range: float) -> Array:
    """Structural similarity of [b h w c] pictures, mean over places and channels: [b], at most 1.

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity":
    Gaussian windows of 11 x 11 with sigma 1.5, biased variances, only windows that lie whole inside
    the picture, each channel by itself.

    Args:
      x, y: pictures of any number type, on the same scale.
      data_range: the largest value possible, where the smallest is 0: 255 for uint8.

    Raises:
      ValueError: the shapes differ or are not [b h w c], or the pictures are smaller than a window.
    """
    x, y = _as_float(x, y)
    window = 2 * _RADIUS + 1
    if min(x.shape[1:3]) < window:
        raise ValueError(
            f"SSIM needs pictures of at least {window} x {window} pixels, "
            f"but these have {x.shape[1]} x {x.shape[2]}"
        )
    luminance, contrast = _luminance_and_contrast(x, y, data_range)
    return jnp.mean(luminance * contrast, axis=(1, 2, 3))


def ms_ssim(x: Array, y: Array, data_range: float, *, scales: int = len(MS_SSIM_WEIGHTS)) -> Array:
    """Multi-scale structural similarity of [b h w c] pictures, mean over channels: [b], in [0, 1].

    Wang, Simoncelli & Bovik 2003, "Multiscale structural similarity for image quality assessment",
    eq. 7: for each channel, the product of powers of the mean contrast-and-structure term of every
    scale but the last and of the mean SSIM of the last. From scale to scale means of 2 x 2 pixels
    are taken; an odd last row or column is left out [D]. With fewer than five scales the weights of
    the finest ones are divided by their sum [D]. A mean below 0, which has no power, counts as 0:
    pictures that are opposite at one scale get 0 [R].

    Args:
      x, y: pictures of any number type, on the same scale.
      data_range: the largest value possible, where the smallest is 0: 255 for uint8.
      scales: how many, 1 to 5; five need pictures of at least 176 x 176 pixels.

    Raises:
      ValueError: the shapes differ or are not [b h w c], there is no such number of scales, or the
        pictures are too small for it.
    """
    x, y = _as_float(x, y)
    if scales not in range(1, len(MS_SSIM_WEIGHTS) + 1):
        raise ValueError(f"scales must be 1 to {len(MS_SSIM_WEIGHTS)}, but is {scales}")
    window = 2 * _RADIUS + 1
    fitting = (min(x.shape[1:3]) // window).bit_length()
    if fitting < scales:
        advice = f"{fitting} of them fit" if fitting else "not even one fits"
        raise ValueError(
            f"MS-SSIM with scales={scales} needs pictures of at least {window << scales - 1} x "
            f"{window << scales - 1} pixels, but these have {x.shape[1]} x {x.shape[2]}: {advice}"
        )
    total = sum(MS_SSIM_WEIGHTS[:scales])
    product = 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS[:scales]):
        luminance, term = _luminance_and_contrast(x, y, data_range)
        if scale == scales - 1:
            term = luminance * term
        mean = jnp.mean(term, axis=(1, 2))
        product = product * jnp.maximum(mean, 0.0) ** (weight / total)
        if scale < scales - 1:
            x, y = _halve(x), _halve(y)
    return jnp.mean(product, axis=1)


def _luminance_and_contrast(x, y, data_range):
    """The two factors of SSIM at every window: luminance, and contrast with structure."""
    # All five at once: a fifth of the operations to compile.
    means = _blur(jnp.concatenate([x, y, jnp.square(x), jnp.square(y), x * y]))
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = jnp.split(means, 5)
    variance_x = mean_xx - jnp.square(mean_x)
    variance_y = mean_yy - jnp.square(mean_y)
    covariance = mean_xy - mean_x * mean_y
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (jnp.square(mean_x) + jnp.square(mean_y) + c1)
    contrast = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance, contrast


def _halve(x):
    """Means of 2 x 2 pixels of [b h w c]."""
    height, width = x.shape[1] // 2, x.shape[2] // 2
    x = x[:, : 2 * height, : 2 * width]
    return x.reshape(len(x), height, 2, width, 2, -1).mean(axis=(2, 4))


def _as_float(x, y):
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    if x.shape != y.shape or x.ndim != 4:
        raise ValueError(f"both must be [b h w c] of one shape, but are {x.shape} and {y.shape}")
    return x, y


def _blur(x):
    """Gaussian means of all whole windows, by shifted sums: exact float32 on every device."""
    weights = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
    weights = (weights / weights.sum()).tolist()
    height, width = x.shape[1] - 2 * _RADIUS, x.shape[2] - 2 * _RADIUS
    x = sum(weight * x[:, i : i + height] for i, weight in enumerate(weights))
    return sum(weight * x[:, :, i : i + width] for i, weight in enumerate(weights))
