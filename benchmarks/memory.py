"""Bytes a picture of the train step, and the largest batch that a device holds; a table out.

    python benchmarks/memory.py --config=configs/cifar10.py:full_plain [--topology=h200:1]

The step is compiled at two batches, not run: what XLA lays out for state, batch and activations.
Between them memory is taken to grow in a straight line, from which the largest batch follows, a
tenth of the device left free: an estimate. For one device, without the data set that may be kept
there. Each device has its own compiler: ask where you will train, or name the card or the TPU chip
that isn't there (`soda_jax compile --help`).
"""

import figures
import jax

from soda_jax.compile import machine, memory_of, program
from soda_jax.config_schema import load

GIBIBYTES = (16, 80, 139)
FREE = 0.1  # what is left to the allocator and to measures in between


def main() -> None:
    parser = figures.parser(__doc__, config="configs/cifar10.py:full_plain")
    parser.add_argument("--batch_sizes", type=int, nargs=2, default=(16, 64))
    parser.add_argument(
        "--topology", help="such as h200:1 or v5e:1x1; else the device that is here"
    )
    arguments, words = figures.parse(parser)
    config = load(arguments.config, words)
    config.mesh.data = config.mesh.fsdp = 1
    small, large = arguments.batch_sizes
    train, accumulate = config.train, config.optimizer.accumulate
    variants = {
        "without remat": (False, accumulate),
        "remat": (True, accumulate),
        f"accumulate={4 * accumulate}": (False, 4 * accumulate),
    }
    devices = machine(arguments.topology).devices if arguments.topology else jax.devices()[:1]
    print(f"{config.name}, {config.model.dtype}, {devices[0].device_kind}\n")
    largest = " | ".join(f"largest batch in {size} GiB" for size in GIBIBYTES)
    print(f"| | MiB whatever the batch | MiB a picture | {largest} |")
    print("|---|---|---|" + "---|" * len(GIBIBYTES))
    rows = []
    for name, (train.remat, config.optimizer.accumulate) in variants.items():
        found = []
        for config.train.batch_size in (small, large):
            found.append(memory_of(program(config, devices)))
        each = (found[1] - found[0]) / (large - small)
        base = found[0] - small * each
        cells = [f"{int(((1 - FREE) * size * 2**30 - base) / each):,}" for size in GIBIBYTES]
        print(f"| {name} | {base / 2**20:.0f} | {each / 2**20:.2f} | {' | '.join(cells)} |")
        rows.append({"variant": name, "bytes": base, "bytes_per_picture": each})
    figures.write(rows, arguments.json)


if __name__ == "__main__":
    main()
