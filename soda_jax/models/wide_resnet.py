"""DRL's encoder: a WRN-28-2 that is told the time, so that its code is a curve t -> z(t)."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from soda_jax.array_types import Array
from soda_jax.models.layers import Conv, glorot
from soda_jax.models.norms import BatchNorm, per_channel

# Fixed, as in the released code, where each run draws its own [R]; here a seed of their own does.
FREQUENCIES = (16.0 * np.random.RandomState(0).standard_normal(16)).astype(np.float32)
lecun_normal = nn.initializers.lecun_normal()


def fourier_features(t: Array, lowest: float = 0.01, highest: float = 50.0) -> Array:
    """Random Fourier features of log sigma(t), which is linear in t: [b] -> [b 32].

    Sines of 2 pi W log sigma first, then cosines; W is normal with deviation 16 [R].
    """
    log_sigma = np.log(lowest) + t * np.log(highest / lowest)
    angle = 2 * np.pi * log_sigma[:, None] * FREQUENCIES[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class WideBlock(nn.Module):
    """BatchNorm, ReLU, convolution, plus a map of t; BatchNorm, ReLU, convolution; plus x."""

    features: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, time: Array, train: bool) -> Array:
        conv = partial(Conv, self.features, dtype=self.dtype, kernel_init=lecun_normal)
        h = nn.relu(BatchNorm(name="norm0")(x, train)).astype(self.dtype)
        h = conv(3, padding=1, name="conv0")(h)
        added = nn.Dense(self.features, dtype=self.dtype, kernel_init=glorot, name="time")
        h = per_channel(h, None, added(nn.silu(time)))
        h = nn.relu(BatchNorm(name="norm1")(h, train)).astype(self.dtype)
        h = conv(3, self.stride, padding=1, name="conv1")(h)
        if self.stride > 1 or x.shape[-1] != self.features:
            x = conv(1, self.stride, name="shortcut")(x)
        return x + h


class WideResNet(nn.Module):
    """source [b h w c], t [b] -> pooled features [b 64 * width] in float32, none below 0.

    WRN-28-width (Zagoruyko and Komodakis 2016) with t added in every block, as DRL has it [R]
    (Mittal et al. 2023, arXiv 2105.14257): 1,532,864 parameters at width 2.
    """

    width: float = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, source: Array, t: Array, train: bool = False) -> Array:
        time = nn.Dense(64, kernel_init=glorot, name="time0")(fourier_features(t))
        time = nn.Dense(64, kernel_init=glorot, name="time1")(nn.silu(time))
        stem = Conv(16, 3, padding=1, dtype=self.dtype, kernel_init=lecun_normal, name="stem")
        h = stem(source)
        for stage in range(3):
            for index in range(4):
                h = WideBlock(
                    features=max(1, round(16 * self.width * 2**stage)),
                    stride=2 if stage > 0 and index == 0 else 1,
                    dtype=self.dtype,
                    name=f"stage{stage}_block{index}",
                )(h, time, train)
        # The last one's running statistics move ten times as fast [R].
        h = BatchNorm(momentum=0.1, name="norm")(h, train)
        return nn.relu(h).mean((1, 2))
