"""AdamW or Muon, with groups for encoder and denoiser, warm-up, clipping; the moving average."""

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from soda_jax.array_types import Array, PyTree


def learning_rate(peak: float, warmup_steps: int, decay: str, num_steps: int) -> optax.Schedule:
    """Linear from 0 to peak in the warm-up; then "constant", or "cosine" to 0 at the last step."""
    if decay == "cosine":
        rest = optax.cosine_decay_schedule(peak, max(num_steps - warmup_steps, 1))
    else:
        rest = optax.constant_schedule(peak)
    if warmup_steps == 0:
        return rest
    warmup = optax.linear_schedule(0.0, peak, warmup_steps)
    return optax.join_schedules([warmup, rest], [warmup_steps])


def decay_mask(params: PyTree) -> PyTree:
    """True for kernels, False for biases and norms."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def as_matrices(params: PyTree) -> PyTree:
    """For each kernel, that its last axis is a matrix's output and all others are its input."""
    return jax.tree.map(
        lambda leaf: (
            contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)
            if leaf.ndim > 1
            else None
        ),
        params,
    )


def clip_by_norm(most: float) -> optax.GradientTransformationExtraArgs:
    """Scales gradients so that their global norm is at most `most`.

    update(..., norm=...) takes a norm that is known already: on a TPU each sum over an array is a
    kernel of its own, and there are hundreds.
    """

    def update(updates, state, params=None, *, norm=None, **_):
        norm = optax.global_norm(updates) if norm is None else norm
        scale = most / jnp.maximum(norm, most)
        return jax.tree.map(lambda leaf: scale * leaf, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def scale_head(share: float) -> optax.GradientTransformation:
    """Scales the steps of the encoder's "head", decay included."""

    def scale(updates: PyTree, _: PyTree) -> PyTree:
        encoder = updates["encoder"]
        head = jax.tree.map(lambda leaf: share * leaf, encoder["head"])
        return updates | {"encoder": encoder | {"head": head}}

    return optax.stateless(scale)


def make_optimizer(
    encoder_rate: optax.Schedule,
    denoiser_rate: optax.Schedule,
    *,
    b1: float,
    b2: float,
    weight_decay: float,
    clip_norm: float,
    method: str = "adamw",
    head_share: float = 1.0,
) -> optax.GradientTransformation:
    """Clips the global norm of all gradients, then steps by group: the encoder, and all else.
    Its update takes that norm, too: see `clip_by_norm`. The encoder's "head", the linear map that
    makes z, has head_share of the encoder's rate.

    `method` "muon" (Jordan et al. 2024) steps kernels along their momentum (optax's .95, not b1)
    with all its singular values made one, scaled to a root mean square of .2, as AdamW's steps have
    (Liu et al. 2025, arXiv 2502.16982): its rates serve both. Biases and norms go by Adam, with
    Nesterov's momentum, as optax has it.
    """

    def adamw(rate: optax.Schedule) -> optax.GradientTransformation:
        return optax.adamw(rate, b1=b1, b2=b2, weight_decay=weight_decay, mask=decay_mask)

    def muon(rate: optax.Schedule) -> optax.GradientTransformation:
        return contrib.muon(
            rate,
            weight_decay=weight_decay,
            adam_b1=b1,
            adam_b2=b2,
            muon_weight_dimension_numbers=as_matrices,
            consistent_rms=0.2,
        )

    make = {"adamw": adamw, "muon": muon}[method]
    groups = {"encoder": make(encoder_rate), "denoiser": make(denoiser_rate)}
    if head_share != 1:
        groups["encoder"] = optax.chain(groups["encoder"], scale_head(head_share))
    by_group = optax.multi_transform(
        groups,
        lambda params: {key: "encoder" if key == "encoder" else "denoiser" for key in params},
    )
    clip = clip_by_norm(clip_norm) if clip_norm > 0 else optax.identity()
    return optax.chain(clip, by_group)


def update_average(average: PyTree, values: PyTree, decay: Array | float) -> PyTree:
    """decay * average + (1 - decay) * values, leaf by leaf."""
    return jax.tree.map(lambda ema, new: ema + (1 - decay) * (new - ema), average, values)


def average_decay(step: Array, decay: float, warmup: bool) -> Array | float:
    """The decay at a step; with warm-up min(decay, (1 + step) / (10 + step)): it follows early."""
    if not warmup:
        return decay
    step = step.astype(jnp.float32)
    return jnp.minimum(decay, (1 + step) / (10 + step))
