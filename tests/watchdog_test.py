import subprocess
import sys
import time

from soda_jax.watchdog import Watchdog

STUCK = """
import threading, time
from soda_jax.watchdog import Watchdog
with Watchdog(0.5) as watchdog:
    watchdog.expect(2.0)
    time.sleep(0.7)
    watchdog.expect()
    def waits_for_ever():
        time.sleep(60)
    waits_for_ever()
"""


def test_what_stands_still_ends_and_says_where():
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 70 and time.monotonic() - began < 30
    assert "config.train.stall_seconds" in ended.stderr
    assert "in waits_for_ever" in ended.stderr


def test_what_moves_goes_on():
    with Watchdog(0.4) as watchdog:
        for _ in range(8):
            watchdog.expect()
            time.sleep(0.1)
    with Watchdog(0) as watchdog:
        watchdog.expect()
        time.sleep(0.1)
    time.sleep(0.6)  # closed, it watches no more
