"""Norms and biases by sums of their own, beside Flax's; on a CPU these are matrix products."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.models import norms
from soda_jax.models.layers import Conv

SHAPE = (3, 4, 6, 24)


def _close(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)


def _with_gradients(apply, params, h, weights):
    return jax.value_and_grad(lambda params, h: (weights * apply(params, h)).sum(), (0, 1))(
        params, h
    )


@pytest.fixture(scope="module")
def h():
    return 2.0 + 3.0 * jax.random.normal(jax.random.key(0), SHAPE)


@pytest.fixture(scope="module")
def weights():
    return jax.random.normal(jax.random.key(1), SHAPE)


@pytest.fixture(scope="module")
def params():
    scale, bias = jax.random.normal(jax.random.key(2), (2, SHAPE[-1]))
    return {"scale": scale, "bias": bias}


def test_group_norm_and_its_gradients_are_flaxs(h, weights, params):
    def ours(params, h):
        return norms.GroupNorm().apply({"params": params}, h)

    def theirs(params, h):
        return nn.GroupNorm(norms.num_groups(24), epsilon=1e-5).apply({"params": params}, h)

    _close(ours(params, h), theirs(params, h))
    _close(_with_gradients(ours, params, h, weights), _with_gradients(theirs, params, h, weights))


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_its_gradients_and_its_moments_are_flaxs(h, weights, params, train):
    mean, var = jax.random.uniform(jax.random.key(3), (2, SHAPE[-1]), minval=0.5)
    batch_stats = {"mean": mean, "var": var}
    reference = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5)

    def run(module, *how):
        def apply(params, h):
            variables = {"params": params, "batch_stats": batch_stats}
            return module.apply(variables, h, *how, mutable=["batch_stats"])

        out, state = apply(params, h)
        gradients = _with_gradients(lambda *args: apply(*args)[0], params, h, weights)
        return out, dict(state)["batch_stats"], gradients

    _close(run(norms.BatchNorm(), train), run(reference))
    moved = norms.BatchNorm().apply(
        {"params": params, "batch_stats": batch_stats}, h, train, mutable=["batch_stats"]
    )[1]["batch_stats"]
    assert np.allclose(moved["mean"], mean) != train


@pytest.mark.parametrize("stride, padding", [(1, "SAME"), (2, "SAME"), (2, 1)])
def test_a_convolution_and_its_gradients_are_flaxs(h, stride, padding):
    reference = nn.Conv(5, (3, 3), stride, padding=padding)
    params = reference.init(jax.random.key(4), h)["params"] | {"bias": jnp.arange(5.0)}
    ours = Conv(5, 3, stride, padding)
    weights = jax.random.normal(jax.random.key(5), ours.apply({"params": params}, h).shape)

    def run(module):
        return _with_gradients(
            lambda params, h: module.apply({"params": params}, h), params, h, weights
        )

    _close(run(ours), run(reference))


@pytest.mark.parametrize("map_size, stride, padding", [(1, 1, 1), (2, 1, "SAME"), (4, 2, "SAME")])
def test_maps_smaller_than_the_kernel_are_products_on_a_cpu(map_size, stride, padding):
    x = jax.random.normal(jax.random.key(6), (3, map_size, map_size, 4))
    reference = nn.Conv(5, (3, 3), stride, padding=padding)
    params = reference.init(jax.random.key(7), x)["params"]
    ours = Conv(5, 3, stride, padding)
    weights = jax.random.normal(jax.random.key(8), ours.apply({"params": params}, x).shape)

    def run(module):
        def output(params, x):
            return module.apply({"params": params}, x)

        return _with_gradients(output, params, x, weights)

    _close(run(ours), run(reference))
    traced = jax.jit(lambda x: ours.apply({"params": params}, x)).trace(x)
    for platform, product in (("cpu", True), ("cuda", False), ("tpu", False)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("stablehlo.convolution" not in text) == product, platform


def test_sums_of_half_precision_are_exact_to_single():
    x = jnp.full((1, 64, 64, 2), 1.0, jnp.bfloat16)
    assert norms.pixel_sums(x).tolist() == [[4096.0, 4096.0]]
    # In bfloat16 a running sum would stop at 256.
    gradient = jax.grad(lambda v: norms.spread(v, (64, 64)).astype(jnp.bfloat16).sum())(
        jnp.zeros((1, 2))
    )
    assert gradient.tolist() == [[4096.0, 4096.0]]


def test_a_shift_in_half_precision_has_a_gradient():
    h = jnp.zeros((2, 4, 4, 3), jnp.bfloat16)
    gradient = jax.grad(lambda shift: norms.per_channel(h, None, shift).sum())(h[:, 0, 0])
    assert gradient.dtype == jnp.bfloat16 and (gradient == 16.0).all()


def test_what_runs_on_a_cpu_is_a_product_and_elsewhere_a_reduction():
    def lowered(platform):
        traced = jax.jit(norms.pixel_sums).trace(jax.ShapeDtypeStruct(SHAPE, jnp.float32))
        return traced.lower(lowering_platforms=(platform,)).as_text()

    for platform, product in (("cpu", True), ("cuda", False), ("tpu", False)):
        assert ("stablehlo.dot_general" in lowered(platform)) == product
        assert ("stablehlo.reduce" in lowered(platform)) != product


def test_channels_that_hardly_vary_leave_no_variance_below_0():
    """Rounding of mean square less square mean: evaluation would be NaN while training isn't."""
    level = jnp.asarray(np.random.RandomState(0).uniform(5, 300, 64), jnp.float32)
    h = jnp.broadcast_to(level, (32, 8, 8, 64))
    norm = norms.BatchNorm()
    variables = norm.init(jax.random.key(0), h, True)
    for _ in range(80):
        _, new = norm.apply(variables, h, True, mutable=["batch_stats"])
        variables = variables | new
    assert (variables["batch_stats"]["var"] >= 0).all()
    assert np.isfinite(norm.apply(variables, h, False)).all()
