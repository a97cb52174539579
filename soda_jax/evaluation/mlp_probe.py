"""A small network on fixed features: what of the label they hold, but not in linear form."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from soda_jax import rngs
from soda_jax.array_types import Array
from soda_jax.evaluation import probe_data
from soda_jax.evaluation.logistic_regression import standardization, standardize
from soda_jax.evaluation.probe_data import ProbeResult

WEIGHT_DECAYS = (1e-2, 1e-1, 1.0, 10.0)  # [D]
_PRECISION = jax.lax.Precision.HIGHEST
_ROWS = 4096  # that are classified at a time


class Network(NamedTuple):
    """Networks of one hidden layer (ReLU), one for each weight decay (w).

    Attributes:
      kernel0, bias0: [w d h], [w h].
      kernel1, bias1: [w h classes], [w classes].
    """

    kernel0: Array
    bias0: Array
    kernel1: Array
    bias1: Array


def mlp_probe(
    train_x,
    train_y,
    test_x,
    test_y,
    *,
    num_classes: int,
    validation_fraction: float = 0.1,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    hidden: int = 256,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
    num_steps: int = 3000,
    seed: int = 0,
) -> ProbeResult:
    """One hidden layer by AdamW; the weight decay is chosen on held-out training data.

    As in `linear_probe`: features are standardised by the part that is fitted, all weight decays
    are fitted side by side without the validation part (stratified), and the one with the best
    accuracy there (the strongest of equals) is fitted again on all training data. All of them start
    from the same weights and see the same batches. Everything here is ours [D].

    Args:
      train_x, train_y, test_x, test_y: features [n d] of any number type, labels [n] int.
      num_classes: labels are in [0, num_classes).
      validation_fraction: share of the training set that chooses the weight decay.
      weight_decays: of AdamW, on kernels alone: a kernel shrinks by learning rate * decay a step.
      hidden: width h of the hidden layer.
      learning_rate: at the first step; it falls to 0 by a cosine.
      batch_size: cut to the number of examples. The rest of an epoch (less than a batch, other
        examples each time) is left out.
      num_steps: of training, rounded up to whole epochs, so that few examples are seen often.
      seed: of the split, the initial weights and the order.

    Raises:
      ValueError: the data don't fit together, can't be learnt from (see `probe_data.check` and
        `check_learnable`), or a setting is out of range.
    """
    data = probe_data.check(train_x, train_y, test_x, test_y, num_classes)
    probe_data.check_learnable(data.train_x, data.train_y)
    weight_decays = [float(value) for value in weight_decays]
    if not weight_decays or not min(weight_decays) >= 0:
        raise ValueError(
            f"weight_decays must hold at least one number, none below 0, not {weight_decays}"
        )
    for name, value in (("hidden", hidden), ("batch_size", batch_size), ("num_steps", num_steps)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, but is {value}")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be above 0, but is {learning_rate}")

    settings = dict(
        num_classes=num_classes,
        hidden=hidden,
        learning_rate=learning_rate,
        batch_size=batch_size,
        num_steps=num_steps,
        seed=seed,
    )
    protocol = {
        "probe": "one hidden layer (ReLU)",
        "norm": "standardised, by the mean and deviation of the fitted part",
        "solver": "AdamW",
        "learning_rate_decay": "cosine to 0, by step",
        "weight_decays": weight_decays,
        **settings,
        **data.sizes(),
    }
    chosen, validation_accuracy = weight_decays[0], None
    if len(weight_decays) > 1:
        fit_on, validate_on = probe_data.stratified_split(data.train_y, validation_fraction, seed)
        held_out = (data.train_x[validate_on], data.train_y[validate_on])
        scores, _ = _fit_and_score(
            data.train_x[fit_on], data.train_y[fit_on], *held_out, weight_decays, settings
        )
        best = max(range(len(scores)), key=lambda i: (scores[i], weight_decays[i]))
        chosen, validation_accuracy = weight_decays[best], float(scores[best])
        protocol |= {
            "weight_decay_chosen_by": "accuracy on a stratified part of the training set",
            "weight_decay_on_edge_of_grid": chosen in (min(weight_decays), max(weight_decays)),
            "validation_accuracies": [float(score) for score in scores],
            "validation_fraction": validation_fraction,
            "fit_examples": len(fit_on),
            "validation_examples": len(validate_on),
        }
    else:
        protocol |= {"weight_decay_chosen_by": "given", "validation_examples": 0}
    scores, plan = _fit_and_score(*data, [chosen], settings)
    protocol |= {"weight_decay": chosen, **plan}
    return ProbeResult(float(scores[0]), validation_accuracy, protocol)


def fit(
    x: np.ndarray,
    labels: np.ndarray,
    weight_decays: Sequence[float],
    *,
    num_classes: int,
    hidden: int,
    learning_rate: float,
    batch_size: int,
    num_steps: int,
    seed: int,
) -> tuple[Network, dict[str, int]]:
    """Trains a network for each weight decay on standardised features x [n d], labels [n].

    Returns:
      The networks, and what was done: batch size, epochs and steps.
    """
    size = min(batch_size, len(x))
    num_epochs = -(-num_steps // (len(x) // size))
    plan = {
        "batch_size": size,
        "epochs": num_epochs,
        "iterations": num_epochs * (len(x) // size),
    }
    networks = _train(
        jnp.asarray(x, jnp.float32),
        jnp.asarray(labels),
        jnp.asarray(weight_decays, jnp.float32),
        rngs.root(seed),
        jnp.float32(learning_rate),
        num_classes=num_classes,
        hidden=hidden,
        batch_size=size,
        num_epochs=num_epochs,
    )
    if not all(np.isfinite(leaf).all() for leaf in networks):
        raise ValueError(f"the network diverged: learning_rate={learning_rate} is too large")
    return networks, plan


def predict(networks: Network, x: np.ndarray) -> np.ndarray:
    """The most probable class of standardised features [n d] under each network: [w n] int32."""
    blocks = [x[start : start + _ROWS] for start in range(0, len(x), _ROWS)]
    return np.concatenate([_predict(networks, jnp.asarray(block)) for block in blocks], axis=1)


def _fit_and_score(x, y, score_x, score_y, weight_decays, settings):
    mean, std = standardization(x)
    networks, plan = fit(standardize(x, mean, std), y, weight_decays, **settings)
    predicted = predict(networks, standardize(score_x, mean, std))
    return np.mean(predicted == score_y[None], axis=1), plan


@partial(jax.jit, static_argnames=("num_classes", "hidden", "batch_size", "num_epochs"))
def _train(
    x, labels, weight_decays, root, rate, *, num_classes, hidden, batch_size, num_epochs
) -> Network:
    """Networks [w ...]: all weight decays in one run, in every batch side by side."""
    n, d = x.shape
    batches = n // batch_size
    kernel_init = jax.nn.initializers.he_normal()
    first = Network(
        kernel_init(rngs.stream(root, "mlp_probe.kernel0"), (d, hidden)),
        jnp.zeros((hidden,)),
        kernel_init(rngs.stream(root, "mlp_probe.kernel1"), (hidden, num_classes)),
        jnp.zeros((num_classes,)),
    )
    adam = optax.scale_by_adam()

    def loss(network, index):
        logits = _logits(network, x[index])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels[index]))

    def update(network, opt_state, decay, index, rate):
        gradient = jax.grad(loss)(network, index)
        updates, opt_state = adam.update(gradient, opt_state)

        def move(leaf, change):
            return leaf - rate * (change + (decay * leaf if leaf.ndim > 1 else 0.0))

        return jax.tree.map(move, network, updates), opt_state

    def train_batch(carry, inputs):
        index, step = inputs
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * step / (num_epochs * batches)))
        update_all = jax.vmap(update, in_axes=(0, 0, 0, None, None))
        return update_all(*carry, weight_decays, index, rate * cosine), None

    def train_epoch(carry, epoch):
        order = jax.random.permutation(rngs.stream(root, "mlp_probe.order", epoch), n)
        order = order[: batches * batch_size].reshape(batches, batch_size)
        return jax.lax.scan(train_batch, carry, (order, epoch * batches + jnp.arange(batches)))

    networks, opt_states = jax.vmap(lambda _: (first, adam.init(first)))(weight_decays)
    return jax.lax.scan(train_epoch, (networks, opt_states), jnp.arange(num_epochs))[0][0]


@jax.jit
def _predict(networks, x):
    logits = jax.vmap(_logits, in_axes=(0, None))(networks, x)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def _logits(network, x):
    h = jnp.dot(x, network.kernel0, precision=_PRECISION) + network.bias0[None]
    return jnp.dot(jax.nn.relu(h), network.kernel1, precision=_PRECISION) + network.bias1[None]
