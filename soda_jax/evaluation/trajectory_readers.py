"""Readers of a code that depends on time, z(0), z(1 / g), ..., z(1): one for each t, and of all.

A recurrent network and a Transformer, whose one block is applied twice, read the whole curve
(Mittal et al. 2022, arXiv 2210.13774 [R]). Their rate is chosen on a held-out part of the training
set, and so is the epoch that is judged.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from soda_jax import rngs
from soda_jax.array_types import Array
from soda_jax.evaluation import probe_data
from soda_jax.evaluation.logistic_regression import standardization, standardize
from soda_jax.evaluation.probe_data import ProbeResult

RATES = (1e-3, 7.5e-4, 5e-4, 2.5e-4, 1e-4, 5e-5)  # [R]
WEIGHT_DECAY = 1e-5  # [R]
DROPOUT = 0.25  # [R]
_ROWS = 2048  # that are classified at a time


class Recurrent(nn.Module):
    """A GRU of 256 units over [b s d], read at its end: logits [b c] [R]."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        cell = nn.GRUCell(256, name="cell")
        drop = nn.Dropout(DROPOUT, deterministic=not train)
        state = jnp.zeros((len(x), 256))
        for step in range(x.shape[1]):
            state = drop(cell(state, x[:, step])[0])
        return nn.Dense(self.num_classes, name="head")(state)


class Transformer(nn.Module):
    """One block of 4 heads and 256 channels, applied twice to [b s d]: logits [b c] [R].

    A token that is learned and has no position stands at the end, and is read. Norms come after the
    sums.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        b, s, _ = x.shape
        drop = nn.Dropout(DROPOUT, deterministic=not train)
        x = drop(nn.Dense(256, name="embed")(x)) + positions(s, 256)[None]
        token = self.param("token", nn.initializers.xavier_uniform(), (1, 256))
        x = jnp.concatenate([x, jnp.broadcast_to(token[None], (b, 1, 256))], axis=1)
        attention = nn.MultiHeadDotProductAttention(4, name="attention")
        norm0, norm1 = nn.LayerNorm(name="norm0"), nn.LayerNorm(name="norm1")
        wide, narrow = nn.Dense(512, name="wide"), nn.Dense(256, name="narrow")
        for _ in range(2):
            x = norm0(x + attention(x))
            x = norm1(x + drop(narrow(nn.relu(drop(wide(x))))))
        return nn.Dense(self.num_classes, name="head")(x[:, -1])


class OneTime(nn.Module):
    """A hidden layer of 512 on the one code of [b 1 d]: logits [b c] [R]."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        h = nn.relu(nn.Dense(512, name="hidden")(x[:, 0]))
        h = nn.Dropout(DROPOUT, deterministic=not train)(h)
        return nn.Dense(self.num_classes, name="head")(h)


CLIP_NORM = {"one time": float("inf"), "recurrent": 1.0, "transformer": 1.0}  # [R]
READERS = {"one time": OneTime, "recurrent": Recurrent, "transformer": Transformer}


def positions(count: int, channels: int) -> Array:
    """Sines (even channels) and cosines (odd ones) of the index: [count channels]."""
    rate = 10_000.0 ** (-jnp.arange(0, channels, 2) / channels)
    angle = jnp.arange(count)[:, None] * rate[None]
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(count, channels)


def read_curve(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    reader: str,
    num_classes: int,
    num_epochs: int = 100,
    batch_size: int = 256,
    rates: Sequence[float] = RATES,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> ProbeResult:
    """Trains a reader on curves [n s d]; rate and epoch are the best on held-out training curves.

    Adam with weight decay, gradients of the two that read curves clipped at 1 [R]; codes are
    standardised, over all times together [D].

    Args:
      reader: of READERS; "one time" needs s = 1.

    Raises:
      ValueError: an unknown reader, curves of other shapes, or data that can't be learnt from.
    """
    if reader not in READERS:
        raise ValueError(f"no reader {reader!r}; there is: {', '.join(READERS)}")
    if train_x.ndim != 3 or train_x.shape[1:] != test_x.shape[1:]:
        raise ValueError(f"curves must be [n s d] alike, not {train_x.shape} and {test_x.shape}")
    if reader == "one time" and train_x.shape[1] != 1:
        raise ValueError(f"'one time' reads one code, not {train_x.shape[1]}")
    shape = train_x.shape[1:]
    data = probe_data.check(
        train_x.reshape(len(train_x), -1),
        train_y,
        test_x.reshape(len(test_x), -1),
        test_y,
        num_classes,
    )
    probe_data.check_learnable(data.train_x, data.train_y)
    fit_on, held_out = probe_data.stratified_split(data.train_y, validation_fraction, seed)
    curves = data.train_x.reshape(-1, *shape)
    mean, std = standardization(curves[fit_on].reshape(-1, shape[1]))
    train, test = (
        standardize(x.reshape(-1, shape[1]), mean, std).reshape(-1, *shape)
        for x in (data.train_x, data.test_x)
    )
    labels = np.asarray(data.train_y, np.int32)
    size = min(batch_size, len(fit_on))
    found = []
    for rate in rates:
        params, accuracy, epoch = _train(
            READERS[reader](num_classes),
            jnp.asarray(train[fit_on]),
            jnp.asarray(labels[fit_on]),
            jnp.asarray(train[held_out]),
            jnp.asarray(labels[held_out]),
            jnp.float32(rate),
            rngs.root(seed),
            clip_norm=CLIP_NORM[reader],
            batch_size=size,
            num_epochs=num_epochs,
        )
        found.append((float(accuracy), rate, int(epoch), params))
    validation_accuracy, rate, epoch, params = max(found, key=lambda x: x[0])
    predicted = np.concatenate(
        [
            np.asarray(_predict(READERS[reader](num_classes), params, jnp.asarray(part)))
            for part in np.array_split(test, -(-len(test) // _ROWS))
        ]
    )
    protocol: dict[str, Any] = {
        "probe": f"{reader} reader",
        "times": shape[0],
        "norm": "standardised, by the mean and deviation of the fitted part, over all times",
        "solver": "Adam",
        "weight_decay": WEIGHT_DECAY,
        "clip_norm": CLIP_NORM[reader],
        "batch_size": size,
        "num_epochs": num_epochs,
        "learning_rate": rate,
        "learning_rates": list(rates),
        "epoch": epoch + 1,
        "chosen_by": "accuracy on a stratified part of the training set: rate, and epoch",
        "validation_accuracies": [x[0] for x in found],
        "validation_fraction": validation_fraction,
        "seed": seed,
        **data.sizes(),
    }
    return ProbeResult(float(np.mean(predicted == data.test_y)), validation_accuracy, protocol)


@partial(jax.jit, static_argnames=("model", "clip_norm", "batch_size", "num_epochs"))
def _train(model, x, y, held_x, held_y, rate, root, *, clip_norm, batch_size, num_epochs):
    """The parameters of the epoch that is best on the held-out part, its accuracy, its number."""
    params = model.init(rngs.stream(root, "reader"), x[:1], False)["params"]
    # The weight decay is Adam's own, an L2 of the loss [R].
    tx = optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.add_decayed_weights(WEIGHT_DECAY),
        optax.scale_by_adam(),
        optax.scale(-1.0),
    )
    batches = len(x) // batch_size

    def loss(params, index, key):
        logits = model.apply({"params": params}, x[index], True, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[index]).mean()

    def train_batch(carry, inputs):
        params, opt_state = carry
        index, key = inputs
        updates, opt_state = tx.update(jax.grad(loss)(params, index, key), opt_state, params)
        params = jax.tree.map(lambda leaf, change: leaf + rate * change, params, updates)
        return (params, opt_state), None

    def train_epoch(carry, epoch):
        params, opt_state, best, best_accuracy, best_epoch = carry
        key = rngs.stream(root, "reader.epoch", epoch)
        order = jax.random.permutation(key, len(x))[: batches * batch_size]
        keys = jax.random.split(rngs.stream(key, "dropout"), batches)
        (params, opt_state), _ = jax.lax.scan(
            train_batch, (params, opt_state), (order.reshape(batches, batch_size), keys)
        )
        accuracy = jnp.mean(_logits(model, params, held_x).argmax(-1) == held_y)
        better = accuracy > best_accuracy
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), params, best)
        best_epoch = jnp.where(better, epoch, best_epoch)
        return (params, opt_state, best, jnp.maximum(accuracy, best_accuracy), best_epoch), None

    start = (params, tx.init(params), params, jnp.float32(-1), 0)
    (_, _, best, accuracy, epoch), _ = jax.lax.scan(train_epoch, start, jnp.arange(num_epochs))
    return best, accuracy, epoch


@partial(jax.jit, static_argnames="model")
def _predict(model, params, x):
    return _logits(model, params, x).argmax(-1)


def _logits(model, params, x):
    return model.apply({"params": params}, x, False)
