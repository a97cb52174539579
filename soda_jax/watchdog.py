"""A run that stands still ends, and says where, instead of holding its machines."""

import faulthandler
import os
import sys
import threading

from soda_jax.exit_codes import INTERNAL


class Watchdog:
    """Ends the process with code 70 where nothing is heard for too long; a context manager.

    The stack of every thread goes to stderr first. Its time is that of a running process: one
    that was suspended has lost none. It can't see a call that never lets go of Python's lock.

    Args:
      seconds: between two calls of `expect`; 0 for no watch.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._tick = min(1.0, seconds / 10)
        self._left = self._limit = float("inf")
        self._closed = threading.Event()
        if seconds:
            threading.Thread(target=self._watch, name="soda_jax.watchdog", daemon=True).start()

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closed.set()

    def expect(self, times: float = 1.0) -> None:
        """All is well; the next call comes within `seconds`, or `times` as many."""
        self._left = self._limit = self._seconds * times

    def _watch(self) -> None:
        while not self._closed.wait(self._tick):
            self._left -= self._tick
            if self._left < 0:
                print(
                    f"soda_jax: error: nothing has moved for {self._limit:g} s "
                    "(config.train.stall_seconds); where each thread stands:",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(all_threads=True)
                os._exit(INTERNAL)
