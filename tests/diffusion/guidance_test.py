import jax
import jax.numpy as jnp
import numpy as np

from soda_jax.diffusion import guidance, schedule
from soda_jax.diffusion.process import PREDICTIONS, Process

X_T = jax.random.normal(jax.random.key(0), (2, 2, 1, 1))
T = jnp.array([0.3, 0.8])


def _with(x_t, t):
    return 0.4 * x_t + t.reshape(2, 1, 1, 1)


def _without(x_t, t):
    return 0.1 * x_t


def _both(x_t, t):
    return _with(x_t, t), _without(x_t, t)


def test_scale_minus_1_is_unconditional_and_between_them_it_is_a_line():
    null = guidance.guide(_both, -1.0)(X_T, T)
    np.testing.assert_allclose(null, _without(X_T, T), atol=1e-6)
    for scale in (0.3, 2.0):
        guided = guidance.guide(_both, scale)(X_T, T)
        np.testing.assert_allclose(
            guided - _with(X_T, T), scale * (_with(X_T, T) - _without(X_T, T)), atol=1e-5
        )


def test_nothing_to_add_where_both_agree():
    guided = guidance.guide(lambda x_t, t: (_with(x_t, t), _with(x_t, t)), 2.0)
    np.testing.assert_allclose(guided(X_T, T), _with(X_T, T), atol=1e-5)


def test_the_scale_may_be_traced():
    traced = jax.jit(lambda scale: guidance.guide(_both, scale)(X_T, T))
    np.testing.assert_allclose(
        traced(jnp.float32(0.3)), guidance.guide(_both, 0.3)(X_T, T), atol=1e-6
    )


def test_outside_its_interval_nothing_is_guided():
    guided = jax.jit(guidance.guide(_both, 2.0, _with, (0.4, 0.6)))
    for value, expected in (
        (0.39, _with),
        (0.5, guidance.guide(_both, 2.0)),
        (0.61, _with),
    ):
        t = jnp.full(2, value)
        np.testing.assert_allclose(guided(X_T, t), expected(X_T, t), atol=1e-6)


def test_guidance_is_the_same_whichever_is_predicted():
    noise = schedule.InvertedCosine()
    pictures = {}
    for prediction in PREDICTIONS:
        process = Process(noise, prediction)

        def predicting(x_t, t, process=process):
            def target(epsilon):
                x_0 = Process(noise, "epsilon").to_x_0(epsilon, x_t, t)
                return process.target(x_0, epsilon, t)

            return tuple(map(target, _both(x_t, t)))

        guided = guidance.guide(predicting, 2.0)
        pictures[prediction] = process.to_x_0(guided(X_T, T), X_T, T)
    np.testing.assert_allclose(pictures["x_0"], pictures["epsilon"], atol=1e-4)
    np.testing.assert_allclose(pictures["v"], pictures["epsilon"], atol=1e-4)
