"""ImageNet-1k at 64 px on both sides: what ImageNet costs before the full resolution.

Command:   python -m soda_jax prepare --config=configs/imagenet64.py
           python -m soda_jax pretrain --config=configs/imagenet64.py --workdir=runs/imagenet64
Hardware:  a pod slice, or a node of eight GPUs; --config.mesh.fsdp splits the parameters
Time:      not yet measured; 250,000 steps are 200 epochs
Reaches:   not yet measured

The paper gives a linear probe of 72.24 % on ImageNet [P], at 256 px: configs/imagenet.py. Widths,
learning rates and the length of the training are ours here [D].
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.name = "imagenet64"

    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.test_split = "validation"
    config.data.image_size = 64
    config.data.placement = "host"
    config.data.prefetch = 4
    for view in (config.views.source, config.views.target):
        view.size = 64

    config.model.dtype = "bfloat16"
    config.model.z_size = 1024
    config.model.encoder.variant = "resnet50"
    config.model.denoiser.num_blocks = 3
    config.model.denoiser.multipliers = (1, 2, 3, 4)
    config.model.denoiser.attention_levels = (2, 3)

    config.optimizer.learning_rate = 2e-4
    config.optimizer.encoder_learning_rate = 4e-4
    config.optimizer.warmup_steps = 10_000

    config.train.batch_size = 1024
    config.train.num_steps = 250_000
    config.train.checkpoint_every = 2500
    config.train.diagnose_every = 2500
    config.train.probe_every = 12_500
    config.train.frechet_images = 4096  # more than the pooled features have dimensions
    config.train.sample_every = 12_500
    # What fits into memory; `streamed` sees all of the set, and raw pixels would not fit.
    config.probe.max_examples = 100_000
    config.probe.baselines = False
    return config
