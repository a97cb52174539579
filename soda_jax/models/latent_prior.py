"""A small denoiser of codes: with it pictures can be drawn from nothing. All of it is ours [D].

The idea is that of Preechakul et al. 2022 (Diffusion Autoencoders, section 4) and of Li et al. 2023
(RCG): the distribution of z is easy beside that of pictures, so an MLP is enough.
"""

import flax.linen as nn
import jax.numpy as jnp

from soda_jax.array_types import Array
from soda_jax.models.layers import TimeEmbedding, truncated_normal


class LatentDenoiser(nn.Module):
    """(z_t [b z], t [b]) -> prediction [b z]: residual blocks of two linear maps, modulated by t.

    Attributes:
      features: width of the residual stream; the blocks are twice as wide inside.
      num_blocks: how many.
      dropout: inside the blocks, in training.
    """

    features: int = 256
    num_blocks: int = 4
    dropout: float = 0.1

    @nn.compact
    def __call__(self, z_t: Array, t: Array, train: bool = False) -> Array:
        time = nn.silu(TimeEmbedding(64, self.features, name="time")(t))
        h = nn.Dense(self.features, kernel_init=truncated_normal, name="in")(z_t)
        for index in range(self.num_blocks):
            scale, shift = jnp.split(
                nn.Dense(2 * self.features, kernel_init=truncated_normal, name=f"time{index}")(
                    time
                ),
                2,
                axis=-1,
            )
            r = nn.LayerNorm(use_bias=False, use_scale=False, name=f"norm{index}")(h)
            r = (1 + scale) * r + shift
            r = nn.Dense(2 * self.features, kernel_init=truncated_normal, name=f"wide{index}")(r)
            r = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(r))
            h = h + nn.Dense(
                self.features, kernel_init=nn.initializers.zeros, name=f"narrow{index}"
            )(r)
        h = nn.LayerNorm(name="norm")(h)
        return nn.Dense(z_t.shape[-1], kernel_init=nn.initializers.zeros, name="out")(h)
