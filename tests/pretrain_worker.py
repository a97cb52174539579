"""A process of its own for end_to_end_test: WORKDIR, ADDRESS,COUNT,ID or "", then overrides."""

import pathlib
import sys

import jax

from soda_jax.config_schema import load
from soda_jax.pretrain import pretrain

if __name__ == "__main__":
    workdir, distributed, *overrides = sys.argv[1:]
    if distributed:
        address, count, process = distributed.split(",")
        jax.distributed.initialize(address, int(count), int(process))
    smoke = pathlib.Path(__file__).parents[1] / "configs" / "smoke.py"
    pretrain(load(str(smoke), overrides), workdir)
