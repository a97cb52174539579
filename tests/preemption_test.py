"""SIGTERM and Ctrl-C as requests."""

import subprocess
import sys

TWICE = """
import os, signal, time
from soda_jax import preemption
preemption.AGAIN_SECONDS = 0.5
preemption.listen()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(0.1)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(0.8)
print(preemption.requested(), flush=True)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(10)
print("still here")
"""


def test_the_same_signal_at_once_is_the_same_request_and_later_ends_the_run():
    found = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (75, "True\n"), found.stderr
    assert found.stderr.count("stopping after this step") == 1


CTRL_C = """
import os, signal, time
from soda_jax import exit_codes, preemption
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
preemption.listen()
os.kill(os.getpid(), signal.SIGINT)
time.sleep(0.2)
os.kill(os.getpid(), signal.SIGINT)  # as mpirun hands it on
time.sleep(1.0)
print(preemption.requested(), exit_codes.exit_code(preemption.stopped(3)), flush=True)
os.kill(os.getpid(), signal.SIGINT)
time.sleep(10)
print("still here")
"""


def test_ctrl_c_asks_for_a_save_first_and_once_more_ends_the_run():
    found = subprocess.run([sys.executable, "-c", CTRL_C], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (130, "True 130\n"), found.stderr
    assert "once more ends at once" in found.stderr
