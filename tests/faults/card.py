"""The card of faults: `python -m tests.faults.card [--quick] [--only=NAMES]`, into docs/faults.md.

A C compiler is needed for the faults of single file operations. The whole takes hours on two cores.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
CARD = ROOT / "docs" / "faults.md"
ROWS = CARD.with_suffix(".json")
SEED = 0


def rows(folder: pathlib.Path, small: bool) -> dict:
    """{name: a function that makes the trials}; `small` is a hundredth of the work."""
    from tests.faults import corrupted, hosts, killed, mutated, poisoned

    def n(whole: int, few: int) -> int:
        return few if small else whole

    def under(name: str) -> pathlib.Path:
        path = folder / name
        path.mkdir()
        return path

    every = n(5, 60)
    return {
        "kills": lambda: killed.random_kills(n(200, 2), SEED, under("kills")),
        "kill": lambda: killed.struck("kill", every, under("kill")),
        "enospc": lambda: killed.struck("enospc", n(1, 60), under("enospc")),
        "eio": lambda: killed.struck("eio", every, under("eio"), offset=3),
        "terms": lambda: killed.random_terms(n(50, 2), SEED, under("terms")),
        "hosts": lambda: hosts.host_kills(n(20, 1), SEED, under("hosts")),
        "host_terms": lambda: hosts.host_terms(n(20, 1), SEED, under("host_terms")),
        "corruptions": lambda: corrupted.corruptions(n(10_000, 100), SEED, under("corruptions")),
        "nan": lambda: poisoned.poisoned(n(100, 5), SEED, under("nan")),
        "configs": lambda: mutated.mutated_configs(n(1000, 50), SEED),
        "files": lambda: mutated.mutated_files(n(100_000, 1000), SEED, under("files")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few trials; docs are left alone")
    parser.add_argument("--only", default="", help="names of rows, with commas between")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        prepare(folder)
        chosen, failed = rows(folder, arguments.quick), 0
        for name in arguments.only.split(",") if arguments.only else chosen:
            began = time.monotonic()
            result = chosen[name]()
            minutes = (time.monotonic() - began) / 60
            print(f"{name}: {result.row()} {minutes:.1f} minutes", flush=True)
            for failure in result.failures[:5]:
                print(f"    {failure}", flush=True)
            failed += len(result.failures)
            if not arguments.quick:
                keep(name, f"{result.row()[:-1]}| {minutes:.1f} | {commit()} |", list(chosen))

    sys.exit(failed > 0)


def keep(name: str, row: str, order: list[str]) -> None:
    """Puts a row in the place of the one that was there, and writes the page."""
    kept = json.loads(ROWS.read_text()) if ROWS.exists() else {}
    kept[name] = row
    CARD.parent.mkdir(exist_ok=True)
    ROWS.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    lines = [kept[name] for name in order if name in kept]
    CARD.write_text("\n".join([*head(), *lines]) + "\n", encoding="utf-8")


def prepare(folder: pathlib.Path) -> None:
    """What the processes of runs are given; before the first of them, and before JAX is asked."""
    from tests.faults import killed

    os.environ["FAULTS_CACHE"] = str(folder / "xla")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if library := killed.shim():
        os.environ["LD_PRELOAD"] = str(library)


def commit() -> str:
    """The commit, "-dirty" where anything but docs, which hold the card, was changed since."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":(exclude)docs")
    return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def head() -> list[str]:
    import jax
    import orbax.checkpoint

    return [
        "# Faults",
        "",
        "What soda_jax promises under each fault, and how often it was tried: made by"
        " `python -m tests.faults.card`, or a row of it by `--only`. Where nothing failed in n"
        " trials, the rate of failure is below 3/n (95 %).",
        "",
        f"{datetime.date.today()}; Python {platform.python_version()}, jax {jax.__version__},"
        f" orbax-checkpoint {orbax.checkpoint.__version__}; {os.cpu_count()} CPU cores,"
        f" {platform.system()}; seed {SEED}.",
        "",
        "| fault | promise | trials | failures | bound | seen | minutes | commit |",
        "|---|---|---|---|---|---|---|---|",
    ]


if __name__ == "__main__":
    main()
