import jax
import numpy as np
import pytest

from soda_jax.evaluation.image_metrics import MS_SSIM_WEIGHTS, ms_ssim, psnr, ssim


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


def terms(x, y, data_range):
    """Mean SSIM and mean contrast-and-structure [b c] in float64, by SciPy's own convolution."""
    ndimage = pytest.importorskip("scipy.ndimage")
    window = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)

    def blur(a):
        for axis in (1, 2):
            a = ndimage.correlate1d(a, window / window.sum(), axis=axis)
        return a[:, 5:-5, 5:-5]

    mean_x, mean_y = blur(x), blur(y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    variances = blur(x * x) - mean_x**2 + blur(y * y) - mean_y**2
    contrast = (2 * (blur(x * y) - mean_x * mean_y) + c2) / (variances + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * contrast).mean(axis=(1, 2)), contrast.mean(axis=(1, 2))


def halved(x):
    even = x[:, : len(x[0]) // 2 * 2, : x.shape[2] // 2 * 2]
    return (even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]) / 4


def large_pictures(side, seed):
    """Waves of several lengths [3 side side + 5 2] in [0, 1], and copies with growing noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, : side + 5] / side
    x = sum(
        np.sin(
            f * rows[None, :, :, None] + rng.uniform(0, 6, (3, 1, 1, 2)) + f * columns[..., None]
        )
        for f in (9, 40, 150)
    )
    x = 0.5 + x / 8
    noise = np.array([0.02, 0.1, 0.4]).reshape(3, 1, 1, 1) * rng.normal(size=x.shape)
    return x, np.clip(x + noise, 0, 1)


jitted_ms_ssim = jax.jit(ms_ssim, static_argnames="scales")


@pytest.mark.parametrize("scales, side", [(5, 176), (3, 47), (1, 11)])
def test_ms_ssim_is_the_product_over_scales(scales, side):
    x, y = large_pictures(side, seed=0)
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[:scales]
    weights = weights / weights.sum()
    np.testing.assert_allclose(sum(MS_SSIM_WEIGHTS), 1, atol=1e-3)
    expected, a, b = 1.0, x, y
    for scale, weight in enumerate(weights):
        similarity, contrast = terms(a, b, 1.0)
        expected = expected * (similarity if scale == scales - 1 else contrast) ** weight
        a, b = halved(a), halved(b)
    actual = jitted_ms_ssim(x, y, 1.0, scales=scales)
    np.testing.assert_allclose(actual, expected.mean(axis=1), atol=2e-4)
    assert 1 > actual[0] > actual[1] > actual[2] > 0, "it falls with noise"
    np.testing.assert_allclose(jitted_ms_ssim(y, x, 1.0, scales=scales), actual, atol=1e-5)
    np.testing.assert_allclose(jitted_ms_ssim(x, x, 1.0, scales=scales), 1.0, atol=1e-5)


def test_ms_ssim_of_plain_pictures_is_the_last_luminance():
    """No contrast, so only (2 a b + c) / (a^2 + b^2 + c) to the last weight is left."""
    x, y = (np.full((3, 47, 52, 2), value, np.float32) for value in (100, 50))
    c = (0.01 * 255) ** 2
    luminance = (2 * 100 * 50 + c) / (100**2 + 50**2 + c)
    weight = 0.3001 / (0.0448 + 0.2856 + 0.3001)
    np.testing.assert_allclose(jitted_ms_ssim(x, y, 255.0, scales=3), luminance**weight, rtol=1e-4)


def test_ms_ssim_of_opposite_pictures_is_zero_not_nan():
    x, _ = large_pictures(47, seed=1)
    np.testing.assert_array_equal(jitted_ms_ssim(x, 1 - x, 1.0, scales=3), 0.0)


def test_ms_ssim_says_how_many_scales_fit():
    x = np.zeros((1, 175, 200, 3), np.float32)
    with pytest.raises(ValueError, match="scales=5 needs .* 176 x 176 .* 175 x 200: 4 of them fit"):
        ms_ssim(x, x, 1.0)
    assert jax.eval_shape(lambda x: ms_ssim(x, x, 1.0, scales=4), x[:, :88]).shape == (1,)
    with pytest.raises(ValueError, match="87 x 200: 3 of them fit"):
        ms_ssim(x[:, :87], x[:, :87], 1.0, scales=4)
    with pytest.raises(ValueError, match="not even one fits"):
        ms_ssim(x[:, :10], x[:, :10], 1.0, scales=1)
    with pytest.raises(ValueError, match="scales must be 1 to 5"):
        ms_ssim(x, x, 1.0, scales=6)
