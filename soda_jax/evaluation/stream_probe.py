"""Linear heads on features that stream by: nothing is kept, every head learns in the same pass.

For what `linear_probe` can't hold or must not: features too many for the memory, pictures that are
augmented anew in every epoch, and grids (layer x t) whose features come out of one forward.
"""

from collections.abc import Callable, Iterable

import jax.numpy as jnp
import numpy as np

from soda_jax.array_types import Array
from soda_jax.evaluation import probe_data
from soda_jax.evaluation.probe_data import ProbeResult
from soda_jax.evaluation.stream_head import Head, count_right, init, train_step
from soda_jax.evaluation.stream_protocol import StreamProtocol

Batches = Iterable[tuple[dict[str, Array], np.ndarray]]


def stream_probe(
    batches_fn: Callable[[int], Batches],
    test_batches_fn: Callable[[], Batches],
    *,
    num_classes: int,
    protocol: StreamProtocol,
    validation_batches_fn: Callable[[], Batches] | None = None,
    steps_per_epoch: int | None = None,
    seed: int = 0,
) -> dict[str, ProbeResult]:
    """Trains one linear head for each named feature, all of them in the same passes over the data.

    Heads don't know of each other: each gets, bit by bit, what it would get alone. Nothing is
    selected here. To choose among the heads (a layer, a t) give a validation stream and take
    `best_head`, which never looks at the test set; the published grids chose on the test set.

    Args:
      batches_fn: epoch -> batches (name -> features [b d] of that name, labels [b] int); order and
        augmentation are its own, as the protocol asks. The first batch of all is the largest; a
        smaller one, such as an epoch's last, is filled up with rows that count nothing.
      test_batches_fn: -> batches of the test set, each example once.
      num_classes: labels are in [0, num_classes).
      protocol: norm, solver and schedule: one of `stream_protocol`, or an own one.
      validation_batches_fn: -> batches of a part of the training set that batches_fn leaves out.
      steps_per_epoch: batches of an epoch; needed where the learning rate changes by step.
      seed: of the initial heads; equal for all heads of one width.

    Returns:
      name -> accuracy on the test set, and on the validation stream where there is one.

    Raises:
      ValueError: a stream is empty, changes its names, shapes or length, holds NaN, a label out of
        range or a single class; steps_per_epoch is missing; a head diverged.
    """
    heads, batch_size, examples = train_heads(
        batches_fn,
        num_classes=num_classes,
        protocol=protocol,
        steps_per_epoch=steps_per_epoch,
        seed=seed,
    )
    trained = (heads, batch_size, num_classes, protocol.norm)
    accuracies, test_examples = _score(*trained, test_batches_fn(), "test")
    validation, validation_examples = {}, 0
    if validation_batches_fn is not None:
        validation, validation_examples = _score(*trained, validation_batches_fn(), "validation")
    return {
        name: ProbeResult(
            accuracies[name],
            validation.get(name),
            {
                "probe": f"{protocol.name}, on streamed features",
                **protocol.described(batch_size),
                "train_examples": examples,
                "test_examples": test_examples,
                "validation_examples": validation_examples,
                "dimensions": len(head.kernel),
                "seed": seed,
            },
        )
        for name, head in heads.items()
    }


def train_heads(
    batches_fn: Callable[[int], Batches],
    *,
    num_classes: int,
    protocol: StreamProtocol,
    steps_per_epoch: int | None = None,
    seed: int = 0,
) -> tuple[dict[str, Head], int, int]:
    """The training of `stream_probe`: name -> head, the largest batch, the examples of an epoch."""
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, but is {num_classes}")
    if protocol.schedule == "step" and (steps_per_epoch is None or steps_per_epoch < 1):
        raise ValueError(
            f"{protocol.name}: its learning rate changes by step, so steps_per_epoch must be "
            f"given and at least 1, not {steps_per_epoch}"
        )
    heads, batch_size, seen, examples = {}, 0, set(), 0
    for epoch in range(protocol.num_epochs):
        step = 0
        for features, labels in batches_fn(epoch):
            if not heads:
                batch_size = np.size(labels)
                heads = _start(features, num_classes, protocol, seed)
            features, labels, count = _checked(
                features, labels, heads, batch_size, num_classes, "training"
            )
            if epoch == 0:
                seen |= set(np.unique(labels[:count]).tolist())
                examples += count
            progress = epoch + (step / steps_per_epoch if protocol.schedule == "step" else 0)
            rate = jnp.float32(protocol.learning_rate_at(progress, batch_size))
            for name in heads:
                heads[name] = train_step(
                    heads[name], features[name], labels, count, rate, protocol=protocol
                )
            step += 1
        if step == 0:
            raise ValueError(f"the training stream of epoch {epoch} holds no batch")
        if steps_per_epoch not in (None, step):
            raise ValueError(
                f"epoch {epoch} has {step} batches, but steps_per_epoch is {steps_per_epoch}"
            )
        if epoch == 0:
            probe_data.check_classes(np.array(sorted(seen)), "the training stream")
        for name, head in heads.items():
            if not head.finite:
                raise ValueError(
                    f"the feature {name!r} holds NaN or infinity in epoch {epoch}, or its head "
                    "diverged"
                )
            if not head.varies:
                raise ValueError(f"the feature {name!r} is the same in every example")
    return heads, batch_size, examples


def best_head(results: dict[str, ProbeResult]) -> str:
    """The name with the best validation accuracy, the first of equals; test is not looked at.

    Raises:
      ValueError: there is no result, or one without a validation accuracy.
    """
    if not results:
        raise ValueError("there is no head to choose from")
    for name, result in results.items():
        if result.validation_accuracy is None:
            raise ValueError(
                f"{name!r} has no validation accuracy: give stream_probe a validation stream, as "
                "heads are not chosen on the test set"
            )
    return max(results, key=lambda name: results[name].validation_accuracy)


def _start(features, num_classes, protocol, seed):
    """The initial heads of the features of a first batch."""
    if not features:
        raise ValueError("the first batch of the training stream names no feature")
    for name, x in features.items():
        if len(np.shape(x)) != 2 or 0 in np.shape(x):
            raise ValueError(f"the feature {name!r} must be [b d], not {list(np.shape(x))}")
    return {name: init(x[0], num_classes, protocol, seed) for name, x in features.items()}


def _checked(features, labels, heads, batch_size, num_classes, stream):
    """The batch filled up to full size, and how many of its examples count."""
    if set(features) != set(heads):
        raise ValueError(
            f"a {stream} batch has the features {sorted(features)}, but the first one had "
            f"{sorted(heads)}"
        )
    labels = probe_data.check_labels(labels, num_classes, f"labels of a {stream} batch")
    count = len(labels)
    if count > batch_size:
        raise ValueError(
            f"a {stream} batch has {count} examples, but the first training batch, which must be "
            f"the largest, has {batch_size}"
        )
    filled = {}
    for name, head in heads.items():
        d = len(head.kernel)
        if np.shape(features[name]) != (count, d):
            raise ValueError(
                f"the feature {name!r} of a {stream} batch must be [{count} {d}], not "
                f"{list(np.shape(features[name]))}"
            )
        x = jnp.asarray(features[name], jnp.float32)
        filled[name] = jnp.pad(x, ((0, batch_size - count), (0, 0))) if count < batch_size else x
    return filled, np.pad(labels, (0, batch_size - count)), count


def _score(heads, batch_size, num_classes, norm, batches, stream):
    """Accuracy of each head, and the number of examples."""
    hits, finite = dict.fromkeys(heads, 0), dict.fromkeys(heads, True)
    total = 0
    for features, labels in batches:
        features, labels, count = _checked(features, labels, heads, batch_size, num_classes, stream)
        total += count
        for name, head in heads.items():
            right, sound = count_right(head, features[name], labels, count, norm=norm)
            # Left on the device: a sum that is fetched here would wait for every batch.
            hits[name], finite[name] = hits[name] + right, finite[name] & sound
    if total == 0:
        raise ValueError(f"the {stream} stream holds no batch")
    for name in heads:
        if not finite[name]:
            raise ValueError(f"the feature {name!r} holds NaN or infinity in the {stream} stream")
    return {name: int(hits[name]) / total for name in heads}, total
