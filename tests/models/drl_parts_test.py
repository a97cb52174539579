"""DRL's networks: the published numbers of parameters, and the ways in for t and for the code."""

import jax
import jax.numpy as jnp
import numpy as np

from soda_jax.models.ncsnpp import NCSNpp
from soda_jax.models.wide_resnet import FREQUENCIES, WideResNet, fourier_features


def count(module, *arguments):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *arguments)["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_the_encoder_has_the_published_number_of_parameters():
    head, time = 128 * 10 + 10, 1  # of the released class, which pretraining leaves unused
    found = count(WideResNet(), jnp.zeros((1, 32, 32, 3)), jnp.zeros(1))
    assert found + head + time == 1_534_155
    assert found + head + time + 128 * 256 + 256 == 1_567_179  # with a map to mean and variance


def test_the_denoiser_has_the_published_number_of_parameters():
    arguments = jnp.zeros((1, 32, 32, 3)), jnp.zeros(1)
    trunk = count(NCSNpp(), *arguments, None)
    assert trunk == 831_571
    assert count(NCSNpp(), *arguments, jnp.zeros((1, 128))) - trunk == 107_328


def moved(variables):
    """Parameters away from their zeros, so that every path carries something."""
    keys = iter(jax.random.split(jax.random.key(7), 1000))
    return jax.tree.map(lambda x: x + 0.05 * jax.random.normal(next(keys), x.shape), variables)


def test_the_code_comes_in_by_both_routes_and_t_by_all_blocks():
    denoiser = NCSNpp(width=4, multipliers=(1, 2), num_blocks=1, dropout=0.0)
    x_t = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    t, z = jnp.asarray([0.3, 0.8]), jax.random.normal(jax.random.key(1), (2, 5))
    params = moved(jax.jit(denoiser.init)(jax.random.key(2), x_t, t, z))["params"]

    @jax.jit
    def change(params):
        """How much the output answers to z and to t."""
        slopes = jax.jacobian(
            lambda z, t: denoiser.apply({"params": params}, x_t, t, z).sum((1, 2, 3)), (0, 1)
        )(z, t)
        return [jnp.abs(slope).max() for slope in slopes]

    def without(name):
        return params | {name: jax.tree.map(jnp.zeros_like, params[name])}

    assert min(change(params)) > 1e-4
    only_blocks, only_picture = without("picture2"), dict(params)
    for name, block in params.items():
        if "condition" in block:
            kernel = block["condition"]["kernel"].at[64:].set(0)  # the code's half
            only_picture[name] = block | {"condition": block["condition"] | {"kernel": kernel}}
    neither = only_picture | {"picture2": only_blocks["picture2"]}
    assert change(only_blocks)[0] > 1e-4 and change(only_picture)[0] > 1e-4
    np.testing.assert_array_equal(change(neither)[0], 0)
    assert change(neither)[1] > 1e-4


def test_the_code_is_a_curve_and_is_never_negative():
    encoder = WideResNet(width=1)
    source = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    init = jax.jit(encoder.init)
    variables = init(jax.random.key(1), source, jnp.zeros(2))
    apply = jax.jit(encoder.apply)
    early, late = (apply(variables, source, jnp.full((2,), t)) for t in (0.1, 0.9))
    assert early.shape == (2, 64) and float(early.min()) >= 0
    assert not np.allclose(early, late)


def test_fourier_features_are_those_of_log_sigma():
    t = np.asarray([0.0, 0.5, 1.0])
    features = fourier_features(jnp.asarray(t, jnp.float32))
    angle = 2 * np.pi * np.log(0.01 * 5000**t)[:, None] * FREQUENCIES[None].astype(np.float64)
    expected = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
    np.testing.assert_allclose(features, expected, atol=2e-3)  # angles of up to 1,000
