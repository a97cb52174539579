"""Guidance: a prediction pushed away from what the network would say with less of the condition."""

from collections.abc import Callable

import jax

from soda_jax.array_types import Array, DenoiseFn


def guide(
    both_fn: Callable[[Array, Array], tuple[Array, Array]],
    guidance_scale: Array | float,
    denoise_fn: DenoiseFn | None = None,
    interval: tuple[float, float] = (0.0, 1.0),
) -> DenoiseFn:
    """A denoise_fn that returns (1 + w) with - w without, where w = guidance_scale.

    The weights sum to 1, and at one (x_t, t) epsilon, x_0 and v are affine in one another: so this
    is the same guidance whichever of the three is predicted. What is guided is a matter of what
    both_fn leaves out: the whole z, or a subset of sections. A pose, where there is one, stays in
    both [R]. Source: classifier-free guidance, Ho and Salimans 2022, eq. 6.

    Args:
      both_fn: (x_t [b h w c], t [b]) -> predictions [b h w c] with the condition and without it.
      denoise_fn: the prediction with it, alone: all that is asked where t is outside `interval`,
        which saves half the work there (Kynkaanniemi et al. 2024, arXiv 2404.07724). Then t must be
        the same for all pictures.
    """

    def guided(x_t: Array, t: Array) -> Array:
        conditional, null = both_fn(x_t, t)
        return (1.0 + guidance_scale) * conditional - guidance_scale * null

    if denoise_fn is None:
        return guided

    def in_interval(x_t: Array, t: Array) -> Array:
        inside = (interval[0] <= t[0]) & (t[0] <= interval[1])
        return jax.lax.cond(inside, guided, denoise_fn, x_t, t)

    return in_interval
