import jax
import numpy as np
import pytest

from soda_jax.evaluation.image_metrics import psnr, ssim


def pictures(data_range, seed):
    """Smooth pictures and noisy copies, on [0, data_range]; each copy worse than the one before."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:20, :23] / 23
    phases = rng.uniform(0, 6, (4, 1, 1, 3))
    x = 0.5 + 0.4 * np.sin(9 * rows[None, :, :, None] + phases + 5 * columns[None, :, :, None])
    noise = np.array([0.01, 0.05, 0.2, 0.6]).reshape(4, 1, 1, 1) * rng.normal(size=x.shape)
    y = np.clip(x + noise, 0, 1)
    return (data_range * x).astype(np.float32), (data_range * y).astype(np.float32)


@pytest.mark.parametrize("data_range", [1.0, 2.0, 255.0])
def test_ssim_and_psnr_are_scikit_images(data_range):
    metrics = pytest.importorskip("skimage.metrics")
    x, y = pictures(data_range, seed=0)
    expected = [
        metrics.structural_similarity(
            a,
            b,
            data_range=data_range,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(x, y, strict=True)
    ]
    assert expected[0] > 0.9 > 0.3 > expected[-1]
    np.testing.assert_allclose(jax.jit(ssim)(x, y, data_range), expected, atol=1e-4)
    expected = [
        metrics.peak_signal_noise_ratio(a, b, data_range=data_range)
        for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(psnr(x, y, data_range), expected, atol=1e-4)


def test_equal_pictures():
    x, _ = pictures(1.0, seed=1)
    np.testing.assert_allclose(ssim(x, x, 1.0), 1.0, atol=1e-6)
    assert np.all(np.isposinf(psnr(x, x, 1.0)))


def test_uint8_differences_dont_wrap_around():
    x = np.full((1, 11, 11, 1), 250, np.uint8)
    y = np.full((1, 11, 11, 1), 5, np.uint8)
    np.testing.assert_allclose(psnr(x, y, 255), 20 * np.log10(255 / 245), rtol=1e-5)


def test_small_or_unlike_pictures_are_refused_in_words():
    x = np.zeros((2, 10, 32, 3), np.float32)
    with pytest.raises(ValueError, match="at least 11 x 11 pixels, but these have 10 x 32"):
        ssim(x, x, 1.0)
    with pytest.raises(ValueError, match="of one shape"):
        psnr(x, x[:1], 1.0)
