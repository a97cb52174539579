"""Checkpoints, read only: restore on any number of devices, restore a part; every bit is verified.

On disk, under workdir/checkpoints: one directory a step, with `state` (the arrays) and `run` (what
is known of the run, and the digest of each array, as JSON). Names never contain a time; an
unfinished directory is not a step. Only the files checkpoint*.py use Orbax.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from soda_jax.array_types import PyTree
from soda_jax.training import integrity
from soda_jax.training.checkpoint_steps import is_finished, steps_by_name
from soda_jax.training.integrity import CorruptCheckpoint, named_leaves
from soda_jax.training.processes import agree, of_process_0

_SHOWN = 3  # differing leaves that a message names; the others are counted


class CheckpointMismatch(ValueError):
    """The tree, a shape or a dtype of the checkpoint isn't what the config makes."""


class CheckpointReader:
    """The checkpoints of one workdir; nothing there is created, cleaned or written.

    In a run of several processes every process makes the same calls in the same order.

    Args:
      workdir: the run's directory, local or gs://.
    """

    def __init__(self, workdir: str | os.PathLike[str]):
        self._workdir = _absolute(workdir)
        self._directory = self._workdir / "checkpoints"

    def steps(self) -> list[int]:
        """All steps with a finished checkpoint, ascending; one still being written isn't there."""
        return self._finished()[::-1]

    def latest_step(self) -> int | None:
        """The newest step with a finished checkpoint, or None; arrays are not read."""
        return next(iter(of_process_0(self._finished())), None)

    def is_empty(self) -> bool:
        """Whether nothing was ever saved, be it damaged or not."""
        return not of_process_0(steps_by_name(self._directory))

    def restore(self, abstract_state: PyTree, step: int | None = None) -> tuple[PyTree, dict]:
        """The state, bitwise as it was saved, and the run's record.

        Args:
          abstract_state: a tree of jax.ShapeDtypeStruct with shardings, all on one set of devices,
            which may be others than those that saved.
          step: None for the newest that is intact, with a warning where newer ones are corrupt. A
            step that is asked for never falls back to another.

        Returns:
          (state, run). The arrays own their buffers, so that a jitted step can take them over.

        Raises:
          FileNotFoundError: there is no such checkpoint.
          CheckpointMismatch: tree, shape or dtype differ; no array has been read then.
          CorruptCheckpoint: it, or every one of them, isn't what was saved.
        """
        return self._intact(step, lambda step: self._read(step, abstract_state))

    def restore_part(
        self, abstract: Mapping[str, PyTree], step: int | None = None
    ) -> tuple[dict[str, PyTree], int]:
        """Only these top-level parts of the state, such as {"ema_params": ...}, and their step.

        As `restore`. A part is restored whole: a leaf that the checkpoint has in it and `abstract`
        hasn't is a mismatch. Nothing of the other parts is read.
        """
        return self._intact(step, lambda step: (self._read_part(step, abstract), step))

    def _finished(self) -> list[int]:
        return [step for step in steps_by_name(self._directory) if self._is_finished(step)]

    def _is_finished(self, step: int) -> bool:
        return is_finished(self._directory / str(step))

    def _intact(self, step: int | None, read: Callable[[int], Any]) -> Any:
        """What `read` finds in a step, or in the newest that is intact."""
        there = of_process_0(steps_by_name(self._directory))
        if step is not None:
            if step not in there:
                steps = ", ".join(map(str, self.steps())) or "none"
                raise FileNotFoundError(
                    f"{self._directory} has no finished checkpoint of step {step}; it has: {steps}"
                )
            return read(step)
        if not there:
            raise FileNotFoundError(
                f"{self._workdir} has no finished checkpoint; train one with"
                f" python -m soda_jax pretrain --config=... --workdir={self._workdir}"
            )
        problems = []
        for step in there:
            try:
                found = read(step)
            except CorruptCheckpoint as error:
                problems.append(f"{self._directory}/{step} is damaged: {error}")
                continue
            for problem in problems:
                logging.warning("%s; step %d is taken", problem, step)
            self._passed_over(there[: len(problems)])
            return found
        raise CorruptCheckpoint("no checkpoint is intact: " + "; ".join(problems))

    def _passed_over(self, damaged: list[int]) -> None:
        """What to do about damaged steps that are newer than the one that was taken."""

    def _read(self, step: int, abstract_state: PyTree) -> tuple[PyTree, dict]:
        run, leaves, saved = _unanimous(lambda: self._describe(step))
        _check_matches(step, abstract_state, saved)
        return self._read_state(step, abstract_state, leaves), run

    def _read_part(self, step: int, abstract: Mapping[str, PyTree]) -> dict[str, PyTree]:
        _, leaves, saved = _unanimous(lambda: self._describe(step))
        parts = {name: tree for name, tree in abstract.items() if jax.tree.leaves(tree)}
        # A part without leaves (batch_stats of a net without batch norm) is checked, not read.
        _check_matches(step, dict(abstract), saved, parts=set(abstract))
        restored = self._read_state(step, parts, leaves) if parts else {}
        return {name: restored.get(name, tree) for name, tree in abstract.items()}

    def _describe(self, step: int) -> tuple[dict, dict, dict[str, tuple[tuple, str]]]:
        """The run's record, the digests, and what arrays there are."""
        if not self._is_finished(step):
            raise CorruptCheckpoint("a part of it is missing")
        run, leaves = integrity.unseal(step, self._read_record(step))
        return run, leaves, self._saved_leaves(step, leaves)

    def _saved_leaves(self, step: int, leaves: dict) -> dict[str, tuple[tuple, str]]:
        """Shape and dtype of each leaf, from the metadata, which must agree with the record."""
        handler = ocp.PyTreeCheckpointHandler()
        with _damage("its metadata"):
            metadata = handler.metadata(self._directory / str(step) / "state")
            # Older releases return the tree itself.
            found = dict(named_leaves(getattr(metadata, "tree", metadata)))
            described = {name: integrity.describe(leaf) for name, leaf in found.items()}
        if described != {
            name: {key: leaf[key] for key in ("dtype", "shape")} for name, leaf in leaves.items()
        }:
            raise CorruptCheckpoint("its metadata were altered")
        return {name: (tuple(leaf["shape"]), leaf["dtype"]) for name, leaf in described.items()}

    def _read_state(self, step: int, abstract: PyTree, leaves: dict) -> PyTree:
        for name, leaf in named_leaves(abstract):
            if getattr(leaf, "sharding", None) is None:
                raise ValueError(
                    f"{name} has no sharding: give jax.ShapeDtypeStruct(shape, dtype, sharding=...)"
                )

        def read() -> PyTree:
            # Without Orbax's own barrier, which a process that can't read would never reach.
            with _damage("an array"):
                return ocp.PyTreeCheckpointHandler().restore(
                    self._directory / str(step) / "state",
                    args=ocp.args.PyTreeRestore(
                        item=abstract,
                        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
                        partial_restore=True,  # the check that nothing is missing is ours
                    ),
                )

        state = _unanimous(read)
        _unanimous(lambda: integrity.check(state, leaves))
        # A restored array may lie in memory that XLA doesn't own and can't take over by donation.
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        return jax.jit(_copy, donate_argnums=0, out_shardings=shardings)(state)

    def _read_record(self, step: int) -> dict[str, Any]:
        handler = ocp.JsonCheckpointHandler()
        with _damage("its record"):
            return handler.restore(self._directory / str(step) / "run", args=ocp.args.JsonRestore())


def _absolute(workdir: str | os.PathLike[str]) -> epath.Path:
    path = os.fspath(workdir)
    return epath.Path(path if "://" in path else os.path.abspath(os.path.expanduser(path)))


def first_line(error: Exception) -> str:
    """What an error says, short: TensorStore's go on and on."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 300 else f"{line[:297]}..."


@contextlib.contextmanager
def _damage(what: str) -> Iterator[None]:
    """What goes wrong inside is the checkpoint's fault, unless memory or the storage fails."""
    try:
        yield
    except Exception as error:
        memory = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
        gone = FileNotFoundError | NotADirectoryError | IsADirectoryError
        if memory or isinstance(error, OSError) and error.errno and not isinstance(error, gone):
            raise
        if "OS error" in str(error):  # as TensorStore tells of it
            raise OSError(errno.EIO, first_line(error)) from error
        raise CorruptCheckpoint(f"{what} can't be read: {first_line(error)}") from error


def _unanimous(look: Callable[[], Any]) -> Any:
    """What `look` finds, if no process finds damage; else all of them raise CorruptCheckpoint."""
    found, problem = None, None
    try:
        found = look()
    except CorruptCheckpoint as error:
        problem = error
    if not agree(problem is None):
        raise problem or CorruptCheckpoint("another process finds it damaged")
    return found


def _copy(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, tree)


def _check_matches(
    step: int,
    abstract: PyTree,
    saved: dict[str, tuple[tuple[int, ...], str]],
    parts: set[str] | None = None,
) -> None:
    """Raises CheckpointMismatch, naming the first leaves that differ (of these parts only)."""
    made = {n: (tuple(x.shape), np.dtype(x.dtype).name) for n, x in named_leaves(abstract)}
    if parts is not None:
        saved = {n: leaf for n, leaf in saved.items() if n.split("/")[0] in parts}
    differing = sorted(n for n in made.keys() | saved.keys() if made.get(n) != saved.get(n))
    if not differing:
        return
    named = "; ".join(
        f"{n}: the config makes {_describe(made.get(n))},"
        f" the checkpoint at step {step} holds {_describe(saved.get(n))}"
        for n in differing[:_SHOWN]
    )
    more = f"; {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    raise CheckpointMismatch(named + more)


def _describe(leaf: tuple[tuple[int, ...], str] | None) -> str:
    if leaf is None:
        return "no such array"
    return f"{leaf[1]} [{','.join(map(str, leaf[0]))}]"
