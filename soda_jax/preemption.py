"""SIGTERM as a request: the step in hand is finished and saved, and the run ends with code 75."""

import os
import signal
import sys
import threading
import time

from soda_jax.exit_codes import PREEMPTED

# Then the run ends without a save. Kubernetes kills after 30, on spot machines of GKE after 15.
GRACE_SECONDS = 25.0
# SLURM and systemd send the signal twice: so soon after the first it is the same request.
AGAIN_SECONDS = 5.0

_requested = threading.Event()
_pipe: list[int] = []


class Preempted(Exception):
    """The machine was taken away; all that was done is saved, and the same command goes on."""


def listen() -> None:
    """From here on SIGTERM is a request; another one, later, ends the process. Main thread only.

    To be called again after `jax.distributed.initialize`, which puts a listener in its place.
    """
    if not _pipe:
        _pipe.extend(os.pipe())
        os.set_blocking(_pipe[1], False)
        threading.Thread(target=_watch, name="soda_jax.preemption", daemon=True).start()
    # The number of a signal comes through the pipe even while the main thread is in a long call,
    # such as a compilation, where Python's own handlers wait.
    signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)


def requested() -> bool:
    """Whether this process was asked to stop."""
    return _requested.is_set()


def _watch() -> None:
    asked = None
    while True:
        if signal.SIGTERM not in os.read(_pipe[0], 64):
            continue
        if asked is not None:
            if time.monotonic() > asked + AGAIN_SECONDS:
                os._exit(PREEMPTED)
            continue
        asked = time.monotonic()
        _requested.set()
        threading.Thread(target=_end_after_grace, daemon=True).start()
        _tell("SIGTERM: stopping after this step")


def _end_after_grace() -> None:
    time.sleep(GRACE_SECONDS)
    _tell(f"{GRACE_SECONDS:g} s were not enough to save; the newest checkpoint is what there is")
    os._exit(PREEMPTED)


def _tell(line: str) -> None:
    try:
        print(f"soda_jax: {line}", file=sys.stderr, flush=True)
    except OSError:
        pass  # whoever read it may be gone already
