"""Guidance: a prediction pushed away from what the network would say with less of the condition."""

from soda_jax.array_types import Array, DenoiseFn


def guide(denoise_fn: DenoiseFn, null_fn: DenoiseFn, guidance_scale: float) -> DenoiseFn:
    """A denoise_fn that returns (1 + w) denoise_fn - w null_fn, with w = guidance_scale.

    The weights sum to 1, and at one (x_t, t) epsilon, x_0 and v are affine in one another: so this
    is the same guidance whichever of the three both functions predict. What is guided is a matter
    of which functions are given: the whole z, or a subset of sections, where `denoise_fn` sees z
    under a section mask and `null_fn` sees none of it. A pose, where there is one, stays in both
    [R]. Source: classifier-free guidance, Ho and Salimans 2022, eq. 6.

    Args:
      denoise_fn: (x_t [b h w c], t [b]) -> prediction [b h w c], with the condition.
      null_fn: the same without it.
      guidance_scale: w; the Python number 0 gives back `denoise_fn`, and null_fn is never called.
    """
    if isinstance(guidance_scale, int | float) and guidance_scale == 0:
        return denoise_fn

    def guided(x_t: Array, t: Array) -> Array:
        return (1.0 + guidance_scale) * denoise_fn(x_t, t) - guidance_scale * null_fn(x_t, t)

    return guided
