"""Would it run on a pod, and how fast: `python -m soda_jax compile`, on any CPU.

The sharded train step is compiled ahead of time for a TPU slice, or a host's GPUs, that isn't
there. The seconds are those of the cycles that XLA expects of each kernel of a TPU, for a chip that
is never kept waiting: an upper bound on the speed, good for comparing slices and configs with each
other. Of a GPU's kernels it expects none: there it is memory and collectives alone.
"""

import dataclasses
import sys
import time
from typing import Any

import jax
import ml_collections

from soda_jax import experiment, hlo
from soda_jax.exit_codes import UsageError
from soda_jax.gpu_hosts import CARDS, gpu_host
from soda_jax.tpu_slices import CHIPS, Slice, tpu_slice


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What XLA says of one training step on a slice.

    Attributes:
      memory: bytes a chip, of state, batch and activations.
      flops: a chip and step, without what is computed twice (`train.remat`); None for a GPU.
      compute: seconds a step by XLA's estimate, without what chips tell each other; None likewise.
      collectives: {kind: (how many, bytes a chip)}.
      communication: seconds a step for those at the full rate of the interconnect.
      compilation: seconds that it took here.
    """

    slice: Slice
    batch: int
    memory: float
    flops: float | None
    compute: float | None
    collectives: dict[str, tuple[int, int]]
    communication: float
    compilation: float

    @property
    def images_per_second(self) -> float:
        """If nothing of the communication is hidden behind the computing."""
        return self.batch / (self.compute + self.communication)

    @property
    def efficiency(self) -> float:
        """Speed a chip, as a share of that of a chip that computes as much and needn't talk."""
        return self.compute / (self.compute + self.communication)


def compile_for(config: ml_collections.ConfigDict, names: list[str]) -> str:
    """A table for Markdown with a row for each slice.

    Raises:
      UsageError: a slice, or a card, that doesn't exist.
      ConfigError: the slice can't split the batch.
      RuntimeError: RESOURCE_EXHAUSTED, where a chip's memory doesn't hold it.
    """
    lines = [
        f"| {config.name}, batch | slice | chips | GiB a chip | of | GFLOP a chip | collectives "
        "| ms computing | ms talking | images/s | MFU | efficiency | s to compile |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        lines.append(row(compile_step(config, machine(name))))
        print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def machine(name: str) -> Slice:
    """A TPU slice or a host's GPUs, by name.

    Raises:
      UsageError: there is none of that name.
    """
    kind = name.partition(":")[0]
    if kind not in CARDS and kind not in CHIPS:
        known = ", ".join([*CHIPS, *CARDS])
        raise UsageError(f"--topology={name}: there are {known}, such as v5e:16x16 or h200:8")
    return gpu_host(name) if kind in CARDS else tpu_slice(name)


def program(config: ml_collections.ConfigDict, devices: list[Any]) -> jax.stages.Compiled:
    """The sharded train step as those devices would run it."""
    parts = experiment.build(config, devices)
    lowered = experiment.train_step(parts).lower(
        experiment.abstract_state(parts), experiment.abstract_batch(parts)
    )
    return lowered.compile()


def flops_per_image(config: ml_collections.ConfigDict) -> float:
    """Of the step as a TPU would run it: XLA counts no operations for devices that aren't there."""
    config = config.copy_and_resolve_references()
    config.mesh.data = config.mesh.fsdp = 1
    return experiment.flops_per_image(experiment.build(config, jax.devices("cpu")[:1]), "tpu")


def memory_of(compiled: jax.stages.Compiled) -> int:
    """Bytes a device: arguments, results that aren't written over them, temporary memory."""
    found = compiled.memory_analysis()
    kept = found.output_size_in_bytes - found.alias_size_in_bytes
    return found.argument_size_in_bytes + kept + found.temp_size_in_bytes


def compile_step(config: ml_collections.ConfigDict, where: Slice) -> Compiled:
    start = time.monotonic()
    compiled = program(config, where.devices)
    memory, text = memory_of(compiled), compiled.as_text()
    collectives = hlo.collectives(text)
    if memory > where.chip.memory:  # of a GPU the compiler doesn't say so
        needed, there = (f"{size / 2**30:.1f} GiB" for size in (memory, where.chip.memory))
        raise RuntimeError(f"RESOURCE_EXHAUSTED: {where.name}: {needed} a card, which has {there}")
    timed = where.chip.clock is not None
    flops = flops_per_image(config) * config.train.batch_size if timed else None
    return Compiled(
        slice=where,
        batch=config.train.batch_size,
        memory=memory,
        flops=flops / len(where.devices) if timed else None,
        compute=computing_seconds(text, where) if timed else None,
        collectives=collectives,
        communication=communication_seconds(collectives, where),
        compilation=time.monotonic() - start,
    )


def computing_seconds(text: str, where: Slice) -> float:
    """All kernels of a compiled program, one after another."""
    return sum(cycles for _, cycles in hlo.kernels(text)) / where.chip.clock


def communication_seconds(collectives: dict[str, tuple[int, int]], where: Slice) -> float:
    """Over a ring each chip sends what is reduced twice, and all else once."""
    sent = sum((2 if kind == "all-reduce" else 1) * size for kind, (_, size) in collectives.items())
    chips = len(where.devices)
    return sent * (chips - 1) / chips / where.chip.interconnect


def row(found: Compiled) -> str:
    chip = found.slice.chip
    flops = computing = speed = use = efficiency = ""
    if found.compute is not None:
        seconds = found.compute + found.communication
        flops, computing = f"{found.flops / 1e9:,.0f}", f"{1e3 * found.compute:.2f}"
        speed = f"{found.images_per_second:,.0f}"
        use, efficiency = f"{found.flops / seconds / chip.flops:.0%}", f"{found.efficiency:.0%}"
    collectives = ", ".join(
        f"{count} {kind}, {size / 2**20:.0f} MiB"
        for kind, (count, size) in sorted(found.collectives.items())
    )
    cells = (
        found.batch,
        found.slice.name,
        len(found.slice.devices),
        f"{found.memory / 2**30:.2f}",
        f"{chip.memory / 2**30:.0f}",
        flops,
        collectives or "none",
        computing,
        f"{1e3 * found.communication:.2f}",
        speed,
        use,
        efficiency,
        f"{found.compilation:.0f}",
    )
    return "| " + " | ".join(map(str, cells)) + " |"
