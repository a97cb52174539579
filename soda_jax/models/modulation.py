"""Feature modulation: the way in which the code z reaches the denoiser.

The only one, but for cross-attention to its sections where a config asks for that.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from soda_jax.array_types import Array
from soda_jax.models.layers import truncated_normal
from soda_jax.models.norms import group_norm, learned, per_channel


class ModulatedNorm(nn.Module):
    """AdaGN(h, t, z) = z_s (t_s GroupNorm(h) + t_b) + z_b   (SODA, layer modulation [P]).

    Both scales are 1 + a linear map [D], so neither starts near zero. h is [b h w c], time [b d],
    or None where t enters elsewhere: then the norm has a scale and a shift of its own; z_section
    [b z_i], or None for a denoiser without a code. The three become one scale and one shift of each
    picture's channels before they touch a pixel. In float32; returns `dtype`.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h: Array, time: Array | None, z_section: Array | None) -> Array:
        h = h.astype(jnp.float32)
        scale, shift = group_norm(h)
        if time is None:
            scale, shift = learned(self, scale, shift)
        else:
            t_scale, t_shift = scale_and_shift(nn.silu(time), h.shape[-1], "time")
            scale, shift = t_scale * scale, t_scale * shift + t_shift
        if z_section is not None:
            z_section = z_section.astype(jnp.float32)
            z_scale, z_shift = scale_and_shift(z_section, h.shape[-1], "code")
            scale, shift = z_scale * scale, z_scale * shift + z_shift
        return per_channel(h, scale, shift).astype(self.dtype)


def scale_and_shift(condition: Array, channels: int, name: str) -> tuple[Array, Array]:
    """Linear maps of a condition [b d] to a scale around 1 and a shift around 0, each [b c]."""
    both = nn.Dense(2 * channels, kernel_init=truncated_normal, name=name)(condition)
    scale, shift = jnp.split(both, 2, axis=-1)
    return 1 + scale, shift
