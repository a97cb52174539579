"""Checkpoints: what a run saves, goes on from, and keeps. See `checkpoint_reader` for the rest."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from soda_jax.array_types import PyTree
from soda_jax.training import integrity
from soda_jax.training.checkpoint_reader import CheckpointReader, first_line
from soda_jax.training.checkpoint_steps import FinishedSteps, set_aside
from soda_jax.training.integrity import named_leaves
from soda_jax.training.processes import agree

_SMALLEST_SLICE = 2**20  # bytes
_SLOWEST_SAVE = 300  # seconds that processes wait for one whose save may have failed


class SaveError(RuntimeError):
    """A checkpoint could not be written; the earlier ones are untouched."""


class Checkpointer(CheckpointReader):
    """The checkpoints of a run that trains; a context manager.

    Damaged ones that `restore` passes over are renamed N.corrupt: their steps are saved again.

    Args:
      workdir: the run's directory, local or gs://.
      keep: finished checkpoints that stay; an older one goes once a newer one is committed.
      asynchronous: `save` returns when the arrays are hashed and copied, and writes behind. An
        error of the background raises `SaveError` at the next `save`, `wait` or `close`.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        keep: int = 2,
        asynchronous: bool = True,
    ):
        if keep < 1:
            raise ValueError(f"keep is {keep}: at least 1 checkpoint has to stay")
        super().__init__(workdir)
        self._keep = keep
        self._asynchronous = asynchronous
        self._closed = False
        self._last_save: int | None = None
        self._manager: ocp.CheckpointManager | None = self._open_manager()

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

        Raises:
          SaveError: this save, or the one before, can't be written.
          NonFiniteStateError: an array has an infinity or NaN; nothing is written.
        """
        if self._closed:
            raise ValueError(f"the checkpoints of {self._workdir} are closed: can't save")
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
        record = integrity.seal(step, run, integrity.digests(state))
        self._last_save = step
        self._needs_space(sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
        items = ocp.args.Composite(state=ocp.args.PyTreeSave(state), run=ocp.args.JsonSave(record))
        try:
            self._manager.save(step, args=items, force=True)
        except Exception as error:
            raise self._failed(error) from error

    def verify(self, step: int) -> None:
        """Reads a finished checkpoint back and compares every bit with what was saved.

        Raises:
          SaveError: it can't be read, or differs.
        """
        self.wait()
        try:
            if not jax.process_index():
                folder = self._directory / str(step)
                leaves = integrity.unseal(step, self._read_record(step))[1]
                integrity.check(_read_on_host(folder / "state"), leaves)
        except Exception as error:
            problem = f"was saved, but reads back wrong: {first_line(error)}"
        else:
            problem = ""
        if not agree(not problem):
            raise SaveError(
                f"the checkpoint of step {step} in {self._directory} "
                f"{problem or 'was found wrong by process 0'}"
            )

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
            item_handlers={"state": _writer(), "run": ocp.JsonCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(self._keep),
                step_name_format=FinishedSteps(),
                cleanup_tmp_directories=True,  # a killed save would block its step for ever
                enable_async_checkpointing=self._asynchronous,
                async_options=ocp.AsyncOptions(timeout_secs=_SLOWEST_SAVE),
            ),
        )

    def _failed(self, error: Exception) -> SaveError:
        # After a failed save Orbax may still count its step as saved: the next save opens anew.
        manager, self._manager = self._manager, None
        try:
            manager.close()
        except Exception as also:
            logging.warning("closing after the failed save: %s", also)
        kept = ", ".join(map(str, self.steps())) or "none"
        return SaveError(
            f"the checkpoint of step {self._last_save} could not be written to {self._directory}:"
            f" {first_line(error)} (finished checkpoints: {kept})"
        )

    def _needs_space(self, size: int) -> None:
        known = "://" not in os.fspath(self._directory) and self._directory.exists()
        free = shutil.disk_usage(self._directory).free if known else size
        if not agree(free >= size):
            raise self._failed(
                OSError(f"it takes up to {size:,} bytes, and the disk has {free:,} left")
            )

    def _intact(self, step: int | None, read: Callable[[int], Any]) -> Any:
        self.wait()
        return super()._intact(step, read)

    def _passed_over(self, damaged: list[int]) -> None:
        if not damaged:
            return
        if not jax.process_index():
            for step in damaged:
                logging.warning("%s keeps it", set_aside(self._directory / str(step)))
        agree(True)  # nobody lists the steps before they have been renamed
        self._manager.reload()


def _writer() -> ocp.PyTreeCheckpointHandler:
    """Devices that hold the same large array each write a part of it.

    Of a small one, too, by default, and for every shape of a part a program would be compiled.
    """
    arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_SMALLEST_SLICE)
    return ocp.PyTreeCheckpointHandler(
        type_handler_registry=ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
    )


def _read_on_host(folder: epath.Path) -> PyTree:
    """A whole state as numpy arrays."""
    handler = ocp.PyTreeCheckpointHandler()
    metadata = handler.metadata(folder)
    as_numpy = jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), getattr(metadata, "tree", metadata)
    )
    return handler.restore(folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def _check_savable(state: PyTree) -> None:
    for name, leaf in named_leaves(state):
        if not isinstance(leaf, jax.Array):
            raise ValueError(f"{name} is a {type(leaf).__name__}: a state holds jax.Arrays only")
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ValueError(f"{name} is a PRNG key: derive keys from the seed and the step")
        if leaf.size == 0:
            raise ValueError(f"{name} is empty, {list(leaf.shape)}: Orbax can't save it")
        if leaf.is_deleted():
            raise ValueError(f"{name} was donated to a jitted function: save the state it returned")
