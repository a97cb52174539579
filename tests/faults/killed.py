"""Rows 1, 2, 3, 17, 18: runs that are killed, asked to stop, or find the disk full."""

import functools
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile

from tests.faults import runs
from tests.faults.results import Result

INTERVAL = 5  # steps between two checkpoints of the tiny run
FIRST, LAST = 5, 10  # a run with a checkpoint, which one more save ends


@functools.cache
def uninterrupted(num_steps: int) -> dict:
    """What a run that nothing befell ends with."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder) / "run"
        assert runs.start(workdir, f"train.num_steps={num_steps}").wait() == 0
        return runs.digests(workdir)


def differences(workdir: pathlib.Path, num_steps: int) -> list[str]:
    """Arrays, and the log, that are not those of the uninterrupted run."""
    expected, found = uninterrupted(num_steps), runs.digests(workdir)
    return [name for name in expected | found if expected.get(name) != found.get(name)]


def random_kills(count: int, seed: int, folder: pathlib.Path, num_steps: int = 600) -> Result:
    """SIGKILL at random times, one after the other in the same workdir, until the run is done."""
    result = Result(
        "SIGKILL at a random time",
        f"the same command goes on, loses at most {2 * INTERVAL} steps, and ends in the same bits",
    )
    uninterrupted(num_steps)  # first, so that all is compiled: else no run gets anywhere
    draw, workdir, number, done = random.Random(seed), None, 0, 0
    while result.trials < count:
        if workdir is None:
            workdir, number, done = folder / f"kills{number}", number + 1, 0
        run = runs.start(workdir, f"train.num_steps={num_steps}")
        code = run.signal(signal.SIGKILL, draw.uniform(0.3, 12.0))
        if (began := run.resumed_from) is not None:
            result.most("most steps lost", max(done - began, 0))
            result.expect(done - began <= 2 * INTERVAL, f"went back from {done} to {began}")
        done = runs.last_line(workdir) if workdir.exists() else 0
        if code == -signal.SIGKILL:
            result.trials += run.resumed_from is not None  # before, there was nothing to lose
        else:
            result.expect(code == 0, f"exit {code}: {run.log.read_text()[-300:]}")
            result.expect(not (odd := differences(workdir, num_steps)), f"differ: {odd[:3]}")
            result.seen["runs finished"] = number
            workdir = None
    if workdir is not None:
        result.expect(runs.start(workdir, f"train.num_steps={num_steps}").wait() == 0, "no end")
        result.expect(not (odd := differences(workdir, num_steps)), f"differ: {odd[:3]}")
        result.seen["runs finished"] = number
    return result


def random_terms(count: int, seed: int, folder: pathlib.Path, num_steps: int = 3000) -> Result:
    """SIGTERM at random times; the next start must lose nothing."""
    result = Result("SIGTERM at a random time", "exit 75 in time, no step is lost")
    uninterrupted(INTERVAL)  # compiles: else all this time goes into asking runs that do
    draw, number, done = random.Random(seed), 0, 0
    while result.trials < count:
        workdir = folder / f"terms{number}"
        run = runs.start(workdir, f"train.num_steps={num_steps}")
        run.process.join(draw.uniform(0.5, 10.0))
        if run.process.exitcode is None:
            sent = runs.time.monotonic()
            os.kill(run.process.pid, signal.SIGTERM)
            code = run.wait()
            result.most("slowest exit, s", runs.time.monotonic() - sent)
            result.trials += 1
            result.expect(code == 75, f"exit {code}: {run.log.read_text()[-300:]}")
            began = run.resumed_from
            result.expect(began in (None, done), f"went on from {began}, not {done}")
            steps = runs.steps(workdir) if workdir.exists() else []
            done = runs.last_line(workdir) if workdir.exists() else 0
            result.expect((steps or [0])[-1] == done, f"saved {steps}, made {done}")
        else:
            result.expect(run.process.exitcode == 0, f"exit {run.process.exitcode}")
            number, done = number + 1, 0
    return result


def shim() -> pathlib.Path | None:
    """The library that strikes at a file operation; None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = pathlib.Path(tempfile.gettempdir()) / f"soda_jax_fault_{os.getuid()}.so"
    source = runs.HERE / "shim.c"
    command = [compiler, "-shared", "-fPIC", "-O1", "-w", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def struck(how: str, every: int, folder: pathlib.Path, offset: int = 1) -> Result:
    """The last save of a run, and the cleaning after it, struck at every n-th file operation."""
    promises = {
        "kill": "the same command goes on and ends in the same bits",
        "enospc": "exit 74 within a minute, older checkpoints whole; with space, the same bits",
        "eio": "never exit 0 without a last checkpoint that is whole",
    }
    names = {"kill": "SIGKILL", "enospc": "disk full from", "eio": "I/O errors from"}
    result = Result(
        f"{names[how]} at file operation {offset}, {offset + every}, ...", promises[how]
    )
    began = folder / "began"
    assert runs.start(began, f"train.num_steps={FIRST}").wait() == 0
    at = offset
    while True:
        workdir = folder / f"{how}{at}"
        shutil.copytree(began, workdir)
        env = {
            "FAULT_HOW": how,
            "FAULT_AT": str(at),
            "FAULT_FOLDER": str(workdir / "checkpoints"),
            "FAULT_MARK": str(mark := folder / f"{how}{at}.mark"),
        }
        run = runs.start(workdir, f"train.num_steps={LAST}", env=env)
        code = run.wait()
        if code == 0:
            # The fault came too late to strike, or it was harmless; either way nothing is missing.
            result.expect(not differences(workdir, LAST), f"operation {at}: exit 0, yet not whole")
        if not mark.exists():
            result.expect(code == 0, f"not struck, and exit {code}")
            return result
        result.trials += 1
        allowed = {"kill": (-signal.SIGKILL, 0), "enospc": (74, 0), "eio": (74, 0)}[how]
        result.expect(code in allowed, f"operation {at}: exit {code}: {run.log.read_text()[-300:]}")
        seconds = runs.time.monotonic() - run.began
        result.most("slowest exit, s", seconds)
        result.expect(seconds < 60, f"operation {at}: took {seconds:.0f} s")
        result.expect(FIRST in runs.steps(workdir) or LAST in runs.steps(workdir), f"{at}: none")
        again = runs.start(workdir, f"train.num_steps={LAST}").wait()
        result.expect(again == 0, f"operation {at}: started again, exit {again}")
        odd = differences(workdir, LAST) if not again else []
        result.expect(not odd, f"operation {at}: differ {odd[:3]}")
        shutil.rmtree(workdir)
        at += every
