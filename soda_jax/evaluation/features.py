"""Pictures to features: one pass over a split, each picture once, in order."""

from collections.abc import Callable

import jax
import numpy as np

from soda_jax.array_types import Array, PyTree


def extract(
    encode_fn: Callable[[PyTree], dict[str, Array]],
    images_fn: Callable[[np.ndarray], PyTree],
    num_examples: int,
    batch_size: int,
    shard: Callable[[np.ndarray], Array] = jax.device_put,
) -> dict[str, np.ndarray]:
    """The features of pictures 0 to num_examples - 1.

    Every batch has batch_size pictures, so encode_fn is compiled once: the last one is filled up
    with copies of its last picture, whose features are dropped. A batch is sent before the features
    of the one before it are fetched, so the device doesn't wait for the host.

    Args:
      encode_fn: jitted, with its parameters bound: uint8 [b h w c] -> name -> [b d]. A picture's
        features must not depend on its batch (running statistics, not the batch's).
      images_fn: positions [b] int64 -> uint8 [b h w c], or that with more arrays of b rows.
      num_examples: how many pictures there are.
      batch_size: pictures encoded at a time.
      shard: places an array on the devices; on the default one, if not given. With several
        processes encode_fn must return replicated arrays, as each process fetches all of them.

    Returns:
      name -> [num_examples d] float32.

    Raises:
      ValueError: a size is below 1, or the number of pictures or the shape of a feature is wrong.
    """
    if num_examples < 1 or batch_size < 1:
        raise ValueError(
            "num_examples and batch_size must be at least 1, "
            f"but are {num_examples} and {batch_size}"
        )
    features: dict[str, np.ndarray] = {}
    sent = None
    for start in range(0, num_examples, batch_size):
        stop = min(start + batch_size, num_examples)
        images = images_fn(np.arange(start, stop, dtype=np.int64))
        for part in jax.tree.leaves(images):
            if len(part) != stop - start:
                raise ValueError(
                    f"images_fn gave {len(part)} pictures for {stop - start} positions"
                )
        encoded = encode_fn(jax.tree.map(shard, _filled_up(images, stop - start, batch_size)))
        if sent is not None:
            _fetch(features, num_examples, *sent)
        sent = (start, stop, encoded)
    _fetch(features, num_examples, *sent)
    return features


def _filled_up(images: PyTree, count: int, batch_size: int) -> PyTree:
    rows = np.minimum(np.arange(batch_size), count - 1)
    return jax.tree.map(lambda part: np.asarray(part)[rows], images)


def _fetch(features, num_examples, start, stop, encoded):
    """Writes the batch's features [start:stop] into the arrays, which the first batch makes."""
    for name, value in jax.device_get(encoded).items():
        if value.ndim != 2 or len(value) < stop - start:
            raise ValueError(f"feature {name!r} must be [batch, d], but its shape is {value.shape}")
        if start == 0:
            features[name] = np.empty((num_examples, value.shape[1]), np.float32)
        features[name][start:stop] = value[: stop - start]
