"""How near one picture is to another: PSNR and SSIM, for each picture of a batch."""

import jax.numpy as jnp
import numpy as np

from soda_jax.array_types import Array

_SIGMA = 1.5
_RADIUS = 5  # 3.5 sigma: a window of 11
_K1, _K2 = 0.01, 0.03


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
      data_range: the largest value less the smallest possible: 255 for uint8, 2 for [-1, 1].

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
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(jnp.square(x)) - jnp.square(mean_x)
    variance_y = _blur(jnp.square(y)) - jnp.square(mean_y)
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (jnp.square(mean_x) + jnp.square(mean_y) + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


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
