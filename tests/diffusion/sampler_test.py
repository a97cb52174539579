import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion import inversion, levels, sampler, schedule
from soda_jax.diffusion.process import Process

NOISES = {name: make() for name, make in schedule.SCHEDULES.items()}
MU, S = 0.3, 0.5  # of the Gaussian whose best denoiser is known


def _predicting(process, x_0_fn):
    """A denoise_fn of the process's prediction from one of x_0."""

    def denoise_fn(x_t, t):
        x_0 = x_0_fn(x_t, t)
        alpha, sigma = _scales(process, t)
        return process.target(x_0, (x_t - alpha * x_0) / sigma, t)

    return denoise_fn


def _scales(process, t):
    t = t.reshape(-1, 1, 1, 1)
    return process.schedule.alpha(t), process.schedule.sigma(t)


def _gaussian(process):
    """The best denoiser of pictures whose pixels are N(MU, S^2)."""

    def x_0_fn(x_t, t):
        alpha, sigma = _scales(process, t)
        return MU + S**2 * alpha / (alpha**2 * S**2 + sigma**2) * (x_t - alpha * MU)

    return _predicting(process, x_0_fn)


def _gaussian_line(process):
    """(mean, slope) of x_0 as a line in x_T: the flow followed exactly to t_min, then denoised."""
    ends = jnp.array([process.t_min, 1.0])
    alpha = np.float64(process.schedule.alpha(ends))
    sigma = np.float64(process.schedule.sigma(ends))
    spread = np.sqrt(alpha**2 * S**2 + sigma**2)
    slope = S**2 * alpha[0] / spread[0] / spread[1]
    return MU - slope * alpha[1] * MU, slope


def _sampled_line(process, **arguments):
    """The same of a sampler, which maps each pixel by a line: from two pixels, 0 and 1."""
    x_T = jnp.array([0.0, 1.0]).reshape(2, 1, 1, 1)
    low, high = sampler.sample(_gaussian(process), process, x_T, clip=False, **arguments).ravel()
    return float(low), float(high - low)


def _mixture(process, means, s):
    """The best denoiser of pictures from equal parts N(means[k], s^2 I); means [k h w c]."""

    def x_0_fn(x_t, t):
        alpha, sigma = _scales(process, t)
        variance = alpha**2 * s**2 + sigma**2
        away = x_t[:, None] - alpha[:, None] * means[None]
        share = jax.nn.softmax(-0.5 * jnp.sum(away**2, axis=(2, 3, 4)) / variance[:, 0, 0], axis=1)
        parts = means[None] + (alpha * s**2 / variance)[:, None] * away
        return jnp.sum(share[:, :, None, None, None] * parts, axis=1)

    return _predicting(process, x_0_fn)


def _psnr(a, b):
    return float(10.0 * jnp.log10(4.0 / jnp.mean((a - b) ** 2)))


def _keys(b, seed=0):
    return jax.random.split(jax.random.key(seed), b)


def test_rho_is_the_grid_of_edm():
    edm = Process(schedule.LogNormal(), "v", t_min=1.45e-5)
    found = levels.make_levels(edm, 18, "rho")
    sigma = 0.5 * np.exp(-0.5 * np.asarray(found.log_snr[:-1]))[::-1]
    printed = {0: ".002", 1: ".0075", 2: ".0229", 3: ".0600", 4: ".1395", 5: ".296", 6: ".585"}
    printed |= {7: "1.09", 16: "57.6", 17: "80"}
    for index, text in printed.items():
        digits = len(text.partition(".")[2])
        np.testing.assert_allclose(sigma[index], float(text), atol=0.51 * 10**-digits, rtol=2e-3)


@pytest.mark.parametrize("spacing", levels.SPACINGS)
@pytest.mark.parametrize("name", NOISES)
def test_times_fall_from_1_by_way_of_t_min_to_0(name, spacing):
    process = Process(NOISES[name], t_min=0.002)
    t = levels.times(process, 100, spacing)
    assert t.shape == (101,) and t.dtype == jnp.float32
    assert float(t[0]) == 1.0 and float(t[-1]) == 0.0
    assert float(t[-2]) == pytest.approx(0.002, rel=1e-5)
    assert bool(jnp.all(jnp.diff(t) < 0.0))
    log_snr = process.schedule.log_snr

    if spacing == "balanced":  # by its density, in the middle of each step
        ends = log_snr(t[:-1])
        middle = 0.5 * (ends[1:] + ends[:-1])
        steps = jnp.diff(ends) * (1 + 8 / jnp.cosh((middle - 2) / 4))
    else:
        even = {"t": lambda t: t, "log_snr": log_snr, "rho": lambda t: jnp.exp(-log_snr(t) / 14)}
        steps = jnp.diff(even[spacing](t)[:-1])
    # float32 resolves the inverted schedule's log_snr to .015 where t is within 1e-4 of 1.
    np.testing.assert_allclose(steps, jnp.full_like(steps, steps.mean()), rtol=0.01, atol=0.015)


def test_times_of_few_steps():
    process = Process(NOISES["inverted_cosine"])
    for spacing in levels.SPACINGS:
        np.testing.assert_allclose(levels.times(process, 1, spacing), [1.0, 0.0])
        np.testing.assert_allclose(levels.times(process, 2, spacing), [1.0, 0.001, 0.0])


ORACLES = [(noise, how, "epsilon") for noise in NOISES for how in sampler.SAMPLERS]
ORACLES += [("inverted_cosine", how, kind) for how, kind in (("ddim", "v"), ("heun", "x_0"))]


@pytest.mark.parametrize("noise, how, prediction", ORACLES)
def test_an_oracle_returns_its_picture_over_60_db(noise, how, prediction):
    process = Process(NOISES[noise], prediction)
    picture = jax.random.uniform(jax.random.key(1), (2, 2, 2, 1), minval=-1.0)
    oracle = _predicting(process, lambda x_t, t: picture)
    x_T = sampler.initial_noise(_keys(2), (2, 2, 1))
    x_0 = sampler.sample(oracle, process, x_T, num_steps=5, sampler=how)
    assert _psnr(x_0, picture) > 60.0


def test_an_oracle_returns_its_picture_under_ancestral_noise():
    process = Process(NOISES["inverted_cosine"])
    picture = jax.random.uniform(jax.random.key(1), (2, 2, 2, 1), minval=-1.0)
    oracle = _predicting(process, lambda x_t, t: picture)
    x_T = sampler.initial_noise(_keys(2), (2, 2, 1))
    x_0 = sampler.sample(oracle, process, x_T, num_steps=5, eta=1.0, keys=_keys(2))
    assert _psnr(x_0, picture) > 60.0


@pytest.mark.parametrize("how", sampler.SAMPLERS)
@pytest.mark.parametrize("name", NOISES)
def test_a_gaussian_gets_its_mean_and_standard_deviation(name, how):
    process = Process(NOISES[name])
    tolerance = 0.03 if how == "ddim" else 0.002
    arguments = {"num_steps": 100, "sampler": how, "spacing": "log_snr"}
    mean, deviation = _sampled_line(process, **arguments)
    exact_mean, exact_deviation = _gaussian_line(process)
    assert mean == pytest.approx(exact_mean, abs=0.005)
    assert deviation == pytest.approx(exact_deviation, rel=tolerance)


@pytest.mark.parametrize(
    "how, spacing, order", [("ddim", "t", 1), ("dpm_solver", "log_snr", 2), ("heun", "t", 2)]
)
def test_order_of_convergence(how, spacing, order):
    # In log_snr a one-step method's errors at the two ends of a Gaussian cancel: so those in t.
    process = Process(NOISES["cosine"], "x_0")
    _, exact = _gaussian_line(process)
    errors = []
    for num_steps in (16, 64):
        arguments = {"num_steps": num_steps, "sampler": how, "spacing": spacing}
        _, deviation = _sampled_line(process, **arguments)
        errors.append(abs(deviation - exact))
    assert np.log(errors[0] / errors[1]) / np.log(4.0) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("name", NOISES)
def test_a_corrected_step_is_nearer_to_the_flow(name):
    # Twice as near at least; of a Gaussian its leading errors cancel, so it has no order to show.
    process = Process(NOISES[name], "x_0")
    _, exact = _gaussian_line(process)
    error = {}
    for how in ("dpm_solver", "unipc"):
        _, deviation = _sampled_line(process, num_steps=32, sampler=how, spacing="balanced")
        error[how] = abs(deviation - exact)
    assert 0.0 < error["unipc"] < 0.5 * error["dpm_solver"]


@pytest.mark.parametrize("how", ["dpm_solver", "unipc"])
@pytest.mark.parametrize(
    "noise, num_steps",
    [
        (NOISES["inverted_cosine"], 1), (NOISES["inverted_cosine"], 2),
        (NOISES["inverted_cosine"], 5), (NOISES["cosine"], 200),
        (schedule.Cosine(abar_min=0.3), 9),  # its first three levels are one
    ],
)  # fmt: skip
def test_multistep_samplers_integrate_the_line_through_their_predictions(noise, num_steps, how):
    process = Process(noise, "x_0")
    t = levels.times(process, num_steps)[:-1]
    sigma, lambdas = (
        np.float64(process.schedule.sigma(t)),
        np.float64(process.schedule.log_snr(t)) / 2,
    )

    def follow(x, i, line):
        # Lu et al. 2022, eq. 8: what x_0 as a function of lambda does to x, here by quadrature.
        u, weight = np.polynomial.legendre.leggauss(20)
        start, stop = lambdas[i], lambdas[i + 1]
        at = 0.5 * (stop - start) * (u + 1.0) + start
        integral = 0.5 * (stop - start) * np.sum(weight * np.exp(at) * line(at))
        return sigma[i + 1] / sigma[i] * x + sigma[i + 1] * integral

    def line(i):
        """x_0 through the predictions at i and before; as at i where that is the same level."""
        if i == 0 or lambdas[i] == lambdas[i - 1]:
            return lambda at: seen[-1] + 0.0 * at
        slope = (seen[-1] - seen[-2]) / (lambdas[i] - lambdas[i - 1])
        return lambda at: seen[-1] + slope * (at - lambdas[i])

    x, start, seen = 0.8, 0.8, []
    for i in range(num_steps):
        seen.append(np.tanh(x))
        if how == "unipc" and i > 0:
            x = follow(start, i - 1, line(i))
        start = x
        x = follow(x, i, line(i)) if i < num_steps - 1 else seen[-1]
    sampled = sampler.sample(
        lambda x_t, t: jnp.tanh(x_t), process, jnp.full((1, 1, 1, 1), 0.8),
        num_steps=num_steps, sampler=how,
    )  # fmt: skip
    assert sampled.item() == pytest.approx(x, abs=1e-5)


@pytest.mark.parametrize("name", NOISES)
def test_a_few_steps_of_heun_stay_near_the_pictures(name):
    _, deviation = _sampled_line(Process(NOISES[name]), num_steps=5, sampler="heun")
    assert deviation == pytest.approx(S, rel=0.35)


def test_ancestral_sampling_has_the_mean_and_variance_of_the_gaussian():
    process = Process(NOISES["inverted_cosine"])
    b = 10_000
    x_0 = sampler.sample(
        _gaussian(process), process, sampler.initial_noise(_keys(b), (1, 1, 1)),
        num_steps=300, eta=1.0, keys=_keys(b), clip=False, spacing="log_snr",
    )  # fmt: skip
    mean, deviation = _gaussian_line(process)
    assert float(x_0.mean()) == pytest.approx(mean, abs=0.015)
    # The steps alone make it 1 % too small (the recursion of the variance, in closed form).
    assert float(x_0.std()) == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_one_step_is_that_of_ddim_and_ddpm(eta):
    process = Process(NOISES["linear"], "x_0", t_min=0.6)
    b, guess, start = 10_000, 0.7, 1.5

    def denoise_fn(x_t, t):
        # At the second level it answers with what it is given, which shows the first step.
        return jnp.where(t.reshape(-1, 1, 1, 1) == 1.0, guess, x_t)

    x_s = sampler.sample(
        denoise_fn, process, jnp.full((b, 1, 1, 1), start),
        num_steps=2, eta=eta, keys=_keys(b), clip=False,
    )  # fmt: skip
    abar_s, abar_t = np.float64(process.schedule.alpha_bar(jnp.array([0.6, 1.0])))
    # DDIM, eq. 16 and 12.
    scale = eta * np.sqrt((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s))
    epsilon = (start - np.sqrt(abar_t) * guess) / np.sqrt(1 - abar_t)
    mean = np.sqrt(abar_s) * guess + np.sqrt(1 - abar_s - scale**2) * epsilon
    assert float(x_s.mean()) == pytest.approx(mean, abs=0.02 * eta + 1e-5)
    assert float(x_s.std()) == pytest.approx(scale, rel=0.02, abs=1e-5)
    if eta == 1.0:  # DDPM, eq. 7: the posterior q(x_s | x_t, x_0).
        beta = 1 - abar_t / abar_s
        posterior = np.sqrt(abar_s) * beta * guess + np.sqrt(1 - beta) * (1 - abar_s) * start
        assert mean == pytest.approx(posterior / (1 - abar_t), abs=1e-6)
        assert scale**2 == pytest.approx((1 - abar_s) / (1 - abar_t) * beta, rel=1e-6)


@pytest.mark.parametrize(
    "name, least", [("linear", 60.0), ("cosine", 60.0), ("inverted_cosine", 45.0)]
)
def test_inversion_then_sampling_returns_the_picture(name, least):
    process = Process(NOISES[name])
    means = jnp.array([[0.5, -0.5, 0.3, 0.2], [-0.4, 0.6, -0.1, 0.0]]).reshape(2, 2, 2, 1)
    denoise_fn = _mixture(process, means, 0.25)
    pictures = jnp.tile(means, (32, 1, 1, 1)) + 0.25 * sampler.initial_noise(_keys(64), (2, 2, 1))
    x_T = inversion.invert(denoise_fn, process, pictures, num_steps=100)
    returned = sampler.sample(denoise_fn, process, x_T, num_steps=100, clip=False)
    assert _psnr(returned, pictures) > least
    assert 0.8 < float(x_T.std()) < 1.4
    # That x_T matters, so that returning the picture says something of it.
    other = sampler.sample(denoise_fn, process, x_T[::-1], num_steps=100, clip=False)
    assert _psnr(other, pictures) < 25.0


def test_inversion_calls_no_network_without_noise():
    process = Process(NOISES["linear"])
    seen = []

    def denoise_fn(x_t, t):
        jax.debug.callback(lambda value: seen.append(float(value)), t[0])
        return jnp.zeros_like(x_t)

    inversion.invert(denoise_fn, process, jnp.zeros((1, 1, 1, 1)), num_steps=5, first_iterations=2)
    jax.effects_barrier()
    up = levels.times(process, 5)[:-1][::-1]
    np.testing.assert_allclose(sorted(seen), jnp.concatenate([up[:1], up]), rtol=1e-6)


@pytest.mark.parametrize("how, calls", [("ddim", 5), ("dpm_solver", 5), ("unipc", 5), ("heun", 9)])
def test_number_and_times_of_network_calls(how, calls):
    process = Process(NOISES["cosine"])
    seen = []

    def denoise_fn(x_t, t):
        assert t.shape == (2,) and t.dtype == jnp.float32
        jax.debug.callback(lambda value: seen.append(float(value)), t[1])
        return jnp.zeros_like(x_t)

    sampler.sample(denoise_fn, process, jnp.zeros((2, 1, 1, 1)), num_steps=5, sampler=how)
    jax.effects_barrier()
    assert len(seen) == calls
    np.testing.assert_allclose(
        sorted(set(seen), reverse=True), levels.times(process, 5)[:-1], rtol=1e-6
    )


def test_a_picture_does_not_depend_on_its_batch():
    process = Process(NOISES["inverted_cosine"])
    keys = _keys(2)

    def run(keys):
        x_T = sampler.initial_noise(keys, (2, 2, 1))
        return sampler.sample(_gaussian(process), process, x_T, num_steps=5, eta=1.0, keys=keys)

    together, alone = run(keys), run(keys[1:])
    np.testing.assert_allclose(alone[0], together[1], atol=1e-6)
    assert len(np.unique(np.round(together.ravel(), 6))) > 4  # and the pictures differ


def test_noise_is_drawn_anew_in_each_step_and_for_x_T():
    process = Process(NOISES["linear"], "x_0")
    keys = _keys(1)
    x_T = sampler.initial_noise(keys, (8, 1, 1))
    _, trajectory = sampler.sample(
        lambda x_t, t: x_t, process, x_T,
        num_steps=5, eta=1.0, keys=keys, clip=False, return_trajectory=True,
    )  # fmt: skip
    t = levels.times(process, 5)[:-1]
    alpha, sigma = np.asarray(process.schedule.alpha(t)), np.asarray(process.schedule.sigma(t))
    trajectory = np.asarray(trajectory)
    # With the answer x_0 = x_t the known part of each step is a multiple of x_t: the rest is noise.
    draws = [np.asarray(x_T).ravel()]
    for i in range(4):
        x, following = trajectory[i].ravel(), trajectory[i + 1].ravel()
        snr_ratio = ((alpha[i] / sigma[i]) / (alpha[i + 1] / sigma[i + 1])) ** 2
        epsilon = x * (1.0 - alpha[i]) / sigma[i]
        known = alpha[i + 1] * x + sigma[i + 1] * np.sqrt(snr_ratio) * epsilon
        draws.append((following - known) / (sigma[i + 1] * np.sqrt(1.0 - snr_ratio)))
    for i, draw in enumerate(draws):
        assert 0.4 < draw.std() < 1.8
        for other in draws[:i]:
            assert np.abs(draw - other).max() > 0.1


def test_trajectory_ends_in_the_picture_and_clips():
    process = Process(NOISES["cosine"], "x_0")
    x_T = sampler.initial_noise(_keys(2), (2, 2, 1))
    for how in sampler.SAMPLERS:
        x_0, trajectory = sampler.sample(
            lambda x_t, t: 3.0 * x_t, process, x_T,
            num_steps=5, sampler=how, return_trajectory=True,
        )  # fmt: skip
        assert trajectory.shape == (5, 2, 2, 2, 1)
        assert float(jnp.abs(trajectory).max()) == 1.0
        np.testing.assert_allclose(trajectory[-1], x_0, atol=1e-6)
        np.testing.assert_allclose(trajectory[0], jnp.clip(3.0 * x_T, -1.0, 1.0), atol=1e-6)


def test_a_network_of_lower_precision_is_heard():
    process = Process(NOISES["cosine"], "v")
    exact = _gaussian(process)
    x_T = sampler.initial_noise(_keys(2), (2, 2, 1))
    rough = sampler.sample(
        lambda x_t, t: exact(x_t, t).astype(jnp.bfloat16), process, x_T, num_steps=5
    )
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, sampler.sample(exact, process, x_T, num_steps=5), atol=0.02)


@pytest.mark.parametrize(
    "arguments, named",
    [
        ({"sampler": "ddpm"}, "eta=1"),
        ({"eta": 1.0}, "keys"),
        ({"eta": 1.5, "keys": 2}, "DDPM"),
        ({"eta": 0.5, "keys": 2, "sampler": "heun"}, "adds no noise"),
        ({"eta": 0.5, "keys": 3}, "3 keys for 2"),
        ({"num_steps": 0}, "at least 1"),
        ({"spacing": "sigma"}, "log_snr"),
    ],
)
def test_wrong_choices_are_refused_and_the_right_ones_named(arguments, named):
    process = Process(NOISES["linear"])
    arguments = {"num_steps": 3, **arguments}
    if "keys" in arguments:
        arguments["keys"] = _keys(arguments["keys"])
    with pytest.raises(ValueError, match=named):
        sampler.sample(_gaussian(process), process, jnp.zeros((2, 1, 1, 1)), **arguments)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_run_that_is_watched_ends_where_the_whole_one_does(eta):
    process = Process(NOISES["inverted_cosine"])
    denoise_fn, x_T = _gaussian(process), jax.random.normal(jax.random.key(5), (2, 4, 4, 3))
    noise = {"num_steps": 7, "eta": eta, "keys": _keys(2)}
    whole, trajectory = sampler.sample(denoise_fn, process, x_T, **noise, return_trajectory=True)
    x, seen = x_T, []
    for first in range(0, 7, 3):  # the last three go beyond the end
        x, x_0 = sampler.ddim_steps(denoise_fn, process, x, first, count=3, **noise)
        seen.append(x_0)
    np.testing.assert_allclose(x, whole, atol=1e-5)
    np.testing.assert_allclose(jnp.stack(seen), trajectory[jnp.array([2, 5, 6])], atol=1e-5)
