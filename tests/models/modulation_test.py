"""Modulation's algebra, and the time encoding."""

import jax
import jax.numpy as jnp
import numpy as np

from soda_jax.models.layers import residual_sum, time_encoding
from soda_jax.models.modulation import ModulatedNorm
from soda_jax.models.norms import GroupNorm, num_groups


def test_modulation_is_z_s_times_t_s_norm_plus_t_b_plus_z_b():
    keys = jax.random.split(jax.random.key(0), 4)
    h = jax.random.normal(keys[0], (2, 4, 4, 8)) * 3 + 1
    time = jax.random.normal(keys[1], (2, 5))
    z = jax.random.normal(keys[2], (2, 3))
    module = ModulatedNorm()
    params = module.init(keys[3], h, time, z)["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)  # biases start at zero; see them too
    out = module.apply({"params": params}, h, time, z)

    def linear(name, x):
        y = x @ params[name]["kernel"] + params[name]["bias"][None]
        return y[:, None, None, :8], y[:, None, None, 8:]

    t_s, t_b = linear("time", jax.nn.silu(time))
    z_s, z_b = linear("code", z)
    grouped = np.asarray(h).reshape(2, 16, num_groups(8), -1)
    normed = (grouped - grouped.mean((1, 3), keepdims=True)) / np.sqrt(
        grouped.var((1, 3), keepdims=True) + 1e-5
    )
    expected = (1 + z_s) * ((1 + t_s) * normed.reshape(2, 4, 4, 8) + t_b) + z_b
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_a_zero_section_leaves_the_time_modulation_alone():
    h = jax.random.normal(jax.random.key(0), (1, 2, 2, 8))
    time, z = jnp.ones((1, 4)), jnp.zeros((1, 3))
    module = ModulatedNorm()
    params = module.init(jax.random.key(1), h, time, z)["params"]
    without = {"params": {"time": params["time"]}}
    np.testing.assert_allclose(
        module.apply({"params": params}, h, time, z),
        module.apply(without, h, time, None),
        rtol=1e-6,
    )


def test_group_norm_computes_in_float32():
    h = jax.random.normal(jax.random.key(0), (1, 4, 4, 8)).astype(jnp.bfloat16)
    out, _ = GroupNorm().init_with_output(jax.random.key(0), h)
    assert out.dtype == jnp.float32


def test_residual_sums_keep_unit_variance():
    x, h = jax.random.normal(jax.random.key(0), (2, 100_000))
    assert abs(float(residual_sum(x, h, True).var()) - 1) < 0.02
    assert abs(float(residual_sum(x, h, False).var()) - 2) < 0.04


def test_time_encoding_follows_the_formula():
    t = jnp.asarray([0.0, 0.25, 1.0])
    encoding = np.asarray(time_encoding(t, 8))
    for i, p in enumerate([-1.0, -0.5, 1.0]):
        angle = p / (2 * np.pi * 1e-4 * 10_000 ** (np.arange(4) / 4))
        np.testing.assert_allclose(encoding[i, :4], np.cos(angle), atol=2e-3)
        np.testing.assert_allclose(encoding[i, 4:], np.sin(angle), atol=2e-3)
    # Steps of 1/1000 are told apart; with top frequency 1 they would not be.
    near = np.asarray(time_encoding(jnp.asarray([0.5, 0.501]), 8))
    assert np.linalg.norm(near[0] - near[1]) > 0.5
