"""That a checkpoint gives back what it was given: a SHA-256 digest of each array, and of the list.

Orbax notices files that are cut off or missing, but not bits that flipped in an array.
"""

import concurrent.futures
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from soda_jax.array_types import PyTree

_THREADS = 4  # hashlib lets go of the interpreter's lock
_FIELDS = {"step", "run", "leaves", "sha256"}


class NonFiniteStateError(RuntimeError):
    """An array of the state has an infinity or NaN: it is not saved."""


class CorruptCheckpoint(RuntimeError):
    """A checkpoint isn't, to the bit, what was saved."""


def named_leaves(tree: PyTree) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def digests(state: PyTree) -> dict[str, dict[str, Any]]:
    """{name: {"dtype", "shape", "sha256"}} of every array, whole, however it is sharded.

    Every process makes the call; arrays that no process has whole are gathered one by one.

    Raises:
      NonFiniteStateError: an array has an infinity or NaN.
    """
    found, pending = {}, []
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for name, leaf in named_leaves(state):
            if len(pending) == _THREADS:  # so few arrays are held whole
                concurrent.futures.wait(pending[:1])
                pending.pop(0)
            found[name] = pool.submit(_digest, name, _whole(leaf))
            pending.append(found[name])
    return {name: future.result() for name, future in found.items()}


def describe(leaf: Any) -> dict[str, Any]:
    """What a record says of an array beside its digest."""
    return {"dtype": np.dtype(leaf.dtype).name, "shape": list(leaf.shape)}


def seal(step: int, run: Mapping[str, Any], leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The record that lies beside a state: what is known of the run, the digests, and their own."""
    record = {"step": step, "run": dict(run), "leaves": dict(leaves)}
    return record | {"sha256": _digest_of_json(record)}


def unseal(step: int, record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(run, leaves) of a record.

    Raises:
      CorruptCheckpoint: the record was altered, has no digests, or is that of another step.
    """
    if not isinstance(record, Mapping) or "sha256" not in record:
        raise CorruptCheckpoint(
            "its record has no digests: altered, or saved before there were any"
        )
    content = {name: value for name, value in record.items() if name != "sha256"}
    if record.keys() != _FIELDS or record["sha256"] != _digest_of_json(content):
        raise CorruptCheckpoint("its record was altered")
    if record["step"] != step:
        raise CorruptCheckpoint(f"it is that of step {record['step']}")
    return record["run"], record["leaves"]


def check(state: PyTree, leaves: Mapping[str, Any]) -> None:
    """Compares arrays with their digests; those of `leaves` that `state` lacks aren't looked at.

    Raises:
      CorruptCheckpoint: one differs, or isn't finite.
    """
    try:
        found = digests(state)
    except NonFiniteStateError as error:
        raise CorruptCheckpoint(str(error)) from None
    for name, digest in found.items():
        if digest != leaves.get(name):
            raise CorruptCheckpoint(f"{name} is not, to the bit, what was saved")


def _whole(leaf: Any) -> np.ndarray:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf)
    return multihost_utils.process_allgather(leaf, tiled=True)


def _digest(name: str, array: np.ndarray) -> dict[str, Any]:
    if jnp.issubdtype(array.dtype, jnp.inexact) and not np.isfinite(array).all():
        raise NonFiniteStateError(f"{name} has infinities or NaN")
    described = describe(array)
    sha = hashlib.sha256(json.dumps([name, described], sort_keys=True).encode())
    sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return described | {"sha256": sha.hexdigest()}


def _digest_of_json(value: Any) -> str:
    # As JSON gives it back: tuples are lists, keys are text.
    text = json.dumps(json.loads(json.dumps(value)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
