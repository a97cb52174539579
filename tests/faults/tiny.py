"""The smallest run that has every part: what is killed, starved and poisoned by the hundred."""

import ml_collections

from configs import smoke


def get_config() -> ml_collections.ConfigDict:
    config = smoke.get_config()
    config.name = "tiny"
    config.data.image_size = 8
    for view in (config.views.source, config.views.target):
        view.size = 8
    config.model.z_size = 8
    config.model.denoiser.width = 4
    config.model.denoiser.multipliers = (1,)
    config.model.denoiser.attention_levels = ()
    config.model.denoiser.mid_attention = False
    config.train.batch_size = 8
    config.train.log_every = 1
    config.train.checkpoint_every = 5
    config.train.diagnose_every = 0
    config.train.probe_every = 0
    config.train.sample_every = 0
    return config
