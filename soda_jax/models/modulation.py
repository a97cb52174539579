"""Feature modulation: the only way in which the code z reaches the denoiser."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from soda_jax.array_types import Array
from soda_jax.models.layers import GroupNorm, truncated_normal


class ModulatedNorm(nn.Module):
    """AdaGN(h, t, z) = z_s (t_s GroupNorm(h) + t_b) + z_b   (SODA, layer modulation [P]).

    Both scales are 1 + a linear map [D], so neither starts near zero. h is [b h w c], time [b d],
    or None where t enters elsewhere: then the norm has a scale and a shift of its own; z_section
    [b z_i], or None for a denoiser without a code. In float32; returns `dtype`.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h: Array, time: Array | None, z_section: Array | None) -> Array:
        c = h.shape[-1]
        h = GroupNorm(use_affine=time is None, name="norm")(h)
        if time is not None:
            t_scale, t_shift = scale_and_shift(nn.silu(time), c, "time")
            h = t_scale * h + t_shift
        if z_section is not None:
            z_scale, z_shift = scale_and_shift(z_section.astype(jnp.float32), c, "code")
            h = z_scale * h + z_shift
        return h.astype(self.dtype)


def scale_and_shift(condition: Array, channels: int, name: str) -> tuple[Array, Array]:
    """Linear maps of a condition [b d] to a scale around 1 and a shift around 0, each [b 1 1 c]."""
    both = nn.Dense(2 * channels, kernel_init=truncated_normal, name=name)(condition)
    scale, shift = jnp.split(both[:, None, None, :], 2, axis=-1)
    return 1 + scale, shift
