"""Encoder, bottleneck and denoiser as one model: every method of this house chooses its parts."""

import flax.linen as nn
import jax.numpy as jnp

from soda_jax.array_types import Array, Poses
from soda_jax.models.bottleneck import unpredicted


def mean_of_sources(features: Array, source_mask: Array) -> Array:
    """Features [b*k d] of sources -> [b d]: the mean over those that source_mask [b k] keeps."""
    kept = source_mask[..., None].astype(features.dtype)
    features = features.reshape(*source_mask.shape, -1)
    return (kept * features).sum(1) / jnp.maximum(kept.sum(1), 1)


class DiffusionAutoencoder(nn.Module):
    """SODA's model: z = E(source); a prediction D(x_t, t, z) of the target's noise.

    Attributes:
      encoder: source [b h w c] -> z [b z]; None for a denoiser alone (DDAE), whose z is [b 0].
      bottleneck: drops sections of z in training; None where there is no encoder.
      denoiser: (x_t [b h w c], t [b], z [b z]) -> prediction [b h w c].
      predictor: z [b z] -> a guess of another encoder's code of the same picture [b z], whose error
        is a penalty in training; None for none.

    Where pictures come with cameras, both networks are also given the encoded ray of each pixel:
    source_rays [b h w r] and target_rays [b h w r]. Then sources may be several, [b k h w c] with
    source_rays [b k h w r]: z is the mean of their codes, over those that source_mask [b k] keeps.

    An encoder may be told the time (DRL): then z is a curve, of which the denoiser is given z(t);
    z(code_t) stands for the picture where no t is given.
    """

    encoder: nn.Module | None
    bottleneck: nn.Module | None
    denoiser: nn.Module
    code_t: float = 0.5
    predictor: nn.Module | None = None

    def encode(
        self,
        source: Array,
        train: bool = False,
        source_rays: Array | None = None,
        source_mask: Array | None = None,
        t: Array | None = None,
    ) -> Array:
        """source [b h w c] or [b k h w c] -> z [b z], nothing dropped, nothing drawn."""
        if self.encoder is None:
            return jnp.zeros((source.shape[0], 0))
        return self.bottleneck.code(self._encoded(source, train, source_rays, source_mask, t))

    def _encoded(self, source, train, source_rays, source_mask, t):
        if source.ndim == 4:
            t = jnp.full(source.shape[:1], self.code_t) if t is None else t
            return self.encoder(source, train, source_rays, t)
        b, k = source.shape[:2]
        source, source_rays = (x.reshape(b * k, *x.shape[2:]) for x in (source, source_rays))
        return mean_of_sources(self.encoder(source, train, source_rays), source_mask)

    def denoise(
        self,
        x_t: Array,
        t: Array,
        z: Array,
        section_mask: Array | None = None,
        train: bool = False,
        target_rays: Array | None = None,
        augmentation: Array | None = None,
    ) -> Array:
        """The prediction [b h w c] at (x_t, t) under z, where section_mask [b l] keeps it."""
        code = None if self.bottleneck is None else self.bottleneck(z, section_mask, train)
        told = {} if augmentation is None else {"augmentation": augmentation}
        return self.denoiser(x_t, t, code, train, target_rays, **told)

    def __call__(
        self,
        source: Array,
        x_t: Array,
        t: Array,
        train: bool = False,
        poses: Poses | None = None,
        augmentation: Array | None = None,
        other_z: Array | None = None,
    ) -> tuple[Array, Array]:
        """The prediction [b h w c] under the sources' own code, and that code z [b z].

        Where there are poses, x_t and t may be [b*n ...]: n targets of each code. other_z [b z] is
        what the predictor is to guess.
        """
        if self.encoder is None:
            z = self.encode(source)
        else:
            rays = (None, None) if poses is None else (poses.source_rays, poses.source_mask)
            z = self.bottleneck.code(self._encoded(source, train, *rays, t), train)
        if self.predictor is not None:
            guess = self.predictor(z)
            if other_z is not None:
                self.bottleneck.penalise(unpredicted(guess, other_z))
        codes = jnp.repeat(z, x_t.shape[0] // z.shape[0], axis=0)
        target_rays = None if poses is None else poses.target_rays
        return self.denoise(x_t, t, codes, None, train, target_rays, augmentation), z
