"""DRL's denoiser: a small NCSN++, into which the code comes by two routes (Song et al. 2021)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from soda_jax.array_types import Array
from soda_jax.models.layers import Dropout, conv, downsample, glorot, residual_sum, upsample
from soda_jax.models.norms import GroupNorm, per_channel
from soda_jax.models.wide_resnet import fourier_features

_nothing = nn.initializers.zeros  # a scale of 1e-10 in the released code


class TimedBlock(nn.Module):
    """GroupNorm, swish, change of size, convolution, plus a map of t and z; again; plus x."""

    features: int
    resample: str = ""
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, condition: Array, train: bool) -> Array:
        change = {"": lambda h: h, "down": downsample, "up": upsample}[self.resample]
        h = change(nn.silu(GroupNorm(name="norm0")(x)).astype(self.dtype))
        x = change(x)
        h = conv(self.features, 3, "conv0", self.dtype, glorot)(h)
        added = nn.Dense(self.features, kernel_init=glorot, dtype=self.dtype, name="condition")
        h = per_channel(h, None, added(nn.silu(condition)))
        h = nn.silu(GroupNorm(name="norm1")(h)).astype(self.dtype)
        h = Dropout(self.dropout)(h, train)
        h = conv(self.features, 3, "conv1", self.dtype, _nothing)(h)
        if self.resample or x.shape[-1] != self.features:
            x = conv(self.features, 1, "shortcut", self.dtype, glorot)(x)
        return residual_sum(x, h, True)


class PixelAttention(nn.Module):
    """Self-attention of one head among the pixels of [b h w c], added to its input."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, height, width, c = x.shape
        small = nn.initializers.variance_scaling(0.1, "fan_avg", "uniform")
        h = GroupNorm(name="norm")(x).astype(self.dtype)
        q, k, v = (
            conv(c, 1, name, self.dtype, small)(h).reshape(b, height * width, 1, c)
            for name in ("query", "key", "value")
        )
        h = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
        return residual_sum(x, conv(c, 1, "out", self.dtype, _nothing)(h), True)


class NCSNpp(nn.Module):
    """(x_t [b h w c], t [b], z [b z] or None) -> a prediction [b h w c] in float32.

    The residual form of the progressive input; attention at half the resolution and in the middle;
    831,571 parameters at the defaults, and 107,328 more for a code of 128 dimensions. The code goes

      1. into every block, by a linear map to 64 values beside those of t;
      2. with them through three layers to a picture of 32 channels at the coarsest level, which the
         middle takes in beside its own.

    Not as in the released code [D]: x_t comes with unit variance, and the output is a prediction
    itself, not one over sigma.

    Attributes:
      width, multipliers, num_blocks: as those of `Denoiser`.
    """

    width: int = 16
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    num_blocks: int = 2
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x_t: Array,
        t: Array,
        z: Array | None,
        train: bool = False,
        rays: Array | None = None,
    ) -> Array:
        if rays is not None:
            raise ValueError("this denoiser knows of no cameras")
        b, size, _, channels = x_t.shape
        last = len(self.multipliers) - 1

        def dense(features, name):
            return nn.Dense(features, kernel_init=glorot, name=name)

        def block(h, name, features, resample=""):
            return TimedBlock(features, resample, self.dropout, self.dtype, name=name)(
                h, condition, train
            )

        condition = dense(64, "time1")(nn.silu(dense(64, "time0")(fourier_features(t))))
        if z is None:
            condition = jnp.concatenate([condition, jnp.zeros_like(condition)], axis=-1)
        else:
            condition = jnp.concatenate([condition, dense(64, "code")(z)], axis=-1)

        pyramid = x_t.astype(self.dtype)
        h = conv(self.width, 3, "stem", self.dtype, glorot)(pyramid)
        skips = [h]
        for level, multiplier in enumerate(self.multipliers):
            place = f"{h.shape[1]}x{h.shape[2]}"
            for index in range(self.num_blocks):
                h = block(h, f"down_{place}_block{index}", self.width * multiplier)
                if level == 1:
                    h = PixelAttention(self.dtype, name=f"down_{place}_block{index}_attention")(h)
                skips.append(h)
            if level < last:
                h = block(h, f"down_{place}_sample", h.shape[-1], "down")
                pyramid = conv(h.shape[-1], 3, f"pyramid_{place}", self.dtype, glorot, stride=2)(
                    pyramid
                )
                h = pyramid = residual_sum(pyramid, h, True)
                skips.append(h)

        coarsest, features = size // 2**last, 2 * self.width
        if z is None:
            drawn = jnp.zeros((b, coarsest, coarsest, features), self.dtype)
        else:
            drawn = nn.silu(dense(features * coarsest, "picture0")(condition))
            drawn = nn.silu(dense(features * coarsest, "picture1")(drawn))
            drawn = nn.silu(dense(features * coarsest**2, "picture2")(drawn))
            drawn = drawn.reshape(b, coarsest, coarsest, features).astype(self.dtype)
        h = jnp.concatenate([h, drawn], axis=-1)
        h = block(h, "mid_block0", h.shape[-1])
        h = PixelAttention(self.dtype, name="mid_attention")(h)
        h = block(h, "mid_block1", h.shape[-1])

        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            place = f"{h.shape[1]}x{h.shape[2]}"
            for index in range(self.num_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = block(h, f"up_{place}_block{index}", self.width * multiplier)
            if level == 1:
                h = PixelAttention(self.dtype, name=f"up_{place}_block{index}_attention")(h)
            if level > 0:
                h = block(h, f"up_{place}_sample", h.shape[-1], "up")

        h = nn.silu(GroupNorm(name="norm")(h))
        return conv(channels, 3, "out", jnp.float32, _nothing)(h)
