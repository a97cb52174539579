"""Norms, and the sums over pixels that they and every bias need.

XLA's reductions on a CPU run on one core when few values come out, and compute what they sum anew
for each sum. There the same sums are matrix products with ones, several times as fast
(docs/performance.md); elsewhere they stay reductions.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from soda_jax.array_types import Array

EPSILON = 1e-5


@jax.jit  # traced once for each shape
def pixel_sums(x: Array) -> Array:
    """[b h w c] -> [b c], in float32."""

    def product(x):
        b, h, w, c = x.shape
        ones, pixels = jnp.ones((b, h * w), x.dtype), x.reshape(b, h * w, c)
        return jnp.einsum("bn,bnc->bc", ones, pixels, preferred_element_type=jnp.float32)

    def reduction(x):
        return x.sum((1, 2), dtype=jnp.float32)

    return jax.lax.platform_dependent(x, cpu=product, default=reduction)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def spread(values: Array, pixels: tuple[int, int]) -> Array:
    """[b c] float32 -> [b h w c], the same at each of the (h, w) pixels."""
    b, c = values.shape
    return jnp.broadcast_to(values[:, None, None], (b, *pixels, c))


spread.defvjp(
    lambda values, pixels: (spread(values, pixels), None),
    lambda pixels, _, gradient: (pixel_sums(gradient),),
)


@jax.jit
def per_channel(h: Array, scale: Array | None, shift: Array) -> Array:
    """scale h + shift, where h is [b h w c] and the others are [b c], or [c] for all pictures."""
    b, height, width, c = h.shape

    def everywhere(values):
        values = jnp.broadcast_to(values.astype(jnp.float32), (b, c))
        return spread(values, (height, width)).astype(h.dtype)

    return (h if scale is None else everywhere(scale) * h) + everywhere(shift)


def num_groups(channels: int) -> int:
    """Groups of a GroupNorm: at most 32, and at least four channels in each where that divides."""
    return next(g for g in range(min(32, max(channels // 4, 1)), 0, -1) if channels % g == 0)


@jax.jit
def group_norm(h: Array) -> tuple[Array, Array]:
    """(scale, shift), each [b c]: scale h + shift is the GroupNorm of h [b h w c] float32."""
    b, height, width, c = h.shape
    groups = num_groups(c)

    def mean(sums):
        means = sums.reshape(b, groups, -1).mean(-1, keepdims=True) / (height * width)
        return jnp.broadcast_to(means, (b, groups, c // groups)).reshape(b, c)

    return _normalise(mean(pixel_sums(h)), mean(pixel_sums(h * h)))


def _normalise(mean, square):
    scale = jax.lax.rsqrt(jnp.maximum(square - mean * mean, 0.0) + EPSILON)
    return scale, -scale * mean


def learned(module: nn.Module, scale: Array, shift: Array) -> tuple[Array, Array]:
    """A scale and a shift of each channel, parameters of `module`, after those given."""
    c = scale.shape[-1:]
    gain = jnp.broadcast_to(module.param("scale", nn.initializers.ones, c), scale.shape)
    bias = jnp.broadcast_to(module.param("bias", nn.initializers.zeros, c), scale.shape)
    return gain * scale, gain * shift + bias


class GroupNorm(nn.Module):
    """GroupNorm in float32, whatever the activations are; returns float32."""

    @nn.compact
    def __call__(self, h: Array) -> Array:
        h = h.astype(jnp.float32)
        return per_channel(h, *learned(self, *group_norm(h)))


class BatchNorm(nn.Module):
    """BatchNorm in float32 over [b h w c]; returns float32.

    In training it takes the moments of the batch, over all devices, and moves the running ones,
    batch_stats, by 1 - momentum; else it takes the running ones.
    """

    momentum: float = 0.9

    @nn.compact
    def __call__(self, h: Array, train: bool) -> Array:
        h = h.astype(jnp.float32)
        b, height, width, c = h.shape
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (c,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (c,))
        if train:
            mean, square = (pixel_sums(x).mean(0) / (height * width) for x in (h, h * h))
            if not self.is_initializing():
                # Rounding leaves less than 0 of values that are nearly the same.
                variance = jnp.maximum(square - mean * mean, 0.0)
                for running, new in ((running_mean, mean), (running_var, variance)):
                    running.value = self.momentum * running.value + (1 - self.momentum) * new
            moments = _normalise(mean, square)
        else:
            scale = jax.lax.rsqrt(running_var.value + EPSILON)
            moments = scale, -scale * running_mean.value
        return per_channel(h, *learned(self, *moments))
