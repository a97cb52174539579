"""Checkpoints: save, restore on any number of devices, restore a part. Only this file uses Orbax.

On disk, under workdir/checkpoints: one directory a step, with `state` (the arrays) and `run` (what
is known of the run, as JSON). Names never contain a time; an unfinished directory is not a step.
"""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from soda_jax.array_types import PyTree

_SHOWN = 3  # differing leaves that a message names; the others are counted


class CheckpointMismatch(ValueError):
    """The tree, a shape or a dtype of the checkpoint isn't what the config makes."""


class SaveError(RuntimeError):
    """A checkpoint could not be written; the earlier ones are untouched."""


class Checkpointer:
    """The checkpoints of one workdir; a context manager.

    In a run of several processes every process makes the same calls in the same order.

    Args:
      workdir: the run's directory, local or gs://.
      keep: finished checkpoints that stay; an older one goes once a newer one is committed.
      asynchronous: `save` returns when the arrays are copied, and writes in the background. An
        error of the background raises `SaveError` at the next `save`, `wait` or `close`.
      read_only: nothing in workdir is created, cleaned or written.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        keep: int = 2,
        asynchronous: bool = True,
        read_only: bool = False,
    ):
        if keep < 1:
            raise ValueError(f"keep is {keep}: at least 1 checkpoint has to stay")
        self._workdir = _absolute(workdir)
        self._directory = self._workdir / "checkpoints"
        self._keep = keep
        self._asynchronous = asynchronous
        self._read_only = read_only
        self._closed = False
        self._last_save: int | None = None
        self._manager = None if read_only else self._open_manager()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def save(self, step: int, state: PyTree, run: Mapping[str, Any]) -> None:
        """Saves under this step; waits for the save before, and raises its error if it failed.

        Args:
          step: at least 0; ValueError if it already has a finished checkpoint.
          state: a tree whose leaves are all jax.Array, none of them a PRNG key, empty or donated.
          run: anything JSON can hold; tuples come back as lists.
        """
        if self._read_only or self._closed:
            how = "read-only" if self._read_only else "and closed"
            raise ValueError(f"the checkpoints of {self._workdir} were opened {how}: can't save")
        # Orbax may hang at exit after a save that failed on its leaves, so they are refused here.
        _check_savable(state)
        run = dict(run)
        try:
            json.dumps(run)
        except (TypeError, ValueError) as error:
            raise ValueError(f"run can't be written as JSON: {error}") from error
        self.wait()
        if self._manager is None:
            self._manager = self._open_manager()
        if step in self._manager.all_steps():
            raise ValueError(f"{self._directory} already has a checkpoint of step {step}")
        self._last_save = step
        items = ocp.args.Composite(state=ocp.args.PyTreeSave(state), run=ocp.args.JsonSave(run))
        try:
            self._manager.save(step, args=items, force=True)
        except Exception as error:
            raise self._failed(error) from error

    def steps(self) -> list[int]:
        """All steps with a finished checkpoint, ascending; one still being written isn't there."""
        return [step for step in self._candidates() if self._is_finished(step)][::-1]

    def latest_step(self) -> int | None:
        """The newest step with a finished checkpoint, or None: process 0's answer on every process.

        A cheap check of the structure, newest first: arrays are not read.
        """
        finished = (step for step in self._candidates() if self._is_finished(step))
        return _of_process_0(next(finished, None))

    def restore(self, abstract_state: PyTree, step: int | None = None) -> tuple[PyTree, dict]:
        """The state, bitwise as it was saved, and the run's record.

        Args:
          abstract_state: a tree of jax.ShapeDtypeStruct with shardings, all on one set of devices,
            which may be others than those that saved.
          step: None for the newest. A step that is asked for never falls back to another.

        Returns:
          (state, run). The arrays own their buffers, so that a jitted step can take them over.

        Raises:
          FileNotFoundError: there is no such checkpoint.
          CheckpointMismatch: tree, shape or dtype differ; no array has been read then.
        """
        step = self._resolve(step)
        _check_matches(step, abstract_state, self._saved_leaves(step))
        return self._read_state(step, abstract_state), self._read_run(step)

    def restore_part(
        self, abstract: Mapping[str, PyTree], step: int | None = None
    ) -> dict[str, PyTree]:
        """Only these top-level parts of the state, such as {"ema_params": ...}; see `restore`.

        A part is restored whole: a leaf that the checkpoint has in it and `abstract` hasn't is a
        mismatch. Nothing of the other parts is read.
        """
        step = self._resolve(step)
        parts = {name: tree for name, tree in abstract.items() if jax.tree.leaves(tree)}
        # A part without leaves (batch_stats of a net without batch norm) is checked, not read.
        _check_matches(step, dict(abstract), self._saved_leaves(step), parts=set(abstract))
        restored = self._read_state(step, parts) if parts else {}
        return {name: restored.get(name, tree) for name, tree in abstract.items()}

    def restore_run(self, step: int | None = None) -> dict[str, Any]:
        """The run's record that was saved with this step (None: the newest)."""
        return self._read_run(self._resolve(step))

    def wait(self) -> None:
        """Blocks until the save in flight is committed; raises `SaveError` if it failed."""
        if self._manager is None:
            return
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Waits, raises as `wait` does, and frees the threads. Safe to call twice."""
        self._closed = True
        try:
            self.wait()
        finally:
            manager, self._manager = self._manager, None
            if manager is not None:
                manager.close()

    def _open_manager(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(self._keep),
                step_name_format=_FinishedSteps(),
                cleanup_tmp_directories=True,  # a killed save would block its step for ever
                enable_async_checkpointing=self._asynchronous,
            ),
        )

    def _failed(self, error: Exception) -> SaveError:
        # After a failed save Orbax may still count its step as saved: the next save opens anew.
        manager, self._manager = self._manager, None
        try:
            manager.close()
        except Exception as also:
            logging.warning("closing after the failed save: %s", also)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        kept = ", ".join(map(str, self.steps())) or "none"
        return SaveError(
            f"the checkpoint of step {self._last_save} could not be written to {self._directory}:"
            f" {reason} (finished checkpoints: {kept})"
        )

    def _candidates(self) -> list[int]:
        """Steps by the names of the directories alone, newest first."""
        if not self._directory.exists():
            return []
        names = (path.name for path in self._directory.iterdir())
        return sorted((int(name) for name in names if _is_step_name(name)), reverse=True)

    def _is_finished(self, step: int) -> bool:
        return _is_finished(self._directory / str(step))

    def _resolve(self, step: int | None) -> int:
        self.wait()
        if step is None:
            step = self.latest_step()
        elif not self._is_finished(step):
            steps = ", ".join(map(str, self.steps())) or "none"
            raise FileNotFoundError(
                f"{self._directory} has no finished checkpoint of step {step}; it has: {steps}"
            )
        if step is None:
            raise FileNotFoundError(
                f"{self._workdir} has no finished checkpoint; train one with"
                f" python -m soda_jax pretrain --config=... --workdir={self._workdir}"
            )
        return step

    def _saved_leaves(self, step: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each leaf, from the metadata."""
        handler = ocp.PyTreeCheckpointHandler()
        metadata = handler.metadata(self._directory / str(step) / "state")
        # Older releases return the tree itself.
        return {
            name: (tuple(leaf.shape), np.dtype(leaf.dtype).name)
            for name, leaf in _named_leaves(getattr(metadata, "tree", metadata))
        }

    def _read_state(self, step: int, abstract: PyTree) -> PyTree:
        for name, leaf in _named_leaves(abstract):
            if getattr(leaf, "sharding", None) is None:
                raise ValueError(
                    f"{name} has no sharding: give jax.ShapeDtypeStruct(shape, dtype, sharding=...)"
                )
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            state = reader.restore(
                self._directory / str(step) / "state",
                args=ocp.args.PyTreeRestore(
                    item=abstract,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
                    partial_restore=True,  # the check that nothing is missing is ours
                ),
            )
        # A restored array may lie in memory that XLA doesn't own and can't take over by donation.
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        return jax.jit(_copy, donate_argnums=0, out_shardings=shardings)(state)

    def _read_run(self, step: int) -> dict[str, Any]:
        handler = ocp.JsonCheckpointHandler()
        return handler.restore(self._directory / str(step) / "run", args=ocp.args.JsonRestore())


class _FinishedSteps:
    """Orbax's names of steps, without directories that only look like a step.

    Orbax goes by the name alone: an empty 99/ would count as the newest, push a real checkpoint
    out of those that are kept, and refuse the save of step 99.
    """

    def __init__(self) -> None:
        self._names = ocp.path.step.standard_name_format()

    def build_name(self, step: int) -> str:
        return self._names.build_name(step)

    def find_all(self, base_path: epath.PathLike) -> Iterator[Any]:
        return (found for found in self._names.find_all(base_path) if _is_finished(found.path))

    def find_step(self, base_path: epath.PathLike, step: int) -> Any:
        return self._names.find_step(base_path, step)


def _absolute(workdir: str | os.PathLike[str]) -> epath.Path:
    path = os.fspath(workdir)
    return epath.Path(path if "://" in path else os.path.abspath(os.path.expanduser(path)))


def _is_step_name(name: str) -> bool:
    return name.isascii() and name.isdigit() and str(int(name)) == name


def _is_finished(directory: epath.Path) -> bool:
    """Whether a step's directory was committed and has its parts; arrays are not read."""
    try:
        commit = json.loads((directory / "_CHECKPOINT_METADATA").read_text())
        json.loads((directory / "state" / "_METADATA").read_text())
        json.loads((directory / "run" / "metadata").read_text())
        manifest = (directory / "state" / "manifest.ocdbt").stat().length > 0
        return manifest and commit.get("commit_timestamp_nsecs") is not None
    except (OSError, ValueError, AttributeError):
        return False


def _of_process_0(step: int | None) -> int | None:
    # Hosts see a shared file system at slightly different times: one of them decides.
    if jax.process_count() == 1:
        return step
    answer = multihost_utils.broadcast_one_to_all(np.int32(-1 if step is None else step))
    return None if int(answer) < 0 else int(answer)


def _copy(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, tree)


def _named_leaves(tree: PyTree) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def _check_savable(state: PyTree) -> None:
    for name, leaf in _named_leaves(state):
        if not isinstance(leaf, jax.Array):
            raise ValueError(f"{name} is a {type(leaf).__name__}: a state holds jax.Arrays only")
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ValueError(f"{name} is a PRNG key: derive keys from the seed and the step")
        if leaf.size == 0:
            raise ValueError(f"{name} is empty, {list(leaf.shape)}: Orbax can't save it")
        if leaf.is_deleted():
            raise ValueError(f"{name} was donated to a jitted function: save the state it returned")


def _check_matches(
    step: int,
    abstract: PyTree,
    saved: dict[str, tuple[tuple[int, ...], str]],
    parts: set[str] | None = None,
) -> None:
    """Raises CheckpointMismatch, naming the first leaves that differ (of these parts only)."""
    made = {n: (tuple(x.shape), np.dtype(x.dtype).name) for n, x in _named_leaves(abstract)}
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
