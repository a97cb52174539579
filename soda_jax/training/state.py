"""What training carries from step to step."""

import flax.struct
import jax.numpy as jnp

from soda_jax.array_types import Array, PyTree


@flax.struct.dataclass
class TrainState:
    """Arrays only: what is saved, restored, sharded and donated.

    Attributes:
      step: number of updates made, int32 [].
      params: {"encoder": ..., "denoiser": ...}, float32.
      ema_params: their exponential moving average.
      batch_stats: running statistics of BatchNorm, {} where there is none.
      ema_batch_stats: their average, as that of the parameters, with which it is evaluated: of what
        averaged parameters put out, the last batches' statistics are not the statistics.
      opt_state: optax's.
    """

    step: Array
    params: PyTree
    ema_params: PyTree
    batch_stats: PyTree
    ema_batch_stats: PyTree
    opt_state: PyTree


def create(variables: PyTree, tx) -> TrainState:
    """The state at step 0 from a model's variables; the average starts at the parameters."""
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=params,
        batch_stats=batch_stats,
        ema_batch_stats=batch_stats,
        opt_state=tx.init(params),
    )
