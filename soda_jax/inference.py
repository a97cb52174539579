"""What a trained model does, as jitted functions: encode, decode, invert, weigh z.

Beside `experiment`, and like it above all rooms: it reads the sampler's part of the config.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from soda_jax import rngs
from soda_jax.applications.reconstruct import decode, invert_pictures, under_code
from soda_jax.array_types import Array, PyTree
from soda_jax.config_fields import resembling
from soda_jax.data.views import pair, plain
from soda_jax.diffusion.sampler import ddim_steps, initial_noise
from soda_jax.experiment import Experiment
from soda_jax.training import sharding
from soda_jax.training.objective import code_losses

SAMPLER_OPTIONS = ("sampler", "num_steps", "spacing", "eta", "guidance_scale")


def encode_step(experiment: Experiment) -> Callable[[PyTree, Array], dict[str, Array]]:
    """(variables, images uint8 [b h w c]) -> {"z": [b z], "pooled": [b d]}; not augmented."""
    view, model = experiment.source_view, experiment.model

    def encode(variables: PyTree, images: Array) -> dict[str, Array]:
        z, captured = model.apply(
            variables,
            plain(images, view),
            method="encode",
            capture_intermediates=lambda module, _: module.name == "trunk",
            mutable=["intermediates"],
        )
        (pooled,) = captured["intermediates"]["encoder"]["trunk"]["__call__"]
        return {"z": z, "pooled": pooled}

    return jax.jit(encode, out_shardings=sharding.replicated(experiment.mesh))


def code_step(experiment: Experiment) -> Callable[[PyTree, Array], tuple[dict, Array]]:
    """(variables, images) -> losses with z, shuffled z and null z, and z; views as in training."""
    config = experiment.config

    def losses(variables: PyTree, images: Array):
        key = rngs.stream(rngs.root(config.seed), "diagnose")
        batch = pair(
            rngs.stream(key, "views"), images, experiment.source_view, experiment.target_view
        )
        return code_losses(
            experiment.model,
            experiment.process,
            variables["params"],
            variables["batch_stats"],
            batch,
            key,
        )

    return jax.jit(losses, out_shardings=sharding.replicated(experiment.mesh))


def decode_step(experiment: Experiment, **overrides: Any) -> Callable[..., Array]:
    """(variables, z, seed [], indices [b], section_mask [b l] or None, x_T or None) -> [b h w c].

    Pictures are uint8. Number i starts from the noise that (seed, indices[i]) gives, whatever batch
    it is in, or from its x_T [b h w c] (see `invert_step`). The sampler is the config's
    (config.sample); overrides change single fields, such as num_steps.
    """
    for name in overrides:
        if name not in SAMPLER_OPTIONS:
            near = resembling(name, SAMPLER_OPTIONS)
            raise ValueError(
                f"{name!r} is no option of the sampler; there are {', '.join(SAMPLER_OPTIONS)}"
                + (f" (nearest: {near[0]})" if near else "")
            )
    options = dict(experiment.config.sample) | overrides

    def decode_uint8(variables, z, seed, indices, section_mask=None, x_T=None) -> Array:
        keys = rngs.per_example(rngs.stream(rngs.root(seed), "x_T"), indices)
        x_0 = decode(
            experiment.model,
            experiment.process,
            variables,
            z,
            keys,
            experiment.target_shape,
            section_mask=section_mask,
            x_T=x_T,
            clip=x_T is None,
            **{name: options[name] for name in SAMPLER_OPTIONS},
        )
        return to_uint8(x_0)

    return jax.jit(decode_uint8, out_shardings=sharding.replicated(experiment.mesh))


def invert_step(experiment: Experiment, *, num_steps: int, spacing: str) -> Callable[..., Array]:
    """(variables, z [b z], images uint8 [b h w c]) -> x_T [b h w c] of the pictures as targets."""

    def invert_uint8(variables: PyTree, z: Array, images: Array) -> Array:
        x_0 = plain(images, experiment.target_view)
        return invert_pictures(
            experiment.model,
            experiment.process,
            variables,
            z,
            x_0,
            num_steps=num_steps,
            spacing=spacing,
        )

    return jax.jit(invert_uint8, out_shardings=sharding.replicated(experiment.mesh))


def watch_step(experiment: Experiment, *, num_steps: int, count: int, guided: bool) -> Callable:
    """(variables, z [b z], x_t, first []) -> (x_t, uint8 [b h w c]): a part of a run of DDIM.

    Steps first to first + count - 1 of num_steps, and the picture as it is seen after them. Guided
    as the config says, from noise; or without guidance, from an x_T of `invert_step`.
    """
    scale = experiment.config.sample.guidance_scale if guided else 0.0

    def steps(variables: PyTree, z: Array, x_t: Array, first: Array) -> tuple[Array, Array]:
        x_t, x_0 = ddim_steps(
            under_code(experiment.model, variables, z, guidance_scale=scale),
            experiment.process,
            x_t,
            first,
            count=count,
            num_steps=num_steps,
            clip=guided,
            spacing="t" if guided else "log_snr",
        )
        return x_t, to_uint8(x_0)

    return jax.jit(steps)


def noise_step(experiment: Experiment) -> Callable[[Array, Array], Array]:
    """(seed [], indices [b]) -> x_T [b h w c], the noise that `decode_step` starts from."""

    def noise(seed: Array, indices: Array) -> Array:
        keys = rngs.per_example(rngs.stream(rngs.root(seed), "x_T"), indices)
        return initial_noise(keys, experiment.target_shape)

    return jax.jit(noise)


def to_uint8(x_0: Array) -> Array:
    """Targets in [-1, 1] as pictures."""
    return jnp.round(jnp.clip(x_0 * 127.5 + 127.5, 0, 255)).astype(jnp.uint8)


def target_pictures(experiment: Experiment, images: np.ndarray) -> np.ndarray:
    """uint8 [b h w c] at the denoiser's size: what a reconstruction is compared with."""
    return np.asarray(to_uint8(plain(jnp.asarray(images), experiment.target_view)))


def eval_variables(state: Any, weights: str = "ema") -> PyTree:
    """What `model.apply` takes: the averaged or the raw parameters, and the running statistics."""
    params = state.ema_params if weights == "ema" else state.params
    return {"params": params, "batch_stats": state.batch_stats}
