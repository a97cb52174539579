r"""Pictures whose factors of variation are known (dSprites and its like, .npz): what does z hold?

The preset "autoencoder" is what the preset "soda" is measured against: the same networks, but a
denoiser that is given nothing but noise, so that it learns to draw the mean picture of each code.

Command:   python -m soda_jax pretrain --config=configs/factors.py --workdir=runs/sprites \
               --config.data.path=dsprites.npz
           python -m soda_jax pretrain --config=configs/factors.py:autoencoder \
               --workdir=runs/sprites_autoencoder --config.data.path=dsprites.npz
           python -m soda_jax evaluate --workdir=runs/sprites \
               --config.evaluate.compare="('runs/sprites_autoencoder',)"
Hardware:  one CPU core
Time:      7.5 minutes of training on one core (600 steps, 84 pictures a second)
Reaches:   results/factors.md
"""

import ml_collections

from configs import base


def get_config(preset: str = "soda") -> ml_collections.ConfigDict:
    config = base.get_config()
    config.name = f"factors_{preset}"
    config.data.source = "arrays"
    config.data.path = "data/dsprites.npz"
    config.data.image_size = 32
    config.data.channels = 1
    # Source and target are the same picture, as it is: place and size are factors here, and a crop
    # would hide them [D].
    for view in (config.views.source, config.views.target):
        view.crop_prob = 0.0
        view.flip_prob = 0.0
    config.views.source.noise = 0.0
    config.views.target.size = 16

    base.small(config)
    config.model.z_size = 28  # seven sections of four
    config.model.encoder.stem = "patch"

    config.train.num_steps = 600
    config.train.checkpoint_every = 300
    config.train.diagnose_every = 300
    config.train.sample_every = 600
    config.sample.num_steps = 50

    presets = {"soda": soda, "autoencoder": autoencoder}
    if preset not in presets:
        raise ValueError(f"preset {preset!r}: one of {', '.join(presets)}")
    presets[preset](config)
    return config


def soda(config: ml_collections.ConfigDict) -> None:
    """Layer masking, as in base: it is said to make the sections tell different things [P]."""
    config.diffusion.prediction = "x_0"


def autoencoder(config: ml_collections.ConfigDict) -> None:
    """z alone: at these t the linear schedule leaves 4e-5 of the variance to the picture [D]."""
    config.model.bottleneck.section_drop_rate = 0.0
    config.model.bottleneck.latent_drop_rate = 0.0
    config.diffusion.schedule = "linear"
    config.diffusion.prediction = "x_0"
    config.diffusion.t_min = 0.999
    config.sample.num_steps = 1
    config.sample.guidance_scale = 0.0
