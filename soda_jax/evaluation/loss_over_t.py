"""Where along t is z used, and which of its sections: the loss with parts of z taken away."""

from collections.abc import Iterable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from soda_jax import rngs
from soda_jax.array_types import Array, PyTree
from soda_jax.diffusion.process import Process


def loss_over_t(
    model: nn.Module,
    process: Process,
    variables: PyTree,
    batches: Iterable[tuple[Array, Array]],
    ts: Sequence[float],
    key: Array,
) -> dict[str, list]:
    """Mean squared errors of the prediction at each t: unweighted, over pictures and pixels.

    One noise for a picture serves all conditions at all t, so that they can be compared.

    Args:
      model: a DiffusionAutoencoder with an encoder.
      batches: pairs (source [b h w c], target [b h w c]) of one b of at least 2.
      ts: [s] times in [0, 1].
      key: of the noise.

    Returns:
      "t": [s]; "z", "shuffled" (the code of the next picture in the batch), "null" (a code of
      zeros): [s]; "alone": [l s], with one section kept; "without": [l s], with one taken away.

    Raises:
      ValueError: there is no batch, a batch has one picture, or a t is outside [0, 1].
    """
    ts = np.asarray(ts, np.float32)
    if ts.ndim != 1 or not len(ts) or ts.min() < 0 or ts.max() > 1:
        raise ValueError(f"ts must be one number or more in [0, 1], not {ts.tolist()}")
    num_sections = model.bottleneck.num_sections
    only = np.eye(num_sections, dtype=bool)
    masks = jnp.asarray(np.concatenate([only, ~only, np.zeros((1, num_sections), bool)]))

    @jax.jit
    def errors(variables, source, target, key):
        b = len(target)
        own = None if model.encoder.timed else model.apply(variables, source, method="encode")
        epsilon = jax.random.normal(key, target.shape)

        def error(t, code, mask):
            times = jnp.full((b,), t)
            x_t = process.corrupt(target, epsilon, times)
            section_mask = jnp.broadcast_to(mask[None], (b, num_sections))
            prediction = model.apply(variables, x_t, times, code, section_mask, method="denoise")
            error = prediction.astype(jnp.float32) - process.target(target, epsilon, times)
            return jnp.square(error).mean()

        def at(t):
            z = own
            if model.encoder.timed:
                z = model.apply(variables, source, t=jnp.full((b,), t), method="encode")
            everything = jnp.ones((num_sections,), bool)
            whole = error(t, z, everything), error(t, jnp.roll(z, 1, axis=0), everything)
            return whole, jax.lax.map(lambda mask: error(t, z, mask), masks)

        return jax.lax.map(at, jnp.asarray(ts))

    total, count = None, 0
    for source, target in batches:
        if len(target) < 2:
            raise ValueError("a batch must hold two pictures or more, to shuffle their codes")
        found = errors(variables, source, target, rngs.stream(key, "epsilon", count))
        total = found if total is None else jax.tree.map(jnp.add, total, found)
        count += 1
    if not count:
        raise ValueError("there is no batch to take the loss of")
    (own, shuffled), masked = jax.tree.map(lambda sums: np.asarray(sums) / count, total)
    return {
        "t": [round(float(t), 6) for t in ts],
        "z": own.tolist(),
        "shuffled": shuffled.tolist(),
        "null": masked[:, -1].tolist(),
        "alone": masked[:, :num_sections].T.tolist(),
        "without": masked[:, num_sections:-1].T.tolist(),
    }
