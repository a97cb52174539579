"""What a GPU that isn't there would be told to do in a training step: its kernels, and their bytes.

    python benchmarks/gpu_kernels.py --config=configs/cifar10.py:full_plain --topology=h200:1

The step is compiled ahead of time on this CPU (pip install 'soda_jax[cuda12]'). Of each kernel, or
copy, what it reads and writes is summed, by part of the model and by kind, and how long that takes
at the full rate of the card's memory. Operands count whole, also where a part is read, and nothing
is taken to stay in a cache; convolutions and products take longer. Nothing of it is measured. What
a loop or a branch does inside isn't listed. --program keeps the compiled program's text, or reads
what was kept.
"""

import collections
import os
import pathlib
import re

import figures
from tpu_cost import KINDS, PARTS, first

from soda_jax.compile import program
from soda_jax.config_schema import load
from soda_jax.gpu_hosts import CARDS, gpu_host
from soda_jax.hlo import sizes_of

KERNELS = ("fusion", "custom-call", "copy", "conditional", "while")
_LINE = re.compile(r"^\s+(?:ROOT )?%(\S+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")


def kernels(hlo: str) -> list[tuple[str, str, int]]:
    """(kind of instruction, name of the operation, bytes read and written) of each, in order."""
    entry = hlo[hlo.index("\nENTRY") :].splitlines()[2:]
    sizes, found = {}, []
    for line in entry:
        if not (match := _LINE.match(line)):
            continue
        name, shape, kind, rest = match.groups()
        sizes[name] = sum(sizes_of(shape))
        if kind in KERNELS:
            operands = re.findall(r"%([^\s,()]+)", rest.split(")", 1)[0])
            operation = re.search(r'op_name="([^"]*)"', rest)
            moved = sizes[name] + sum(sizes.get(operand, 0) for operand in operands)
            found.append((kind, operation[1] if operation else "", moved))
    return found


def main() -> None:
    parser = figures.parser(
        __doc__, config="configs/cifar10.py:full_plain", topology="h200:1", program="", most="15"
    )
    arguments, words = figures.parse(parser)
    card = arguments.topology.split(":")[0]
    if card not in CARDS:
        parser.error(f"--topology: there are {', '.join(CARDS)}, not {card}")
    kept = pathlib.Path(arguments.program) if arguments.program else None
    if kept and kept.exists():
        text = kept.read_text()
    else:
        text = program(
            load(arguments.config, words), gpu_host(arguments.topology).devices
        ).as_text()
        if kept:
            kept.write_text(text)
    found = kernels(text)
    rate = CARDS[card].bandwidth
    kinds = collections.Counter(kind for kind, *_ in found)
    print(", ".join(f"{kinds[kind]} {kind}" for kind in KERNELS if kinds[kind]))
    whole = sum(moved for *_, moved in found)
    print(f"{whole / 2**30:.1f} GiB read and written: {1e3 * whole / rate:.2f} ms\n")

    moved, count = collections.Counter(), collections.Counter()
    similar, alike = collections.Counter(), collections.Counter()
    for kind, operation, size in found:
        place = first(PARTS, operation), "copies" if kind == "copy" else first(KINDS, operation)
        moved[place] += size
        count[place] += 1
        operation = re.sub(r"\d+", "#", operation.removeprefix("jit(train_step)/"))
        similar[kind, operation] += size
        alike[kind, operation] += 1
    columns = ("copies", *KINDS)
    print("kernels, ms\n\n| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for part in PARTS:
        cells = [
            f"{count[part, kind]}, {1e3 * moved[part, kind] / rate:.2f}"
            if count[part, kind]
            else ""
            for kind in columns
        ]
        print(f"| {part} | {' | '.join(cells)} |")
    print("\nms, kernels, operation")
    for (kind, operation), size in similar.most_common(int(arguments.most)):
        print(f"{1e3 * size / rate:6.3f} {alike[kind, operation]:4} {kind} {operation[:110]}")
    figures.write(
        [{"kind": kind, "operation": name, "bytes": size} for kind, name, size in found],
        arguments.json,
    )


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
