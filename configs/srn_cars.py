"""ShapeNet-SRN cars: 2,458 cars, 50 views of 128 px each; to test, 704 cars and 251 views each.

Command:   python -m soda_jax prepare --config=configs/srn_cars.py
           python -m soda_jax pretrain --config=configs/srn_cars.py --workdir=runs/srn_cars
           python -m soda_jax novel_views --workdir=runs/srn_cars
Hardware:  a node of eight GPUs of 80 GB, or a pod slice
Time:      not yet measured; 100,000 steps are 10,400 passes over the cars, 208 over their views
Reaches:   not yet measured; the paper has 27.42 dB on a set of ShapeNet that it doesn't name so [P]

The model is that of configs/nmr.py; the length is ours [D].
"""

import ml_collections

from configs import nmr


def get_config() -> ml_collections.ConfigDict:
    config = nmr.get_config()
    config.name = "srn_cars"
    config.data.source = "srn"
    config.data.path = "data/srn_cars"
    config.cameras.field_of_view = 52.0  # of its own cameras: a focal length of 131.25 of 128 px
    config.train.num_steps = 100_000
    config.train.probe_every = 0  # one category: there is no class to probe for
    config.train.frechet_images = 0
    return config
