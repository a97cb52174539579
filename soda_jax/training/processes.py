"""What the processes of a run agree on. Every process makes each call, in the same order."""

import functools

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from soda_jax.array_types import Array
from soda_jax.training.sharding import replicated, shard_batch

_MOST = 64  # numbers that process 0 tells at a time


def agree(well: bool) -> bool:
    """Whether all is well on every process."""
    if jax.process_count() == 1:
        return well
    return bool(multihost_utils.process_allgather(np.int32(well)).min())


def of_process_0(numbers: list[int]) -> list[int]:
    """Process 0's numbers, at least 0, the first 64 of them.

    Hosts see a shared file system at slightly different times: one of them decides.
    """
    if jax.process_count() == 1:
        return numbers
    told = np.full(_MOST, -1, np.int32)
    told[: len(numbers[:_MOST])] = numbers[:_MOST]
    return [int(n) for n in multihost_utils.broadcast_one_to_all(told) if n >= 0]


def anywhere(mesh: Mesh, flag: bool) -> Array:
    """Whether a flag is set on any process: bool [], on its way while the devices work."""
    flags = shard_batch(mesh, np.full(len(mesh.local_devices), flag))
    return _any(mesh)(flags)


@functools.lru_cache(maxsize=8)
def _any(mesh: Mesh):
    return jax.jit(lambda flags: flags.any(), out_shardings=replicated(mesh))
