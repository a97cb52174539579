"""A linear classifier on fixed features: how much of the label can be read off them.

Nothing is ever chosen on the test set: it is looked at once, by the final classifier.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from soda_jax import rngs
from soda_jax.array_types import Array
from soda_jax.evaluation import logistic_regression, probe_data
from soda_jax.evaluation.probe_data import ProbeResult

L2_VALUES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # [D]
TOO_FEW = 200  # steps of Adam: its fixed epochs over a small set don't get anywhere [D]
_BATCH_NORM_MOMENTUM = 0.1  # of the running statistics: PyTorch's default [R]
_BATCH_NORM_EPSILON = 1e-6  # [R]
_PRECISION = jax.lax.Precision.HIGHEST


def linear_probe(
    train_x,
    train_y,
    test_x,
    test_y,
    *,
    num_classes: int,
    validation_fraction: float = 0.1,
    l2_values: Sequence[float] = L2_VALUES,
    seed: int = 0,
    max_iterations: int = 300,
) -> ProbeResult:
    """Multinomial logistic regression by L-BFGS; the L2 is chosen on held-out training data.

    The features are standardised by the statistics of the part that is fitted. Every L2 is fitted
    without the validation part (stratified); the one with the best accuracy there (the strongest of
    equals) is fitted again on all training data. With a single L2 there is no such choice.

    Args:
      train_x, train_y, test_x, test_y: features [n d] of any number type, labels [n] int.
      num_classes: labels are in [0, num_classes).
      validation_fraction: share of the training set that chooses the L2.
      l2_values: weights of |kernel|^2 / 2 beside the mean cross-entropy.
      seed: of the split.
      max_iterations: of the solver; the protocol says where that was too few.

    Raises:
      ValueError: the data don't fit together, can't be learnt from (see `probe_data.check` and
        `check_learnable`), or an L2 is not above 0.
    """
    data = probe_data.check(train_x, train_y, test_x, test_y, num_classes)
    probe_data.check_learnable(data.train_x, data.train_y)
    l2_values = check_l2(l2_values)
    protocol = {
        "probe": "logistic regression",
        "norm": "standardised, by the mean and deviation of the fitted part",
        "solver": "L-BFGS, preconditioned",
        "max_iterations": max_iterations,
        "l2_values": l2_values,
        "seed": seed,
        **data.sizes(),
    }
    chosen, validation_accuracy = l2_values[0], None
    if len(l2_values) > 1:
        fit_on, validate_on = probe_data.stratified_split(data.train_y, validation_fraction, seed)
        scores, fitted = _fit_and_score(
            data.train_x[fit_on],
            data.train_y[fit_on],
            data.train_x[validate_on],
            data.train_y[validate_on],
            l2_values,
            num_classes,
            max_iterations,
        )
        best = strongest_best(scores, l2_values)
        chosen, validation_accuracy = l2_values[best], float(scores[best])
        protocol |= {
            "l2_chosen_by": "accuracy on a stratified part of the training set",
            "l2_on_edge_of_grid": chosen in (min(l2_values), max(l2_values)),
            "validation_accuracies": [float(score) for score in scores],
            "validation_iterations": np.asarray(fitted.num_iterations).tolist(),
            "validation_fraction": validation_fraction,
            "fit_examples": len(fit_on),
            "validation_examples": len(validate_on),
        }
    else:
        protocol |= {"l2_chosen_by": "given", "validation_examples": 0}
    scores, fitted = _fit_and_score(*data, [chosen], num_classes, max_iterations)
    protocol |= {
        "l2": chosen,
        "iterations": int(fitted.num_iterations[0]),
        "converged": bool(
            fitted.gradient_norm[0] <= logistic_regression.tolerance_of(*data.train_x.shape)
        ),
    }
    return ProbeResult(float(scores[0]), validation_accuracy, protocol)


def adam_probe(
    train_x,
    train_y,
    test_x,
    test_y,
    *,
    num_classes: int,
    num_epochs: int = 15,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> ProbeResult:
    """The probe of FutureXiang/soda [R], for figures that compare with its published ones.

    L2-normalised features, BatchNorm without parameters, one linear layer, Adam. BatchNorm uses the
    batch's statistics in training and running ones (momentum .1, unbiased variance) at test; the
    last batch of an epoch may be smaller; the learning rate falls by a cosine from epoch to epoch;
    kernel and bias start uniform in +-1/sqrt(d). One thing differs: there the training pictures are
    augmented anew in every epoch (crop and flip, with probability .65); here the features are
    computed once, from the pictures that the caller chose.

    Nothing is selected, so there is no validation part.

    Raises:
      ValueError: the data don't fit together, or can't be learnt from: see `probe_data.check` and
        `check_learnable`.
    """
    data = probe_data.check(train_x, train_y, test_x, test_y, num_classes)
    probe_data.check_learnable(data.train_x, data.train_y)
    num_examples, d = data.train_x.shape
    x = jnp.asarray(probe_data.l2_normalize(data.train_x))
    labels = jnp.asarray(data.train_y)
    root = rngs.root(seed)
    bound = d**-0.5
    params = {
        "kernel": jax.random.uniform(
            rngs.stream(root, "adam_probe.kernel"), (d, num_classes), minval=-bound, maxval=bound
        ),
        "bias": jax.random.uniform(
            rngs.stream(root, "adam_probe.bias"), (num_classes,), minval=-bound, maxval=bound
        ),
    }
    state = _State(params, jnp.zeros((d,)), jnp.ones((d,)), optax.scale_by_adam().init(params))
    for epoch in range(num_epochs):
        rate = learning_rate * 0.5 * (1 + np.cos(np.pi * epoch / num_epochs))
        key = rngs.stream(root, "adam_probe.order", epoch)
        state = _train_epoch(state, x, labels, key, jnp.float32(rate), batch_size=batch_size)
    predicted = _predict(state, jnp.asarray(probe_data.l2_normalize(data.test_x)))
    protocol = {
        "probe": "FutureXiang/soda [R], on features that are computed once",
        "norm": "L2-normalised, then BatchNorm without parameters",
        "solver": "Adam",
        "learning_rate": learning_rate,
        "learning_rate_decay": "cosine, by epoch",
        "epochs": num_epochs,
        "batch_size": batch_size,
        "iterations": num_epochs * -(-num_examples // batch_size),
        "too_few_iterations": num_epochs * -(-num_examples // batch_size) < TOO_FEW,
        "l2": 0.0,
        "validation_examples": 0,
        "seed": seed,
        **data.sizes(),
    }
    return ProbeResult(float(np.mean(np.asarray(predicted) == data.test_y)), None, protocol)


def check_l2(l2_values: Sequence[float]) -> list[float]:
    """The L2 values as a list of floats; ValueError where there is none, or one is not above 0."""
    values = [float(value) for value in l2_values]
    if not values or min(values) <= 0:
        raise ValueError(f"l2_values must hold at least one number, all above 0, not {values}")
    return values


def strongest_best(scores: np.ndarray, l2_values: Sequence[float]) -> int:
    """The position of the best score; among equals, of the one with the largest L2."""
    return max(range(len(l2_values)), key=lambda i: (scores[i], l2_values[i]))


def _fit_and_score(x, y, score_x, score_y, l2_values, num_classes, max_iterations):
    mean, std = logistic_regression.standardization(x)
    fitted = logistic_regression.fit(
        jnp.asarray(logistic_regression.standardize(x, mean, std)),
        jnp.asarray(y),
        jnp.ones((len(y),), jnp.float32),
        jnp.asarray(l2_values, jnp.float32),
        num_classes=num_classes,
        max_iterations=max_iterations,
    )
    predicted = logistic_regression.predict(
        fitted, jnp.asarray(logistic_regression.standardize(score_x, mean, std))
    )
    return np.mean(np.asarray(predicted) == score_y[None], axis=1), fitted


class _State(NamedTuple):
    params: dict[str, Array]  # kernel [d classes], bias [classes]
    mean: Array  # [d] running
    variance: Array  # [d] running
    opt_state: optax.OptState


@partial(jax.jit, static_argnames="batch_size", donate_argnames="state")
def _train_epoch(state, x, labels, key, learning_rate, *, batch_size):
    num_examples = len(x)
    num_batches = -(-num_examples // batch_size)
    order = jax.random.permutation(key, num_examples)
    # The last batch is filled up with examples that count nothing.
    order = jnp.pad(order, (0, num_batches * batch_size - num_examples))
    counts = (jnp.arange(num_batches * batch_size) < num_examples).astype(jnp.float32)

    def train_batch(state, batch):
        indices, count = batch
        x_batch, size = x[indices], jnp.sum(count)
        mean = jnp.dot(count, x_batch, precision=_PRECISION) / size
        centred = x_batch - mean[None]
        variance = jnp.dot(count, jnp.square(centred), precision=_PRECISION) / size
        normalized = centred * jax.lax.rsqrt(variance + _BATCH_NORM_EPSILON)[None]

        def loss(params):
            losses = optax.softmax_cross_entropy_with_integer_labels(
                _logits(params, normalized), labels[indices]
            )
            return jnp.vdot(count, losses) / size

        updates, opt_state = optax.scale_by_adam().update(
            jax.grad(loss)(state.params), state.opt_state
        )
        unbiased = variance * size / jnp.maximum(size - 1, 1)
        return (
            _State(
                jax.tree.map(lambda p, u: p - learning_rate * u, state.params, updates),
                (1 - _BATCH_NORM_MOMENTUM) * state.mean + _BATCH_NORM_MOMENTUM * mean,
                (1 - _BATCH_NORM_MOMENTUM) * state.variance + _BATCH_NORM_MOMENTUM * unbiased,
                opt_state,
            ),
            None,
        )

    batches = (order.reshape(num_batches, batch_size), counts.reshape(num_batches, batch_size))
    return jax.lax.scan(train_batch, state, batches)[0]


@jax.jit
def _predict(state, x):
    normalized = (x - state.mean[None]) * jax.lax.rsqrt(state.variance + _BATCH_NORM_EPSILON)[None]
    return jnp.argmax(_logits(state.params, normalized), axis=-1)


def _logits(params, x):
    return jnp.dot(x, params["kernel"], precision=_PRECISION) + params["bias"][None]
