"""A classifier of noisy pictures: a small head on a denoiser's features at any t (DDAE)."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from soda_jax import rngs
from soda_jax.array_types import Array
from soda_jax.evaluation import probe_data

# (images uint8 [b h w c], t [b], key) -> features [b d]
FeaturesFn = Callable[[Array, Array, Array], Array]


class NoisyHead(nn.Module):
    """features [b d] and t [b] -> logits [b c]: t is added, then one hidden layer of 2d [R].

    t as d/4 sinusoids under two layers of their own, whose size thus fits the features'.
    """

    num_classes: int

    @nn.compact
    def __call__(self, features: Array, t: Array) -> Array:
        d = features.shape[-1]
        half = max(d // 8, 4)
        rate = 10_000.0 ** (-jnp.arange(half) / max(half - 1, 1))
        angle = 1000 * t[:, None] * rate[None]
        encoded = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
        encoded = nn.Dense(d, name="time1")(nn.silu(nn.Dense(d, name="time0")(encoded)))
        h = nn.silu(nn.Dense(2 * d, name="hidden")(features + encoded))
        return nn.Dense(self.num_classes, name="head")(h)


def noisy_classifier(
    features_fn: FeaturesFn,
    images_fn: Callable[[np.ndarray], np.ndarray],
    labels: np.ndarray,
    test_fn: Callable[[np.ndarray], np.ndarray],
    test_labels: np.ndarray,
    *,
    num_classes: int,
    t_min: float,
    ts: Sequence[float],
    num_epochs: int = 15,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> dict[str, Any]:
    """Trains a head under a random t for each picture and pass; scores it at each of ts.

    After Xiang et al. 2023 (DDAE, arXiv 2303.09769): Adam, a cosine by epoch, 15 epochs of batches
    of 128, t as a number up to 1000 [R: of DDPM's noise; for any other the law of t and how it is
    told are ours, D]. The network below is left as it is. Nothing is selected.

    Args:
      features_fn: jitted: the frozen features of pictures that are noised to t.
      images_fn, test_fn: positions [b] -> uint8 [b h w c].
      t_min: t is uniform in [t_min, 1].

    Returns:
      "ts" and "accuracies", [s] each, and the protocol.

    Raises:
      ValueError: labels out of range or of one class.
    """
    labels = probe_data.check_labels(labels, num_classes, "labels")
    test_labels = probe_data.check_labels(test_labels, num_classes, "test_labels")
    probe_data.check_classes(labels)
    head, root = NoisyHead(num_classes), rngs.root(seed)
    size = min(batch_size, len(labels))
    tx = optax.scale_by_adam()

    @jax.jit
    def step(params, opt_state, features, t, target, rate):
        def loss(params):
            logits = head.apply({"params": params}, features, t)
            return optax.softmax_cross_entropy_with_integer_labels(logits, target).mean()

        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state)
        return jax.tree.map(lambda p, u: p - rate * u, params, updates), opt_state

    predict = jax.jit(lambda params, x, t: head.apply({"params": params}, x, t).argmax(-1))
    params = opt_state = None
    for epoch in range(num_epochs):
        rate = learning_rate * 0.5 * (1 + np.cos(np.pi * epoch / num_epochs))
        order = probe_data.shuffled(np.arange(len(labels)), seed, epoch)
        for index, start in enumerate(range(0, len(order) - size + 1, size)):
            rows = order[start : start + size]
            key = rngs.stream(rngs.stream(root, "noisy_head", epoch), "batch", index)
            t = jax.random.uniform(key, (size,), minval=t_min)
            features = features_fn(jnp.asarray(images_fn(rows)), t, rngs.stream(key, "noise"))
            if params is None:
                params = head.init(rngs.stream(root, "noisy_head.init"), features, t)["params"]
                opt_state = tx.init(params)
            target = jnp.asarray(labels[rows])
            params, opt_state = step(params, opt_state, features, t, target, rate)
    accuracies = []
    for t in ts:
        right = 0
        for start in range(0, len(test_labels), size):
            rows = np.arange(start, start + size).clip(max=len(test_labels) - 1)
            key, at = rngs.stream(root, "noisy_head.test", start), jnp.full((size,), t)
            features = features_fn(jnp.asarray(test_fn(rows)), at, key)
            found = np.asarray(predict(params, features, at))
            right += int(np.sum((found == test_labels[rows])[: len(test_labels) - start]))
        accuracies.append(right / len(test_labels))
    protocol = {
        "probe": "noisy classifier: one hidden layer on a frozen block at any t",
        "solver": "Adam",
        "learning_rate": learning_rate,
        "learning_rate_decay": "cosine, by epoch",
        "epochs": num_epochs,
        "batch_size": size,
        "pictures": "not augmented; fresh noise and t at every pass",
        "train_examples": len(labels),
        "test_examples": len(test_labels),
        "dimensions": int(features.shape[-1]),
        "seed": seed,
        "source": "Xiang et al. 2023; FutureXiang/ddae [R]",
    }
    return {"ts": list(ts), "accuracies": accuracies, "protocol": protocol}
