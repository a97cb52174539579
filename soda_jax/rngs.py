"""Random keys by name and step: no key is stored, split along or handed on."""

import zlib

import jax

from soda_jax.array_types import Array


def root(seed: int | Array) -> Array:
    """The key that all others are derived from; threefry, whose draws don't depend on sharding."""
    return jax.random.key(seed, impl="threefry2x32")


def stream(root_key: Array, name: str, step: int | Array = 0) -> Array:
    """The key of one purpose at one step: the same arguments always give the same key."""
    return jax.random.fold_in(jax.random.fold_in(root_key, zlib.crc32(name.encode())), step)


def per_example(key: Array, indices: Array) -> Array:
    """[b] keys, one for each index [b]: a picture's draws don't depend on its batch."""
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)
