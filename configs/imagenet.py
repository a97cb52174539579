"""ImageNet-1k as the paper frames it: a ResNet-50 encoder at 256 px, z of 2048.

Command:   python -m soda_jax prepare --config=configs/imagenet.py
           python -m soda_jax pretrain --config=configs/imagenet.py --workdir=runs/imagenet
Hardware:  a TPU pod slice of 64 or more chips, or as many GPUs
Time:      not yet measured; 250,000 steps are 400 epochs
Reaches:   not yet measured; the paper: 72.24 % by linear probe, reconstructions of 23.6 dB [P]

The encoder at 256 px and the denoiser at 128 are the paper's sizes for its 3-D sets [P], taken over
here [D]. All that isn't marked [P] in base.py is unknown for ImageNet: widths, learning rates,
batch and length are ours [D].
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.name = "imagenet"

    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.test_split = "validation"
    config.data.image_size = 256
    config.data.placement = "host"
    config.data.prefetch = 4
    config.views.source.size = 256
    config.views.target.size = 128

    config.model.dtype = "bfloat16"
    config.model.z_size = 2048
    config.model.encoder.variant = "resnet50"
    config.model.encoder.stem = "standard"
    config.model.denoiser.multipliers = (1, 1, 2, 3, 4)
    config.model.denoiser.attention_levels = (3, 4)  # at 16x16 and 8x8

    config.optimizer.learning_rate = 2e-4
    config.optimizer.encoder_learning_rate = 4e-4
    config.optimizer.warmup_steps = 10_000

    config.train.batch_size = 2048
    config.train.num_steps = 250_000
    config.train.checkpoint_every = 2500
    config.train.diagnose_every = 2500
    config.train.probe_every = 12_500
    config.train.frechet_images = 4096  # more than the pooled features have dimensions
    config.train.sample_every = 12_500
    config.train.remat = True
    # What fits into memory; `streamed` sees all of the set, and raw pixels would not fit.
    config.probe.max_examples = 100_000
    config.probe.baselines = False
    return config
