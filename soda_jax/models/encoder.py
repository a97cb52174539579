"""The encoder: a ResNet v2 (He et al. 2016, pre-activation), global pooling, a linear map to z."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from soda_jax.array_types import Array
from soda_jax.models.layers import Conv, glorot, own_places
from soda_jax.models.norms import BatchNorm, GroupNorm
from soda_jax.models.wide_resnet import WideResNet

# Colours in [-1, 1] deviate by about half; beside rays, which deviate by 1, they would drown [D].
unit_colours = nn.initializers.variance_scaling(4.0, "fan_in", "normal")

SMALLEST_VARIANCE = 1e-3  # of a channel over a picture: the root's slope stays below 16 [D]

# variant: (blocks of each stage, bottleneck blocks)
RESNETS = {
    "resnet10": ((1, 1, 1, 1), False),
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
}

# stem: (kernel size, stride); "standard" is followed by a max-pool of stride 2
STEMS = {"small": (3, 1), "patch": (4, 2), "standard": (7, 2)}


class Norm(nn.Module):
    """Batch or group normalisation in float32, then ReLU; returns `dtype`."""

    kind: str
    dtype: Any

    @nn.compact
    def __call__(self, h: Array, train: bool) -> Array:
        if self.kind == "group":
            h = GroupNorm(name="group")(h)
        else:
            h = BatchNorm(name="batch")(h, train)
        return nn.relu(h).astype(self.dtype)


class ResidualBlock(nn.Module):
    """A pre-activation block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the width."""

    features: int
    stride: int
    bottleneck: bool
    norm: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        conv = partial(Conv, use_bias=False, dtype=self.dtype, kernel_init=glorot)
        norm = partial(Norm, self.norm, self.dtype)
        out = self.features * (4 if self.bottleneck else 1)

        h = norm(name="norm0")(x, train)
        if self.stride > 1 or x.shape[-1] != out:
            x = conv(out, 1, self.stride, name="shortcut")(h)

        if self.bottleneck:
            h = conv(self.features, 1, name="conv0")(h)
            h = norm(name="norm1")(h, train)
            h = conv(self.features, 3, self.stride, name="conv1")(h)
            h = norm(name="norm2")(h, train)
            h = conv(out, 1, name="conv2")(h)
        else:
            h = conv(self.features, 3, self.stride, name="conv0")(h)
            h = norm(name="norm1")(h, train)
            h = conv(out, 3, name="conv1")(h)
        return x + h


class ResNet(nn.Module):
    """The trunk: [b h w c] -> pooled features [b d] in float32.

    Attributes:
      features: a last 1x1 convolution to so many channels, normalised, before the pooling; 0: none.
      pooling: "last", the channels that come out at the end are averaged over the picture;
        "stages", so are those of each stage before it, normalised, and all stand one after another,
        the finest first [D].
      moments: 1, the averages; 2, after each map's averages stand the standard deviations of its
        channels over the picture [D].
      places: two more channels say where in the picture each pixel lies (CoordConv, Liu et al.
        2018) [D]: averaged over the picture, features hardly tell left from right without them.
    """

    variant: str = "resnet18"
    width_multiplier: float = 1.0
    stem: str = "small"
    norm: str = "batch"
    features: int = 0
    pooling: str = "last"
    moments: int = 1
    places: bool = False
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        stage_sizes, bottleneck = RESNETS[self.variant]
        width = max(1, round(64 * self.width_multiplier))
        block_class = nn.remat(ResidualBlock, static_argnums=(2,)) if self.remat else ResidualBlock

        if self.places:
            x = jnp.concatenate([x, own_places(x)], axis=-1)
        x = x.astype(self.dtype)
        conv = partial(Conv, use_bias=False, dtype=self.dtype, kernel_init=glorot)
        h = conv(width, *STEMS[self.stem], name="stem")(x)
        if self.stem == "standard":
            h = nn.max_pool(h, (3, 3), (2, 2), padding="SAME")

        pooled = []
        for stage, num_blocks in enumerate(stage_sizes):
            if stage and self.pooling == "stages":
                level = Norm(self.norm, self.dtype, name=f"pooled_stage{stage - 1}")(h, train)
                pooled += moments(level, self.moments)
            for index in range(num_blocks):
                h = block_class(
                    features=width * 2**stage,
                    stride=2 if stage > 0 and index == 0 else 1,
                    bottleneck=bottleneck,
                    norm=self.norm,
                    dtype=self.dtype,
                    name=f"stage{stage}_block{index}",
                )(h, train)
        h = Norm(self.norm, self.dtype, name="norm")(h, train)
        if self.features:
            h = conv(self.features, 1, name="features")(h)
            h = Norm(self.norm, self.dtype, name="features_norm")(h, train)
        return jnp.concatenate([*pooled, *moments(h, self.moments)], axis=-1)


def moments(h: Array, number: int) -> list[Array]:
    """[b h w c] -> the means [b c] over the picture, and if `number` is 2 the standard deviations;
    in float32."""
    h = h.astype(jnp.float32)
    means = h.mean((1, 2))
    if number == 1:
        return [means]
    variances = jnp.square(h - means[:, None, None]).mean((1, 2))
    return [means, jnp.sqrt(variances + SMALLEST_VARIANCE)]


class Encoder(nn.Module):
    """source [b h w c], and rays [b h w r] where there are cameras -> z [b z_size] in float32.

    The pooled features before the linear map are the output of the sub-module "trunk". With rays,
    the trunk sees them beside a linear map of the colours to rgb_features channels [P]. A trunk
    that is told the time is given t [b].

    Attributes:
      linear: whether there is that map; without it z is the pooled features (DRL).
      gaussian: the map gives mean and log variance of z, [b 2 z_size] (VDRL).
      code_norm: "batch": each dimension of z is normalised, in training over the batch, after it by
        running statistics, then scaled and shifted as learned; "none".
    """

    z_size: int
    trunk: ResNet | WideResNet
    rgb_features: int = 0
    linear: bool = True
    gaussian: bool = False
    code_norm: str = "none"

    @property
    def timed(self) -> bool:
        """Whether z is a curve t -> z(t)."""
        return isinstance(self.trunk, WideResNet)

    def setup(self):
        if self.linear:
            self.head = nn.Dense((1 + self.gaussian) * self.z_size, kernel_init=glorot)
        if self.code_norm == "batch":
            self.normalise = BatchNorm()
        if self.rgb_features:
            self.rgb = nn.Dense(self.rgb_features, kernel_init=unit_colours)

    def __call__(
        self,
        source: Array,
        train: bool = False,
        rays: Array | None = None,
        t: Array | None = None,
    ) -> Array:
        if self.rgb_features:
            source = jnp.concatenate([self.rgb(source), rays], axis=-1)
        pooled = self.trunk(source, t, train) if self.timed else self.trunk(source, train)
        z = self.head(pooled) if self.linear else pooled
        if self.code_norm == "batch":
            z = self.normalise(z[:, None, None], train)[:, 0, 0]
        return z
