"""What the pictures cost beside the step: pictures/s of a config's feed; one command, a table out.

    python benchmarks/data.py --config=configs/cifar10.py:cpu --config.data.path=DIR

source        pictures read in random order: decoded, drawn or copied, one thread
host          batches ready on the devices, made by a thread ahead (config.data.placement=host)
device        batches ready where the set lies on the devices (config.data.placement=device)
augmentation  both views of a batch, inside a jitted function of its own
step          the whole train step, augmentation included, its batch ready

Pictures are counted as they are read: with cameras all views of an object. The thread of "host"
works while the step does, and where that runs on the CPU too they share its cores; "device" picks
its batch on the devices that the step runs on.
"""

import time

import figures
import jax
import numpy as np

from soda_jax import experiment, rngs
from soda_jax.config_schema import load
from soda_jax.data.views import pair


def rate(function, pictures: int, seconds: float) -> float:
    """Pictures a second of function(), each call making so many, for so long after a first call."""
    jax.block_until_ready(function())
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        jax.block_until_ready(function())
        count += pictures
    return count / (time.perf_counter() - begin)


def benchmark(config, seconds: float) -> dict[str, float]:
    parts = experiment.build(config)
    source = experiment.open_data(parts, "train")
    b, views = config.train.batch_size, 1
    if parts.cameras is not None:
        views = parts.cameras.max_sources + parts.cameras.targets
    draw = np.random.default_rng(config.seed)

    found = {"source": rate(lambda: source.images(draw.integers(0, len(source), b)), b, seconds)}
    megabytes = len(source) * np.prod(source.image_shape) / 2**20
    for placement in ("host", "device"):
        if placement == "device" and megabytes > config.data.device_megabytes:
            continue
        config.data.placement = placement
        with experiment.open_batches(experiment.build(config), source, 0) as batches:
            found[placement] = rate(lambda feed=batches: next(feed), b * views, seconds)
            images = next(batches)

    key = rngs.stream(rngs.root(config.seed), "views")
    sides = parts.source_view, parts.target_view, parts.cameras, config.views.shared
    sides += config.views.targets, config.views.pairs, parts.located
    augment = jax.jit(lambda images: pair(key, images, *sides))
    found["augmentation"] = rate(lambda: augment(images), b * views, seconds)

    step, state = parts.step(experiment.train_step), experiment.init_state(parts)

    def train():
        nonlocal state
        state, values = step(state, images)
        return values

    train()
    found["step"] = rate(train, b * views, seconds)
    return found


def main() -> None:
    parser = figures.parser(__doc__, config="configs/digits.py")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    arguments, words = figures.parse(parser)
    config = load(arguments.config, words)
    found = benchmark(config, arguments.seconds)
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    print(f"{config.name}, batch {config.train.batch_size}, {device}, jax {jax.__version__}\n")
    print("| | pictures/s | over the step's |\n|---|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value:,.0f} | {value / found['step']:.1f} |")
    figures.write({"config": config.name, "device": device} | found, arguments.json)


if __name__ == "__main__":
    main()
