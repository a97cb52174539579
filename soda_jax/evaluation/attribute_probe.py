"""Several yes-or-no attributes at once, read off features by as many linear classifiers."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from soda_jax.array_types import Array
from soda_jax.evaluation import logistic_regression, probe_data
from soda_jax.evaluation.linear_probe import L2_VALUES, check_l2

_PRECISION = jax.lax.Precision.HIGHEST


class AttributeResult(NamedTuple):
    """Scores on the test set, all in [0, 1].

    Attributes:
      attributes: for each attribute by its name: "f1", "average_precision", "accuracy", and
        "base_rate", the share of ones (what a random order has for average precision).
      mean: the same four, averaged over the attributes.
      protocol: plain values (JSON can hold them): norm, solver, each attribute's L2, sizes, seed.
    """

    attributes: dict[str, dict[str, float]]
    mean: dict[str, float]
    protocol: dict[str, Any]


def attribute_probe(
    train_x,
    train_y,
    test_x,
    test_y,
    *,
    names: Sequence[str] | None = None,
    validation_fraction: float = 0.1,
    l2_values: Sequence[float] = L2_VALUES,
    seed: int = 0,
    max_iterations: int = 300,
) -> AttributeResult:
    """A binary logistic regression for each attribute, all fitted together.

    Each attribute has its own L2: the one with the least cross-entropy on a random part of the
    training set (the strongest of equals) [D]; with it, it is fitted again on all training data.
    Cross-entropy, since a rare attribute can be missing from that part, where F1 and average
    precision are not defined. An attribute is called present where its probability is 1/2 or more
    [D]. Features are standardised by the part that is fitted.

    Args:
      train_x, test_x: features [n d] of any number type.
      train_y, test_y: [n a] of 0 and 1, integers or booleans.
      names: of the a attributes; attribute0, attribute1, ... unless given.
      validation_fraction: share of the training set that chooses the L2.
      l2_values: weights of |kernel|^2 / 2 beside the mean cross-entropy.
      seed: of the split.
      max_iterations: of the solver, for all attributes together; the protocol says where that was
        too few.

    Raises:
      ValueError: the data don't fit together (see `probe_data.check`), an attribute has one value
        only in a part that is fitted or scored, every feature is constant, or a setting is out of
        its range.
    """
    train_y, test_y = _check_attributes(train_y, "train_y"), _check_attributes(test_y, "test_y")
    if train_y.shape[1] != test_y.shape[1]:
        raise ValueError(
            f"train_y has {train_y.shape[1]} attributes and test_y {test_y.shape[1]}: both must "
            "have the same"
        )
    names = _check_names(names, train_y.shape[1])
    data = probe_data.check(train_x, train_y[:, 0], test_x, test_y[:, 0], 2)
    _check_both_values(train_y, names, "train_y")
    _check_both_values(test_y, names, "test_y")
    l2_values = check_l2(l2_values)
    probe_data.check_learnable(data.train_x, data.train_y)
    protocol = {
        "probe": "binary logistic regressions, fitted together",
        "norm": "standardised, by the mean and deviation of the fitted part",
        "solver": "L-BFGS, preconditioned",
        "max_iterations": max_iterations,
        "threshold": "probability 1/2",
        "l2_values": l2_values,
        "seed": seed,
        **data.sizes(),
    }
    if len(l2_values) > 1:
        fit_on, validate_on = _split(len(train_y), validation_fraction, seed)
        _check_both_values(train_y[fit_on], names, "the part of train_y that chooses the L2")
        grid = np.repeat(np.asarray(l2_values, np.float32)[:, None], len(names), axis=1)
        logits, validation_fit = _fit_and_apply(
            data.train_x[fit_on], train_y[fit_on], data.train_x[validate_on], grid, max_iterations
        )
        losses = np.logaddexp(0, logits) - logits * train_y[validate_on][None]
        strongest_first = np.argsort(-grid[:, 0], kind="stable")
        best = strongest_first[losses.mean(axis=1)[strongest_first].argmin(axis=0)]
        l2 = [l2_values[i] for i in best]
        protocol |= {
            "l2_chosen_by": "cross-entropy on a random part of the training set",
            "validation_fraction": validation_fraction,
            "fit_examples": len(fit_on),
            "validation_examples": len(validate_on),
            "validation_iterations": np.asarray(validation_fit.num_iterations).tolist(),
        }
    else:
        protocol |= {"l2_chosen_by": "given", "validation_examples": 0}
        l2 = l2_values * len(names)
    chosen = np.array([l2], np.float32)
    logits, fitted = _fit_and_apply(data.train_x, train_y, data.test_x, chosen, max_iterations)
    protocol |= {
        "l2": dict(zip(names, l2, strict=True)),
        "iterations": int(fitted.num_iterations[0]),
        "converged": bool(
            fitted.gradient_norm[0] <= logistic_regression.tolerance_of(*data.train_x.shape)
        ),
    }
    scores = {name: binary_scores(logits[0, :, a], test_y[:, a]) for a, name in enumerate(names)}
    kinds = next(iter(scores.values()))
    means = {kind: float(np.mean([s[kind] for s in scores.values()])) for kind in kinds}
    return AttributeResult(scores, means, protocol)


def binary_scores(logits, truth) -> dict[str, float]:
    """F1, average precision, accuracy and base rate of logits [n] against 0 and 1 [n].

    A logit of 0 or more says 1. F1 is 2 tp / (2 tp + fp + fn). Average precision is the mean over
    the ones of the precision among all that are ranked as high or higher, examples with equal
    logits together (as scikit-learn's).

    Raises:
      ValueError: lengths differ, a logit is not finite, or truth is not both 0 and 1.
    """
    logits, truth = np.asarray(logits, np.float64), _check_attributes(truth, "truth")
    if truth.ndim != 1 or logits.shape != truth.shape:
        raise ValueError(
            f"logits and truth must both be [n], but their shapes are {logits.shape} and "
            f"{truth.shape}"
        )
    if not np.all(np.isfinite(logits)):
        raise ValueError("logits holds NaN or infinity")
    if truth.min() == truth.max():
        raise ValueError(f"truth is {truth[0]} in all {len(truth)} examples: both must occur")
    said = logits >= 0
    true_positives = np.sum(said & (truth == 1))
    wrong = np.sum(said != truth)
    order = np.argsort(-logits, kind="stable")
    found = np.cumsum(truth[order])
    # Only where the next logit is lower: equal ones are one step.
    ends = np.flatnonzero(np.append(np.diff(logits[order]) != 0, True))
    gained = np.diff(found[ends], prepend=0)
    return {
        "f1": float(2 * true_positives / (2 * true_positives + wrong)),
        "average_precision": float(np.sum(gained * found[ends] / (ends + 1)) / found[-1]),
        "accuracy": float(np.mean(said == truth)),
        "base_rate": float(truth.mean()),
    }


def _fit_and_apply(x, y, other_x, l2, max_iterations):
    """Logits [l m a] on other_x [m d] of the fits to x [n d], y [n a], l2 [l a]; and the fits."""
    mean, std = logistic_regression.standardization(x)
    fitted = _fit(
        jnp.asarray(logistic_regression.standardize(x, mean, std)),
        jnp.asarray(y, jnp.float32),
        jnp.asarray(l2),
        max_iterations,
    )
    other_x = jnp.asarray(logistic_regression.standardize(other_x, mean, std))
    return np.asarray(_apply(fitted, other_x), np.float64), fitted


@partial(jax.jit, static_argnames="max_iterations")
def _fit(
    x, y, l2_values, max_iterations, tolerance: float | None = None
) -> logistic_regression.Fit:
    """All attributes at once, for each row of l2_values [l a]: kernel [l a d], bias [l a].

    One L-BFGS on the sum of the objectives, in coordinates in which the Hessian is about the
    identity where it starts: kernels of 0, and biases that give the base rates.
    """
    n, d = x.shape
    tolerance = logistic_regression.tolerance_of(n, d) if tolerance is None else tolerance
    axes, variances = logistic_regression.principal_axes(x)
    x = jnp.dot(x, axes.T, precision=_PRECISION)
    base_rates = jnp.mean(y, axis=0)
    curvature = base_rates * (1 - base_rates)

    def norm(gradient):  # of a typical attribute
        return optax.global_norm(gradient) / jnp.sqrt(y.shape[1])

    def fit_one(l2):
        scales = jax.lax.rsqrt(variances[None] * curvature[:, None] + l2[:, None])

        def params_of(coordinates):
            kernel = coordinates[0] * scales
            bias = jnp.log(base_rates / (1 - base_rates)) + coordinates[1] / jnp.sqrt(curvature)
            return kernel, bias

        def objective(coordinates):
            kernel, bias = params_of(coordinates)
            losses = optax.sigmoid_binary_cross_entropy(_logits(x, kernel, bias), y)
            penalties = 0.5 * l2 * jnp.sum(jnp.square(kernel), axis=1)
            return jnp.sum(losses) / n + jnp.sum(penalties)

        start = (jnp.zeros((y.shape[1], len(axes))), jnp.zeros((y.shape[1],)))
        coordinates, iterations, of_gradient = logistic_regression.minimize(
            objective,
            start,
            norm,
            max_iterations=max_iterations,
            tolerance=tolerance,
        )
        kernel, bias = params_of(coordinates)
        kernel = jnp.dot(kernel, axes, precision=_PRECISION)
        return logistic_regression.Fit(kernel, bias, iterations, of_gradient)

    return jax.lax.map(fit_one, l2_values)


@jax.jit
def _apply(fitted, x):
    return jax.lax.map(lambda params: _logits(x, *params), (fitted.kernel, fitted.bias))


def _logits(x: Array, kernel: Array, bias: Array) -> Array:
    """[n a]; both contract their last axis, so that nothing is transposed at every step."""
    contract_last = (((1,), (1,)), ((), ()))
    return jax.lax.dot_general(x, kernel, contract_last, precision=_PRECISION) + bias[None]


def _split(num_examples: int, validation_fraction: float, seed: int):
    """Indices (fit, validation), drawn at random by the seed, each with one example or more."""
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction must be in (0, 1), but is {validation_fraction}")
    count = min(max(1, round(validation_fraction * num_examples)), num_examples - 1)
    order = np.random.default_rng(seed).permutation(num_examples)
    return np.sort(order[count:]), np.sort(order[:count])


def _check_attributes(y, name: str) -> np.ndarray:
    """y as int8; ValueError where it is empty or anything but 0 and 1 is in it."""
    y = np.asarray(y)
    if name != "truth" and y.ndim != 2 or 0 in y.shape:
        raise ValueError(f"{name} must be [examples, attributes], but its shape is {y.shape}")
    if not (y.dtype == bool or np.issubdtype(y.dtype, np.integer)):
        raise ValueError(f"{name} must be 0 and 1 as integers or booleans, not {y.dtype}")
    if y.min() < 0 or y.max() > 1:
        raise ValueError(
            f"{name} must hold 0 and 1 alone, but holds {y.min()} to {y.max()} (from -1 and 1: "
            "(y + 1) // 2)"
        )
    return y.astype(np.int8)


def _check_names(names: Sequence[str] | None, num_attributes: int) -> list[str]:
    if names is None:
        return [f"attribute{a}" for a in range(num_attributes)]
    names = [str(name) for name in names]
    if len(names) != num_attributes or len(set(names)) != len(names):
        raise ValueError(
            f"names must be {num_attributes} different names, one for each attribute, not {names}"
        )
    return names


def _check_both_values(y: np.ndarray, names: Sequence[str], where: str) -> None:
    single = [name for name, column in zip(names, y.T, strict=True) if column.min() == column.max()]
    if single:
        raise ValueError(
            f"{where} has a single value of {', '.join(single)}: of an attribute that all or none "
            "have, nothing can be learnt or scored; leave it out"
        )
