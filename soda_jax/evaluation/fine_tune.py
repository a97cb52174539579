"""Fine-tuning: the encoder itself goes on learning, under a linear head, from labels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from soda_jax import rngs
from soda_jax.array_types import Array, PyTree
from soda_jax.evaluation import probe_data
from soda_jax.evaluation.probe_data import ProbeResult

_PRECISION = jax.lax.Precision.HIGHEST


class FineTuned(NamedTuple):
    """A classifier made of an encoder.

    Attributes:
      result: accuracy on the test set, and on the validation part, at the chosen epoch.
      variables: the tree that was given, at that epoch.
      head: {"kernel": [d classes], "bias": [classes]}.
    """

    result: ProbeResult
    variables: PyTree
    head: dict[str, Array]


def fine_tune(
    apply_fn: Callable[[PyTree, Array, bool], tuple[Array, PyTree]],
    variables: PyTree,
    train_fn: Callable[[np.ndarray], np.ndarray],
    train_y,
    test_fn: Callable[[np.ndarray], np.ndarray],
    test_y,
    *,
    num_classes: int,
    augment_fn: Callable[[Array, Array], Array] | None = None,
    validation_fraction: float = 0.1,
    num_epochs: int = 20,
    warmup_epochs: int = 2,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    seed: int = 0,
    shard: Callable[[np.ndarray], Array] | None = None,
) -> FineTuned:
    """Trains encoder and head by AdamW; the best epoch is chosen on held-out training data.

    One learning rate for all layers: linear warm-up, then a cosine to 0, by step. Cross-entropy
    without label smoothing. The head starts at zero, so the encoder first moves when the head has a
    direction. After each epoch the validation part (stratified, never trained on) is scored; the
    weights of its best epoch (the first of equals) are scored once on the test set. The result
    depends on the arguments alone. Defaults are ours [D].

    For the encoder of this house, whose denoiser has no part in it:

        def apply_fn(variables, images, train):
            z, new = model.apply(
                variables, plain(images, view), train, method="encode", mutable=["batch_stats"]
            )
            return z, new.get("batch_stats", {})

    with variables {"params": {"encoder": ...}, "batch_stats": ...}: give only the parameters that
    apply_fn uses, as weight decay would shrink the others.

    Args:
      apply_fn: (variables, images, train) -> (features [b d], new batch_stats), pure; traced with
        train True and False. Evaluation must not depend on the batch.
      variables: {"params": ..., "batch_stats": ..., ...}; batch_stats may be missing, any further
        collection stays as it is.
      train_fn, test_fn: positions [b] int64 -> pictures [b h w c], as apply_fn takes them.
      train_y, test_y: labels [n] int of all positions.
      num_classes: labels are in [0, num_classes).
      augment_fn: (key, images) -> images of training batches, jitted with the step; None: nothing.
      validation_fraction: share of the training set that chooses the epoch.
      num_epochs, warmup_epochs: of the schedule.
      batch_size: cut to the examples that are fitted. The rest of an epoch (less than a batch,
        other examples each time) is left out, so that BatchNorm sees full batches.
      learning_rate: the peak.
      weight_decay: of AdamW, on parameters of two axes or more.
      seed: of the split, the order and the augmentation.
      shard: places a batch on the devices; the default device where None.

    Raises:
      ValueError: labels are empty, out of range or of a single class; a setting is out of range;
        the features are not [b d]; a loss or a test feature is NaN or infinite.
    """
    train_y = probe_data.check_labels(train_y, num_classes, "train_y")
    test_y = probe_data.check_labels(test_y, num_classes, "test_y")
    probe_data.check_classes(train_y)
    if "params" not in variables:
        raise ValueError(f'variables must hold "params", but hold {sorted(variables)}')
    if batch_size < 1 or not 0 <= warmup_epochs < num_epochs:
        raise ValueError(
            f"batch_size={batch_size} must be at least 1, and warmup_epochs={warmup_epochs} at "
            f"least 0 and below num_epochs={num_epochs}"
        )
    if not (learning_rate > 0 and weight_decay >= 0):
        raise ValueError(
            f"learning_rate must be above 0 and weight_decay at least 0, but they are "
            f"{learning_rate} and {weight_decay}"
        )
    fit_on, validate_on = probe_data.stratified_split(train_y, validation_fraction, seed)
    probe_data.check_classes(train_y[fit_on])
    size = min(batch_size, len(fit_on))
    steps = len(fit_on) // size
    schedule = optax.warmup_cosine_decay_schedule(
        0.0 if warmup_epochs else learning_rate,
        learning_rate,
        warmup_epochs * steps,
        num_epochs * steps,
    )
    tx = optax.adamw(
        schedule,
        weight_decay=weight_decay,
        mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
    )
    place = jax.device_put if shard is None else shard
    step_fn = _train_step(apply_fn, augment_fn, tx)
    classify = _classifier(apply_fn)

    def predict(state, images_fn, positions):
        predicted = []
        for start in range(0, len(positions), size):
            rows = positions[start : start + size]
            # Filled up with its last picture, so that there is one compilation.
            filled = np.pad(rows, (0, size - len(rows)), mode="edge")
            labels, finite = classify(state, place(_pictures(images_fn, filled)))
            if not finite:
                raise ValueError("a feature that is to be classified is NaN or infinite")
            predicted.append(np.asarray(labels)[: len(rows)])
        return np.concatenate(predicted)

    state = _init(apply_fn, variables, train_fn, fit_on[:1], num_classes, tx)
    root = rngs.root(seed)
    best, best_epoch, scores = state, None, []
    for epoch in range(num_epochs):
        order = probe_data.shuffled(fit_on, seed, 1, epoch)[: steps * size]
        losses = []
        for index, rows in enumerate(order.reshape(steps, size)):
            key = rngs.stream(root, "fine_tune.augment", epoch * steps + index)
            images = place(_pictures(train_fn, rows))
            state, loss = step_fn(state, images, place(train_y[rows]), key)
            losses.append(loss)
        if not np.isfinite(np.asarray(jax.device_get(losses))).all():
            raise ValueError(
                f"the loss is NaN or infinite in epoch {epoch}: the pictures hold such a value, or "
                f"learning_rate={learning_rate} is too large"
            )
        score = float(np.mean(predict(state, train_fn, validate_on) == train_y[validate_on]))
        if best_epoch is None or score > max(scores):
            best, best_epoch = state, epoch
        scores.append(score)
    predicted = predict(best, test_fn, np.arange(len(test_y), dtype=np.int64))
    protocol = {
        "probe": "fine-tuning of the network under a linear head",
        "norm": "none",
        "augmentation": "none" if augment_fn is None else "in training, given by the caller",
        "solver": "AdamW",
        "learning_rate": learning_rate,
        "learning_rate_decay": "linear warm-up, cosine to 0, by step",
        "weight_decay": weight_decay,
        "label_smoothing": 0.0,
        "epochs": num_epochs,
        "warmup_epochs": warmup_epochs,
        "batch_size": size,
        "iterations": num_epochs * steps,
        "epoch_chosen": best_epoch + 1,
        "epoch_chosen_by": "accuracy on a stratified part of the training set",
        "validation_accuracies": scores,
        "validation_fraction": validation_fraction,
        "fit_examples": len(fit_on),
        "validation_examples": len(validate_on),
        "train_examples": len(train_y),
        "test_examples": len(test_y),
        "dimensions": len(best.params["head"]["kernel"]),
        "seed": seed,
    }
    result = ProbeResult(float(np.mean(predicted == test_y)), scores[best_epoch], protocol)
    return FineTuned(result, _variables(best), best.params["head"])


class _State(NamedTuple):
    params: dict[str, Any]  # {"encoder": the given params, "head": kernel and bias}
    others: dict[str, Any]  # the other collections, batch_stats among them
    opt_state: optax.OptState


def _variables(state):
    return {"params": state.params["encoder"], **state.others}


def _init(apply_fn, variables, images_fn, position, num_classes, tx):
    image = jnp.asarray(_pictures(images_fn, position))
    shape = jax.eval_shape(lambda tree, x: apply_fn(tree, x, False), variables, image)[0].shape
    if len(shape) != 2 or shape[0] != 1:
        raise ValueError(f"apply_fn must give features [b d], but of one picture gives {shape}")
    head = {"kernel": jnp.zeros((shape[1], num_classes)), "bias": jnp.zeros((num_classes,))}
    params = {"encoder": jax.tree.map(jnp.asarray, variables["params"]), "head": head}
    others = {name: tree for name, tree in variables.items() if name != "params"}
    return _State(params, others, tx.init(params))


def _train_step(apply_fn, augment_fn, tx):
    def loss_fn(params, others, images, labels):
        features, batch_stats = apply_fn({"params": params["encoder"], **others}, images, True)
        logits = _logits(params["head"], features)
        loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        return loss, batch_stats

    @jax.jit
    def step(state, images, labels, key):
        if augment_fn is not None:
            images = augment_fn(key, images)
        (loss, batch_stats), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.others, images, labels
        )
        updates, opt_state = tx.update(gradient, state.opt_state, state.params)
        others = state.others
        if "batch_stats" in others:
            others = {**others, "batch_stats": batch_stats}
        return _State(optax.apply_updates(state.params, updates), others, opt_state), loss

    return step


def _classifier(apply_fn):
    @jax.jit
    def classify(state, images):
        features, _ = apply_fn(_variables(state), images, False)
        labels = jnp.argmax(_logits(state.params["head"], features), axis=-1)
        return labels, jnp.all(jnp.isfinite(features))

    return classify


def _logits(head, features):
    features = features.astype(jnp.float32)
    return jnp.dot(features, head["kernel"], precision=_PRECISION) + head["bias"][None]


def _pictures(images_fn, positions):
    images = images_fn(positions)
    if len(images) != len(positions):
        raise ValueError(f"{len(images)} pictures were given for {len(positions)} positions")
    return images
