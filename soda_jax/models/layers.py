"""Parts that the networks share: initialisers, norms, time encoding, attention, resampling."""

import importlib.util
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from soda_jax.array_types import Array
from soda_jax.models import winograd
from soda_jax.models.norms import GroupNorm, per_channel

# The denoiser's initialiser is a truncated normal [P]; its fan-in scale is ours [D].
truncated_normal = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
glorot = nn.initializers.glorot_uniform()


@partial(jax.jit, static_argnums=(2, 3))  # traced once for all layers of a shape
def convolve(x: Array, kernel: Array, stride: int, padding: str | int) -> Array:
    """[b h w c], [k k c d] -> [b h' w' d].

    On a CPU with fewer multiplications where that pays (`winograd`); and where a map is smaller
    than the kernel, as a product with its gathered patches: there XLA's convolution is twenty times
    as slow (docs/performance.md).
    """
    k, _, _, features = kernel.shape
    pads = [(padding, padding)] * 2
    if isinstance(padding, str):
        pads = jax.lax.padtype_to_pads(x.shape[1:3], (k, k), (stride, stride), padding)
    height, width = (
        (n + sum(p) - k) // stride + 1 for n, p in zip(x.shape[1:3], pads, strict=True)
    )

    def direct(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def gathered(x, kernel):
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        rows = [slice(i, i + (height - 1) * stride + 1, stride) for i in range(k)]
        columns = [slice(i, i + (width - 1) * stride + 1, stride) for i in range(k)]
        patches = jnp.concatenate([x[:, r, c] for r in rows for c in columns], axis=-1)
        return patches @ kernel.reshape(-1, features)

    # The gradient convolves the map that comes out.
    if min(*x.shape[1:3], height, width) < k:
        return jax.lax.platform_dependent(x, kernel, cpu=gathered, default=direct)
    same = (k, stride, list(pads)) == (winograd.KERNEL, 1, [(1, 1)] * 2)
    if same and x.dtype == jnp.float32 and (m := winograd.tile_size(x, kernel)):
        return jax.lax.platform_dependent(
            x, kernel, cpu=partial(winograd.convolve, m), default=direct
        )
    return direct(x, kernel)


class Conv(nn.Module):
    """A square convolution of [b h w c], and a bias whose gradient is quick on a CPU, too."""

    features: int
    size: int
    stride: int = 1
    padding: str | int = "SAME"
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = truncated_normal

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        h = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.padding)
        if not self.use_bias:
            return h
        return per_channel(h, None, self.param("bias", nn.initializers.zeros, (self.features,)))


class Dropout(nn.Module):
    """In training each value is zeroed with probability `rate` (to 2^-16), and the rest is scaled
    up so that means stay: [... c] -> [... c]. Random stream "dropout".

    Two channels share a random word of 32 bits, of which flax's own draws one for each.
    """

    rate: float

    @nn.compact
    def __call__(self, h: Array, train: bool) -> Array:
        dropped = round(self.rate * 2**16)
        if not train or dropped == 0:
            return h
        *lead, c = h.shape
        words = jax.random.bits(self.make_rng("dropout"), (*lead, -(-c // 2)), jnp.uint32)
        halves = jnp.concatenate([words >> 16, words & 0xFFFF], axis=-1)[..., :c]
        return jnp.where(halves >= dropped, h / (1 - dropped / 2**16), 0)


def conv(features: int, size: int, name: str, dtype: Any, kernel_init=truncated_normal, **kwargs):
    """A square convolution with the denoiser's initialiser."""
    return Conv(features, size, dtype=dtype, kernel_init=kernel_init, name=name, **kwargs)


def time_encoding(t: Array, size: int, scale: float = 1e-4) -> Array:
    """Sinusoids of t in [0, 1], as SODA scales them: [b] -> [b, size] in [-1, 1].

    p = 2t - 1 in [-1, 1]; angle_k = p / (2 pi scale 10000^(k / (size / 2))); cosines first [P].
    """
    half = size // 2
    wavelength = 2 * jnp.pi * scale * 10_000.0 ** (jnp.arange(half, dtype=jnp.float32) / half)
    angle = (2 * t[:, None] - 1) / wavelength[None, :]
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class TimeEmbedding(nn.Module):
    """t [b] -> [b, features]: sinusoids of `encoding_size`, then linear, SiLU, linear [P].

    A label [b d] beside t is added to the sinusoids, by a linear map (EDM).
    """

    encoding_size: int
    features: int

    @nn.compact
    def __call__(self, t: Array, label: Array | None = None) -> Array:
        h = time_encoding(t, self.encoding_size)
        if label is not None:
            h += nn.Dense(
                self.encoding_size, use_bias=False, kernel_init=truncated_normal, name="label"
            )(label)
        h = nn.silu(nn.Dense(self.features, kernel_init=truncated_normal, name="linear0")(h))
        return nn.Dense(self.features, kernel_init=truncated_normal, name="linear1")(h)


def attend(q: Array, k: Array, v: Array, kernel: str) -> Array:
    """softmax(q k / sqrt d) v of [b n heads d], softmax in float32.

    kernel: "cudnn" never writes the n x n products to memory; it takes bfloat16, on a GPU that has
    cuDNN. Elsewhere, and for "xla", they are arrays.
    """
    attention = jax.nn.dot_product_attention
    installed = any(importlib.util.find_spec(f"jax_cuda{n}_plugin") for n in (12, 13))
    if kernel == "xla" or not installed:
        return attention(q, k, v)
    cudnn = partial(attention, implementation="cudnn")
    return jax.lax.platform_dependent(q, k, v, cuda=cudnn, default=attention)


def own_places(h: Array) -> Array:
    """[b h w 2]: where the squares of [b h w c] lie, down and right, in a picture from -1 to 1."""
    down, right = ((2 * jnp.arange(n, dtype=jnp.float32) + 1) / n - 1 for n in h.shape[1:3])
    places = jnp.stack(jnp.meshgrid(down, right, indexing="ij"), axis=-1)
    return jnp.broadcast_to(places, (*h.shape[:3], 2))


def place_waves(places: Array) -> Array:
    """Places [b h w 2] -> [b h w 14]: both, and their sines and cosines of periods 4, 2 and 1."""
    waves = jnp.concatenate([frequency * places for frequency in (1, 2, 4)], axis=-1) * jnp.pi / 2
    return jnp.concatenate([places, jnp.sin(waves), jnp.cos(waves)], axis=-1)


class Attention(nn.Module):
    """Self-attention among the pixels of [b h w c], added to its input; softmax in float32."""

    head_size: int
    rescale: bool
    zero_init: bool
    kernel: str = "xla"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, height, width, c = x.shape
        if c % self.head_size:
            raise ValueError(f"attention: {c} channels don't divide into heads of {self.head_size}")
        heads = (b, height * width, c // self.head_size, self.head_size)
        h = GroupNorm(name="norm")(x).astype(self.dtype)
        q, k, v = jnp.split(conv(3 * c, 1, "qkv", self.dtype)(h), 3, axis=-1)
        h = attend(q.reshape(heads), k.reshape(heads), v.reshape(heads), self.kernel)
        out_init = nn.initializers.zeros if self.zero_init else truncated_normal
        h = conv(c, 1, "out", self.dtype, out_init)(h.reshape(b, height, width, c))
        return residual_sum(x, h, self.rescale)


class SectionTokens(nn.Module):
    """Sections of z, a list of l [b z_i] -> tokens [b l features], each by a linear map of its own.

    A section that is dropped, all zeros, becomes its bias.
    """

    features: int

    @nn.compact
    def __call__(self, sections: list[Array]) -> Array:
        tokens = [
            nn.Dense(self.features, kernel_init=truncated_normal, name=f"section{index}")(section)
            for index, section in enumerate(sections)
        ]
        return jnp.stack(tokens, axis=1)


class CrossAttention(nn.Module):
    """Attention from the pixels of [b h w c] to tokens [b l d], added to its input."""

    head_size: int
    rescale: bool
    zero_init: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, tokens: Array) -> Array:
        b, height, width, c = x.shape
        if c % self.head_size:
            raise ValueError(
                f"cross-attention: {c} channels don't divide into heads of {self.head_size}"
            )
        heads = (b, -1, c // self.head_size, self.head_size)
        h = GroupNorm(name="norm")(x).astype(self.dtype)
        q = conv(c, 1, "q", self.dtype)(h)
        kv = nn.Dense(2 * c, dtype=self.dtype, kernel_init=truncated_normal, name="kv")
        k, v = jnp.split(kv(nn.LayerNorm(dtype=jnp.float32, name="token_norm")(tokens)), 2, axis=-1)
        h = jax.nn.dot_product_attention(q.reshape(heads), k.reshape(heads), v.reshape(heads))
        out_init = nn.initializers.zeros if self.zero_init else truncated_normal
        h = conv(c, 1, "out", self.dtype, out_init)(h.reshape(b, height, width, c))
        return residual_sum(x, h, self.rescale)


def residual_sum(x: Array, h: Array, rescale: bool) -> Array:
    """x + h, over sqrt 2 where `rescale`: unit variances stay unit variances [P]."""
    return (x + h) * 0.5**0.5 if rescale else x + h


def upsample(x: Array) -> Array:
    """Nearest-neighbour doubling: [b h w c] -> [b 2h 2w c]."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def downsample(x: Array) -> Array:
    """Mean of each 2x2 square: [b h w c] -> [b h/2 w/2 c]."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def to_patches(x: Array, patch: int) -> Array:
    """Squares of pixels as channels: [b h w c] -> [b h/p w/p p*p*c]."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // patch, patch, w // patch, patch, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // patch, w // patch, patch * patch * c)


def from_patches(x: Array, patch: int) -> Array:
    """The inverse of `to_patches`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, patch, patch, c // patch**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * patch, w * patch, c // patch**2)
