"""Guidance: a prediction pushed away from what the network would say with less of the condition."""

from collections.abc import Callable

from soda_jax.array_types import Array, DenoiseFn


def guide(
    both_fn: Callable[[Array, Array], tuple[Array, Array]], guidance_scale: Array | float
) -> DenoiseFn:
    """A denoise_fn that returns (1 + w) with - w without, where w = guidance_scale.

    The weights sum to 1, and at one (x_t, t) epsilon, x_0 and v are affine in one another: so this
    is the same guidance whichever of the three is predicted. What is guided is a matter of what
    both_fn leaves out: the whole z, or a subset of sections. A pose, where there is one, stays in
    both [R]. Source: classifier-free guidance, Ho and Salimans 2022, eq. 6.

    Args:
      both_fn: (x_t [b h w c], t [b]) -> predictions [b h w c] with the condition and without it.
    """

    def guided(x_t: Array, t: Array) -> Array:
        conditional, null = both_fn(x_t, t)
        return (1.0 + guidance_scale) * conditional - guidance_scale * null

    return guided
