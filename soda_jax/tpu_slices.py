"""TPU slices that aren't here: their devices, for compiling, and what their chips can do."""

import dataclasses
import math
import os
import re
from typing import Any

from soda_jax.exit_codes import UsageError

ALLOWED = "a generation and the chips along each axis, such as v5e:16x16, v4:4x4x4 or v6e:1x1"


@dataclasses.dataclass(frozen=True)
class Chip:
    """What its maker's documentation says of one chip, or of one card.

    Attributes:
      memory: bytes of HBM.
      flops: bfloat16 operations a second, at most.
      interconnect: bytes a second between chips, over all links together.
      clock: cycles a second: its operations over those of all its matrix units in a cycle; None
        where compiled kernels don't say how many cycles they take.
    """

    memory: float
    flops: float
    interconnect: float
    clock: float | None


CHIPS = {
    "v4": Chip(32 * 2**30, 275e12, 300e9, 275e12 / (8 * 2 * 128**2)),
    "v5e": Chip(16 * 2**30, 197e12, 200e9, 197e12 / (4 * 2 * 128**2)),
    "v5p": Chip(95 * 2**30, 459e12, 600e9, 459e12 / (8 * 2 * 128**2)),
    "v6e": Chip(32 * 2**30, 918e12, 448e9, 918e12 / (4 * 2 * 256**2)),
}
MEGACORE = ("v4", "v5p")  # two cores a chip that are one device


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice by name, such as "v5e:16x16"; or a host's cards, such as "h200:8"."""

    name: str
    chip: Chip
    devices: list[Any]


def tpu_slice(name: str) -> Slice:
    """The slice of that name, without a TPU; needs the package libtpu.

    Raises:
      UsageError: no such slice.
      ModuleNotFoundError: libtpu isn't installed.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    if found is None or found[1] not in CHIPS:
        raise UsageError(f"--topology={name}: {ALLOWED}; there are {', '.join(CHIPS)}")
    # There is no TPU here: none to ask about, none that a process must have for itself.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    try:
        import libtpu  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "compiling for a TPU needs its compiler: pip install 'soda_jax[tpu]'"
        ) from None
    from jax.experimental import topologies

    generation, shape = found[1], [int(length) for length in found[2].split("x")]
    options = {"chip_config_name": "megacore"} if generation in MEGACORE else {}
    if math.prod(shape) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--topology={name}: {ALLOWED}; {reason}") from error
    return Slice(name, CHIPS[generation], list(devices.devices))
