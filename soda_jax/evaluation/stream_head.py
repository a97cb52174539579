"""One linear head of a stream: its state, and what a batch does to it."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from soda_jax import rngs
from soda_jax.array_types import Array
from soda_jax.evaluation.stream_protocol import StreamProtocol

_NORM_MOMENTUM = 0.1  # of the running statistics: PyTorch's default [R]
_NORM_EPSILON = 1e-6  # [R]
_TRUST = 0.001  # of LARS [R]
_PRECISION = jax.lax.Precision.HIGHEST


class Head(NamedTuple):
    """One linear head and what its training carries.

    Attributes:
      kernel, bias: [d classes], [classes].
      mean, variance: [d], the running statistics of its BatchNorm.
      opt_state: Adam's, or the momentum of SGD and LARS.
      first: [d], the features of the first example of all.
      varies: [] bool, whether any example differed from it.
      finite: [] bool, whether all features and parameters were finite.
    """

    kernel: Array
    bias: Array
    mean: Array
    variance: Array
    opt_state: optax.OptState
    first: Array
    varies: Array
    finite: Array


def _solver(protocol):
    if protocol.optimizer == "adam":
        return optax.scale_by_adam()
    return optax.trace(protocol.momentum)


def init(first: Array, num_classes: int, protocol: StreamProtocol, seed: int) -> Head:
    """A new head for features of which `first` [d] is an example; equal for equal d and seed."""
    d = len(first)
    key = rngs.stream(rngs.root(seed), "stream_probe.init")
    if protocol.init == "uniform":
        both = jax.random.uniform(key, (d + 1, num_classes), minval=-(d**-0.5), maxval=d**-0.5)
        kernel, bias = both[:-1], both[-1]
    else:
        kernel = 0.01 * jax.random.normal(key, (d, num_classes))
        bias = jnp.zeros((num_classes,))
    opt_state = _solver(protocol).init((kernel, bias))
    return Head(
        kernel=kernel,
        bias=bias,
        mean=jnp.zeros((d,)),
        variance=jnp.ones((d,)),
        opt_state=opt_state,
        first=jnp.array(first, jnp.float32),
        varies=jnp.array(False),
        finite=jnp.array(True),
    )


# One program for every head of a width: a head can't depend on which others are there.
@partial(jax.jit, static_argnames="protocol", donate_argnames="head")
def train_step(
    head: Head, x: Array, labels: Array, count: int, rate: Array, *, protocol: StreamProtocol
) -> Head:
    """The head after a batch x [b d], labels [b], of which the first `count` rows count."""
    weights = (jnp.arange(len(x)) < count).astype(jnp.float32)
    size = count.astype(jnp.float32)
    # As in `probe_data.check_learnable`: by more than the rounding of its numbers.
    differs = jnp.abs(x - head.first[None]) > 1e-6 * jnp.abs(head.first)[None]
    varies = head.varies | jnp.any((weights[:, None] > 0) & differs)
    if protocol.norm == "l2_batch":
        x = _unit_rows(x)
    mean, variance = head.mean, head.variance
    if protocol.norm != "none":
        batch_mean = jnp.sum(weights[:, None] * x, axis=0) / size
        centred = x - batch_mean[None]
        batch_variance = jnp.sum(weights[:, None] * jnp.square(centred), axis=0) / size
        x = centred * jax.lax.rsqrt(batch_variance + _NORM_EPSILON)[None]
        unbiased = batch_variance * size / jnp.maximum(size - 1, 1)
        mean = (1 - _NORM_MOMENTUM) * mean + _NORM_MOMENTUM * batch_mean
        variance = (1 - _NORM_MOMENTUM) * variance + _NORM_MOMENTUM * unbiased

    def loss(params):
        losses = optax.softmax_cross_entropy_with_integer_labels(_logits(params, x), labels)
        return jnp.sum(weights * losses) / size

    params = (head.kernel, head.bias)
    gradient = jax.grad(loss)(params)
    gradient = (gradient[0] + protocol.weight_decay * head.kernel, gradient[1])
    if protocol.optimizer == "lars":
        # The bias is left as it is, like every parameter of one axis.
        gradient = (gradient[0] * _trust_ratio(head.kernel, gradient[0]), gradient[1])
    updates, opt_state = _solver(protocol).update(gradient, head.opt_state)
    kernel, bias = jax.tree.map(lambda leaf, update: leaf - rate * update, params, updates)
    finite = head.finite & jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(kernel))
    return Head(kernel, bias, mean, variance, opt_state, head.first, varies, finite)


@partial(jax.jit, static_argnames="norm")
def count_right(
    head: Head, x: Array, labels: Array, count: int, *, norm: str
) -> tuple[Array, Array]:
    """How many of the first `count` rows are classified rightly, and whether all is finite."""
    if norm == "l2_batch":
        x = _unit_rows(x)
    if norm != "none":
        x = (x - head.mean[None]) * jax.lax.rsqrt(head.variance + _NORM_EPSILON)[None]
    right = jnp.argmax(_logits((head.kernel, head.bias), x), axis=-1) == labels
    return jnp.sum(right & (jnp.arange(len(x)) < count)), jnp.all(jnp.isfinite(x))


def _trust_ratio(kernel, gradient):
    """LARS (You et al. 2017, eq. 6): the step is a share of the kernel's own length."""
    length, slope = jnp.linalg.norm(kernel), jnp.linalg.norm(gradient)
    usable = (length > 0) & (slope > 0)
    return jnp.where(usable, _TRUST * length / jnp.where(usable, slope, 1.0), 1.0)


def _unit_rows(x):
    return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _logits(params, x):
    return jnp.dot(x, params[0], precision=_PRECISION) + params[1][None]
