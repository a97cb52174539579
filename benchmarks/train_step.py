"""Images/s, FLOPs a picture, memory and MFU of the train step: one command, a table out.

    python benchmarks/train_step.py --config=configs/cifar10.py:full_plain [--config.KEY=VALUE ...]

configs/cifar10.py:full_plain is the geometry of FutureXiang/soda (ResNet-18, small stem; z 128;
U-Net 128 (1, 2, 2, 2), 2 blocks, attention at 16x16): a user of that repository can compare. The
step is the one that pretraining runs: augmentation, both networks, AdamW, EMA. The pictures are
random bytes; with cameras they are the config's own, and objects are counted, not their views.
"""

import statistics
import time

import figures
import jax
import numpy as np

from soda_jax import experiment
from soda_jax.config_schema import load
from soda_jax.training import metrics, sharding

# Dense bfloat16 operations a second of one device, from the makers' data sheets.
PEAK_FLOPS = {
    "NVIDIA H200": 989e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}


def training_batch(parts):
    """Random bytes; with cameras, which can't be random, what the config's data begin with."""
    if parts.cameras is not None:
        source = experiment.open_data(parts, "train")
        with experiment.open_batches(parts, source, 0) as batches:
            return next(batches)
    shape = experiment.abstract_batch(parts).shape
    images = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    return sharding.split_batch(parts.mesh, images)


def benchmark(config, num_steps: int, repeats: int) -> dict:
    """Times `repeats` runs of `num_steps` steps, each ended by one wait; the median counts."""
    parts = experiment.build(config)
    abstract = experiment.abstract_state(parts)
    begin = time.perf_counter()
    step = experiment.train_step(parts).lower(abstract, experiment.abstract_batch(parts)).compile()
    compile_seconds = time.perf_counter() - begin

    state = experiment.init_state(parts)
    images = training_batch(parts)

    def run(state):
        begin = time.perf_counter()
        for _ in range(num_steps):
            state, values = step(state, images)
        jax.block_until_ready((state, values))
        return state, (time.perf_counter() - begin) / num_steps

    state, _ = run(state)
    seconds = []
    for _ in range(repeats):
        state, one = run(state)
        seconds.append(one)
    median = statistics.median(seconds)
    images_per_second = config.train.batch_size / median
    flops = experiment.flops_per_image(parts)
    device = jax.devices()[0]
    memory = step.memory_analysis()
    stats = device.memory_stats() or {}
    peak = PEAK_FLOPS.get(device.device_kind) if config.model.dtype == "bfloat16" else None
    return {
        "config": config.name,
        "device": f"{jax.device_count()} x {device.device_kind}",
        "jax": jax.__version__,
        "dtype": config.model.dtype,
        "batch_size": config.train.batch_size,
        "parameters": metrics.count(abstract.params),
        "images_per_second": images_per_second,
        "step_milliseconds": 1e3 * median,
        "fastest_and_slowest": [1e3 * min(seconds), 1e3 * max(seconds)],
        "gflop_per_image": flops / 1e9,
        "teraflops_per_second": flops * images_per_second / 1e12,
        "mfu": flops * images_per_second / (peak * jax.device_count()) if peak else None,
        "compiled_mebibytes": (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**20,
        "peak_mebibytes": stats["peak_bytes_in_use"] / 2**20 if stats else None,
        "compile_seconds": compile_seconds,
    }


def main() -> None:
    parser = figures.parser(__doc__, config="configs/cifar10.py:full_plain")
    parser.add_argument("--num_steps", type=int, default=10, help="steps between two waits")
    parser.add_argument("--repeats", type=int, default=3)
    arguments, words = figures.parse(parser)
    found = benchmark(load(arguments.config, words), arguments.num_steps, arguments.repeats)
    figures.show(found)
    figures.write(found, arguments.json)


if __name__ == "__main__":
    main()
