"""The command line, such as `python -m soda_jax pretrain --config=FILE --workdir=DIR`."""

import argparse
import gc
import os
import sys
import time
from collections.abc import Sequence

from soda_jax import preemption
from soda_jax.exit_codes import CONFIG, UsageError, tell

try:
    from soda_jax.config_fields import SUITES, USES
    from soda_jax.config_kinds import resembling
    from soda_jax.config_schema import PREFIX, load, recall
except ModuleNotFoundError as error:  # a Python that soda_jax isn't installed in
    print(
        f"soda_jax: error: {sys.executable} has no package {error.name}: pip install '.', or take "
        "the Python that has it (after the quickstart: source .venv/bin/activate)",
        file=sys.stderr,
    )
    sys.exit(CONFIG)
from soda_jax.workdir import existing_workdir

COMMANDS = {
    "pretrain": "train a model in the workdir, or go on with the one that is there",
    "probe": "measure what the representations of a trained model are worth",
    "sample": "reconstruct pictures from their codes",
    "evaluate": "run suites of measures on a trained model, and show them on one page",
    "apply": "put z to use: reconstruct, interpolate, mix, find directions, draw from nothing",
    "novel_views": "draw objects from other cameras, and measure it",
    "compare": "put several trained models on one page, under the same measures",
    "explore": "serve a page, on this machine, to play with the codes of a trained model",
    "report": "put what is in the workdir on one page, to be sent as a file",
    "prepare": "make the config's data set ready, or say what is there",
    "compile": "compile the train step for a TPU slice or GPUs that aren't here: memory, speed",
    "doctor": "show versions, devices and optional packages",
}


def console() -> None:
    """`main` as a program.

    After an error nothing is waited for: a thread of a save that failed may never end, nor other
    processes of the run, that don't know of it yet.
    """
    if code := main():
        sys.stdout.flush()
        sys.stderr.flush()
        if "soda_jax.distributed" in sys.modules:
            time.sleep(2.0)  # the others must end with their own code before their leader is gone
        os._exit(code)


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; every expected error is one line on stderr."""
    try:
        arguments, overrides = parse(sys.argv[1:] if words is None else words)
        return run(arguments, overrides) or 0
    except (Exception, KeyboardInterrupt) as error:
        return tell(error)


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> int | None:
    """Checks the config, then the workdir, and only then imports JAX."""
    command, workdir = arguments.command, arguments.workdir
    set_environment()
    if command == "doctor":
        from soda_jax import doctor

        return doctor.examine()
    if arguments.dry_run and command != "pretrain":
        raise UsageError(f"--dry_run goes with pretrain, not with {command}")
    suites = names_in("suite", arguments.suite, SUITES)
    uses = names_in("use", arguments.use, USES)
    if suites and command != "evaluate":
        raise UsageError(f"--suite goes with evaluate, not with {command}")
    if uses and command != "apply":
        raise UsageError(f"--use goes with apply, not with {command}")
    if bool(arguments.of) != (command == "compare"):
        raise UsageError(
            "compare needs --of, such as --of=runs/soda,runs/ddae"
            if command == "compare"
            else f"--of goes with compare, not with {command}"
        )
    if command == "compare" and (arguments.config or overrides):
        raise UsageError("compare takes each run's own config, so no --config")
    if arguments.distributed is not None and command != "pretrain":
        raise UsageError(f"--distributed goes with pretrain, not with {command}")
    if bool(arguments.topology) != (command == "compile"):
        raise UsageError(
            "compile needs --topology, such as --topology=v5e:16x16"
            if command == "compile"
            else f"--topology goes with compile, not with {command}"
        )
    if command in ("pretrain", "prepare", "compile") and not arguments.config:
        raise UsageError(f"{command} needs --config, such as --config=configs/digits.py")
    if command not in ("prepare", "compile") and not arguments.dry_run:
        if not workdir:
            raise UsageError(f"{command} needs --workdir, such as --workdir=runs/digits")
    if command == "report":
        from soda_jax.report import report

        print(report(existing_workdir(workdir)))
        return 0
    if command == "compare":
        from soda_jax.compare import compare

        compare([existing_workdir(path.strip()) for path in arguments.of.split(",")], workdir)
        return 0
    if arguments.config:
        config = load(arguments.config, overrides)
    else:
        config = recall(existing_workdir(workdir), overrides)

    if command == "pretrain":
        if not arguments.dry_run:
            preemption.listen()
        if arguments.distributed is not None:
            from soda_jax import distributed

            distributed.join(arguments.distributed)
            if not arguments.dry_run:
                preemption.listen()  # JAX has put a listener in its place
        from soda_jax.pretrain import pretrain

        try:
            pretrain(config, workdir, dry_run=arguments.dry_run)
        finally:
            preemption.end()
    elif command == "compile":
        os.environ["JAX_PLATFORMS"] = "cpu"  # there is no TPU and no GPU here
        from soda_jax.compile import compile_for

        print(compile_for(config, arguments.topology.split(",")))
    elif command == "probe":
        workdir = existing_workdir(workdir)
        from soda_jax.probe import probe

        probe(config, workdir)
    elif command == "sample":
        workdir = existing_workdir(workdir)
        from soda_jax.sample import sample

        sample(config, workdir)
    elif command == "evaluate":
        workdir = existing_workdir(workdir)
        from soda_jax.evaluate import evaluate

        evaluate(config, workdir, suites)
    elif command == "apply":
        workdir = existing_workdir(workdir)
        from soda_jax.apply import apply

        apply(config, workdir, uses)
    elif command == "novel_views":
        workdir = existing_workdir(workdir)
        from soda_jax.novel_views import novel_views

        novel_views(config, workdir)
    elif command == "explore":
        workdir = existing_workdir(workdir)
        from soda_jax.explore import explore

        explore(config, workdir)
    else:
        from soda_jax.prepare import prepare

        data = config.data
        splits = data.train_split, data.test_split
        shape = data.image_size, data.channels
        print(prepare(data.source, data.name, data.path, splits, *shape))
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UsageError(f"{message}; see python -m soda_jax --help")


def make_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    parser = _Parser(
        prog="python -m soda_jax",
        usage="%(prog)s COMMAND --config=FILE --workdir=DIR [--config.KEY=VALUE ...]",
        description="\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("command", metavar="COMMAND", help="one of those above")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="such as configs/digits.py, or configs/cifar10.py:cpu; probe, sample, "
        "evaluate, apply, novel_views and explore take that of "
        "the workdir where none is given; --config.KEY=VALUE changes a field, such as "
        "--config.train.batch_size=64",
    )
    parser.add_argument("--workdir", metavar="DIR", help="where checkpoints and results are")
    parser.add_argument(
        "--dry_run",
        "--dry-run",
        action="store_true",
        help="pretrain: show parameters, operations and memory; write nothing",
    )
    parser.add_argument(
        "--suite",
        metavar="NAMES",
        help=f"evaluate: which of {', '.join(SUITES)}, with commas between; else what the config "
        "says (evaluate.suites)",
    )
    parser.add_argument(
        "--distributed",
        metavar="HOW",
        help="pretrain: as one of several processes; auto, mpi4py, or ADDRESS:PORT,COUNT,NUMBER",
    )
    parser.add_argument(
        "--topology",
        metavar="SLICES",
        help="compile: for which TPU slices or GPUs of a host, such as v5e:1x1,v5e:16x16,h200:8",
    )
    parser.add_argument(
        "--of", metavar="DIRS", help="compare: the workdirs of the models, with commas between"
    )
    parser.add_argument(
        "--use",
        metavar="NAMES",
        help=f"apply: which of {', '.join(USES)}, with commas between; else what the config says "
        "(apply.uses)",
    )
    return parser


def names_in(kind: str, words: str | None, known: Sequence[str]) -> list[str]:
    """The names that an option holds, such as --suite=probes,code; each must be known."""
    names = [name.strip() for name in words.split(",")] if words else []
    for name in names:
        if name not in known:
            raise UsageError(_unknown(kind, name, known))
    return list(dict.fromkeys(names))


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and the --config.* words; any other word that isn't known is an error."""
    overrides = [word for word in words if word.startswith(PREFIX)]
    if cut := [word for word in overrides if "=" not in word]:
        raise UsageError(f"{cut[0]}: a field and its value are one word, {cut[0]}=VALUE")
    parser = make_parser()
    arguments, unknown = parser.parse_known_args([w for w in words if not w.startswith(PREFIX)])
    if arguments.command not in COMMANDS:
        raise UsageError(_unknown("command", arguments.command, COMMANDS))
    if unknown:
        if unknown[0].partition(":")[0].endswith(".py"):
            raise UsageError(f"unknown word {unknown[0]!r} (nearest: --config={unknown[0]})")
        options = (
            "--config",
            "--workdir",
            "--dry_run",
            "--suite",
            "--use",
            "--of",
            "--topology",
            "--distributed",
            "--help",
            f"{PREFIX}KEY=VALUE",
        )
        raise UsageError(_unknown("option", unknown[0].partition("=")[0], options))
    return arguments, overrides


def _unknown(what: str, word: str, known: Sequence[str]) -> str:
    near = resembling(word, known)
    hint = f"nearest: {near[0]}" if near else f"there are {', '.join(known)}"
    return f"unknown {what} {word!r} ({hint})"


def set_environment() -> None:
    """Quiet logs, compiled programs kept in the user's cache, and fewer collections of garbage.

    What is set already stays. Tracing allocates, and keeps, hundreds of thousands of objects, which
    Python would search for garbage hundreds of times (docs/performance.md).
    """
    gc.set_threshold(max(50_000, gc.get_threshold()[0]))
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's errors, without its notes
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(cache, "soda_jax", "xla"))


if __name__ == "__main__":
    console()
