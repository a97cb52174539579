"""The code z and its sections: how it is cut, drawn, penalised, and what of it is dropped."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from soda_jax.array_types import Array


def section_sizes(z_size: int, num_sections: int) -> tuple[int, ...]:
    """Sizes of the sections of z, in order; they differ by at most one, larger ones first [D]."""
    if z_size < num_sections:
        raise ValueError(
            f"z_size {z_size} is too small: this denoiser cuts z into {num_sections} sections"
        )
    small, larger = divmod(z_size, num_sections)
    return (small + 1,) * larger + (small,) * (num_sections - larger)


def split_sections(z: Array, num_sections: int) -> list[Array]:
    """z [b z] -> its sections, a list of [b z_i]."""
    return jnp.split(z, np.cumsum(section_sizes(z.shape[-1], num_sections))[:-1], axis=-1)


def mask_sections(z: Array, section_mask: Array) -> Array:
    """Zeroes the sections of z [b z] where section_mask [b l] is False."""
    sizes = section_sizes(z.shape[-1], section_mask.shape[-1])
    keep = jnp.repeat(section_mask, np.asarray(sizes), axis=-1, total_repeat_length=z.shape[-1])
    return jnp.where(keep, z, jnp.zeros_like(z))


def draw_section_mask(
    key: Array, b: int, num_sections: int, section_drop_rate: float, latent_drop_rate: float
) -> Array:
    """Layer masking: a mask [b l], False where a section is dropped in training.

    Two independent draws for each example [D]: each section is dropped with `section_drop_rate`,
    and all of z with `latent_drop_rate` (classifier-free guidance for the whole code).
    """
    section_key, latent_key = jax.random.split(key)
    sections = jax.random.bernoulli(section_key, 1 - section_drop_rate, (b, num_sections))
    latent = jax.random.bernoulli(latent_key, 1 - latent_drop_rate, (b, 1))
    return sections & latent


def standardised(codes: Array, epsilon: float = 1e-6) -> Array:
    """Codes [b ...] with mean 0 and variance 1 over the batch, in float32."""
    codes = codes.astype(jnp.float32)
    codes = codes - codes.mean(0, keepdims=True)
    return codes * jax.lax.rsqrt(jnp.square(codes).mean(0, keepdims=True) + epsilon)


def redundancy(z: Array) -> Array:
    """How far codes [2b z], those of a picture's two pairs neighbours, are from agreeing: [z].

    Of the correlations c [z z] between the first codes and the second, over pictures: for each
    dimension i, (1 - c_ii)^2 plus the mean over j of the other c_ij^2 (Barlow Twins, Zbontar et al.
    2021, with lambda = 1 / z [D]). 0 where both codes of a picture are the same and no dimension
    says what another does. The scale of z doesn't change it: a code can't agree by being small.
    """
    codes = standardised(z.reshape(-1, 2, z.shape[-1]))
    correlations = codes[:, 0].T @ codes[:, 1] / len(codes)
    own = jnp.diagonal(correlations)
    others = jnp.square(correlations).mean(1) - jnp.square(own) / z.shape[-1]
    return jnp.square(1 - own) + others


def unpredicted(prediction: Array, z: Array) -> Array:
    """Squared error of predictions [b z] of codes [b z] that are standardised over the batch: [z].

    1 is what knowing nothing of a picture costs, in every dimension, whatever its scale.
    """
    return jnp.square(prediction.astype(jnp.float32) - standardised(z)).mean(0)


class Predictor(nn.Module):
    """A code z [b z] -> a guess of another of the same picture, by one hidden layer of `width`."""

    width: int = 512  # [D]

    @nn.compact
    def __call__(self, z: Array) -> Array:
        h = nn.LayerNorm(name="norm")(z.astype(jnp.float32))
        h = nn.gelu(nn.Dense(self.width, name="hidden")(h))
        return nn.Dense(z.shape[-1], name="out")(h)


class Bottleneck(nn.Module):
    """Drops sections of z in training (random stream "bottleneck"), and never at evaluation.

    A section_mask [b l] given by the caller (partial conditioning) is applied in both.

    Attributes:
      penalty: of z in training, sown into the collection "penalties". A mean over the batch: "l1",
        the sum of its absolute values (DRL); "kl", of its normal distribution from the standard
        one, where the encoder gives mean and log variance (VDRL). "barlow": `redundancy`, a mean
        over z, of a batch that holds each picture twice; "bootstrap": `unpredicted`, likewise, of
        what the model's predictor guesses from it (the model calls `penalise`). "none".
    """

    num_sections: int
    section_drop_rate: float = 0.1
    latent_drop_rate: float = 0.1
    penalty: str = "none"
    penalty_weight: float = 0.0

    def code(self, encoded: Array, train: bool = False) -> Array:
        """z [b z] of what the encoder gives: that; or if it is [b 2z], drawn, or the mean."""
        if self.penalty != "kl":
            if train and self.penalty == "l1":
                self.penalise(jnp.abs(encoded).sum(-1))
            if train and self.penalty == "barlow":
                self.penalise(redundancy(encoded))
            return encoded
        mean, log_variance = jnp.split(encoded, 2, axis=-1)
        if not train:
            return mean
        divergence = 0.5 * (jnp.exp(log_variance) + jnp.square(mean) - 1 - log_variance)
        self.penalise(divergence.sum(-1))
        noise = jax.random.normal(self.make_rng("bottleneck"), mean.shape)
        return mean + jnp.exp(0.5 * log_variance) * noise

    def penalise(self, parts: Array) -> None:
        self.sow("penalties", self.penalty, self.penalty_weight * parts.mean())

    @nn.compact
    def __call__(self, z: Array, section_mask: Array | None = None, train: bool = False) -> Array:
        if section_mask is not None:
            z = mask_sections(z, section_mask)
        if train:
            drawn = draw_section_mask(
                self.make_rng("bottleneck"),
                z.shape[0],
                self.num_sections,
                self.section_drop_rate,
                self.latent_drop_rate,
            )
            z = mask_sections(z, drawn)
        return z
