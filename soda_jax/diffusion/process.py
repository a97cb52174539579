"""The noising process: x_t from x_0, what the network predicts of it, how errors are weighed."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from soda_jax.array_types import Array
from soda_jax.diffusion.schedule import Schedule

PREDICTIONS = ("epsilon", "x_0", "v")
LOSS_WEIGHTS = ("uniform", "epsilon", "min_snr")
LAWS = ("uniform", "uniform_sigma", "single")

_MIN_SNR_GAMMA = 5.0  # Hang et al. 2023, section 4
_SMALLEST_SCALE = 1e-6  # a divisor alpha or sigma is never less: finite even at t = 0, sigma = 0


@dataclass(frozen=True)
class Process:
    """A schedule, and the quantity that a network predicts.

    In all methods t is [b] float32 in [0, 1], pictures are [b h w c] float32, and a prediction
    (which may have a lower precision) has the shape of its picture.

    Attributes:
      schedule: alpha and sigma of t.
      prediction: what the network predicts: "epsilon"; "x_0"; or "v", which is
        alpha epsilon - sigma x_0 (Salimans and Ho 2022).
      loss_weight: of the squared error of the prediction: "uniform", 1; "epsilon", so that it
        counts as an error in epsilon; "min_snr", min(SNR, 5) times the error in x_0 (Hang et al.
        2023).
      t_min: the smallest t in training and sampling.
      law: of t in training: "uniform" in [t_min, 1]; "uniform_sigma", so that sigma / alpha is
        uniform (DRL: what z holds is coarser the more noise it learns from); "single", at single_t.
      shift: s of the uniform law, whose t becomes s t / (1 + (s - 1) t) (Esser et al. 2024, arXiv
        2403.03206, equation 23): more noise where it is above 1.
      even: the times of a batch lie evenly over the law, from one random offset (Kingma et al.
        2021, arXiv 2107.00630): each is distributed as before, their mean varies less.
      pure_noise: this share of the times is 1, and the law has the rest: so often the network
        learns the mean picture, all that can be told without x_t.

    Raises:
      ValueError: an unknown prediction, loss_weight or law, t_min not in (0, 1), single_t not in
        [t_min, 1], or a schedule that doesn't say where a sigma is.
    """

    schedule: Schedule
    prediction: str = "epsilon"
    loss_weight: str = "uniform"
    t_min: float = 1e-3
    law: str = "uniform"
    single_t: float = 0.5
    shift: float = 1.0
    even: bool = False
    pure_noise: float = 0.0

    def __post_init__(self):
        if self.prediction not in PREDICTIONS:
            raise ValueError(
                f"prediction is {self.prediction!r}; allowed: {', '.join(PREDICTIONS)}"
            )
        if self.loss_weight not in LOSS_WEIGHTS:
            raise ValueError(
                f"loss_weight is {self.loss_weight!r}; allowed: {', '.join(LOSS_WEIGHTS)}"
            )
        if not 0.0 < self.t_min < 1.0:
            raise ValueError(f"t_min is {self.t_min}; it must lie between 0 and 1, such as 0.001")
        if self.shift <= 0:
            raise ValueError(f"shift is {self.shift}; it must be above 0")
        if not 0.0 <= self.pure_noise < 1.0:
            raise ValueError(f"pure_noise is {self.pure_noise}; it must be from 0 to below 1")
        if self.law not in LAWS:
            raise ValueError(f"law is {self.law!r}; allowed: {', '.join(LAWS)}")
        if self.law == "uniform_sigma" and not hasattr(self.schedule, "time_at"):
            raise ValueError("law 'uniform_sigma' needs the schedule variance_exploding")
        if self.law == "single" and not self.t_min <= self.single_t <= 1.0:
            raise ValueError(f"single_t is {self.single_t}; it must lie in [{self.t_min:g}, 1]")

    def draw_t(self, key: Array, b: int, each: int = 1) -> Array:
        """Times for training: [b] float32, by the law of t.

        each: so many in a row belong to one picture, and lie evenly over the law too where `even`.
        """
        if self.even:
            place = jnp.arange(b).reshape(each, b // each).T.reshape(b) / b
            return self.t_at((jax.random.uniform(key) + place) % 1.0)
        if self.law == "uniform" and self.shift == 1 and not self.pure_noise:
            return jax.random.uniform(key, (b,), jnp.float32, self.t_min, 1.0)
        return self.t_at(jax.random.uniform(key, (b,), jnp.float32))

    def t_at(self, share: Array) -> Array:
        """The t below which `share` of the times lies, pure noise included; share's shape."""
        if self.pure_noise:
            share = share / (1 - self.pure_noise)
            return jnp.where(share < 1, self._of_law(jnp.minimum(share, 1)), 1.0)
        return self._of_law(share)

    def _of_law(self, share: Array) -> Array:
        """The t below which `share` of the law of t lies."""
        if self.law == "single":
            return jnp.full_like(share, self.single_t)
        if self.law == "uniform":
            share = self.shift * share / (1 + (self.shift - 1) * share)
            return self.t_min + (1.0 - self.t_min) * share
        low, high = (self.schedule.ratio(jnp.float32(t)) for t in (self.t_min, 1.0))
        return jnp.clip(self.schedule.time_at(low + (high - low) * share), self.t_min, 1.0)

    def corrupt(self, x_0: Array, epsilon: Array, t: Array) -> Array:
        """x_t = alpha x_0 + sigma epsilon; [b h w c]."""
        alpha, sigma = self._scales(t, x_0)
        return alpha * x_0 + sigma * epsilon

    def target(self, x_0: Array, epsilon: Array, t: Array) -> Array:
        """What the network should predict; [b h w c]."""
        if self.prediction == "epsilon":
            return epsilon
        if self.prediction == "x_0":
            return x_0
        alpha, sigma = self._scales(t, x_0)
        return alpha * epsilon - sigma * x_0

    def to_x_0(self, prediction: Array, x_t: Array, t: Array) -> Array:
        """The x_0 that a prediction stands for; [b h w c] of x_t's type."""
        prediction = prediction.astype(x_t.dtype)
        if self.prediction == "x_0":
            return prediction
        alpha, sigma = self._scales(t, x_t)
        if self.prediction == "v":
            return alpha * x_t - sigma * prediction
        return (x_t - sigma * prediction) / jnp.maximum(alpha, _SMALLEST_SCALE)

    def to_epsilon(self, prediction: Array, x_t: Array, t: Array) -> Array:
        """The epsilon that a prediction stands for; [b h w c] of x_t's type."""
        prediction = prediction.astype(x_t.dtype)
        if self.prediction == "epsilon":
            return prediction
        alpha, sigma = self._scales(t, x_t)
        if self.prediction == "v":
            return sigma * x_t + alpha * prediction
        return (x_t - alpha * prediction) / jnp.maximum(sigma, _SMALLEST_SCALE)

    def weight(self, t: Array) -> Array:
        """Weight of the prediction's squared error; [b], finite for t in [t_min, 1].

        An error e in v is alpha e in epsilon and sigma e in x_0; an error e in x_0 is
        (alpha / sigma) e in epsilon.
        """
        if self.loss_weight == "uniform":
            return jnp.ones_like(t)
        alpha_squared = self.schedule.alpha_bar(t)
        sigma_squared = self.schedule.sigma_squared(t)
        snr = alpha_squared / sigma_squared
        if self.loss_weight == "epsilon":
            return {"epsilon": jnp.ones_like(t), "v": alpha_squared, "x_0": snr}[self.prediction]
        return {
            "epsilon": jnp.minimum(1.0, _MIN_SNR_GAMMA / snr),
            "v": jnp.minimum(alpha_squared, _MIN_SNR_GAMMA * sigma_squared),
            "x_0": jnp.minimum(snr, _MIN_SNR_GAMMA),
        }[self.prediction]

    def _scales(self, t: Array, picture: Array) -> tuple[Array, Array]:
        """alpha and sigma, shaped [b 1 1 1] to meet the picture."""
        t = t.reshape(t.shape + (1,) * (picture.ndim - t.ndim))
        return self.schedule.alpha(t), self.schedule.sigma(t)
