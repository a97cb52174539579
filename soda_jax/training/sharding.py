"""Meshes and shardings: the batch over every device, the parameters over the "fsdp" axis."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from soda_jax.array_types import Array, PyTree

# Leaves smaller than this are cheaper to replicate than to gather.
SMALLEST_SHARDED_LEAF = 2**14


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices, or those given, as a mesh ("data", "fsdp"); data = -1 takes what fsdp leaves.

    Raises:
      ValueError: the axes don't multiply to the number of devices.
    """
    devices = np.asarray(jax.devices() if devices is None else devices)
    count = devices.size
    data = count // fsdp if data == -1 else data
    if data * fsdp != count:
        raise ValueError(f"mesh: data {data} x fsdp {fsdp} must be the number of devices, {count}")
    return Mesh(devices.reshape(data, fsdp), ("data", "fsdp"))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def over_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis split over all devices, so that fsdp is data-parallel too."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def state_sharding(mesh: Mesh, shapes: PyTree) -> PyTree:
    """The rule on a tree of shapes: the largest axis that "fsdp" divides is split, if not small."""
    size = mesh.shape["fsdp"]

    def rule(leaf) -> NamedSharding:
        if size == 1 or leaf.size < SMALLEST_SHARDED_LEAF:
            return replicated(mesh)
        axes = [axis for axis, length in enumerate(leaf.shape) if length % size == 0]
        if not axes:
            return replicated(mesh)
        axis = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, P(*(None,) * axis, "fsdp"))

    return jax.tree.map(rule, shapes)


def shard_batch(mesh: Mesh, array: np.ndarray) -> Array:
    """This process's rows of a batch -> the global batch, its leading axis over all devices."""
    return jax.make_array_from_process_local_data(over_batch(mesh), array)


def replicate(mesh: Mesh, array: np.ndarray) -> Array:
    """The same array, whole, on every device; every process gives the same values."""
    return jax.make_array_from_process_local_data(replicated(mesh), array, array.shape)


def split_batch(mesh: Mesh, array: np.ndarray) -> Array:
    """A whole batch, the same in every process -> the global batch, split over all devices."""
    return jax.make_array_from_callback(array.shape, over_batch(mesh), lambda index: array[index])
