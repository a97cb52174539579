"""Noise schedules: how much signal and how much noise x_t holds at time t in [0, 1].

    x_t = alpha(t) x_0 + sigma(t) epsilon,   alpha^2 + sigma^2 = 1,   alpha_bar = alpha^2

A schedule is a function of continuous t, and training and sampling both call it: there is no second
table to disagree with. Step k of a table of T steps is t = k / T.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from soda_jax.array_types import Array


class Schedule:
    """What all schedules share. A schedule defines `alpha_bar` and `sigma_squared`.

    Both are asked for, because 1 - alpha_bar loses its digits in float32 where there is little
    noise, and 1 - sigma_squared where there is little signal.
    """

    def alpha_bar(self, t: Array) -> Array:
        """Share of the variance that is signal, in (0, 1], not increasing in t; t's shape."""
        raise NotImplementedError

    def sigma_squared(self, t: Array) -> Array:
        """1 - alpha_bar(t), to full relative precision; t's shape."""
        raise NotImplementedError

    def alpha(self, t: Array) -> Array:
        """Scale of x_0 in x_t; t's shape."""
        return jnp.sqrt(self.alpha_bar(t))

    def sigma(self, t: Array) -> Array:
        """Scale of epsilon in x_t; t's shape."""
        return jnp.sqrt(self.sigma_squared(t))

    def log_snr(self, t: Array) -> Array:
        """log(alpha_bar / (1 - alpha_bar)), finite for t in (0, 1]; t's shape."""
        return jnp.log(self.alpha_bar(t)) - jnp.log(self.sigma_squared(t))


@dataclass(frozen=True)
class Linear(Schedule):
    """DDPM's betas, linear from 1e-4 to .02 over 1000 steps (Ho et al. 2020), for any t.

    alpha_bar(k / 1000) is the product of the first k (1 - beta), but for the cubes of the betas in
    its logarithm (2e-3 of alpha_bar at the end, which is 4e-5).
    """

    first: float = 1e-4
    last: float = 0.02
    steps: int = 1000

    def _log_alpha_bar(self, t: Array) -> Array:
        # log(1 - beta) = -beta - beta^2 / 2 - ...; sums of beta_k = first + (k - 1) slope, as
        # polynomials in k, with what doesn't depend on t in float64.
        first, slope, n = self.first, (self.last - self.first) / (self.steps - 1), self.steps
        linear = (first - slope / 2 + (first**2 - first * slope + slope**2 / 6) / 2) * n
        square = (slope / 2 + (first * slope - slope**2 / 2) / 2) * n**2
        cube = slope**2 / 6 * n**3
        return -t * (linear + t * (square + t * cube))

    def alpha_bar(self, t: Array) -> Array:
        return jnp.exp(self._log_alpha_bar(t))

    def sigma_squared(self, t: Array) -> Array:
        return -jnp.expm1(self._log_alpha_bar(t))


@dataclass(frozen=True)
class Cosine(Schedule):
    """alpha_bar(t) = cos^2((t + s) / (1 + s) pi/2), after Nichol and Dhariwal 2021, eq. 17.

    It is not divided by its value at 0, so that `InvertedCosine` is its inverse; so sigma(0) is not
    0 but .0125.

    Attributes:
      s: the offset that keeps the first steps from being too small.
      abar_min: alpha_bar is never below this, so that log_snr(1) is finite. [D]
    """

    s: float = 0.008
    abar_min: float = 1e-5

    def alpha_bar(self, t: Array) -> Array:
        # cos(angle) as the sine of what is left to pi/2: exact to the last digits near t = 1.
        signal = jnp.sin((1.0 - t) * (0.5 * np.pi / (1.0 + self.s)))
        return jnp.maximum(signal * signal, self.abar_min)

    def sigma_squared(self, t: Array) -> Array:
        noise = jnp.sin((t + self.s) * (0.5 * np.pi / (1.0 + self.s)))
        return jnp.minimum(noise * noise, 1.0 - self.abar_min)


@dataclass(frozen=True)
class InvertedCosine(Schedule):
    """SODA's schedule, the functional inverse of `Cosine`: most t have a medium noise level. [P]

        alpha_bar(t) = (2 (1 + s) / pi) arccos(sqrt(t)) - s

    sigma grows like t^(1/4): it is 0 at t = 0 and already .142 at t = .001.

    Attributes:
      s: the offset of the cosine schedule that this inverts. [P]
      abar_min: alpha_bar is never below this; the formula itself ends at -s and leaves (0, 1] at
        t = .99984. [D] The first sampling step leaps from here to the next level, where an error in
        epsilon arrives as 1/sqrt(abar_min) times that error in x_0: so it is not smaller than
        needed for x_1 to be noise.
    """

    s: float = 0.008
    abar_min: float = 1e-4

    def alpha_bar(self, t: Array) -> Array:
        # arccos(sqrt(t)) by arctan2: sqrt(t) alone has no digits left near t = 1.
        angle = jnp.arctan2(jnp.sqrt(1.0 - t), jnp.sqrt(t))
        return jnp.maximum(angle * (2.0 * (1.0 + self.s) / np.pi) - self.s, self.abar_min)

    def sigma_squared(self, t: Array) -> Array:
        # arcsin is pi/2 - arccos, and 2 (1 + s) / pi times pi/2 is 1 + s: nothing cancels.
        angle = jnp.arctan2(jnp.sqrt(t), jnp.sqrt(1.0 - t))
        return jnp.minimum(angle * (2.0 * (1.0 + self.s) / np.pi), 1.0 - self.abar_min)


class _OfRatio(Schedule):
    """Schedules that are given as noise over signal, and here divided so that variances are kept.

    A network that sees x_0 + ratio epsilon over sqrt(1 + ratio^2) needs no scaling of its own.
    """

    def ratio(self, t: Array) -> Array:
        """sigma(t) / alpha(t); t's shape."""
        raise NotImplementedError

    def alpha_bar(self, t: Array) -> Array:
        return 1 / (1 + jnp.square(self.ratio(t)))

    def sigma_squared(self, t: Array) -> Array:
        return 1 / (1 + jnp.square(1 / self.ratio(t)))


@dataclass(frozen=True)
class VarianceExploding(_OfRatio):
    """sigma(t) = .01 5000^t over a picture of scale 1 (Song et al. 2021; DRL, section 2)."""

    lowest: float = 0.01
    highest: float = 50.0

    def ratio(self, t: Array) -> Array:
        return self.lowest * jnp.exp(t * np.log(self.highest / self.lowest))

    def time_at(self, ratio: Array) -> Array:
        """The t at which noise over signal is `ratio`."""
        return jnp.log(ratio / self.lowest) / np.log(self.highest / self.lowest)


@dataclass(frozen=True)
class LogNormal(_OfRatio):
    """EDM (Karras et al. 2022): for uniform t, ln sigma is normal; sigma from .002 to 80.

    With the prediction "v" and uniform weights this *is* EDM, for pictures that are divided by
    their deviation of 1/2 (views: mean .5, std .25): there c_in x is this x_t, F is -v, and the
    weight of an error in F is 1.
    """

    mean: float = -1.2
    deviation: float = 1.2
    lowest: float = 0.002
    highest: float = 80.0
    of_data: float = 0.5

    def ratio(self, t: Array) -> Array:
        log_sigma = self.mean + self.deviation * jax.scipy.special.ndtri(t)
        return jnp.clip(jnp.exp(log_sigma), self.lowest, self.highest) / self.of_data


SCHEDULES = {
    "linear": Linear,
    "cosine": Cosine,
    "inverted_cosine": InvertedCosine,
    "variance_exploding": VarianceExploding,
    "edm": LogNormal,
}
