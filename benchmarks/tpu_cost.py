"""Where a training step's time goes on a TPU that isn't there, by its compiler's own estimate.

    python benchmarks/tpu_cost.py --config=configs/cifar10.py:full_plain --topology=v5e:1x1

The step is compiled ahead of time on this CPU (pip install 'soda_jax[tpu]'; minutes to an hour).
Each kernel of the program carries the cycles that the compiler expects; here they are summed by
part of the model and by kind. A kernel that several operations were fused into counts whole for the
one it is named after; what a loop runs counts as often as it runs. --program keeps the compiled
program's text, or reads what was kept.
"""

import collections
import os
import pathlib
import re

import figures

from soda_jax import hlo
from soda_jax.tpu_slices import CHIPS, tpu_slice

# The first that fits the path of an operation says its part, and its kind.
PARTS = {
    "encoder": r"/encoder/",
    "denoiser": r"/denoiser/",
    "update": r"/cond/|train_step\)/(reduce_|add|square|jit\(_?global)",
    "views, noise, loss": r"",
}
KINDS = {
    "attention": r"attention",
    "dropout": r"Dropout",
    "modulation": r"/modulation|/time/|/code/|embedding",
    "norms": r"/norm|features_norm",
    "convolutions": r"conv_general_dilated",
    "matrix products": r"dot_general",
    "rest": r"",
}
_NAME = re.compile(r'op_name="([^"]*)"')


def main() -> None:
    parser = figures.parser(
        __doc__, config="configs/cifar10.py:full_plain", topology="v5e:1x1", program="", most="15"
    )
    arguments, words = figures.parse(parser)
    chip = arguments.topology.split(":")[0]
    if chip not in CHIPS:
        parser.error(f"--topology: there are {', '.join(CHIPS)}, not {chip}")
    program = pathlib.Path(arguments.program) if arguments.program else None
    if program and program.exists():
        text = program.read_text()
    else:
        text = compiled(arguments.config, arguments.topology, words)
        if program:
            program.write_text(text)
    named = ((_NAME.search(line), cycles) for line, cycles in hlo.kernels(text))
    kernels = [(name[1] if name else "", cycles) for name, cycles in named]
    milliseconds = 1e3 / CHIPS[chip].clock
    whole = sum(cycles for _, cycles in kernels)
    print(f"{len(kernels)} kernels, {whole * milliseconds:.2f} ms a step\n")
    table = collections.Counter()
    for name, cycles in kernels:
        table[first(PARTS, name), first(KINDS, name)] += cycles
    print("| | " + " | ".join(KINDS) + " | ms |\n|---|" + "---|" * (len(KINDS) + 1))
    for part in PARTS:
        row = [table[part, kind] for kind in KINDS]
        cells = [f"{cycles / whole:.1%}" if cycles else "" for cycles in row]
        print(f"| {part} | {' | '.join(cells)} | {sum(row) * milliseconds:.2f} |")
    similar, count = collections.Counter(), collections.Counter()
    for name, cycles in kernels:
        name = re.sub(r"\d+", "#", name.removeprefix("jit(train_step)/"))
        similar[name] += cycles
        count[name] += 1
    print("\nshare, kernels, operation")
    for name, cycles in similar.most_common(int(arguments.most)):
        print(f"{cycles / whole:6.1%} {count[name]:4} {name[:120]}")
    figures.write({f"{part}, {kind}": cycles for (part, kind), cycles in table.items()},
                  arguments.json)  # fmt: skip


def first(patterns: dict[str, str], name: str) -> str:
    return next(key for key, pattern in patterns.items() if re.search(pattern, name))


def compiled(path: str, topology: str, words: list[str]) -> str:
    os.environ["JAX_PLATFORMS"] = "cpu"
    from soda_jax.compile import program
    from soda_jax.config_schema import load

    return program(load(path, words), tpu_slice(topology).devices).as_text()


if __name__ == "__main__":
    main()
