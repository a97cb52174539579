import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion import process as process_lib
from soda_jax.diffusion import schedule

PREDICTIONS = process_lib.PREDICTIONS
NOISES = [make() for make in schedule.SCHEDULES.values()]
B = 16


def _pictures():
    key_0, key_1 = jax.random.split(jax.random.key(0))
    x_0 = jax.random.uniform(key_0, (B, 2, 1, 3), minval=-1.0)
    return x_0, jax.random.normal(key_1, x_0.shape)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("noise", NOISES, ids=list(schedule.SCHEDULES))
def test_a_perfect_prediction_gives_back_x_0_and_epsilon(noise, prediction):
    process = process_lib.Process(noise, prediction)
    t = jnp.linspace(process.t_min, 1.0, B)
    x_0, epsilon = _pictures()
    x_t = process.corrupt(x_0, epsilon, t)
    target = process.target(x_0, epsilon, t)
    # x_0 is divided by alpha (316 times at most), epsilon by sigma (95 times at most).
    np.testing.assert_allclose(process.to_x_0(target, x_t, t), x_0, atol=2e-4)
    np.testing.assert_allclose(process.to_epsilon(target, x_t, t), epsilon, atol=5e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("noise", NOISES, ids=list(schedule.SCHEDULES))
def test_conversions_are_finite_where_there_is_no_noise(noise, prediction):
    process = process_lib.Process(noise, prediction)
    x_0, epsilon = _pictures()
    for t in (jnp.zeros(B), jnp.ones(B)):
        assert bool(jnp.all(jnp.isfinite(process.to_x_0(epsilon, x_0, t))))
        assert bool(jnp.all(jnp.isfinite(process.to_epsilon(epsilon, x_0, t))))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_prediction_of_lower_precision_is_taken_for_what_it_says(prediction):
    process = process_lib.Process(schedule.Cosine(), prediction)
    x_t, guess = _pictures()
    guess, t = guess.astype(jnp.bfloat16), jnp.linspace(0.1, 0.9, B)
    for convert in (process.to_x_0, process.to_epsilon):
        value = convert(guess, x_t, t)
        assert value.dtype == jnp.float32
        np.testing.assert_array_equal(value, convert(guess.astype(jnp.float32), x_t, t))


def test_corruption_keeps_unit_variance_and_the_schedule():
    process = process_lib.Process(schedule.InvertedCosine())
    x_0 = jnp.ones((3, 1, 1, 1))
    t = jnp.array([0.001, 0.5, 0.999])
    clean = process.corrupt(x_0, jnp.zeros_like(x_0), t).ravel()
    noise = process.corrupt(jnp.zeros_like(x_0), x_0, t).ravel()
    np.testing.assert_allclose(clean**2, [0.9797, 0.496, 0.0123], atol=5e-5)
    np.testing.assert_allclose(clean**2 + noise**2, 1.0, atol=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("noise", NOISES, ids=list(schedule.SCHEDULES))
@pytest.mark.parametrize("loss_weight", ["epsilon", "min_snr"])
def test_weighted_errors_are_the_same_whatever_is_predicted(noise, prediction, loss_weight):
    process = process_lib.Process(noise, prediction, loss_weight)
    t = jnp.linspace(process.t_min, 1.0, B)
    x_0, epsilon = _pictures()
    x_t = process.corrupt(x_0, epsilon, t)
    # One wrong belief about the picture, as an error of each prediction.
    wrong_x_0 = -0.5 * x_0
    alpha, sigma = (f(t).reshape(B, 1, 1, 1) for f in (noise.alpha, noise.sigma))
    wrong_epsilon = (x_t - alpha * wrong_x_0) / sigma
    error = process.target(wrong_x_0, wrong_epsilon, t) - process.target(x_0, epsilon, t)
    loss = process.weight(t) * jnp.mean(error**2, axis=(1, 2, 3))
    if loss_weight == "epsilon":
        expected = jnp.mean((wrong_epsilon - epsilon) ** 2, axis=(1, 2, 3))
    else:
        snr = (noise.alpha(t) / noise.sigma(t)) ** 2
        expected = jnp.minimum(snr, 5.0) * jnp.mean((wrong_x_0 - x_0) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(loss, expected, rtol=2e-3, atol=1e-9)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("loss_weight", process_lib.LOSS_WEIGHTS)
def test_weights_are_finite_and_positive_over_the_range_of_t(prediction, loss_weight):
    for noise in NOISES:
        process = process_lib.Process(noise, prediction, loss_weight)
        weight = process.weight(jnp.linspace(process.t_min, 1.0, 1001))
        assert weight.shape == (1001,)
        assert bool(jnp.all(jnp.isfinite(weight) & (weight > 0.0)))


def test_sigma_is_uniform_under_its_law_and_t_stays_where_it_is_single():
    noise = schedule.VarianceExploding()
    process = process_lib.Process(noise, t_min=1e-5, law="uniform_sigma")
    sigma = np.asarray(noise.ratio(process.draw_t(jax.random.key(0), 20_000)))
    np.testing.assert_allclose(np.quantile(sigma, [0.25, 0.5, 0.75]) / 50, [0.25, 0.5, 0.75], 0.03)
    single = process_lib.Process(noise, law="single", single_t=0.3)
    np.testing.assert_allclose(single.draw_t(jax.random.key(0), 5), 0.3)
    with pytest.raises(ValueError, match="needs the schedule variance_exploding"):
        process_lib.Process(schedule.Linear(), law="uniform_sigma")


def test_t_is_uniform_between_t_min_and_1():
    process = process_lib.Process(schedule.InvertedCosine(), t_min=0.5)
    t = process.draw_t(jax.random.key(0), 20_000)
    assert t.dtype == jnp.float32
    assert 0.5 <= float(t.min()) < 0.501 and 0.999 < float(t.max()) <= 1.0
    assert float(t.mean()) == pytest.approx(0.75, abs=0.004)


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"prediction": "eps"}, "x_0"),
        ({"loss_weight": "snr"}, "min_snr"),
        ({"t_min": 0.0}, "t_min"),
    ],
)
def test_wrong_choices_are_refused_and_the_right_ones_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        process_lib.Process(schedule.Linear(), **wrong)


def test_even_times_fill_the_law_in_every_batch_and_under_every_code():
    process = process_lib.Process(schedule.Linear(), t_min=0.01, shift=4.0, even=True)
    law = process_lib.Process(schedule.Linear(), t_min=0.01, shift=4.0)
    t = process.draw_t(jax.random.key(0), 12, each=3)
    cells = np.searchsorted(law.t_at(jnp.arange(13) / 12), np.sort(t)) - 1
    np.testing.assert_array_equal(cells, range(12))  # one in each twelfth
    thirds = np.sort(np.searchsorted(law.t_at(jnp.arange(4) / 3), t).reshape(4, 3) - 1)
    np.testing.assert_array_equal(thirds, [[0, 1, 2]] * 4)  # a code's three: one in each third
    firsts = [process.draw_t(jax.random.key(seed), 12)[0] for seed in range(400)]
    np.testing.assert_allclose(np.median(firsts), 0.01 + 0.99 * 0.8, atol=0.04)  # alone, by the law


def test_a_share_of_the_times_is_pure_noise_and_the_rest_keeps_its_law():
    law = process_lib.Process(schedule.Linear(), t_min=0.01)
    mixed = dataclasses.replace(law, pure_noise=0.25)
    t = np.sort(mixed.draw_t(jax.random.key(0), 40_000))
    noise = t == 1.0
    assert noise.mean() == pytest.approx(0.25, abs=0.01)
    rest = np.linspace(0.0005, 0.9995, 1000, dtype=np.float32)
    np.testing.assert_allclose(np.quantile(t[~noise], rest), law.t_at(rest), rtol=0, atol=0.01)
    # Of two targets under each code, spread evenly, one is pure noise.
    half = dataclasses.replace(law, pure_noise=0.5, even=True)
    pairs = np.asarray(half.draw_t(jax.random.key(1), 16, each=2)).reshape(8, 2)
    assert ((pairs == 1.0).sum(1) == 1).all()
    with pytest.raises(ValueError, match="pure_noise is 1.0; it must be from 0 to below 1"):
        dataclasses.replace(law, pure_noise=1.0)


def test_a_shift_moves_the_uniform_law_towards_noise():
    process = process_lib.Process(schedule.Linear(), t_min=0.01, shift=4.0)
    share = jnp.asarray([0.0, 0.5, 1.0])
    np.testing.assert_allclose(process.t_at(share), [0.01, 0.01 + 0.99 * 0.8, 1.0], rtol=1e-6)
    drawn = process.draw_t(jax.random.key(0), 20_000)
    np.testing.assert_allclose(np.median(drawn), 0.01 + 0.99 * 0.8, atol=0.01)
    assert 0.01 <= float(drawn.min()) and float(drawn.max()) <= 1.0
    with pytest.raises(ValueError, match="shift is 0.0; it must be above 0"):
        process_lib.Process(schedule.Linear(), shift=0.0)
