"""The loss: encode the source, corrupt the target, denoise it under the code, weigh the error."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from soda_jax import rngs
from soda_jax.array_types import Array, Batch, PyTree
from soda_jax.diffusion.process import Process


def per_example_loss(
    process: Process, prediction: Array, x_0: Array, epsilon: Array, t: Array
) -> Array:
    """Weighted mean squared error of the prediction, [b] float32."""
    error = prediction.astype(jnp.float32) - process.target(x_0, epsilon, t)
    return process.weight(t) * jnp.square(error).mean((1, 2, 3))


def training_loss(
    model: nn.Module,
    process: Process,
    params: PyTree,
    batch_stats: PyTree,
    batch: Batch,
    key: Array,
    mixup: bool = False,
    average: PyTree | None = None,
) -> tuple[Array, PyTree]:
    """The training loss of a batch, a scalar, and the new batch_stats.

    mixup: sources are mixed with their neighbours' by a share from U(0, 1), of which twice is the
    weight of the loss (DRL's option [R]; the release draws neighbours by a permutation).
    average: {"params", "batch_stats"}, averaged, whose code of a source's neighbour, the picture's
    other pair, the model's predictor is to guess from z, where the model has one (BYOL, Grill et
    al. 2020): no gradient goes through it.
    """
    source = batch.source
    if mixup:
        share = jax.random.uniform(rngs.stream(key, "mixup"), source.shape[:1])
        own = share[:, None, None, None]
        source = own * source + (1 - own) * jnp.roll(source, 1, axis=0)
    b = batch.target.shape[0]
    t = process.draw_t(rngs.stream(key, "t"), b, each=b // source.shape[0])
    epsilon = jax.random.normal(rngs.stream(key, "epsilon"), batch.target.shape)
    x_t = process.corrupt(batch.target, epsilon, t)
    other_z = None
    if model.predictor is not None:
        z = jax.lax.stop_gradient(model.apply(average, source, method="encode"))
        other_z = z.reshape(-1, 2, z.shape[-1])[:, ::-1].reshape(z.shape)
    (prediction, _), updates = model.apply(
        {"params": params, "batch_stats": batch_stats},
        source,
        x_t,
        t,
        train=True,
        poses=batch.poses,
        augmentation=batch.augmentation,
        other_z=other_z,
        mutable=["batch_stats", "penalties"],
        rngs={name: rngs.stream(key, name) for name in ("bottleneck", "dropout")},
    )
    loss = per_example_loss(process, prediction, batch.target, epsilon, t)
    if mixup:
        loss = 2 * share * loss
    loss = loss.mean() + sum(jax.tree.leaves(updates.get("penalties", {})))
    return loss, updates.get("batch_stats", {})


def code_losses(
    model: nn.Module,
    process: Process,
    params: PyTree,
    batch_stats: PyTree,
    batch: Batch,
    key: Array,
) -> tuple[dict[str, Array], Array]:
    """Is z used? The loss with z, with z shuffled among the pictures, with z zeroed; and z [b z].

    Without an encoder there is the last alone. The same noise serves the three, and t lies evenly
    over its law, so that they can be compared.
    """
    variables = {"params": params, "batch_stats": batch_stats}
    b = batch.target.shape[0]
    t = process.t_at((jnp.arange(b, dtype=jnp.float32) + 0.5) / b)
    epsilon = jax.random.normal(rngs.stream(key, "epsilon"), batch.target.shape)
    x_t = process.corrupt(batch.target, epsilon, t)
    poses = batch.poses
    seen = {} if poses is None else {"target_rays": poses.target_rays}
    seen |= {"augmentation": batch.augmentation}
    rays = (None, None) if poses is None else (poses.source_rays, poses.source_mask)
    z = model.apply(variables, batch.source, False, *rays, t, method="encode")

    def loss(code: Array) -> Array:
        prediction = model.apply(variables, x_t, t, code, method="denoise", **seen)
        return per_example_loss(process, prediction, batch.target, epsilon, t).mean()

    if model.encoder is None:
        return {"null": loss(z)}, z

    def under(code: Array) -> Array:
        return loss(jnp.repeat(code, b // z.shape[0], axis=0))

    losses = {
        "z": under(z),
        "shuffled": under(jnp.roll(z, 1, axis=0)),
        "null": under(jnp.zeros_like(z)),
    }
    return losses, z
