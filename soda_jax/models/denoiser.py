"""The denoiser: a U-Net whose residual blocks are modulated by t and by sections of z.

Which section reaches which layer (SODA, layer modulation [P]; our reading for this U-Net [D]):
every skip is one layer on the way down: the stem, each residual block, each down-sampler. L levels
of n blocks push m = L (n + 1) skips, and exactly m up blocks pop them. A section travels with its
skip: the up block that pops skip i is modulated by section i, as was the layer that pushed it; the
middle takes section m. A layer without modulation (the stem, a strided convolution) still owns its
section.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from soda_jax.array_types import Array
from soda_jax.models.bottleneck import split_sections
from soda_jax.models.layers import (
    Attention,
    CrossAttention,
    Dropout,
    SectionTokens,
    TimeEmbedding,
    conv,
    downsample,
    from_patches,
    own_places,
    place_waves,
    residual_sum,
    to_patches,
    truncated_normal,
    upsample,
)
from soda_jax.models.modulation import ModulatedNorm
from soda_jax.models.norms import GroupNorm, per_channel


def num_sections(multipliers: tuple[int, ...], num_blocks: int) -> int:
    """m + 1: one section for each of the m = L (n + 1) skips, and one for the middle."""
    return len(multipliers) * (num_blocks + 1) + 1


def section_of_block(
    multipliers: tuple[int, ...], num_blocks: int, size: int, resample: str = "strided"
) -> dict[str, int]:
    """Name of each modulated block -> the section of z that it reads, for pictures [size size]."""
    owners, skips = {}, 1  # the stem's
    last = len(multipliers) - 1
    for level in range(last + 1):
        for index in range(num_blocks):
            owners[f"down_{size}x{size}_block{index}"] = skips
            skips += 1
        if level < last:
            owners[f"down_{size}x{size}_sample"] = skips
            skips, size = skips + 1, size // 2
    owners |= {"mid_block0": skips, "mid_block1": skips}
    for level in range(last, -1, -1):
        for index in range(num_blocks + 1):
            skips -= 1
            owners[f"up_{size}x{size}_block{index}"] = skips
        if level > 0:
            owners[f"up_{size}x{size}_sample"] = skips
            size *= 2
    if resample == "strided":  # by convolutions, without modulation
        owners = {name: owner for name, owner in owners.items() if not name.endswith("_sample")}
    return owners


class ModulatedBlock(nn.Module):
    """A residual block; its second norm is modulated. `resample` is "", "down" or "up"."""

    features: int
    dropout: float
    rescale: bool
    zero_init: bool
    time_route: str = "modulation"
    resample: str = ""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, time: Array, z_section: Array | None, train: bool) -> Array:
        change = {"": lambda h: h, "down": downsample, "up": upsample}[self.resample]

        h = nn.silu(GroupNorm(name="norm0")(x)).astype(self.dtype)
        h = conv(self.features, 3, "conv0", self.dtype)(change(h))
        if self.time_route == "added":
            added = nn.Dense(self.features, kernel_init=truncated_normal, name="time")(
                nn.silu(time)
            )
            h, time = per_channel(h, None, added), None
        h = nn.silu(ModulatedNorm(self.dtype, name="modulation")(h, time, z_section))
        h = Dropout(self.dropout)(h, train)
        last_init = nn.initializers.zeros if self.zero_init else truncated_normal
        h = conv(self.features, 3, "conv1", self.dtype, last_init)(h)

        x = change(x)
        if x.shape[-1] != self.features:
            x = conv(self.features, 1, "shortcut", self.dtype)(x)
        return residual_sum(x, h, self.rescale)


class Denoiser(nn.Module):
    """(x_t [b h w c], t [b], z [b z] or None) -> a prediction [b h w c] in float32.

    Where there are cameras it is also given rays [b h/patch w/patch r], which the stem sees beside
    a linear map of x_t to rgb_features channels [P].

    Attributes:
      width, multipliers: level i has width * multipliers[i] channels, at 1 / 2^i of the resolution.
      patch: squares of so many pixels become channels before the first level, and pixels again
        after the last: levels begin at 1 / patch of the resolution [D].
      num_blocks: residual blocks of a level on the way down; one more on the way up.
      attention_levels: levels with self-attention after each block; mid_attention: in the middle.
      cross_attention_levels: levels whose blocks also attend to the sections of z, so that nothing
        but z gets in; the middle does with the last level [P: that it helps; D: its tokens].
      head_size: channels of an attention head; attention_kernel: see `layers.attend`.
      resample: "strided" (a strided convolution; nearest neighbour and a convolution), or
        "residual" (a modulated block that changes the resolution; on the way up it shares the
        section of the block before it [D]).
      time_route: "modulation", t scales and shifts each second norm, as z does [P]; "added", it is
        added to what enters that norm (DDPM, DDAE).
      rescale: residual sums over sqrt 2 [P]. Skips are concatenated: nothing is summed there [D].
      zero_init: the last convolution of each block, and of the net, starts at zero [D].
      whole_code: z has one section, which is that of every layer (DiffAE).
      located: it is told where in the source each of its squares lies, as rays
        [b h/patch w/patch 2] that run from -1 to 1 inside the source; where they are None, the
        target lies as the source does [D].
      labels: values that say how the picture was augmented (EDM), given as augmentation [b labels];
        where it is None they are 0: as it is.
    """

    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    num_blocks: int = 2
    attention_levels: tuple[int, ...] = (1,)
    mid_attention: bool = True
    cross_attention_levels: tuple[int, ...] = ()
    head_size: int = 64
    attention_kernel: str = "xla"
    dropout: float = 0.1
    resample: str = "strided"
    rescale: bool = True
    zero_init: bool = True
    time_route: str = "modulation"
    patch: int = 1
    whole_code: bool = False
    labels: int = 0
    located: bool = False
    rgb_features: int = 0
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x_t: Array,
        t: Array,
        z: Array | None,
        train: bool = False,
        rays: Array | None = None,
        augmentation: Array | None = None,
    ) -> Array:
        b, height, width, channels = x_t.shape
        factor = self.patch * 2 ** (len(self.multipliers) - 1)
        if height % factor or width % factor:
            raise ValueError(
                f"{len(self.multipliers)} levels and patches of {self.patch} need a height and "
                f"width that {factor} divides, not {height}x{width}"
            )
        m = num_sections(self.multipliers, self.num_blocks) - 1
        if z is None or self.whole_code:
            sections = [z] * (m + 1)
        else:
            sections = split_sections(z, m + 1)
        if self.labels and augmentation is None:
            augmentation = jnp.zeros((b, self.labels))
        time = TimeEmbedding(self.width, 4 * self.width, name="time")(t, augmentation)
        block_class = (
            nn.remat(ModulatedBlock, static_argnums=(4,)) if self.remat else ModulatedBlock
        )

        def block(h, section, name, features=None, resample=""):
            return block_class(
                features=features or h.shape[-1],
                dropout=self.dropout,
                rescale=self.rescale,
                zero_init=self.zero_init,
                time_route=self.time_route,
                resample=resample,
                dtype=self.dtype,
                name=name,
            )(h, time, sections[section], train)

        def attention(h, name):
            sizes = (self.head_size, self.rescale, self.zero_init)
            return Attention(*sizes, self.attention_kernel, self.dtype, name=name)(h)

        tokens = None
        if self.cross_attention_levels and z is not None:
            tokens = SectionTokens(4 * self.width, name="tokens")(sections)

        def cross_attention(h, name):
            sizes = (self.head_size, self.rescale, self.zero_init, self.dtype)
            return CrossAttention(*sizes, name=f"{name}_cross_attention")(h, tokens)

        def attend(h, level, name):
            if level in self.attention_levels:
                h = attention(h, f"{name}_attention")
            if level in self.cross_attention_levels and tokens is not None:
                h = cross_attention(h, name)
            return h

        def place(h):
            return f"{h.shape[1]}x{h.shape[2]}"

        h = to_patches(x_t.astype(self.dtype), self.patch)
        if self.rgb_features:
            h = conv(self.rgb_features, 1, "rgb", self.dtype)(h)
            h = jnp.concatenate([h, rays.astype(self.dtype)], axis=-1)
        if self.located:
            places = own_places(h) if rays is None else rays
            h = jnp.concatenate([h, place_waves(places).astype(self.dtype)], axis=-1)
        h = conv(self.width, 3, "stem", self.dtype)(h)
        skips = [h]
        for level, multiplier in enumerate(self.multipliers):
            for index in range(self.num_blocks):
                name = f"down_{place(h)}_block{index}"
                h = block(h, len(skips), name, self.width * multiplier)
                h = attend(h, level, name)
                skips.append(h)
            if level < len(self.multipliers) - 1:
                name = f"down_{place(h)}_sample"
                if self.resample == "strided":
                    h = conv(h.shape[-1], 3, name, self.dtype, stride=2)(h)
                else:
                    h = block(h, len(skips), name, resample="down")
                skips.append(h)

        h = block(h, m, "mid_block0")
        if self.mid_attention:
            h = attention(h, "mid_attention")
        if len(self.multipliers) - 1 in self.cross_attention_levels and tokens is not None:
            h = cross_attention(h, "mid")
        h = block(h, m, "mid_block1")

        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for index in range(self.num_blocks + 1):
                name = f"up_{place(h)}_block{index}"
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                section = len(skips)
                h = block(h, section, name, self.width * multiplier)
                h = attend(h, level, name)
            if level > 0:
                name = f"up_{place(h)}_sample"
                if self.resample == "strided":
                    h = conv(h.shape[-1], 3, name, self.dtype)(upsample(h))
                else:
                    h = block(h, section, name, resample="up")

        h = nn.silu(GroupNorm(name="norm")(h))
        out_init = nn.initializers.zeros if self.zero_init else truncated_normal
        h = conv(channels * self.patch**2, 3, "out", jnp.float32, out_init)(h)
        return from_patches(h, self.patch)
