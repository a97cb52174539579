import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion import schedule

ALL = [schedule.Linear(), schedule.Cosine(), schedule.InvertedCosine()]
NAMES = list(schedule.SCHEDULES)


def _exact_alpha_bar(noise, t):
    """Each formula in float64, before it is clipped."""
    if isinstance(noise, schedule.Linear):
        return np.exp(-(0.1 * t + 0.5 * 19.9 * t**2))
    if isinstance(noise, schedule.Cosine):
        return np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    return 2 * 1.008 / np.pi * np.arccos(np.sqrt(t)) - 0.008


def test_inverted_cosine_has_the_published_values_at_1000_steps():
    step = jnp.array([1.0, 10.0, 100.0, 500.0, 900.0, 990.0, 999.0])
    printed = [(0.9797, 4), (0.936, 3), (0.794, 3), (0.496, 3), (0.198, 3), (0.056, 3), (0.0123, 4)]
    values = schedule.InvertedCosine().alpha_bar(step / 1000.0)
    for value, (expected, digits) in zip(values, printed, strict=True):
        assert round(float(value), digits) == expected


def test_inverted_cosine_starts_clean_and_ends_above_zero():
    noise = schedule.InvertedCosine()
    assert float(noise.alpha_bar(jnp.float32(0.0))) == pytest.approx(1.0, abs=1e-6)
    assert float(noise.sigma(jnp.float32(0.0))) == 0.0
    assert 0.0 < float(noise.alpha_bar(jnp.float32(1.0))) < 1e-3


def test_inverted_cosine_is_the_inverse_of_cosine():
    t = jnp.linspace(0.0, 0.9998, 5001)
    there_and_back = schedule.Cosine().alpha_bar(schedule.InvertedCosine().alpha_bar(t))
    np.testing.assert_allclose(there_and_back, t, atol=1e-5)  # 1e-5: the floor of Cosine


@pytest.mark.parametrize("noise, share", list(zip(ALL, [0.20, 0.34, 0.70], strict=True)), ids=NAMES)
def test_share_of_uniform_t_at_medium_noise(noise, share):
    alpha_bar = noise.alpha_bar(jnp.linspace(0.0, 1.0, 20_001))
    medium = jnp.mean(((alpha_bar >= 0.25) & (alpha_bar <= 0.75)).astype(jnp.float32))
    assert float(medium) == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize("noise", ALL, ids=NAMES)
def test_float32_keeps_its_digits_at_both_ends(noise):
    low = np.geomspace(1e-6, 0.5, 200, dtype=np.float32)
    t = np.concatenate([[0.0], low, 1 - low[::-1], [1.0]]).astype(np.float32)
    exact = _exact_alpha_bar(noise, t.astype(np.float64))
    exact = np.clip(exact, getattr(noise, "abar_min", 0.0), 1.0)
    np.testing.assert_allclose(noise.alpha_bar(t), exact, rtol=1e-5)
    # In the complement there must be no trace of 1 - alpha_bar's absolute error of 6e-8.
    np.testing.assert_allclose(noise.sigma_squared(t), 1 - exact, rtol=1e-5, atol=1e-16)


@pytest.mark.parametrize("noise", ALL, ids=NAMES)
def test_alpha_sigma_and_log_snr_belong_together(noise):
    t = jnp.linspace(1e-5, 1.0, 2002).reshape(2, 7, 143)
    alpha, sigma, log_snr = noise.alpha(t), noise.sigma(t), noise.log_snr(t)
    assert alpha.shape == sigma.shape == log_snr.shape == t.shape
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, atol=1e-6)
    np.testing.assert_allclose(alpha**2, noise.alpha_bar(t), rtol=1e-6)
    np.testing.assert_allclose(log_snr, 2 * (jnp.log(alpha) - jnp.log(sigma)), atol=1e-4)
    assert bool(jnp.all(jnp.isfinite(log_snr)))
    assert bool(jnp.all(jnp.diff(log_snr.ravel()) <= 0.0))
    assert float(alpha.min()) > 0.0
