"""GPU hosts that aren't here: their cards, for compiling, and what those can do."""

import dataclasses
import os
import re

from soda_jax.exit_codes import UsageError
from soda_jax.tpu_slices import Chip, Slice

ALLOWED = "a card and how many of them one host has, such as h200:1 or a100:8"


@dataclasses.dataclass(frozen=True)
class Card:
    """What NVIDIA's documentation says of a card: as a chip, and what XLA's compiler asks for.

    Attributes:
      name: as the driver gives it.
      capability: compute capability, major and minor.
      cores: streaming multiprocessors; units: of each, for float32.
      shared: bytes of shared memory of each.
      bandwidth: bytes of memory a second.
      cache: bytes of L2.
      gigahertz: the boost clock.
    """

    chip: Chip
    name: str
    capability: tuple[int, int]
    cores: int
    units: int
    shared: int
    bandwidth: float
    cache: int
    gigahertz: float

    def target(self) -> str:
        """XLA's description of a card that isn't here."""
        return f"""
            gpu_device_info {{
              cuda_compute_capability {{ major: {self.capability[0]} minor: {self.capability[1]} }}
              core_count: {self.cores}
              fpus_per_core: {self.units}
              threads_per_warp: 32
              threads_per_block_limit: 1024
              threads_per_core_limit: 2048
              registers_per_core_limit: 65536
              registers_per_block_limit: 65536
              shared_memory_per_block: 49152
              shared_memory_per_block_optin: {self.shared - 1024}
              shared_memory_per_core: {self.shared}
              block_dim_limit_x: 2147483647
              block_dim_limit_y: 65535
              block_dim_limit_z: 65535
              memory_bandwidth: {self.bandwidth:.0f}
              l2_cache_size: {self.cache}
              clock_rate_ghz: {self.gigahertz}
              device_memory_size: {self.chip.memory:.0f}
            }}
            platform_name: "CUDA"
            dnn_version_info {{ major: 9 minor: 8 }}
            runtime_version {{ major: 12 minor: 8 }}
            device_description_str: "{self.name}"
        """


# Interconnect: NVLink, one way. XLA doesn't say what a kernel takes: no clock.
CARDS = {
    "a100": Card(
        Chip(80 * 2**30, 312e12, 300e9, None),
        "NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 164 * 2**10, 2.039e12, 40 * 2**20, 1.41,
    ),
    "h100": Card(
        Chip(80 * 2**30, 989e12, 450e9, None),
        "NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 228 * 2**10, 3.35e12, 50 * 2**20, 1.98,
    ),
    "h200": Card(
        Chip(141e9, 989e12, 450e9, None),
        "NVIDIA H200", (9, 0), 132, 128, 228 * 2**10, 4.8e12, 50 * 2**20, 1.98,
    ),
}  # fmt: skip


def gpu_host(name: str) -> Slice:
    """The cards of that name, such as "h200:8", without a GPU; needs JAX's plugin for CUDA.

    Raises:
      UsageError: no such card, or the plugin refuses it.
      ModuleNotFoundError: the plugin isn't installed.
    """
    found = re.fullmatch(r"(\w+):([1-9]\d*)", name)
    if found is None or found[1] not in CARDS:
        raise UsageError(f"--topology={name}: {ALLOWED}; there are {', '.join(CARDS)}")
    # There is no GPU here to check the plugin against.
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    from jax.experimental import topologies

    card, count = CARDS[found[1]], int(found[2])
    try:
        devices = topologies.get_topology_desc(
            platform="cuda",
            topology_name=name,
            topology=f"1x1x{count}",
            target_config=card.target(),
        )
    except NotImplementedError:
        raise ModuleNotFoundError(
            "compiling for a GPU needs its compiler: pip install 'soda_jax[cuda12]'"
        ) from None
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--topology={name}: {ALLOWED}; {reason}") from error
    return Slice(name, card.chip, list(devices.devices))
