"""Row 10: two processes are one run, and one of them dies."""

import pathlib
import random
import signal
import socket
import time

from tests.faults import runs
from tests.faults.results import Result

HEARTBEAT = 10  # seconds


def pair(workdir: pathlib.Path, num_steps: int) -> list[runs.Run]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    found = []
    for number in range(2):
        words = f"train.num_steps={num_steps}", f"--distributed=localhost:{port},2,{number}"
        run = runs.start(workdir, *words, env={"HEARTBEAT": str(HEARTBEAT)}, log=f".{number}.log")
        found.append(run)
    return found


def host_kills(count: int, seed: int, folder: pathlib.Path, num_steps: int = 2000) -> Result:
    """SIGKILL to one of two, at a random time; the other must end, and both go on together."""
    result = Result(
        "SIGKILL to one of two hosts",
        f"the other ends within {HEARTBEAT + 5} s, not with 0; both go on in the same bits",
    )
    draw, workdir = random.Random(seed), folder / "hosts"
    while result.trials < count:
        both = pair(workdir, num_steps)
        victim = draw.randrange(2)
        code = both[victim].signal(signal.SIGKILL, draw.uniform(2.0, 25.0))
        died = time.monotonic()
        other = both[1 - victim].wait()
        if code != -signal.SIGKILL:
            result.expect(code == other == 0, f"exits {code}, {other}")
            break
        result.trials += 1
        result.most("slowest end, s", time.monotonic() - died)
        result.expect(other not in (0, 999), f"the other's exit: {other}")
        result.expect(time.monotonic() - died < HEARTBEAT + 5, f"took {time.monotonic() - died} s")
    short = 20
    for name in ("a", "b"):
        both = pair(folder / name, short)
        if name == "a":
            both[1].signal(signal.SIGKILL, 6.0)
            both[0].wait()
            both = pair(folder / name, short)
        codes = [run.wait() for run in both]
        result.expect(codes == [0, 0], f"{name}: exits {codes}")
    result.expect(
        runs.digests(folder / "a") == runs.digests(folder / "b"), "a resumed run has other bits"
    )
    return result
