"""Multinomial logistic regression by L-BFGS: the solver under the linear probes.

The objective is  mean_i weight_i * cross_entropy_i + l2 / 2 * |kernel|^2 ; the bias is not
penalised. In scikit-learn's terms C = 1 / (number of examples * l2).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from soda_jax.array_types import Array, PyTree

# Line searches need more digits than TPUs and GPUs give float32 products by default.
_PRECISION = jax.lax.Precision.HIGHEST
TOLERANCE = 1e-3  # see `fit`
# Few examples of many features can be told apart for certain; then the curvature, and with it the
# gradient, vanishes far from the optimum.
FEW_TOLERANCE = 1e-5
_ROWS = 4096  # of features that are held in float64 at a time
_LOGITS = 2**27  # that are held at a time: half a gigabyte
_SMALLEST_STEP = 2.0**-16  # of a line search, beside the full step
_ROUNDING = 1e-6  # what float32 loses of a mean over many examples


class Fit(NamedTuple):
    """Fitted classifiers, one for each L2 value (l).

    Attributes:
      kernel: [l classes d].
      bias: [l classes].
      num_iterations: [l] L-BFGS iterations done.
      gradient_norm: [l] of the last gradient, in the coordinates of `fit`: how well it converged.
    """

    kernel: Array
    bias: Array
    num_iterations: Array
    gradient_norm: Array


def standardization(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [d] (float32) of features [n d], summed in float64.

    The deviation of a constant feature, up to float32 rounding, is given as 1.
    """
    blocks = [slice(start, start + _ROWS) for start in range(0, len(x), _ROWS)]
    mean = sum(x[block].sum(axis=0, dtype=np.float64) for block in blocks) / len(x)
    squares = sum(np.square(x[block] - mean).sum(axis=0) for block in blocks)
    std = np.sqrt(squares / len(x))
    std = np.where(std > 1e-6 * np.abs(mean), std, 1.0)
    return mean.astype(np.float32), std.astype(np.float32)


def standardize(x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """(x - mean) / std, [n d] float32, with one copy of x and no more."""
    standardized = np.subtract(x, mean[None], dtype=np.float32)
    standardized /= std[None]
    return standardized


def tolerance_of(num_examples: int, d: int) -> float:
    """The tolerance that `fit` takes for so many examples of d features."""
    return TOLERANCE if num_examples > d else FEW_TOLERANCE


@partial(jax.jit, static_argnames=("num_classes",))
def fit(
    x: Array,
    labels: Array,
    weights: Array,
    l2_values: Array,
    *,
    num_classes: int,
    max_iterations: int = 300,
    tolerance: float | None = None,
) -> Fit:
    """Fits a classifier for each L2 value, all of them side by side in one run.

    The features are read once for all of them. Where the logits of all would be too many, they are
    fitted in groups.

    L-BFGS runs in coordinates in which the Hessian at zero is about the identity: raw pixels, whose
    neighbours say nearly the same, would else need thousands of iterations to the same optimum.

    Args:
      x: [n d] float32 features, standardised by the caller.
      labels: [n] int in [0, num_classes).
      weights: [n] float32; 0 leaves an example out, as cross-validation does.
      l2_values: [l] float32, all above 0.
      num_classes: how many logits.
      max_iterations: of L-BFGS, for each L2 value.
      tolerance: a fit ends where the norm of its gradient, in those coordinates, is no larger;
        None: `tolerance_of`. Where classes overlap, half its square is about what the objective
        could still lose.
    """
    tolerance = tolerance_of(*x.shape) if tolerance is None else tolerance
    weights = weights / jnp.sum(weights)
    axes, variances = principal_axes(x)
    # In these axes a kernel is its coordinates, scaled; and few examples have few axes.
    x = jnp.dot(x, axes.T, precision=_PRECISION)

    def fit_one(l2):
        # Softmax at zero: the Hessian is covariance / num_classes + l2, on all but one direction.
        scales = jax.lax.rsqrt(variances / num_classes + l2)

        def objective(params):
            kernel = params[0] * scales[None]
            logits = _logits(x, kernel, params[1])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.vdot(weights, losses) + 0.5 * l2 * jnp.sum(jnp.square(kernel))

        start = (jnp.zeros((num_classes, len(axes))), jnp.zeros((num_classes,)))
        params, iterations, norm = minimize(
            objective, start, _norm, max_iterations=max_iterations, tolerance=tolerance
        )
        kernel = jnp.dot(params[0] * scales[None], axes, precision=_PRECISION)
        return Fit(kernel, params[1], iterations, norm)

    side_by_side = min(len(l2_values), max(1, _LOGITS // (len(x) * num_classes)))
    return jax.lax.map(fit_one, l2_values, batch_size=side_by_side)


def minimize(
    objective: Callable[[PyTree], Array],
    params: PyTree,
    norm_fn: Callable[[PyTree], Array],
    *,
    max_iterations: int,
    tolerance: float,
) -> tuple[PyTree, Array, Array]:
    """L-BFGS on a convex objective, to be vmapped: (params, iterations, norm of the gradient).

    It ends where norm_fn(gradient) is at most `tolerance`, or no step helps that float32 can tell
    from none.
    """
    # Halving from the full step: under vmap the default line search would run both its branches.
    # It asks for descent alone, which is enough as the curvature of a convex objective is above 0.
    solver = optax.lbfgs(
        linesearch=optax.scale_by_backtracking_linesearch(
            max_backtracking_steps=20,
            decrease_factor=0.5,
            increase_factor=math.inf,
            rtol=_ROUNDING,
            store_grad=True,
        )
    )

    def unfinished(carry):
        _, state, _, gradient, iteration = carry
        stuck = optax.tree_utils.tree_get(state, "learning_rate") < _SMALLEST_STEP
        return (iteration < max_iterations) & (norm_fn(gradient) > tolerance) & ~stuck

    def iterate(carry):
        params, state, value, gradient, iteration = carry
        updates, state = solver.update(
            gradient, state, params, value=value, grad=gradient, value_fn=objective
        )
        # The line search has already evaluated the point that it stops at.
        value = optax.tree_utils.tree_get(state, "value")
        gradient = optax.tree_utils.tree_get(state, "grad")
        return optax.apply_updates(params, updates), state, value, gradient, iteration + 1

    value, gradient = jax.value_and_grad(objective)(params)
    start = (params, solver.init(params), value, gradient, 0)
    params, _, _, gradient, iterations = jax.lax.while_loop(unfinished, iterate, start)
    return params, iterations, norm_fn(gradient)


def principal_axes(x: Array) -> tuple[Array, Array]:
    """Directions [r d] that span the rows of x [n d], r = min(n, d), and their variances [r]."""
    n, d = x.shape
    if d <= n:
        variances, axes = jnp.linalg.eigh(jnp.dot(x.T, x, precision=_PRECISION) / n)
        return axes.T, jnp.maximum(variances, 0.0)
    # Fewer examples than features: the optimal kernel lies in the span of the examples, of which
    # float32 doesn't tell directions of less than 1e-6 of the largest variance.
    variances, mixtures = jnp.linalg.eigh(jnp.dot(x, x.T, precision=_PRECISION) / n)
    kept = variances > 1e-6 * variances[-1]
    scales = jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, n * variances, 1.0)), 0.0)
    axes = jnp.dot((mixtures * scales[None]).T, x, precision=_PRECISION)
    return axes, jnp.where(kept, variances, 0.0)


def predict(fitted: Fit, x: Array) -> Array:
    """The most probable class of features [n d] under each fit: [l n] int32."""
    return _predict(fitted.kernel, fitted.bias, jnp.asarray(x, jnp.float32))


@jax.jit
def _predict(kernels, biases, x):
    def classes(params):
        return jnp.argmax(_logits(x, *params), axis=-1).astype(jnp.int32)

    return jax.lax.map(classes, (kernels, biases))


def _logits(x, kernel, bias):
    # Both contract their last axis: the gradient is then a plain product, where a kernel
    # [d classes] would make XLA transpose x at every step (6 times slower on a CPU).
    contract_last = (((1,), (1,)), ((), ()))
    return jax.lax.dot_general(x, kernel, contract_last, precision=_PRECISION) + bias[None]


def _norm(tree):
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))
