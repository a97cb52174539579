"""Runs in processes of their own, which a fault may end at any time."""

import dataclasses
import json
import multiprocessing
import os
import pathlib
import re
import sys
import time
import unittest.mock

HERE = pathlib.Path(__file__).parent
TINY = str(HERE / "tiny.py")
LIMIT = 900.0  # seconds that any single run may take, whatever befalls it, on a slow machine too


def processes():
    """A context whose processes are forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.preloaded"])
    return context


@dataclasses.dataclass
class Run:
    """`python -m soda_jax WORDS`, under way."""

    process: multiprocessing.Process
    log: pathlib.Path
    began: float

    def wait(self) -> int:
        """The exit code; minus the signal's number where one ended it; 999 where it hung."""
        self.process.join(LIMIT)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            return 999
        return self.process.exitcode

    def signal(self, number: int, after: float) -> int:
        """Waits so many seconds, sends a signal, if it still runs, and waits for the end."""
        self.process.join(after)
        if self.process.exitcode is None:
            os.kill(self.process.pid, number)
        return self.wait()

    @property
    def resumed_from(self) -> int | None:
        """The step that it went on from; 0 for none; None if it didn't come so far."""
        text = self.log.read_text()
        if found := re.search(r"resuming from step (\d+)", text):
            return int(found[1])
        return 0 if "starting at step 0" in text else None


def start(
    workdir: pathlib.Path,
    *overrides: str,
    env: dict[str, str] | None = None,
    log: str = ".log",
) -> Run:
    """A pretraining of the tiny config in workdir; its output goes to a file beside it."""
    log = workdir.with_name(workdir.name + log)
    words = ["pretrain", f"--config={TINY}", f"--workdir={workdir}"]
    words += [f"--config.{word}" for word in overrides if not word.startswith("--")]
    words += [word for word in overrides if word.startswith("--")]
    process = processes().Process(target=child, args=(words, dict(env or {}), str(log)))
    process.start()
    return Run(process, log, time.monotonic())


def child(words: list[str], env: dict[str, str], log: str) -> None:
    heartbeat = env.pop("HEARTBEAT", None)
    flags = os.environ.get("FAULTS_XLA_FLAGS", "")
    os.environ.update({"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} | env)
    descriptor = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    import jax

    # All runs compile the same programs.
    jax.config.update("jax_compilation_cache_dir", os.environ["FAULTS_CACHE"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if heartbeat:
        from soda_jax import distributed

        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        distributed.HEARTBEAT_SECONDS = int(heartbeat)
        every_process_keeps_what_it_compiles()
    sys.argv[1:] = words
    from soda_jax.__main__ import console

    console()


def every_process_keeps_what_it_compiles() -> None:
    """JAX has only process 0 write its compilation cache, but a CPU's programs differ by process:
    without this the second of two hosts compiles, and the first waits, in every run."""
    from jax._src import compiler

    write, state = compiler._cache_write, compiler.distributed.global_state

    def write_as_first(*args, **kwargs):
        with unittest.mock.patch.object(state, "process_id", 0):
            write(*args, **kwargs)

    compiler._cache_write = write_as_first


def steps(workdir: pathlib.Path) -> list[int]:
    """Steps with a finished checkpoint."""
    from soda_jax.training.checkpoint_reader import CheckpointReader

    return CheckpointReader(workdir).steps()


def digests(workdir: pathlib.Path) -> dict:
    """{"state/leaf": digest} of the newest checkpoint, and the lines of the log."""
    step = steps(workdir)[-1]
    record = json.loads((workdir / "checkpoints" / str(step) / "run" / "metadata").read_text())
    lines = (workdir / "metrics.jsonl").read_text()
    return {"step": step, "metrics": lines} | {
        name: leaf["sha256"] for name, leaf in record["leaves"].items()
    }


def last_line(workdir: pathlib.Path) -> int:
    """The last step that metrics.jsonl tells of."""
    path = workdir / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    return json.loads(whole[-1])["step"] if whole else 0
