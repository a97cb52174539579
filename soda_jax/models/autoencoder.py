"""Encoder, bottleneck and denoiser as one model: every method of this house chooses its parts."""

import flax.linen as nn

from soda_jax.array_types import Array


class DiffusionAutoencoder(nn.Module):
    """SODA's model: z = E(source); a prediction D(x_t, t, z) of the target's noise.

    Attributes:
      encoder: source [b h w c] -> z [b z].
      bottleneck: drops sections of z in training.
      denoiser: (x_t [b h w c], t [b], z [b z]) -> prediction [b h w c].
    """

    encoder: nn.Module
    bottleneck: nn.Module
    denoiser: nn.Module

    def encode(self, source: Array, train: bool = False) -> Array:
        """source [b h w c] -> z [b z], nothing dropped."""
        return self.encoder(source, train)

    def denoise(
        self, x_t: Array, t: Array, z: Array, section_mask: Array | None = None, train: bool = False
    ) -> Array:
        """The prediction [b h w c] at (x_t, t) under z, where section_mask [b l] keeps it."""
        return self.denoiser(x_t, t, self.bottleneck(z, section_mask, train), train)

    def __call__(
        self, source: Array, x_t: Array, t: Array, train: bool = False
    ) -> tuple[Array, Array]:
        """The prediction [b h w c] under the source's own code, and that code z [b z]."""
        z = self.encode(source, train)
        return self.denoise(x_t, t, z, train=train), z
