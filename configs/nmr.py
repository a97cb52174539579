"""NMR: 13 categories of ShapeNet, 43,783 objects, 24 views of 64 px each, at the paper's sizes.

Command:   python -m soda_jax prepare --config=configs/nmr.py
           python -m soda_jax pretrain --config=configs/nmr.py --workdir=runs/nmr
           python -m soda_jax novel_views --workdir=runs/nmr
Hardware:  a node of eight GPUs of 80 GB, or a pod slice
Time:      not yet measured; 250,000 steps are 1,460 times as many objects as there are
Reaches:   not yet measured; the paper: 28.71 dB [P]

`prepare` says where the pictures are to be had. An encoder (ResNet-50) at 256 px, to which they
are enlarged, a denoiser at 128, rays in 512 channels, several sources averaged, cross-attention:
the paper's [P]. What isn't marked so, here or in base.py, is ours [D]: the size of z, the
denoiser's levels, learning rates, batch and length. In small rooms the inverted schedule and the
source's own frame had solids invented, and `scenes.seen_from` mended that (results/novel_views.md);
here neither has been tried yet.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.name = "nmr"
    base.posed(config)

    config.data.source = "nmr"
    config.data.path = "data/NMR_Dataset"
    config.data.image_size = 256
    config.data.placement = "host"
    config.data.prefetch = 4
    config.views.source.size = 256
    config.views.target.size = 128
    config.cameras.channels = 512

    config.model.dtype = "bfloat16"
    config.model.z_size = 1024
    config.model.encoder.variant = "resnet50"
    config.model.encoder.stem = "standard"
    config.model.denoiser.multipliers = (1, 1, 2, 3, 4)
    config.model.denoiser.attention_levels = (3, 4)  # at 16x16 and 8x8
    config.model.denoiser.cross_attention_levels = (3, 4)

    config.optimizer.warmup_steps = 5_000
    config.train.batch_size = 256
    config.train.num_steps = 250_000
    config.train.checkpoint_every = 2500
    config.train.diagnose_every = 2500
    config.train.probe_every = 25_000
    config.train.frechet_images = 4096  # more than the pooled features have dimensions
    config.train.sample_every = 12_500
    config.train.remat = True
    return config
