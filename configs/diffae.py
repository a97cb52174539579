"""Diffusion autoencoder: z and x_T, which is found by inversion, together are the picture.

After Preechakul et al. 2022 (arXiv 2111.15640): the encoder sees the very picture that is denoised,
and its whole code modulates every layer. Our networks, noise and sizes [D]; its latent prior is
`apply --use=prior`, its inversion `apply --use=reconstruct`.

Presets: full and cpu, with the networks of configs/cifar10.py's full_plain and cpu_plain.

Command:   python -m soda_jax pretrain --config=configs/diffae.py:cpu --workdir=runs/diffae
           python -m soda_jax apply    --workdir=runs/diffae --use=reconstruct,interpolate,prior
Hardware:  one GPU of 24 GB (full); one CPU core (cpu)
Time:      22 minutes for half of cpu's pictures, beside other jobs (results/methods.md)
Reaches:   linear 54.9, kNN 52.8 (cpu, half its pictures; results/methods.md)
"""

import ml_collections

from configs import cifar10


def get_config(preset: str = "full") -> ml_collections.ConfigDict:
    plain = {"full": "full_plain", "cpu": "cpu_plain"}
    if preset not in plain:
        raise ValueError(f"preset {preset!r}: one of {', '.join(plain)}")
    config = cifar10.get_config(plain[preset])
    config.name = f"diffae_{preset}"
    config.views.shared = True
    config.views.source.noise = 0.0
    for view in (config.views.source, config.views.target):
        view.crop_prob = 0.0
        view.randaugment_prob = 0.0
    config.model.bottleneck.sections = "one"
    config.model.bottleneck.section_drop_rate = 0.0
    config.model.bottleneck.latent_drop_rate = 0.0
    config.diffusion.schedule = "linear"
    config.sample.guidance_scale = 0.0
    return config
