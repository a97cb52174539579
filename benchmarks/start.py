"""Seconds until something happens: importing, --help, a wrong key, the first step; a table out.

    python benchmarks/start.py --config=configs/digits.py

Each line is a process of its own, from its start to its end, but for the last two, which end when a
run has logged its first step: with an empty compilation cache, and with what the first left there.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import figures

ROOT = pathlib.Path(__file__).parents[1]
QUIET = ["diagnose_every=0", "probe_every=0", "sample_every=0", "num_steps=1"]


def seconds(words: list[str], cache: str, code: int = 0, log: pathlib.Path | None = None) -> float:
    """Of `python WORDS`, which must end with this code; given a log, until its first line."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": cache}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # it would be preferred
    command, took = [sys.executable, *words], None
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors
        )
        while process.poll() is None:
            if log and took is None and log.exists() and log.stat().st_size:
                took = time.perf_counter() - begin
            time.sleep(0.005)
        took = took or time.perf_counter() - begin
        if process.returncode != code:
            errors.seek(0)
            told = errors.read()[-2000:]
            raise SystemExit(f"{' '.join(words)}: exit {process.returncode}\n{told}")
    return took


def main() -> None:
    parser = figures.parser(__doc__, config="configs/digits.py")
    parser.add_argument("--repeats", type=int, default=5)
    arguments, words = figures.parse(parser)
    module, config = ["-m", "soda_jax"], f"--config={arguments.config}"
    with tempfile.TemporaryDirectory() as folder:
        wrong = [*module, "pretrain", config, f"--workdir={folder}/none", "--config.trian.seed=1"]
        rows = {
            "import soda_jax": (["-c", "import soda_jax"], 0),
            "import jax": (["-c", "import jax"], 0),
            "soda_jax --help": ([*module, "--help"], 0),
            "a wrong key": (wrong, 78),
        }
        print("| | seconds, median | fastest |\n|---|---|---|")
        found = {}
        for name, (command, code) in rows.items():
            took = [seconds(command, folder, code) for _ in range(arguments.repeats)]
            print(f"| {name} | {statistics.median(took):.2f} | {min(took):.2f} |", flush=True)
            found[name] = took
        one = [f"--config.train.{word}" for word in QUIET] + words
        for name in ("the first step, nothing compiled before", "the same, started again"):
            workdir = pathlib.Path(folder, name[:8])
            command = [*module, "pretrain", config, f"--workdir={workdir}", *one]
            took = seconds(command, folder, log=workdir / "metrics.jsonl")
            print(f"| {name} | {took:.1f} | once |", flush=True)
            found[name] = [took]
    figures.write(found, arguments.json)


if __name__ == "__main__":
    main()
