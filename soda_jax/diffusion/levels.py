"""The noise levels of a sampler's run, and what the network sees in x_t at one of them."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from soda_jax.array_types import Array, DenoiseFn
from soda_jax.diffusion.process import Process

# What falls in equal steps from the first noise to t_min, as a function of log_snr; rho of Karras
# et al. 2022, eq. 5, is 7.
_EVEN = {
    "log_snr": lambda log_snr: log_snr,
    "rho": lambda log_snr: -jnp.exp(-log_snr / 14.0),
    "balanced": lambda log_snr: log_snr - 64.0 * jnp.arctan(jnp.exp((2.0 - log_snr) / 4.0)),
}
SPACINGS = ("t", *_EVEN)


class Levels(NamedTuple):
    """The noise levels of a run, each [s+1], from pure noise to the clean picture."""

    t: Array
    alpha: Array
    sigma: Array
    log_snr: Array


def times(process: Process, num_steps: int, spacing: str = "t") -> Array:
    """The times of a run: [s+1] float32, decreasing from 1 to 0.

    The network is evaluated at all but the last. The last that it sees is t_min whatever the number
    of steps (but 1 for a single step), so that the picture is always read off the least noisy level
    that was trained. [D]

    Args:
      process: gives t_min and the schedule.
      num_steps: s, at least 1.
      spacing: between 1 and t_min the steps are uniform in "t"; in "log_snr"; "rho", in the seventh
        root of sigma / alpha (Karras et al. 2022, eq. 5); or "balanced", in log_snr with a density
        of steps of 1 + 8 sech((log_snr - 2) / 4), so closest where sigma is .35 [D]; how it was
        chosen is in docs/performance.md.

    Raises:
      ValueError: num_steps below 1, or an unknown spacing.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; it must be at least 1")
    if spacing not in SPACINGS:
        raise ValueError(f"spacing is {spacing!r}; allowed: {', '.join(SPACINGS)}")
    if spacing == "t" or num_steps < 3:
        evaluated = jnp.linspace(1.0, process.t_min, num_steps, dtype=jnp.float32)
    else:
        first, last = jnp.ones((1,), jnp.float32), jnp.full((1,), process.t_min, jnp.float32)

        def even(t: Array) -> Array:
            return _EVEN[spacing](process.schedule.log_snr(t))

        share = jnp.linspace(0.0, 1.0, num_steps, dtype=jnp.float32)[1:-1]
        between = _time_of(process, even, even(first) * (1.0 - share) + even(last) * share)
        evaluated = jnp.concatenate([first, between, last])
    return jnp.concatenate([evaluated, jnp.zeros((1,), jnp.float32)])


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def make_levels(process: Process, num_steps: int, spacing: str = "t") -> Levels:
    """The levels of a run, at the `times` of these arguments."""
    t = times(process, num_steps, spacing)
    noisy, clean = t[:-1], jnp.ones((1,), jnp.float32)
    return Levels(
        t=t,
        alpha=jnp.concatenate([process.schedule.alpha(noisy), clean]),
        sigma=jnp.concatenate([process.schedule.sigma(noisy), 0.0 * clean]),
        log_snr=jnp.concatenate([process.schedule.log_snr(noisy), jnp.inf * clean]),
    )


def predict(
    denoise_fn: DenoiseFn, process: Process, x_t: Array, levels: Levels, index: Array, clip: float
) -> tuple[Array, Array]:
    """(x_0, epsilon) that the network sees in x_t at a level; x_0 within clip, unless that is 0."""
    t = jnp.full((x_t.shape[0],), levels.t[index])
    prediction = denoise_fn(x_t, t)
    x_0 = process.to_x_0(prediction, x_t, t)
    if not clip:
        return x_0, process.to_epsilon(prediction, x_t, t)
    x_0 = jnp.clip(x_0, -clip, clip)
    return x_0, (x_t - levels.alpha[index] * x_0) / levels.sigma[index]


def _time_of(process, even, wanted):
    """t in [t_min, 1] where even(t), which falls with t, is `wanted`: by bisection."""

    def halve(_, bounds):
        low, high = bounds
        middle = 0.5 * (low + high)
        later = even(middle) > wanted
        return jnp.where(later, middle, low), jnp.where(later, high, middle)

    low = jnp.full_like(wanted, process.t_min)
    low, high = jax.lax.fori_loop(0, 40, halve, (low, jnp.ones_like(wanted)))
    return 0.5 * (low + high)
