"""DDIM inversion: from a picture back to the noise that it is drawn from."""

import jax
import jax.numpy as jnp

from soda_jax.array_types import Array, DenoiseFn
from soda_jax.diffusion.levels import make_levels, predict
from soda_jax.diffusion.process import Process


def invert(
    denoise_fn: DenoiseFn,
    process: Process,
    x_0: Array,
    *,
    num_steps: int,
    num_iterations: int = 1,
    first_iterations: int = 5,
    clip: float = 0.0,
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
      clip: each prediction of x_0 is clipped to [-clip, clip]; 0: it is not.

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
    levels = make_levels(process, num_steps, spacing)
    x_0 = x_0.astype(jnp.float32)

    def step(carry, index):
        x, v = carry
        alpha, sigma = levels.alpha[index + 1], levels.sigma[index + 1]
        next_alpha, next_sigma = levels.alpha[index], levels.sigma[index]
        cos = alpha * next_alpha + sigma * next_sigma
        sin = alpha * next_sigma - sigma * next_alpha

        def iterate(_, guess):
            prediction, epsilon = predict(denoise_fn, process, guess[0], levels, index, clip)
            next_v = next_alpha * epsilon - next_sigma * prediction
            return (x + sin * next_v) / cos, next_v

        iterations = jnp.where(index == num_steps - 1, first_iterations, num_iterations)
        return jax.lax.fori_loop(0, iterations, iterate, (cos * x + sin * v, v)), None

    indices = jnp.arange(num_steps - 1, -1, -1)
    (x_T, _), _ = jax.lax.scan(step, (x_0, jnp.zeros_like(x_0)), indices)
    return x_T
