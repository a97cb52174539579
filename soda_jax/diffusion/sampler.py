"""From noise to a picture: DDIM to DDPM, DPM-Solver++(2M), UniPC, Heun.

The last step of each sampler returns the network's prediction of x_0: the least noisy level is not
clean (sigma is .142 there under the inverted schedule).
"""

import jax
import jax.numpy as jnp

from soda_jax.array_types import Array, DenoiseFn
from soda_jax.diffusion.levels import make_levels, predict
from soda_jax.diffusion.process import Process

SAMPLERS = ("ddim", "dpm_solver", "unipc", "heun")

_INITIAL_NOISE = 2**31 - 1  # folded into a picture's key for x_T; the steps fold in 0, 1, 2, ...


def initial_noise(keys: Array, shape: tuple[int, int, int]) -> Array:
    """x_T, standard normal [b h w c], one picture of the shape (h, w, c) for each of the [b] keys.

    The same keys may be given to `sample`: the noise of its steps is independent of this.
    """
    return _normal(keys, _INITIAL_NOISE, shape)


def sample(
    denoise_fn: DenoiseFn,
    process: Process,
    x_T: Array,
    *,
    num_steps: int,
    sampler: str = "ddim",
    eta: float = 0.0,
    keys: Array | None = None,
    clip: float = 1.0,
    spacing: str = "t",
    return_trajectory: bool = False,
) -> Array | tuple[Array, Array]:
    """Pictures from noise.

    Args:
      denoise_fn: (x_t [b h w c], t [b] float32) -> prediction [b h w c], of the kind that
        `process` names.
      process: the process that the network was trained with.
      x_T: [b h w c], standard normal.
      num_steps: network calls; "heun" makes 2 num_steps - 1 of them.
      sampler: "ddim" (Song et al. 2021, eq. 12); "dpm_solver", DPM-Solver++(2M) (Lu et al. 2022,
        algorithm 2), whose first and last steps are of first order, and which does best with the
        spacing "balanced"; where it replaces the integral over the line through two predictions by
        h / 2 times the slope, that integral is taken exactly [D]; "unipc", the same, but each step
        except the last is made anew, at no further call, over the line to the prediction at its
        end: the corrector of UniPC (Zhao et al. 2023), of the lowest order, with exact integrals,
        where the paper goes through three predictions [D]; "heun", of second order (Karras et al.
        2022, algorithm 1), but on x as a function of the angle arctan(sigma / alpha), whose
        derivative is v. [D]
      eta: of "ddim" alone: 0 adds no noise, 1 is the ancestral sampling of DDPM.
      keys: [b] random keys, one for each picture, needed where eta > 0: a picture doesn't depend
        on the batch that it is in.
      clip: each prediction of x_0 is clipped to [-clip, clip]; 0: it is not.
      spacing: of the steps; see `times`.
      return_trajectory: also return the prediction of x_0 of every step.

    Returns:
      x_0 [b h w c] float32; with return_trajectory, (x_0, [s b h w c]).

    Raises:
      ValueError: an unknown sampler or spacing; eta outside [0, 1], above 0 without keys or with
        another sampler than "ddim"; fewer than 1 step; not one key for each picture.
    """
    _check_sampler(sampler, eta, keys, x_T.shape[0])
    levels = make_levels(process, num_steps, spacing)
    x_T = x_T.astype(jnp.float32)

    def predict_at(x_t, index):
        return predict(denoise_fn, process, x_t, levels, index, clip)

    if sampler == "ddim":
        x_0, trajectory = _ddim(predict_at, levels, x_T, eta, keys, return_trajectory)
    elif sampler == "heun":
        x_0, trajectory = _heun(predict_at, levels, x_T, return_trajectory)
    else:
        corrected = sampler == "unipc"
        x_0, trajectory = _multistep(predict_at, levels, x_T, corrected, return_trajectory)
    return (x_0, trajectory) if return_trajectory else x_0


def ddim_steps(
    denoise_fn: DenoiseFn,
    process: Process,
    x_t: Array,
    first: Array,
    *,
    count: int,
    num_steps: int,
    eta: float = 0.0,
    keys: Array | None = None,
    clip: float = 1.0,
    spacing: str = "t",
) -> tuple[Array, Array]:
    """Some steps of a run of "ddim", so that it can be watched: (x, prediction of x_0).

    Steps first, first + 1, ..., first + count - 1 of the num_steps that `sample` makes; steps
    beyond the last change nothing. All of them, one after the other, give what `sample` gives.
    """
    levels = make_levels(process, num_steps, spacing)

    def step(carry, index):
        x, seen = carry
        inside = jnp.minimum(index, num_steps - 1)
        x_0, epsilon = predict(denoise_fn, process, x, levels, inside, clip)
        new = _ddim_step(levels, x_0, epsilon, inside, eta, keys)
        kept = index < num_steps
        return (jnp.where(kept, new, x), jnp.where(kept, x_0, seen)), None

    start = x_t.astype(jnp.float32)
    return jax.lax.scan(step, (start, start), first + jnp.arange(count))[0]


def _ddim(predict, levels, x_T, eta, keys, keep):
    def step(x, index):
        x_0, epsilon = predict(x, index)
        return _ddim_step(levels, x_0, epsilon, index, eta, keys), (x_0 if keep else None)

    return jax.lax.scan(step, x_T, jnp.arange(levels.t.size - 1))


def _ddim_step(levels, x_0, epsilon, index, eta, keys):
    """x at the next level."""
    alpha, sigma = levels.alpha[index + 1], levels.sigma[index + 1]
    if eta == 0:
        return alpha * x_0 + sigma * epsilon
    # Share of the next level's noise that is drawn anew: the variance of q(x_s | x_t, x_0) is
    # sigma_s^2 (1 - SNR_t / SNR_s).
    fresh = -(eta**2) * jnp.expm1(levels.log_snr[index] - levels.log_snr[index + 1])
    noise = _normal(keys, index, x_0.shape[1:])
    mixed = jnp.sqrt(1.0 - fresh) * epsilon + jnp.sqrt(fresh) * noise
    return alpha * x_0 + sigma * mixed


def _multistep(predict, levels, x_T, corrected, keep):
    # Over a step of 2 h in log SNR, an x_0 that rises evenly from 0 to 1 does what `inside` would:
    #   int_0^h u / h e^(u - h) du / int_0^h e^(u - h) du = 1 / (1 - e^-h) - 1 / h
    # Continued from the step before, the last change of x_0 counts `beyond` = inside h / last h: 0
    # in the first and last step, and after a step that stays on the floor of its schedule.
    h = 0.5 * jnp.diff(levels.log_snr)[:-1]
    small = h < 0.1  # the closed form would lose its digits
    divisor = jnp.where(small, 1.0, h)
    inside = jnp.where(small, 0.5 + h / 12.0, 1.0 / -jnp.expm1(-divisor) - 1.0 / divisor)
    last, moved = h[:-1], h[:-1] > 0.0
    beyond = jnp.where(moved, inside[1:] * h[1:] / jnp.where(moved, last, 1.0), 0.0)
    inside, beyond = jnp.pad(inside, (0, 1)), jnp.pad(beyond, 1)

    def follow(x, index, x_0):
        ratio = levels.sigma[index + 1] / levels.sigma[index]
        return ratio * x + (levels.alpha[index + 1] - ratio * levels.alpha[index]) * x_0

    def step(carry, index):
        x, last_x, last_x_0 = carry
        x_0, _ = predict(x, index)
        change = x_0 - last_x_0
        if corrected:
            before = jnp.maximum(index - 1, 0)
            again = follow(last_x, before, last_x_0 + inside[before] * change)
            x = jnp.where(index == 0, x, again)
        new = follow(x, index, x_0 + beyond[index] * change)
        return (new, x, x_0), (x_0 if keep else None)

    start = (x_T, x_T, jnp.zeros_like(x_T))
    (x, _, _), trajectory = jax.lax.scan(step, start, jnp.arange(levels.t.size - 1))
    return x, trajectory


def _heun(predict, levels, x_T, keep):
    # The angle is bounded where sigma / alpha is not: a long first step, which the inverted
    # schedule always has, would be badly wrong in x / alpha over sigma / alpha.
    angle = jnp.arctan2(levels.sigma, levels.alpha)

    # One network call an iteration, so that the network is compiled once: an even call is made at
    # a level and takes a DDIM step; the odd one after it is made where that step ended and replaces
    # it by the trapezoid.
    def step(carry, call):
        x, base, base_v = carry
        index = (call + 1) // 2
        x_0, epsilon = predict(x, index)
        v = levels.alpha[index] * epsilon - levels.sigma[index] * x_0
        ddim = levels.alpha[index + 1] * x_0 + levels.sigma[index + 1] * epsilon
        turn = angle[index] - angle[jnp.maximum(index - 1, 0)]
        heun = base + turn * 0.5 * (base_v + v)
        return (jnp.where(call % 2 == 0, ddim, heun), x, v), (x_0 if keep else None)

    start = (x_T, x_T, jnp.zeros_like(x_T))
    (x, _, _), trajectory = jax.lax.scan(step, start, jnp.arange(2 * levels.t.size - 3))
    return x, (trajectory[::2] if keep else None)


def _normal(keys, fold, shape):
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, fold), shape))(keys)


def _check_sampler(sampler, eta, keys, b):
    if sampler not in SAMPLERS:
        hint = ' (DDPM is "ddim" with eta=1)' if sampler == "ddpm" else ""
        raise ValueError(f"sampler is {sampler!r}; allowed: {', '.join(SAMPLERS)}{hint}")
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta is {eta}; it must lie in [0, 1]: 0 is DDIM, 1 is DDPM")
    if eta > 0 and sampler != "ddim":
        raise ValueError(f"eta is {eta}, but {sampler!r} adds no noise: take 'ddim', or eta=0")
    if eta > 0 and keys is None:
        raise ValueError(f"eta is {eta}, but keys is None: give one random key for each picture")
    if keys is not None and keys.shape[0] != b:
        raise ValueError(f"there are {keys.shape[0]} keys for {b} pictures; give one for each")
