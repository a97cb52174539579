import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from soda_jax.diffusion import schedule

ALL = [make() for make in schedule.SCHEDULES.values()]
NAMES = list(schedule.SCHEDULES)


def _exact_alpha_bar(noise, t):
    """Each formula in float64, before it is clipped."""
    if isinstance(noise, schedule.Linear):
        # Sums of beta and beta^2 over k = 1000 t terms; beta_k = first + (k - 1) slope.
        k, first, slope = 1000 * t, 1e-4, (0.02 - 1e-4) / 999
        betas = k * first + slope * k * (k - 1) / 2
        squares = k * first**2 + first * slope * k * (k - 1)
        squares += slope**2 * (k - 1) * k * (2 * k - 1) / 6
        return np.exp(-betas - squares / 2)
    if isinstance(noise, schedule.Cosine):
        return np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    if isinstance(noise, schedule.VarianceExploding):
        return 1 / (1 + (0.01 * 5000**t) ** 2)
    if isinstance(noise, schedule.LogNormal):
        return 1 / (1 + (np.clip(np.exp(-1.2 + 1.2 * stats.norm.ppf(t)), 0.002, 80) / 0.5) ** 2)
    return 2 * 1.008 / np.pi * np.arccos(np.sqrt(t)) - 0.008


def test_linear_is_the_table_of_ddpm():
    beta = np.linspace(1e-4, 0.02, 1000)
    table = np.cumprod(1 - beta)
    noise, k = schedule.Linear(), np.arange(1, 1001)
    t = jnp.asarray(k / 1000, jnp.float32)
    np.testing.assert_allclose(noise.alpha_bar(t), table, rtol=1e-3)
    # FutureXiang/ddae's sigma_eff, to the digits that were printed.
    effective = np.asarray(noise.sigma(t) / noise.alpha(t))
    assert [f"{effective[k - 1]:.4f}" for k in (1, 11, 21)] == ["0.0100", "0.0469", "0.0794"]


def test_edm_is_v_of_pictures_over_their_deviation():
    """c_in, c_skip, c_out and the loss weight of Karras et al. 2022, table 1, from alpha, sigma."""
    t = jnp.linspace(0.001, 0.999, 101)
    noise, sd = schedule.LogNormal(), 0.5
    sigma = np.exp(-1.2 + 1.2 * stats.norm.ppf(np.asarray(t, np.float64)))
    alpha, unit_sigma = np.asarray(noise.alpha(t)), np.asarray(noise.sigma(t))
    c_in = 1 / np.sqrt(sigma**2 + sd**2)
    c_skip = sd**2 / (sigma**2 + sd**2)
    c_out = sigma * sd / np.sqrt(sigma**2 + sd**2)
    x, epsilon = 0.7, -1.3
    x_t = alpha * (x / sd) + unit_sigma * epsilon
    np.testing.assert_allclose(x_t, c_in * (x + sigma * epsilon), rtol=1e-4)
    v = alpha * epsilon - unit_sigma * (x / sd)
    np.testing.assert_allclose((x - c_skip * (x + sigma * epsilon)) / c_out, -v, rtol=1e-3)
    np.testing.assert_allclose((sigma**2 + sd**2) / (sigma * sd) ** 2 * c_out**2, 1.0, rtol=1e-6)


def test_variance_exploding_is_the_papers():
    noise, t = schedule.VarianceExploding(), jnp.asarray([0.0, 0.5, 1.0])
    np.testing.assert_allclose(noise.sigma(t) / noise.alpha(t), [0.01, 0.01 * 5000**0.5, 50], 1e-5)
    np.testing.assert_allclose(noise.time_at(noise.ratio(t)), t, atol=1e-6)


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


@pytest.mark.parametrize(
    "noise, share", list(zip(ALL, [0.20, 0.34, 0.70, 0.13, 0.325], strict=True)), ids=NAMES
)
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
    # float32's quantiles of the normal law have five digits.
    close = 1e-4 if isinstance(noise, schedule.LogNormal) else 1e-5
    np.testing.assert_allclose(noise.alpha_bar(t), exact, rtol=close)
    # In the complement there must be no trace of 1 - alpha_bar's absolute error of 6e-8.
    np.testing.assert_allclose(noise.sigma_squared(t), 1 - exact, rtol=close, atol=1e-16)


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
