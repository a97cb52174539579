"""What a loop tells: metrics files, TensorBoard, parameter tables. Only this file uses clu."""

import datetime
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from clu import parameter_overview

from soda_jax.array_types import PyTree


class Writer:
    """Scalars and pictures of a run, in files; a context manager.

    metrics.jsonl: one line a call of `scalars`, {"step": 3, "loss": 0.25, ...}. Floats are written
      so that they read back to the same bits; those that JSON lacks are the strings "nan", "inf"
      and "-inf", which float() reads. Nothing in it depends on the time: a run that was killed and
      resumed leaves the same bytes as one that wasn't. So write the lines of step k before the
      checkpoint of k: the resumed run goes on with k + 1.
    timing.jsonl: what does depend on the time, each line with its UTC time; never cut.
    samples/<name>_<step>.png: pictures.
    tensorboard/: all three, for TensorBoard, where tensorboardX is installed.

    Args:
      workdir: the run's directory, local or mounted.
      resume_step: the step of the checkpoint that the run goes on from: lines of later steps and a
        torn last line are cut from metrics.jsonl. None for a run from the start: it begins anew.
      resume_size: what `size` said when that checkpoint was saved; lines after that are cut, too.
      tensorboard: False for no TensorBoard.
      enabled: False for a writer that does nothing; None: enabled on process 0 alone.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        resume_step: int | None,
        resume_size: int | None = None,
        tensorboard: bool = True,
        enabled: bool | None = None,
    ):
        self.enabled = jax.process_index() == 0 if enabled is None else enabled
        self._tensorboard = None
        if not self.enabled:
            return
        self._workdir = Path(workdir)
        self._workdir.mkdir(parents=True, exist_ok=True)
        _truncate(self._workdir / "metrics.jsonl", resume_step, resume_size)
        _end_last_line(self._workdir / "timing.jsonl")
        # Unbuffered: a line is with the system before the step's checkpoint can be.
        self._metrics = open(self._workdir / "metrics.jsonl", "ab", buffering=0)
        self._timing = open(self._workdir / "timing.jsonl", "ab", buffering=0)
        if tensorboard:
            self._tensorboard = _open_tensorboard(self._workdir / "tensorboard", resume_step)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def size(self) -> int:
        """Bytes of metrics.jsonl; 0 on processes that don't write."""
        return os.fstat(self._metrics.fileno()).st_size if self.enabled else 0

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends one line to metrics.jsonl; float32 and integers are written as Python floats."""
        if not self.enabled:
            return
        self._metrics.write(_json_line({}, step, scalars))
        self._show(step, scalars)

    def timing(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends one line to timing.jsonl, with the time in UTC (ISO 8601)."""
        if not self.enabled:
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        self._timing.write(_json_line({"time": now}, step, scalars))
        self._show(step, scalars)

    def images(self, step: int, name: str, array: np.ndarray) -> None:
        """Writes a picture, uint8 [h w c] with c 1 or 3, to samples/<name>_<step, 8 digits>.png."""
        if not self.enabled:
            return
        array = np.asarray(array)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (1, 3):
            raise ValueError(
                f"{name}: a picture is uint8 [h w c] with c 1 or 3;"
                f" this is {array.dtype} {list(array.shape)}"
            )
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"{name!r} can't name a file: use letters, digits, '_', '-' and '.'")
        from PIL import Image

        folder = self._workdir / "samples"
        folder.mkdir(exist_ok=True)
        picture = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
        picture.save(folder / f"{name}_{step:08d}.png")
        if self._tensorboard is not None:
            self._tensorboard.add_image(name, array, step, dataformats="HWC")

    def flush(self) -> None:
        """Returns when all that was written is on the disk."""
        if not self.enabled:
            return
        for file in (self._metrics, self._timing):
            os.fsync(file.fileno())
        if self._tensorboard is not None:
            self._tensorboard.flush()

    def close(self) -> None:
        """Flushes and closes; safe to call twice."""
        if not self.enabled or self._metrics.closed:
            return
        self.flush()
        self._metrics.close()
        self._timing.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _show(self, step: int, scalars: Mapping[str, float]) -> None:
        if self._tensorboard is not None:
            for name, value in scalars.items():
                self._tensorboard.add_scalar(name, float(value), step)


class Window:
    """Means of the metrics since the last line of the log.

    It is saved with every checkpoint, so that the first line after a resume has the bits that it
    would have had.
    """

    def __init__(self, totals: Mapping[str, float] | None = None, count: int = 0, skipped: int = 0):
        self._totals = dict(totals or {})
        self._count = count
        self._skipped = skipped

    def add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._totals[name] = self._totals.get(name, 0.0) + value
        self._count += 1

    def skip(self) -> None:
        """Counts a step whose update was not made."""
        self._skipped += 1

    def take(self) -> dict[str, float]:
        """The means, "skipped_steps" where there are any, and a new beginning."""
        means = {name: total / self._count for name, total in self._totals.items()}
        if self._skipped:
            means["skipped_steps"] = self._skipped
        self._totals, self._count, self._skipped = {}, 0, 0
        return means

    def to_json(self) -> dict[str, Any]:
        """The arguments of an equal window."""
        return {"totals": dict(self._totals), "count": self._count, "skipped": self._skipped}


class Pending:
    """Metrics one step behind, for a loop that never waits for the step it has just sent."""

    def __init__(self) -> None:
        self._held: tuple[int, Mapping[str, jax.Array]] | None = None

    def exchange(
        self, step: int, metrics: Mapping[str, jax.Array]
    ) -> tuple[int, dict[str, float]] | None:
        """Keeps this step's device scalars; returns (step, floats) of those before, or None."""
        for value in metrics.values():
            value.copy_to_host_async()
        before, self._held = self._held, (step, metrics)
        return _fetch(before)

    def flush(self) -> tuple[int, dict[str, float]] | None:
        """The last step's (step, floats), or None if there is nothing left."""
        before, self._held = self._held, None
        return _fetch(before)


def parameter_table(params: PyTree) -> str:
    """A table of names, shapes, sizes and dtypes; arrays or jax.ShapeDtypeStruct."""
    return parameter_overview.get_parameter_overview(params, include_stats=False)


def count(params: PyTree) -> int:
    """How many numbers the tree holds."""
    return int(parameter_overview.count_parameters(params))


def _fetch(held: tuple[int, Mapping[str, jax.Array]] | None) -> tuple[int, dict[str, float]] | None:
    if held is None:
        return None
    step, metrics = held
    return step, {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}


def _json_line(head: dict[str, Any], step: int, scalars: Mapping[str, float]) -> bytes:
    line = {**head, "step": int(step)}
    for name, value in scalars.items():
        if name in line:
            raise ValueError(f"{name!r} is taken: a line has it already; choose another name")
        value = float(value)
        line[name] = value if math.isfinite(value) else repr(value)
    return (json.dumps(line) + "\n").encode()


def _truncate(path: Path, resume_step: int | None, size: int | None) -> None:
    """Cuts lines of steps after `resume_step` (None: all), beyond `size`, and a torn last line."""
    if not path.exists():
        return
    before = path.read_bytes()
    kept = []
    if resume_step is not None:
        for line in before[:size].splitlines(keepends=True):
            step = _step_of(line)
            if step is not None and step <= resume_step:
                kept.append(line)
    after = b"".join(kept)
    if after != before:
        # By way of a second file: a kill here must not lose the lines that are kept.
        new = path.with_name(path.name + ".new")
        with open(new, "wb") as file:
            file.write(after)
            os.fsync(file.fileno())
        os.replace(new, path)
        logging.info("%s: kept %d of its %d bytes", path, len(after), len(before))


def _step_of(line: bytes) -> int | None:
    """The step of a whole line; None for one that is torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None


def _end_last_line(path: Path) -> None:
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        with open(path, "ab") as file:
            file.write(b"\n")


def _open_tensorboard(folder: Path, resume_step: int | None) -> Any:
    try:
        import tensorboardX
    except ImportError:
        logging.info("no TensorBoard: tensorboardX isn't installed; metrics.jsonl has all scalars")
        return None
    # Events of steps that will be done again are taken out of the curves.
    purge_step = 0 if resume_step is None else resume_step + 1
    return tensorboardX.SummaryWriter(str(folder), purge_step=purge_step)
