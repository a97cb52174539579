"""Google Scanned Objects: 1,030 household things, scanned; render them first, as transforms.json.

Command:   python -m soda_jax prepare --config=configs/gso.py
           python -m soda_jax pretrain --config=configs/gso.py --workdir=runs/gso
           python -m soda_jax novel_views --workdir=runs/gso
Hardware:  a node of eight GPUs of 80 GB, or a pod slice
Time:      not yet measured
Reaches:   not yet measured; the paper: 24.97 dB [P]

data/gso holds a folder with transforms.json for each object, as Blender's exporters for NeRF write
it; any set in that layout will do. How the paper rendered the objects isn't known. The model is
that of configs/nmr.py; the length is ours [D].
"""

import ml_collections

from configs import nmr


def get_config() -> ml_collections.ConfigDict:
    config = nmr.get_config()
    config.name = "gso"
    config.data.source = "transforms"
    config.data.path = "data/gso"
    config.train.num_steps = 100_000
    config.train.probe_every = 0  # no classes
    config.train.frechet_images = 0
    return config
