"""CIFAR-10, at the size of the re-implementations ("full") or of a CPU ("cpu").

The files are the published ones (cifar-10-batches-bin or -py), in data/cifar10 or where
--config.data.path says.

Command:   python -m soda_jax pretrain --config=configs/cifar10.py --workdir=runs/cifar10
Hardware:  one GPU of 24 GB or more, or any number of devices that divides 512
Time:      not yet measured; 78,000 steps are 800 epochs
Reaches:   not yet measured; FutureXiang/soda, which this follows [R]: linear 80.0, kNN 80.4

Command:   XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=
           python -m soda_jax pretrain --config=configs/cifar10.py:cpu --workdir=runs/cifar10_cpu
Hardware:  two CPU cores
Time:      54 minutes in all, at 92 pictures a second (results/cifar10.md)
Reaches:   linear 58.4 (z), 58.7 (pooled); kNN 55.2, 56.7; seed 0
"""

import ml_collections

from configs import base


def get_config(preset: str = "full") -> ml_collections.ConfigDict:
    config = base.get_config()
    config.name = f"cifar10_{preset}"
    config.data.source = "cifar10"
    config.data.path = "data/cifar10"
    presets = {"full": full, "cpu": cpu}
    if preset not in presets:
        raise ValueError(f"preset {preset!r}: one of {', '.join(presets)}")
    presets[preset](config)
    return config


def full(config: ml_collections.ConfigDict) -> None:
    """The geometry of FutureXiang/soda: base's networks, RandAugment on both sides [R]."""
    config.model.dtype = "bfloat16"
    for view in (config.views.source, config.views.target):
        view.randaugment_prob = 0.65
    # Theirs is 1e-4 a GPU of 128 pictures, and twice that for the encoder [R].
    config.optimizer.learning_rate = 4e-4
    config.optimizer.encoder_learning_rate = 8e-4
    config.optimizer.warmup_steps = 2000  # about 20 epochs [R]
    config.train.batch_size = 512
    config.train.num_steps = 78_000


def cpu(config: ml_collections.ConfigDict) -> None:
    """Small networks, and a target of half the resolution; everything here is ours [D]."""
    base.small(config)
    for view in (config.views.source, config.views.target):
        view.crop_prob = 1.0
        view.crop_scale = (0.3, 1.0)

    config.model.z_size = 256  # as many as the pooled features: the probe of z loses nothing
    config.model.encoder.width_multiplier = 0.5
    config.model.bottleneck.section_drop_rate = 0.0
    hour(config)


def hour(config: ml_collections.ConfigDict) -> None:
    """281,600 pictures, and how they are watched: what the CPU presets that are compared share."""
    config.views.target.size = 16
    config.train.num_steps = 4400
    config.train.checkpoint_every = 500
    config.train.diagnose_every = 500
    config.train.probe_every = 1000
    config.train.frechet_images = 512
    config.train.sample_every = 2000
