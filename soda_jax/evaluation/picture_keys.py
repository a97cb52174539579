"""Random keys that belong to pictures: the same in every batch, order and split."""

import jax
import jax.numpy as jnp

from soda_jax import rngs
from soda_jax.array_types import Array


@jax.jit
def keys_of(key: Array, images: Array) -> Array:
    """[b] keys, each a function of `key` and of the pixels of one picture uint8 [b h w c]."""
    flat = images.reshape(len(images), -1).astype(jnp.uint32)
    places = 2 * jnp.arange(flat.shape[1], dtype=jnp.uint32) + 1
    checksums = jnp.sum(flat * jnp.square(places)[None], axis=1, dtype=jnp.uint32)
    return rngs.per_example(key, checksums)
