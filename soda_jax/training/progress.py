"""How far a run is, on a line; and traces of single steps."""

import contextlib
import datetime
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

import jax

from soda_jax.array_types import PyTree


class Progress:
    """A line that says how far a run is: step, loss, steps/s, images/s, time left.

    On a terminal one line is refreshed; elsewhere a plain line is printed at most every `every`
    seconds, and at the last step. Rates count from the first `update` on, so that the compilation
    of the first step isn't in them. It is given Python floats and never waits for a device.

    Args:
      num_steps: the run's last step.
      batch_size: pictures a step, of all devices together.
      stream: where to; pass a stream that swallows all on processes other than 0.
      every: seconds between plain lines.
    """

    def __init__(
        self,
        num_steps: int,
        batch_size: int,
        stream: TextIO | None = None,
        *,
        every: float = 10.0,
    ):
        self._num_steps = num_steps
        self._batch_size = batch_size
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._every = 0.1 if self._terminal else every
        self._start: tuple[int, float] | None = None  # the first step seen, and when
        self._paused = 0.0
        self._printed = -math.inf
        self._width = 0

    def update(self, step: int, scalars: Mapping[str, float]) -> None:
        """Prints, if it is time to; `scalars` may have a "loss"."""
        now = time.monotonic()
        if self._start is None:
            self._start = (step, now)
        if now - self._printed < self._every and step < self._num_steps:
            return
        self._printed = now
        line = self._line(step, scalars)
        if self._terminal:
            # Blanks cover what is left of a longer line before.
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside (evaluation, saving) doesn't count in the rates."""
        begin = time.monotonic()
        yield
        if self._start is not None:
            self._paused += time.monotonic() - begin

    def rates(self, step: int) -> dict[str, float]:
        """{"steps_per_second", "images_per_second"} so far; {} before there are any."""
        if self._start is None:
            return {}
        first, since = self._start
        seconds = time.monotonic() - since - self._paused
        if step <= first or seconds <= 0:
            return {}
        rate = (step - first) / seconds
        return {"steps_per_second": rate, "images_per_second": rate * self._batch_size}

    def close(self) -> None:
        """Ends the refreshed line on a terminal, so that the next output starts a line."""
        if self._terminal and self._width:
            self._stream.write("\n")
            self._stream.flush()
            self._width = 0

    def _line(self, step: int, scalars: Mapping[str, float]) -> str:
        parts = [f"step {step}/{self._num_steps}"]
        if "loss" in scalars:
            parts.append(f"loss {scalars['loss']:.4f}")
        if rates := self.rates(step):
            seconds = (self._num_steps - step) / rates["steps_per_second"]
            parts.append(f"{rates['steps_per_second']:.2f} steps/s")
            parts.append(f"{rates['images_per_second']:.0f} images/s")
            parts.append(f"ETA {datetime.timedelta(seconds=round(seconds))}")
        return "  ".join(parts)


class Profile:
    """Traces some steps into workdir/profile, to be read with xprof or Perfetto.

    Args:
      workdir: the run's directory.
      first: the trace begins with this step.
      num_steps: how many steps it covers; 0 for none.
    """

    def __init__(self, workdir: str | os.PathLike[str], first: int, num_steps: int):
        self._folder = Path(workdir) / "profile"
        self._first = first
        self._end = first + num_steps
        self._tracing = False

    def step(self, step: int, wait_for: PyTree = None) -> None:
        """Call it before a step is sent.

        `wait_for`, such as the metrics of the step before, is waited for where the trace begins
        and where it ends: sent steps that still run would be cut off.
        """
        if not self._tracing and self._first <= step < self._end:
            jax.block_until_ready(wait_for)
            jax.profiler.start_trace(self._folder)
            self._tracing = True
        elif self._tracing and step >= self._end:
            jax.block_until_ready(wait_for)
            self.close()

    def close(self) -> None:
        """Ends a trace that still runs."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
