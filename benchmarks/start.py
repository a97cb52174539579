"""Seconds until something happens: importing, --help, a wrong key, the first step; a table out.

    python benchmarks/start.py --config=configs/digits.py

Each line is a process of its own, from its start to its end; the steps are those of a run that ends
after one, without its last measures: once with an empty compilation cache, once with what the first
run left there.
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


def seconds(words: list[str], cache: str, code: int = 0) -> float:
    """Of `python WORDS`, which must end with this code."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": cache}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # it would be preferred
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    took = time.perf_counter() - begin
    if done.returncode != code:
        raise SystemExit(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr[-2000:]}")
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
        for name in ("a run of one step, nothing compiled before", "the same, started again"):
            workdir = f"--workdir={folder}/{name[:5]}"
            took = seconds([*module, "pretrain", config, workdir, *one], folder)
            print(f"| {name} | {took:.1f} | {took:.1f} |", flush=True)
            found[name] = [took]
    figures.write(found, arguments.json)


if __name__ == "__main__":
    main()
