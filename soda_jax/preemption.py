"""SIGTERM and Ctrl-C as requests: the step in hand is finished and saved, and the run ends.

With code 75 after SIGTERM, from which a launcher starts it again; with 130 after Ctrl-C.
"""

import os
import signal
import sys
import threading
import time

from soda_jax.exit_codes import INTERRUPTED, PREEMPTED

# Then the run ends without a save. Kubernetes kills after 30, on spot machines of GKE after 15.
GRACE_SECONDS = 25.0
# SLURM and systemd send the signal twice: so soon after the first it is the same request.
AGAIN_SECONDS = 5.0
TWICE_SECONDS = 1.0  # of Ctrl-C: a terminal's, and that which mpirun or uv hands on

_requested = threading.Event()
_interrupted = threading.Event()
_terminated = threading.Event()
_pipe: list[int] = []


class Preempted(Exception):
    """The machine was taken away; all that was done is saved, and the same command goes on."""


class Interrupted(Preempted):
    """The same, by Ctrl-C."""


def listen() -> None:
    """From here on SIGTERM and Ctrl-C are requests; another one, later, ends the process.

    Main thread only. A SIGINT that is ignored, as in the background of a script, stays so.

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
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)


def requested() -> bool:
    """Whether this process was asked to stop."""
    return _requested.is_set()


def end() -> None:
    """Ctrl-C means again what it means to Python."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def stopped(step: int) -> Preempted:
    """What a run ends with that was asked to stop, and has saved this step.

    Of several processes only those that Ctrl-C reached were interrupted.
    """
    kind = Preempted if _terminated.is_set() or not _interrupted.is_set() else Interrupted
    return kind(f"stopped after step {step}, which is saved; the same command goes on from there")


def _watch() -> None:
    asked = interrupted = None
    while True:
        signals = os.read(_pipe[0], 64)
        if signal.SIGINT in signals:
            if interrupted is None:
                interrupted = time.monotonic()
                _interrupted.set()
                _requested.set()
                _tell("Ctrl-C: stopping after this step, to save it; once more ends at once")
            elif time.monotonic() > interrupted + TWICE_SECONDS:
                os._exit(INTERRUPTED)
        if signal.SIGTERM not in signals:
            continue
        if asked is not None:
            if time.monotonic() > asked + AGAIN_SECONDS:
                os._exit(PREEMPTED)
            continue
        asked = time.monotonic()
        _terminated.set()
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
