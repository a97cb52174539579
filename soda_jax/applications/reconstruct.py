"""A picture from its code: sampling under z, guided, from seeded noise or from its own x_T."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from soda_jax.array_types import Array, DenoiseFn, PyTree
from soda_jax.diffusion.guidance import guide
from soda_jax.diffusion.inversion import invert
from soda_jax.diffusion.process import Process
from soda_jax.diffusion.sampler import initial_noise, sample


def under_code(
    model: nn.Module,
    variables: PyTree,
    z: Array,
    section_mask: Array | None = None,
    guidance_scale: float = 0.0,
    target_rays: Array | None = None,
    source: Array | None = None,
    shares: Array | None = None,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
) -> DenoiseFn:
    """The denoiser as a function of x_t and t, under the codes z [b z].

    Or under k codes of each picture, [b k z], each with its own target_rays [b k h w r]: then the
    prediction is the mean of theirs, by shares [b k] that add up to 1.

    Args:
      variables: what `model.apply` takes.
      section_mask: [b l]; sections where it is False are zeroed (partial conditioning).
      guidance_scale: w of (1 + w) f(z) - w f(0); f(0) is the prediction under a zero code [R]. Both
        come from one pass of twice the pictures; where w is the Python number 0, f(z) alone.
      target_rays: [b h w r], where the pictures are seen from; f(0) is given them, too [R].
      source: [b h w c], pictures whose z(t) is taken in place of z, of an encoder that is told t.
      guidance_interval: of t, outside of which f(z) alone is asked; see `guide`.

    Raises:
      ValueError: guidance along the curve z(t), which has no null code.
    """

    def predict(
        x_t: Array,
        t: Array,
        code: Array,
        mask: Array | None,
        rays: Array | None,
        shares: Array | None,
    ) -> Array:
        if code.ndim == 2:
            return model.apply(variables, x_t, t, code, mask, target_rays=rays, method="denoise")
        b, k = code.shape[:2]
        x_t, t, mask = jax.tree.map(lambda x: jnp.repeat(x, k, axis=0), (x_t, t, mask))
        rays = None if rays is None else rays.reshape(b * k, *rays.shape[2:])
        found = predict(x_t, t, code.reshape(b * k, -1), mask, rays, None)
        return jnp.einsum("bk,bkhwc->bhwc", shares, found.reshape(b, k, *found.shape[1:]))

    def plainly(x_t: Array, t: Array) -> Array:
        code = z if source is None else model.apply(variables, source, t=t, method="encode")
        return predict(x_t, t, code, section_mask, target_rays, shares)

    if source is not None and guidance_scale:
        raise ValueError(f"guidance_scale {guidance_scale}: a code that follows t has no guidance")
    if isinstance(guidance_scale, int | float) and guidance_scale == 0:
        return plainly

    def in_pairs(x: Array, null: Array | None = None) -> Array:
        # Neighbours, so that a device keeps its own pictures.
        null = x if null is None else null
        return jnp.stack([x, null], axis=1).reshape(-1, *x.shape[1:])

    codes = in_pairs(z, jnp.zeros_like(z))
    masks = None if section_mask is None else in_pairs(section_mask, jnp.ones_like(section_mask))
    rays, both_shares = jax.tree.map(in_pairs, (target_rays, shares))

    def with_and_without(x_t: Array, t: Array) -> tuple[Array, Array]:
        found = predict(in_pairs(x_t), in_pairs(t), codes, masks, rays, both_shares)
        found = found.reshape(-1, 2, *found.shape[1:])
        return found[:, 0], found[:, 1]

    if tuple(guidance_interval) == (0.0, 1.0):
        return guide(with_and_without, guidance_scale)
    return guide(with_and_without, guidance_scale, plainly, guidance_interval)


def decode(
    model: nn.Module,
    process: Process,
    variables: PyTree,
    z: Array,
    keys: Array,
    shape: tuple[int, int, int],
    *,
    section_mask: Array | None = None,
    x_T: Array | None = None,
    num_steps: int = 100,
    sampler: str = "ddim",
    spacing: str = "t",
    eta: float = 0.0,
    guidance_scale: float = 0.0,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    target_rays: Array | None = None,
    source: Array | None = None,
    shares: Array | None = None,
    clip: float = 1.0,
) -> Array:
    """x_0 [b h w c] in [-clip, clip], sampled under the codes z [b z], or [b k z].

    Args:
      variables, section_mask, guidance_scale, guidance_interval, target_rays, source, shares: see
        `under_code`.
      keys: [b], one for each picture, so a picture doesn't depend on the batch that it is in.
      shape: (h, w, c) of a picture.
      x_T: [b h w c], the noise to start from; that of the keys where None.
      clip: each prediction of x_0 is clipped to [-clip, clip]; 0, not at all, where x_T is an
        inverted one.
    """
    denoise_fn = under_code(
        model,
        variables,
        z,
        section_mask,
        guidance_scale,
        target_rays,
        source,
        shares,
        guidance_interval,
    )
    return sample(
        denoise_fn,
        process,
        initial_noise(keys, shape) if x_T is None else x_T,
        num_steps=num_steps,
        sampler=sampler,
        spacing=spacing,
        eta=eta,
        keys=keys if eta > 0 else None,
        clip=clip,
    )


def invert_pictures(
    model: nn.Module,
    process: Process,
    variables: PyTree,
    z: Array,
    x_0: Array,
    *,
    num_steps: int,
    target_rays: Array | None = None,
    spacing: str = "t",
    num_iterations: int = 3,
    first_iterations: int = 40,
) -> Array:
    """x_T [b h w c], from which `decode` draws the pictures x_0 [b h w c] under the codes z [b z].

    It holds what z doesn't. `decode` must be called with the same num_steps and spacing, "ddim",
    eta 0, no guidance and clip=0. See `invert` for the iterations.
    """
    return invert(
        under_code(model, variables, z, target_rays=target_rays),
        process,
        x_0,
        num_steps=num_steps,
        spacing=spacing,
        num_iterations=num_iterations,
        first_iterations=first_iterations,
    )
