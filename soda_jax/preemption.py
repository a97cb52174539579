"""SIGTERM as a request: the step in hand is finished and saved, and the run ends with code 75."""

import os
import signal
import sys
import threading

from soda_jax.exit_codes import PREEMPTED

GRACE_SECONDS = 25.0  # then the run ends without a save; Kubernetes kills after 30

_requested = threading.Event()


class Preempted(Exception):
    """The machine was taken away; all that was done is saved, and the same command goes on."""


def listen() -> None:
    """From here on SIGTERM is a request; a second one ends the process at once. Main thread only.

    Among several processes JAX's own listener takes its place once they have met.
    """
    signal.signal(signal.SIGTERM, _on_signal)


def requested(step: int) -> bool:
    """Whether to stop after this step: the same answer on every process, each of which asks."""
    import jax

    if jax.process_count() == 1:
        return _requested.is_set()
    from jax.experimental import multihost_utils

    if not multihost_utils.reached_preemption_sync_point(step):
        return False
    if not _requested.is_set():
        _begin_grace()
    return True


def _on_signal(*_) -> None:
    if _requested.is_set():
        os._exit(PREEMPTED)
    print("soda_jax: SIGTERM: stopping after this step", file=sys.stderr, flush=True)
    _begin_grace()


def _begin_grace() -> None:
    _requested.set()
    timer = threading.Timer(GRACE_SECONDS, os._exit, (PREEMPTED,))
    timer.daemon = True
    timer.start()
