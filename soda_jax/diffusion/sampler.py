"""From noise to a picture and back: DDIM to DDPM, DPM-Solver++(2M), Heun; DDIM inversion.

The last step of each sampler returns the network's prediction of x_0: the least noisy level is not
clean (sigma is .142 there under the inverted schedule).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from soda_jax.array_types import Array, DenoiseFn
from soda_jax.diffusion.process import Process

SAMPLERS = ("ddim", "dpm_solver", "heun")
SPACINGS = ("t", "log_snr")

_INITIAL_NOISE = 2**31 - 1  # folded into a picture's key for x_T; the steps fold in 0, 1, 2, ...


class _Levels(NamedTuple):
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
      spacing: between 1 and t_min the steps are uniform in "t", or in "log_snr".

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
        log_snr = process.schedule.log_snr
        share = jnp.linspace(0.0, 1.0, num_steps, dtype=jnp.float32)[1:-1]
        between = _time_of(process, log_snr(first) * (1.0 - share) + log_snr(last) * share)
        evaluated = jnp.concatenate([first, between, last])
    return jnp.concatenate([evaluated, jnp.zeros((1,), jnp.float32)])


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
    clip: bool = True,
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
        spacing "log_snr"; "heun", of second order (Karras et al. 2022, algorithm 1), but on x as a
        function of the angle arctan(sigma / alpha), whose derivative is v. [D]
      eta: of "ddim" alone: 0 adds no noise, 1 is the ancestral sampling of DDPM.
      keys: [b] random keys, one for each picture, needed where eta > 0: a picture doesn't depend
        on the batch that it is in.
      clip: each prediction of x_0 is clipped to [-1, 1].
      spacing: of the steps; see `times`.
      return_trajectory: also return the prediction of x_0 of every step.

    Returns:
      x_0 [b h w c] float32; with return_trajectory, (x_0, [s b h w c]).

    Raises:
      ValueError: an unknown sampler or spacing; eta outside [0, 1], above 0 without keys or with
        another sampler than "ddim"; fewer than 1 step; not one key for each picture.
    """
    _check_sampler(sampler, eta, keys, x_T.shape[0])
    levels = _levels(process, num_steps, spacing)
    x_T = x_T.astype(jnp.float32)

    def predict(x_t, index):
        return _predict(denoise_fn, process, x_t, levels, index, clip)

    if sampler == "ddim":
        x_0, trajectory = _ddim(predict, levels, x_T, eta, keys, return_trajectory)
    elif sampler == "dpm_solver":
        x_0, trajectory = _dpm_solver(predict, levels, x_T, return_trajectory)
    else:
        x_0, trajectory = _heun(predict, levels, x_T, return_trajectory)
    return (x_0, trajectory) if return_trajectory else x_0


def invert(
    denoise_fn: DenoiseFn,
    process: Process,
    x_0: Array,
    *,
    num_steps: int,
    num_iterations: int = 1,
    first_iterations: int = 5,
    clip: bool = False,
    spacing: str = "t",
) -> Array:
    """The noise x_T from which DDIM makes the picture x_0: DDIM run backwards.

    A DDIM step from t' down to t rotates x by the prediction of v made *at t'*:

        x = cos x' - sin v(x', t')
        cos = alpha alpha' + sigma sigma',  sin = alpha sigma' - sigma alpha'

    which is solved for x' by fixed-point iteration. It starts from the same step taken upwards with
    the v of the last point; at t = 0, where no network can be asked, with v = 0: no noise is known
    yet. So each network call is made at t > 0, and one iteration a step costs no more than plain
    DDIM inversion, whose error in a step is of lower order. The first step has more iterations,
    because it starts from so little and is a long one under the inverted schedule. [D]

    `sample` with eta = 0 and the same process, num_steps, spacing and clip returns the picture, but
    for detail that the denoiser takes for noise at the first level above 0.

    Args:
      denoise_fn, process, spacing: as for `sample`.
      x_0: [b h w c] in [-1, 1].
      num_steps: of this run, and of the sampling that is to return the picture.
      num_iterations: network calls in each step but the first, at least 1.
      first_iterations: network calls in the first step, at least 1.
      clip: each prediction of x_0 is clipped to [-1, 1].

    Returns:
      x_T [b h w c] float32.

    Raises:
      ValueError: a number of steps or iterations below 1, or an unknown spacing.
    """
    if min(num_iterations, first_iterations) < 1:
        raise ValueError(
            f"num_iterations is {num_iterations} and first_iterations {first_iterations}; "
            "both must be at least 1"
        )
    levels = _levels(process, num_steps, spacing)
    x_0 = x_0.astype(jnp.float32)

    def step(carry, index):
        x, v = carry
        alpha, sigma = levels.alpha[index + 1], levels.sigma[index + 1]
        next_alpha, next_sigma = levels.alpha[index], levels.sigma[index]
        cos = alpha * next_alpha + sigma * next_sigma
        sin = alpha * next_sigma - sigma * next_alpha

        def iterate(_, guess):
            prediction, epsilon = _predict(denoise_fn, process, guess[0], levels, index, clip)
            next_v = next_alpha * epsilon - next_sigma * prediction
            return (x + sin * next_v) / cos, next_v

        iterations = jnp.where(index == num_steps - 1, first_iterations, num_iterations)
        return jax.lax.fori_loop(0, iterations, iterate, (cos * x + sin * v, v)), None

    indices = jnp.arange(num_steps - 1, -1, -1)
    (x_T, _), _ = jax.lax.scan(step, (x_0, jnp.zeros_like(x_0)), indices)
    return x_T


def _ddim(predict, levels, x_T, eta, keys, keep):
    def step(x, index):
        x_0, epsilon = predict(x, index)
        alpha, sigma = levels.alpha[index + 1], levels.sigma[index + 1]
        if eta == 0:
            x = alpha * x_0 + sigma * epsilon
        else:
            # Share of the next level's noise that is drawn anew: the variance of
            # q(x_s | x_t, x_0) is sigma_s^2 (1 - SNR_t / SNR_s).
            fresh = -(eta**2) * jnp.expm1(levels.log_snr[index] - levels.log_snr[index + 1])
            noise = _normal(keys, index, x.shape[1:])
            mixed = jnp.sqrt(1.0 - fresh) * epsilon + jnp.sqrt(fresh) * noise
            x = alpha * x_0 + sigma * mixed
        return x, (x_0 if keep else None)

    return jax.lax.scan(step, x_T, jnp.arange(levels.t.size - 1))


def _dpm_solver(predict, levels, x_T, keep):
    # Weight of the slope of x_0, h_i / (2 h_{i-1}): 0 in the first and last step, and after a step
    # that stays on the floor of its schedule.
    gap = jnp.diff(levels.log_snr)
    moved = gap[:-2] > 0.0
    slope = jnp.where(moved, gap[1:-1] / (2.0 * jnp.where(moved, gap[:-2], 1.0)), 0.0)
    slope = jnp.zeros_like(gap).at[1:-1].set(slope)

    def step(carry, index):
        x, last_x_0 = carry
        x_0, _ = predict(x, index)
        extrapolated = x_0 + slope[index] * (x_0 - last_x_0)
        alpha, sigma = levels.alpha[index + 1], levels.sigma[index + 1]
        ratio = sigma / levels.sigma[index]
        x = ratio * x + (alpha - ratio * levels.alpha[index]) * extrapolated
        return (x, x_0), (x_0 if keep else None)

    start = (x_T, jnp.zeros_like(x_T))
    (x, _), trajectory = jax.lax.scan(step, start, jnp.arange(levels.t.size - 1))
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


def _predict(denoise_fn, process, x_t, levels, index, clip):
    """(x_0, epsilon) that the network sees in x_t at a level."""
    t = jnp.full((x_t.shape[0],), levels.t[index])
    prediction = denoise_fn(x_t, t)
    x_0 = process.to_x_0(prediction, x_t, t)
    if not clip:
        return x_0, process.to_epsilon(prediction, x_t, t)
    x_0 = jnp.clip(x_0, -1.0, 1.0)
    return x_0, (x_t - levels.alpha[index] * x_0) / levels.sigma[index]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _levels(process, num_steps, spacing):
    t = times(process, num_steps, spacing)
    noisy, clean = t[:-1], jnp.ones((1,), jnp.float32)
    return _Levels(
        t=t,
        alpha=jnp.concatenate([process.schedule.alpha(noisy), clean]),
        sigma=jnp.concatenate([process.schedule.sigma(noisy), 0.0 * clean]),
        log_snr=jnp.concatenate([process.schedule.log_snr(noisy), jnp.inf * clean]),
    )


def _time_of(process, log_snr):
    """t in [t_min, 1] by bisection: log_snr falls with t."""

    def halve(_, bounds):
        low, high = bounds
        middle = 0.5 * (low + high)
        later = process.schedule.log_snr(middle) > log_snr
        return jnp.where(later, middle, low), jnp.where(later, high, middle)

    low = jnp.full_like(log_snr, process.t_min)
    low, high = jax.lax.fori_loop(0, 40, halve, (low, jnp.ones_like(log_snr)))
    return 0.5 * (low + high)


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
