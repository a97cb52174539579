"""3x3 convolutions of fewer multiplications: XLA's own, to rounding, on a CPU alone."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from soda_jax.models import winograd
from soda_jax.models.layers import convolve


def direct(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def arrays(b, height, width, c, d):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = (b, height, width, c), (3, 3, c, d), (b, height, width, d)
    return [jax.random.normal(*one) for one in zip(keys, shapes, strict=True)]


@pytest.mark.parametrize("m", [2, 4])
def test_a_convolution_and_its_gradients_are_xlas(m):
    x, kernel, gradient = arrays(3, 8, 12, 5, 7)  # no two sizes alike: no axis may change places

    def run(function):
        out, transpose = jax.vjp(function, x, kernel)
        return out, *transpose(gradient)

    ours = run(lambda x, kernel: winograd.convolve(m, x, kernel))
    for mine, reference in zip(ours, run(direct), strict=True):
        error = np.sqrt(np.mean((mine - reference) ** 2)) / np.std(reference)
        assert error < 3e-6


@pytest.mark.parametrize("m", [2, 4])
def test_the_matrices_multiply_polynomials(m):
    b, g, a = winograd.matrices(m)
    x, kernel = np.random.default_rng(0).normal(size=m + 2), np.array([0.5, -2.0, 3.0])
    expected = [x[i : i + 3] @ kernel for i in range(m)]
    np.testing.assert_allclose(a.T @ ((g @ kernel) * (b @ x)), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "b, size, c, d, m",
    [
        (16, 8, 32, 32, 4),
        (16, 8, 32, 16, None),  # too few features
        (15, 8, 32, 32, None),  # too few tiles
        (16, 6, 64, 64, 2),
        (16, 6, 32, 64, None),
        (16, 9, 64, 64, None),
    ],
)
def test_it_is_chosen_where_it_pays_and_on_a_cpu_alone(b, size, c, d, m):
    x, kernel, _ = arrays(b, size, size, c, d)
    assert winograd.tile_size(x, kernel) == m

    def chosen(x, kernel, stride=1):
        traced = jax.jit(lambda x, kernel: convolve(x, kernel, stride, "SAME")).trace(x, kernel)
        texts = [
            traced.lower(lowering_platforms=(platform,)).as_text()
            for platform in ("cpu", "cuda", "tpu")
        ]
        return ["stablehlo.convolution" not in text for text in texts]

    assert chosen(x, kernel) == [m is not None, False, False]
    assert chosen(x, kernel, stride=2) == [False] * 3
    halves = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    assert chosen(*halves) == [False] * 3


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_over_devices_it_talks_of_nothing_but_the_kernels_gradient():
    mesh = jax.make_mesh((8,), ("data",))
    arguments = arrays(16, 8, 8, 5, 7)

    def run(x, kernel, gradient):
        out, transpose = jax.vjp(lambda x, kernel: winograd.convolve(4, x, kernel), x, kernel)
        return out, *transpose(gradient)

    pictures, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    sharded = jax.jit(
        run,
        in_shardings=(pictures, whole, pictures),
        out_shardings=(pictures, pictures, whole),
    )
    for mine, reference in zip(sharded(*arguments), run(*arguments), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-4, atol=1e-4)
    text = sharded.lower(*arguments).compile().as_text()
    talk = re.findall(r" (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(", text)
    assert talk == ["all-reduce"]
