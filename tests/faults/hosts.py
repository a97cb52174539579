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


def await_step_after(done: int, workdir: pathlib.Path, run: runs.Run) -> None:
    """Until a step was made, or the run is over: compiling may take longer than all draws."""
    until = time.monotonic() + runs.LIMIT
    while runs.last_line(workdir) <= done and run.process.exitcode is None:
        if time.monotonic() > until:
            return
        time.sleep(0.1)


def host_kills(count: int, seed: int, folder: pathlib.Path, num_steps: int = 150) -> Result:
    """SIGKILL to one of two, from the start or from the first step on, after a random time; the
    other must end, and both go on together."""
    result = Result(
        "SIGKILL to one of two hosts",
        f"the other ends within {HEARTBEAT + 5} s, not with 0; both go on, to the same bits",
    )
    draw, number = random.Random(seed), 0
    whole = [run.wait() for run in pair(folder / "whole", num_steps)]
    result.expect(whole == [0, 0], f"a run that nothing befell: exits {whole}")
    expected = runs.digests(folder / "whole")
    while result.trials < count:
        workdir = folder / f"hosts{number}"
        while True:
            # The last run of a count is left alone, so that every kill is followed by an end.
            both = pair(workdir, num_steps)
            if result.trials == count:
                codes = [run.wait() for run in both]
            else:
                victim = draw.randrange(2)
                if draw.random() < 0.7:
                    done = runs.last_line(workdir)
                    await_step_after(done, workdir, both[0])
                killed = both[victim].signal(signal.SIGKILL, draw.uniform(0.0, 15.0))
                died = time.monotonic()
                codes = [killed, both[1 - victim].wait()]
            if codes[0] != -signal.SIGKILL:
                break
            result.trials += both[0].resumed_from is not None
            took = time.monotonic() - died
            result.most("slowest end, s", took)
            result.expect(codes[1] not in (0, 999), f"the other's exit: {codes[1]}")
            result.expect(took < HEARTBEAT + 5, f"took {took:.0f} s")
        result.expect(codes == [0, 0], f"in the end: exits {codes}")
        found = runs.digests(workdir)
        odd = [name for name in expected if expected[name] != found.get(name)]
        result.expect(not odd, f"differ: {odd[:3]}")
        number += 1
    result.seen["runs finished"] = number
    return result


def host_terms(count: int, seed: int, folder: pathlib.Path) -> Result:
    """SIGTERM to one of two: both save the same step and end with 75."""
    result = Result("SIGTERM to one of two hosts", "both end with 75, no step is lost")
    draw, workdir, done = random.Random(seed), folder / "asked", 0
    while result.trials < count:
        both = pair(workdir, 100_000)
        victim = draw.randrange(2)
        await_step_after(done, workdir, both[0])
        first = both[victim].signal(signal.SIGTERM, draw.uniform(0.0, 3.0))
        codes = [first, both[1 - victim].wait()]
        began = both[0].resumed_from
        result.trials += 1
        result.expect(codes == [75, 75], f"exits {codes}: {both[victim].log.read_text()[-300:]}")
        result.expect(began == done, f"went on from {began}, not {done}")
        done, steps = runs.last_line(workdir), runs.steps(workdir)
        result.expect((steps or [0])[-1] == done, f"saved {steps}, made {done}")
    return result
