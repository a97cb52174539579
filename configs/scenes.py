r"""Rooms with one to three solids, drawn when they are asked for: other views of what one has seen.

Nothing is downloaded. The preset "regression" is what the preset "cpu" is measured against: the
same networks, but a denoiser that is given nothing but noise, so that it learns to draw the mean
picture of each code and camera.

Command:   python -m soda_jax pretrain --config=configs/scenes.py:cpu --workdir=runs/scenes
           python -m soda_jax pretrain --config=configs/scenes.py:regression \
               --workdir=runs/scenes_regression
           python -m soda_jax novel_views --workdir=runs/scenes --config.novel_views.sources=3 \
               --config.novel_views.compare="('runs/scenes_regression',)"
Hardware:  one or two CPU cores (cpu, regression); one GPU (full): --dry_run on a CPU counts
           80 GiB for its batch; --config.optimizer.accumulate=4 where there is less
Time:      56 minutes (cpu, at 77 rooms a second on one core; 100 since, by the benchmark of the
           step) and 50 (regression, at 85); a slower core drew 43
Reaches:   22.7, 23.1 and 23.3 dB from one, two and three sources, its mean picture 24.0, 24.4 and
           24.5; the regression 24.2, 24.5 and 24.6; the nearest source 14.6, 15.3 and 15.8; seed 0
           (results/novel_views.md)
"""

import ml_collections

from configs import base


def get_config(preset: str = "full") -> ml_collections.ConfigDict:
    config = base.get_config()
    config.name = f"scenes_{preset}"
    config.data.source = "scenes"
    config.data.image_size = 64
    config.data.placement = "host"  # drawn as they are needed, not all 1.6 million first
    base.posed(config)
    presets = {"full": full, "cpu": cpu, "regression": regression}
    if preset not in presets:
        raise ValueError(f"preset {preset!r}: one of {', '.join(presets)}")
    presets[preset](config)
    return config


def full(config: ml_collections.ConfigDict) -> None:
    """base's networks at 64 px, with the paper's channels of rays [P]; not yet run."""
    seen_from(config)
    config.model.dtype = "bfloat16"
    config.model.z_size = 256
    config.views.source.size = 64
    config.views.target.size = 64
    config.cameras.channels = 512
    config.model.denoiser.attention_levels = (2, 3)
    config.model.denoiser.cross_attention_levels = (2, 3)
    config.train.batch_size = 256
    config.train.num_steps = 50_000


def seen_from(config: ml_collections.ConfigDict) -> None:
    """How z comes to say where things are (results/novel_views.md); everything here is ours [D]."""
    # Where a point lies off a ray is linear in the ray's moment, and modulation by z is linear.
    config.cameras.encoding = "plucker"
    # Else the encoder has to turn what it sees by the bearing of its camera, which it learns last.
    config.cameras.frame = "upright"
    # A picture alone doesn't say where upright is, so none are drawn on the way.
    config.train.sample_every = 0
    config.train.frechet_images = 0
    # A code in the frame of another source is learned late, too: each source speaks for itself, in
    # training alone, afterwards by the mean of what all predict.
    config.cameras.max_sources = 1
    config.cameras.fusion = "predictions"
    # At 32 px medium noise hides little: z is learned from x_t that are almost noise, as are .75 of
    # them here (t above .8).
    config.diffusion.schedule = "linear"
    config.diffusion.shift = 12.0


def cpu(config: ml_collections.ConfigDict) -> None:
    """Small networks; both sides at 32 px; everything here is ours [D]."""
    base.small(config)
    config.data.image_size = 32
    config.model.z_size = 252  # seven sections of 36
    config.model.encoder.stem = "patch"
    config.model.denoiser.patch = 2
    seen_from(config)
    config.cameras.channels = 42
    config.cameras.rgb_features = 42
    config.model.bottleneck.section_drop_rate = 0.0
    # .070 after 8000 rooms in the world's frame, where AdamW has .077 [D].
    config.optimizer.method = "muon"
    config.optimizer.learning_rate = 4e-3
    config.optimizer.encoder_learning_rate = 4e-3
    # Of a room's two targets one is noise alone, so half of the targets ask z for the mean picture,
    # as all of the regression's do. Samples and mean picture are better after 160,000 rooms than
    # with one target, at any t, after 256,000; the three were changed together [D].
    config.cameras.targets = 2
    config.diffusion.pure_noise = 0.5
    config.diffusion.even = True
    config.train.batch_size = 16
    config.train.num_steps = 16_000
    config.train.checkpoint_every = 500
    config.train.diagnose_every = 500
    config.train.probe_every = 5000
    config.sample.num_steps = 20


def regression(config: ml_collections.ConfigDict) -> None:
    """z and the camera alone: at these t the linear schedule leaves 4e-5 of the variance [D]."""
    cpu(config)
    config.model.bottleneck.latent_drop_rate = 0.0
    config.diffusion.t_min = 0.999
    config.diffusion.pure_noise = 0.0
    config.diffusion.even = False
    config.sample.num_steps = 1
