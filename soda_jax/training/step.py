"""One training step as a pure function of (state, images); the caller jits and shards it."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.experimental.layout import Layout, with_layout_constraint

from soda_jax import rngs
from soda_jax.array_types import Array, PyTree
from soda_jax.data.views import CameraOptions, Posed, View, pair
from soda_jax.diffusion.process import Process
from soda_jax.training.objective import training_loss
from soda_jax.training.optimizer import average_decay, update_average
from soda_jax.training.state import TrainState


def make_train_step(
    model: nn.Module,
    process: Process,
    source_view: View,
    target_view: View,
    tx: optax.GradientTransformation,
    *,
    cameras: CameraOptions | None = None,
    shared: bool = False,
    targets: int = 1,
    pairs: int = 1,
    located: int = 0,
    mixup: bool = False,
    seed: int,
    accumulate: int,
    ema_decay: float,
    ema_warmup: bool,
) -> Callable[[TrainState, Array | Posed], tuple[TrainState, dict[str, Array]]]:
    """train_step(state, images uint8 [b h w c], or Posed) -> (state, metrics).

    shared, targets, pairs, located, mixup: see `pair` and `training_loss`.

    Every draw is a function of (seed, state.step), so a resumed run repeats none and misses none.
    Where the loss or a gradient isn't finite, all but the step stays as it was, and the metric
    "finite" is False.
    """

    tx = optax.with_extra_args_support(tx)

    def loss_and_gradient(
        state: TrainState, batch_stats: PyTree, images: Array | Posed, key: Array
    ):
        views_key = rngs.stream(key, "views")
        batch = pair(
            views_key, images, source_view, target_view, cameras, shared, targets, pairs, located
        )
        average = {"params": state.ema_params, "batch_stats": state.ema_batch_stats}
        return jax.value_and_grad(
            lambda params: training_loss(
                model, process, params, batch_stats, batch, key, mixup, average
            ),
            has_aux=True,
        )(state.params)

    def accumulated(state: TrainState, batch_stats: PyTree, images: Array | Posed, key: Array):
        # Strided parts: each device keeps its own pictures in every part.
        parts = jax.tree.map(
            lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), images
        )

        def body(carry, inputs):
            loss, gradient, batch_stats = carry
            part, index = inputs
            (part_loss, batch_stats), part_gradient = loss_and_gradient(
                state, batch_stats, part, rngs.stream(key, "part", index)
            )
            return (
                loss + part_loss,
                jax.tree.map(jnp.add, gradient, part_gradient),
                batch_stats,
            ), None

        start = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params), batch_stats)
        (loss, gradient, batch_stats), _ = jax.lax.scan(
            body, start, (parts, jnp.arange(accumulate))
        )
        return (loss / accumulate, batch_stats), jax.tree.map(lambda g: g / accumulate, gradient)

    def train_step(state: TrainState, images: Array | Posed) -> tuple[TrainState, dict[str, Array]]:
        key = rngs.stream(rngs.root(seed), "train", state.step)
        compute = loss_and_gradient if accumulate == 1 else accumulated
        (loss, batch_stats), gradient = compute(state, state.batch_stats, images, key)
        gradient = in_the_order_of_parameters(gradient)
        norms = {group: optax.global_norm(part) for group, part in gradient.items()}
        norm = optax.global_norm(norms)
        metrics = {"loss": loss} | {f"gradient_norm/{group}": norms[group] for group in norms}
        finite = jnp.isfinite(jnp.stack(list(metrics.values()))).all()

        @jax.jit  # traced once, though two platforms' branches call it
        def update(state: TrainState, gradient: PyTree, norm: Array, batch_stats: PyTree):
            updates, opt_state = tx.update(gradient, state.opt_state, state.params, norm=norm)
            params = optax.apply_updates(state.params, updates)
            decay = average_decay(state.step, ema_decay, ema_warmup)
            return TrainState(
                step=state.step,
                params=params,
                ema_params=update_average(state.ema_params, params, decay),
                batch_stats=batch_stats,
                ema_batch_stats=update_average(state.ema_batch_stats, batch_stats, decay),
                opt_state=opt_state,
            )

        state = update_where(finite, update, state, gradient, norm, batch_stats)
        return state.replace(step=state.step + 1), metrics | {"finite": finite}

    return train_step


def in_the_order_of_parameters(gradient: PyTree) -> PyTree:
    """The same; on a GPU laid out in memory as parameters are.

    cuDNN gives the gradients of kernels in another order, to which XLA would turn the parameters,
    their average and both moments, in every step, and back again.
    """

    def laid_out(gradient: PyTree) -> PyTree:
        return jax.tree.map(
            lambda x: with_layout_constraint(x, Layout(tuple(range(x.ndim)))), gradient
        )

    return jax.lax.platform_dependent(
        gradient, cuda=laid_out, rocm=laid_out, default=lambda gradient: gradient
    )


def update_where(
    finite: Array, update: Callable[..., PyTree], state: PyTree, *others: PyTree
) -> PyTree:
    """update(state, *others) where `finite`, a scalar, holds, else the state, to the bit."""
    # A choice makes XLA copy the state on a CPU; a branch does so on a GPU, array by array.
    choice, branch = partial(_choice, update), partial(_branch, update)
    return jax.lax.platform_dependent(
        finite, state, *others, cuda=choice, rocm=choice, default=branch
    )


def _branch(update: Callable[..., PyTree], finite: Array, state: PyTree, *others: PyTree) -> PyTree:
    return jax.lax.cond(finite, update, lambda state, *_: state, state, *others)


def _choice(update: Callable[..., PyTree], finite: Array, state: PyTree, *others: PyTree) -> PyTree:
    return jax.tree.map(partial(jax.lax.select, finite), update(state, *others), state)
