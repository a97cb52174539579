"""3x3 convolutions with fewer multiplications (Winograd), which pay on a CPU.

Of each tile of m x m pixels that come out, F(m x m, 3 x 3) multiplies (m + 2)^2 values by as many
of the kernel, where 9 m^2 multiplications are asked for: a fourth with m = 4, and 1 / 2.25 with
m = 2. Source: Lavin and Gray, arXiv 1509.09308; the points of m = 4 are ours [D].
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from soda_jax.array_types import Array

KERNEL = 3
# At which polynomials are multiplied, besides infinity. Those of m = 4 lie closer together than
# the usual 0, 1, -1, 2, -2, and halve the error.
POINTS = {2: (0, 1, -1), 4: (0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))}


def matrices(m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(B [n n], G [n 3], A [n m]), n = m + 2: A^T ((G k) * (B x)) is x [n] correlated with k [3].

    Toom and Cook's: G and A evaluate polynomials at the points, B interpolates. B's rows have
    length 1, which changes nothing but the size of what is rounded.
    """

    def powers(degree: int) -> np.ndarray:
        infinity = np.eye(degree)[-1:]
        return np.concatenate([np.vander(POINTS[m], degree, increasing=True), infinity])

    b = np.linalg.inv(powers(m + 2)).T
    length = np.linalg.norm(b, axis=1, keepdims=True)
    return b / length, powers(KERNEL) * length, powers(m)


def _combined(matrix: np.ndarray, parts: Sequence[Array]) -> Array:
    """[i j], j arrays -> [i ...]: sum_j matrix[i, j] parts[j], without what is zero."""
    return jnp.stack(
        [
            sum(float(a) * x for a, x in zip(row, parts, strict=True) if abs(a) > 1e-9)
            for row in matrix
        ]
    )


def _both_axes(matrix: np.ndarray, x: Array, m: int) -> Array:
    """[b h w c] -> [i i b*h/m*w/m c], columns first: the matrix [i j] applied along both axes to
    what a tile of m x m pixels sees, j x j of them."""
    height, width, c = x.shape[1:]
    i, j = matrix.shape
    if j > m:
        x = jnp.pad(x, ((0, 0), (1, j - m - 1), (1, j - m - 1), (0, 0)))
    rows = _combined(matrix, [x[:, k : k + height : m] for k in range(j)])
    # Else XLA computes them anew for each column.
    rows = jax.lax.optimization_barrier(rows)
    tiles = _combined(matrix, [rows[:, :, :, k : k + width : m] for k in range(j)])
    return tiles.reshape(i, i, -1, c)


def _of_kernel(matrix: np.ndarray, kernel: Array) -> Array:
    """[j j c d] -> [i i c d], the matrix [i j] applied along both axes, which change places."""
    i, c, d = len(matrix), *kernel.shape[2:]
    both = np.kron(matrix, matrix).astype(kernel.dtype)
    return (both @ kernel.swapaxes(0, 1).reshape(-1, c * d)).reshape(i, i, c, d)


# Traced once for all layers of a shape.
@partial(jax.jit, static_argnums=0)
def _convolved(m: int, x: Array, kernel: Array) -> Array:
    b, g, a = matrices(m)
    count, height, width, _ = x.shape
    features = kernel.shape[-1]
    tiles = jnp.einsum("ijnc,ijcd->ijnd", _both_axes(b, x, m), _of_kernel(g, kernel))
    both = np.kron(a, a).T.astype(x.dtype)
    out = both @ tiles.reshape(len(b) ** 2, -1)
    out = out.reshape(m, m, count, height // m, width // m, features)  # column, row of a tile
    return out.transpose(2, 3, 1, 4, 0, 5).reshape(count, height, width, features)


def tile_size(x: Array, kernel: Array) -> int | None:
    """The m with which `convolve` is quicker than XLA's own convolution on a CPU, if any is.

    The bounds are ours [D], of one core with AVX-512 (docs/performance.md).
    """
    (b, height, width, _), (c, d) = x.shape, kernel.shape[2:]
    # Each value of a kernel must meet enough tiles, and each value of a tile enough features.
    for m, features in ((4, 32), (2, 64)):
        whole = height % m == 0 and width % m == 0
        if whole and b * height * width // m**2 >= 64 and min(c, d) >= features:
            return m
    return None


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def convolve(m: int, x: Array, kernel: Array) -> Array:
    """[b h w c], [3 3 c d] -> [b h w d], zeros around ("SAME"); m, 2 or 4, divides h and w.

    In float32 it differs from a convolution by 2e-6 of what comes out (m = 4; 6e-7 with m = 2).
    """
    return _convolved(m, x, kernel)


def _forward(m: int, x: Array, kernel: Array):
    return _convolved(m, x, kernel), (x, kernel)


@partial(jax.jit, static_argnums=0)
def _backward(m: int, kept, gradient: Array):
    # Else the forward pass' tiles, (m + 2)^2 / m^2 as large as x, are kept until now.
    x, kernel, gradient = jax.lax.optimization_barrier((*kept, gradient))
    b, g, a = matrices(m)
    of_x = _convolved(m, gradient, kernel[::-1, ::-1].swapaxes(2, 3))
    product = jnp.einsum("ijnc,ijnd->ijcd", _both_axes(b, x, m), _both_axes(a, gradient, m))
    return of_x, _of_kernel(g.T, product)


convolve.defvjp(_forward, _backward)
