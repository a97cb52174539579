"""A picture from its code: sampling under z, guided, from noise that is seeded per picture."""

import flax.linen as nn
import jax.numpy as jnp

from soda_jax.array_types import Array, PyTree
from soda_jax.diffusion.guidance import guide
from soda_jax.diffusion.process import Process
from soda_jax.diffusion.sampler import initial_noise, sample


def decode(
    model: nn.Module,
    process: Process,
    variables: PyTree,
    z: Array,
    keys: Array,
    shape: tuple[int, int, int],
    *,
    section_mask: Array | None = None,
    num_steps: int = 100,
    sampler: str = "ddim",
    spacing: str = "t",
    eta: float = 0.0,
    guidance_scale: float = 0.0,
) -> Array:
    """x_0 [b h w c] in [-1, 1], sampled under the codes z [b z].

    Args:
      variables: what `model.apply` takes.
      keys: [b], one for each picture, so a picture doesn't depend on the batch that it is in.
      shape: (h, w, c) of a picture.
      section_mask: [b l]; sections where it is False are zeroed (partial conditioning).
      guidance_scale: w of (1 + w) f(z) - w f(0); f(0) is the prediction under a zero code [R].
    """

    def conditional(x_t: Array, t: Array) -> Array:
        return model.apply(variables, x_t, t, z, section_mask, method="denoise")

    def unconditional(x_t: Array, t: Array) -> Array:
        return model.apply(variables, x_t, t, jnp.zeros_like(z), method="denoise")

    return sample(
        guide(conditional, unconditional, guidance_scale),
        process,
        initial_noise(keys, shape),
        num_steps=num_steps,
        sampler=sampler,
        spacing=spacing,
        eta=eta,
        keys=keys if eta > 0 else None,
    )
