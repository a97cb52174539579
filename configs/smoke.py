"""Every part of the machine in seconds, on tiny networks: for tests, and for a new installation.

Command:   python -m soda_jax pretrain --config=configs/smoke.py --workdir=/tmp/smoke
Hardware:  any CPU
Time:      half a minute, nearly all of it compilation
Reaches:   nothing, on purpose: 8 steps
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.name = "smoke"

    config.data.image_size = 16
    for view in (config.views.source, config.views.target):
        view.size = 16
        view.flip_prob = 0.0  # digits have a left and a right

    config.model.z_size = 16
    config.model.encoder.variant = "resnet10"
    config.model.encoder.width_multiplier = 1 / 8
    config.model.denoiser.width = 8
    config.model.denoiser.multipliers = (1, 2)
    config.model.denoiser.num_blocks = 1
    config.model.denoiser.head_size = 8

    config.optimizer.learning_rate = 1e-3
    config.optimizer.encoder_learning_rate = 1e-3
    config.optimizer.warmup_steps = 2
    config.optimizer.ema_decay = 0.9

    config.train.batch_size = 16
    config.train.num_steps = 8
    config.train.log_every = 2
    config.train.checkpoint_every = 4
    config.train.diagnose_every = 4
    config.train.probe_every = 4
    config.train.probe_examples = 64
    config.train.frechet_images = 80  # more than the 64 pooled features
    config.train.sample_every = 4

    config.probe.batch_size = 64
    config.probe.max_examples = 200
    config.probe.labels_per_class = (2,)
    config.probe.draws = 2
    config.sample.batch_size = 8
    config.sample.num_images = 8
    config.sample.num_steps = 2
    config.evaluate.labels_per_class = (2,)
    config.evaluate.layer_ts = (0.5,)
    config.evaluate.layer_examples = 200
    config.evaluate.loss_images = 16
    config.evaluate.num_images = 64
    config.apply.num_images = 3
    config.apply.num_steps = 2
    config.apply.directions = 2
    config.apply.codes = 100
    config.apply.prior_steps = 10
    return config
