"""CIFAR-100: configs/cifar10.py with other pictures, and the same presets.

The files are the published ones (cifar-100-binary or -python), in data/cifar100 or where
--config.data.path says.

Command:   python -m soda_jax pretrain --config=configs/cifar100.py --workdir=runs/cifar100
Hardware:  one GPU of 40 GB or more (see cifar10.py), or any number of devices that divides 512
Time:      not yet measured
Reaches:   not yet measured; FutureXiang/soda, whose geometry this is [R]: linear 54.9, kNN 51.4

Command:   python -m soda_jax pretrain --config=configs/cifar100.py:cpu --workdir=runs/cifar100_cpu
Hardware:  one CPU core
Time:      not yet measured
Reaches:   not yet measured
"""

import ml_collections

from configs import cifar10


def get_config(preset: str = "full") -> ml_collections.ConfigDict:
    config = cifar10.get_config(preset)
    config.name = f"cifar100_{preset}"
    config.data.source = "cifar100"
    config.data.path = "data/cifar100"
    return config
