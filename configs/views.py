r"""Posed pictures of objects in one .npz file, on a CPU: other views of what one has seen.

data/views.npz holds images [n v h w 3] uint8, cam2world [n v 4 4] and K [3 3]; see
`soda_jax/data/source_posed_arrays.py`. Objects stand at the world's origin, upright along y, or say
--config.cameras.up=z; where neither holds, --config.cameras.frame=world. The networks and presets
are those of configs/scenes.py.

Command:   python -m soda_jax pretrain --config=configs/views.py --workdir=runs/views
           python -m soda_jax pretrain --config=configs/views.py:regression \
               --workdir=runs/views_regression
           python -m soda_jax novel_views --workdir=runs/views --config.novel_views.sources=3 \
               --config.novel_views.compare="('runs/views_regression',)"
Hardware:  one or two CPU cores
Time:      25 minutes for each at the 86 objects a second of one core without other work (ours
           had some); 51 on a slower one, at 43
Reaches:   on 57 unseen objects 19.5, 19.9 and 20.0 dB from one, two and three sources, its mean
           picture 21.0, 21.5 and 21.7, the regression 20.9, 21.5 and 21.8, the nearest source 17.9,
           18.2 and 18.8; seed 0 (results/novel_views.md)
"""

import ml_collections

from configs import base, scenes


def get_config(preset: str = "cpu") -> ml_collections.ConfigDict:
    config = base.get_config()
    config.name = f"views_{preset}"
    config.data.source = "posed_arrays"
    config.data.path = "data/views.npz"
    base.posed(config)
    presets = {"cpu": scenes.cpu, "regression": scenes.regression}
    if preset not in presets:
        raise ValueError(f"preset {preset!r}: one of {', '.join(presets)}")
    presets[preset](config)
    # Objects are few, and their mirror images are objects: .2 to .4 dB more in samples, nothing for
    # the regression. Where left and right are told apart (letters), 0 [D].
    config.cameras.mirror_prob = 0.5
    config.train.num_steps = 8000
    config.train.probe_every = 0
    return config
