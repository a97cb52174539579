"""What a trained model does, as jitted functions: encode, decode, invert, weigh z.

Beside `experiment`, and like it above all rooms: it reads the sampler's part of the config.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from soda_jax import rngs
from soda_jax.applications.reconstruct import decode, invert_pictures, under_code
from soda_jax.array_types import Array, PyTree
from soda_jax.config_kinds import resembling
from soda_jax.config_schema import ConfigError
from soda_jax.data import cameras
from soda_jax.data.cameras import Cameras
from soda_jax.data.places import Frames, places_in
from soda_jax.data.records import PosedSource, Source
from soda_jax.data.views import Posed, in_frame, pair, plain, ray_channels, whole
from soda_jax.diffusion.sampler import ddim_steps, initial_noise
from soda_jax.evaluation.layers import denoiser_layers
from soda_jax.evaluation.picture_keys import keys_of
from soda_jax.experiment import Experiment
from soda_jax.models.autoencoder import mean_of_sources
from soda_jax.training import sharding
from soda_jax.training.objective import code_losses

AT_A_TIME = 1024  # pictures, as float32, that are resized at once
SAMPLER_OPTIONS = (
    "sampler", "num_steps", "spacing", "eta", "guidance_scale", "guidance_interval",
)  # fmt: skip


def to_draw_step(experiment: Experiment) -> Callable[[PyTree, Array], dict[str, Array]]:
    """The `encode_step` whose z is drawn from, made once: that of probes, if they see no other
    size."""
    options = {"to_draw": True} if experiment.source_view.whole_size else {}
    return experiment.step(encode_step, **options)


def encode_step(
    experiment: Experiment, *, to_draw: bool = False
) -> Callable[[PyTree, Array], dict[str, Array]]:
    """(variables, images uint8 [b h w c]) -> features, not augmented, of pictures of the size that
    probes see; or, to_draw from their z, of the size that the denoiser knows the codes of.

    {"z": [b z], "pooled": [b d]}, or an empty z alone where there is no encoder; and where
    config.probe.features has "block", the denoiser's config.probe.block at t = config.probe.t,
    under z, with noise that depends on the picture alone.

    Where there are cameras, images may be Posed, with a camera for each; or several views of each
    object, [b k h w c] with cameras seen [b k] and a mask [b k]; a picture alone is taken from the
    origin (see `own_camera`).
    """
    view, model = experiment.source_view, experiment.model
    probe, alone = experiment.config.probe, Alone(experiment)
    key = rngs.stream(rngs.root(experiment.config.seed), "block")

    def encode(
        variables: PyTree,
        images: Array | Posed,
        seen: Cameras | None = None,
        source_mask: Array | None = None,
    ) -> dict[str, Array]:
        if isinstance(images, Posed):
            images, seen = images
        if model.encoder is None:
            found = {"z": jnp.zeros((len(images), 0))}
        else:
            found = of_encoder(variables, images, seen, source_mask)
        if "block" in probe.features and images.ndim == 4:
            x_0 = plain(images, experiment.target_view)
            z = found["z"] if model.encoder else None
            if experiment.timed or (model.encoder and view.whole_size):
                z = of_encoder(variables, images, seen, source_mask, probe.t, plain)["z"]
            arguments = (z, probe.t, keys_of(key, images))
            found |= {
                "block": denoiser_layers(
                    alone, experiment.process, variables, x_0, *arguments, names=(probe.block,)
                )[probe.block]
            }
        return found

    def of_encoder(
        variables, images, seen, source_mask, t=None, as_seen=plain if to_draw else whole
    ) -> dict[str, Array]:
        lead = images.shape[:-3]
        source = as_seen(images.reshape(-1, *images.shape[-3:]), view)
        if experiment.cameras is None:
            rays = None
        else:
            seen = own_camera(experiment, lead) if seen is None else seen
            first = seen.pose[:, :1] if len(lead) == 2 else seen.pose
            seen = in_frame(seen, first, experiment.cameras)
            rays = ray_channels(seen, view.size, experiment.cameras)
        z, captured = model.apply(
            variables,
            source.reshape(*lead, *source.shape[1:]),
            source_rays=rays,
            source_mask=source_mask,
            t=None if t is None else jnp.full(lead, t, jnp.float32),
            method="encode",
            capture_intermediates=lambda module, _: module.name == "trunk",
            mutable=["intermediates"],
        )
        (pooled,) = captured["intermediates"]["encoder"]["trunk"]["__call__"]
        if len(lead) == 2:
            pooled = mean_of_sources(pooled, source_mask)
        return {"z": z, "pooled": pooled}

    return jax.jit(encode, out_shardings=sharding.replicated(experiment.mesh))


def as_seen(experiment: Experiment, source: Source, indices: np.ndarray) -> np.ndarray | Posed:
    """Pictures [b] of a source as they are encoded alone: with their cameras, where the model knows
    of cameras and the source has them; else as such (see `own_camera`)."""
    images = source.images(indices)
    if experiment.cameras is None or not isinstance(source, PosedSource):
        return images
    return Posed(images, source.cameras(indices))


def own_camera(experiment: Experiment, lead: tuple[int, ...]) -> Cameras:
    """The cameras [lead] of pictures that come alone: at the origin, of the config's angle.

    Raises:
      ConfigError: the model needs to know where in the world a picture was taken.
    """
    if experiment.needs_place:
        raise ConfigError(
            f"config.cameras.frame = {experiment.cameras.frame!r}: this model was trained with "
            "places in the world; a picture alone has none; novel_views, encode_views and "
            "decode(seen=...) are for it"
        )
    lens = cameras.intrinsics_of_angle(experiment.config.cameras.field_of_view)
    return Cameras(
        jnp.broadcast_to(jnp.eye(4), (*lead, 4, 4)), jnp.broadcast_to(jnp.asarray(lens), (*lead, 4))
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Alone:
    """A model as pictures without cameras see it: each is taken, and drawn, from the origin.

    It stands where a `DiffusionAutoencoder` is expected, for `apply`. Without cameras it is one.
    """

    experiment: Experiment

    @property
    def encoder(self):
        return self.experiment.model.encoder

    @property
    def bottleneck(self):
        return self.experiment.model.bottleneck

    @property
    def denoiser(self):
        return self.experiment.model.denoiser

    def apply(self, variables: PyTree, x: Array, *arguments, method: str, **options) -> Any:
        experiment = self.experiment
        if experiment.cameras is not None:
            name, size = {
                "encode": ("source_rays", experiment.source_view.size),
                "denoise": ("target_rays", experiment.ray_size),
            }[method]
            seen = own_camera(experiment, x.shape[:1])
            options = {name: ray_channels(seen, size, experiment.cameras)} | options
        return experiment.model.apply(variables, x, *arguments, method=method, **options)


def code_step(experiment: Experiment) -> Callable[[PyTree, Array], tuple[dict, Array]]:
    """(variables, images) -> losses with z, shuffled z and null z, and z; views as in training."""
    config = experiment.config

    def losses(variables: PyTree, images: Array | Posed):
        key = rngs.stream(rngs.root(config.seed), "diagnose")
        batch = pair(
            rngs.stream(key, "views"),
            images,
            experiment.source_view,
            experiment.target_view,
            experiment.cameras,
            config.views.shared,
            located=experiment.located,
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
    """(variables, z, seed [], indices [b], section_mask, x_T, seen, images, shares) -> [b h w c].

    section_mask [b l], x_T [b h w c], the cameras or frames seen [b] and the pictures [b h w c],
    whose z(t) is taken in place of z if the encoder is told the time, may be None. Pictures are
    uint8. z is [b z]; or [b k z], with cameras [b k] and shares [b k], whose predictions are
    averaged. Number i starts from the noise that (seed, indices[i]) gives, whatever batch it is in,
    or from its x_T (see `invert_step`). The sampler is the config's (config.sample); overrides
    change single fields, such as num_steps.
    """
    for name in overrides:
        if name not in SAMPLER_OPTIONS:
            near = resembling(name, SAMPLER_OPTIONS)
            raise ValueError(
                f"{name!r} is no option of the sampler; there are {', '.join(SAMPLER_OPTIONS)}"
                + (f" (nearest: {near[0]})" if near else "")
            )
    options = dict(experiment.config.sample) | overrides

    def decode_uint8(
        variables,
        z,
        seed,
        indices,
        section_mask=None,
        x_T=None,
        seen=None,
        images=None,
        shares=None,
    ) -> Array:
        follow = experiment.timed and images is not None and x_T is None
        keys = _noise_keys(seed, indices)
        x_0 = decode(
            experiment.model,
            experiment.process,
            variables,
            z,
            keys,
            experiment.target_shape,
            section_mask=section_mask,
            x_T=x_T,
            clip=experiment.farthest if x_T is None else 0.0,
            target_rays=target_rays(experiment, len(z), seen),
            source=plain(images, experiment.source_view) if follow else None,
            shares=shares,
            **{name: options[name] for name in SAMPLER_OPTIONS},
        )
        return to_uint8(x_0 / experiment.farthest)

    return jax.jit(decode_uint8, out_shardings=sharding.replicated(experiment.mesh))


def invert_step(experiment: Experiment, *, num_steps: int, spacing: str) -> Callable[..., Array]:
    """(variables, z [b z], images uint8 [b h w c], seen) -> x_T [b h w c], of them as targets."""

    def invert_uint8(variables: PyTree, z: Array, images: Array, seen=None) -> Array:
        x_0 = plain(images, experiment.target_view)
        return invert_pictures(
            experiment.model,
            experiment.process,
            variables,
            z,
            x_0,
            num_steps=num_steps,
            spacing=spacing,
            target_rays=target_rays(experiment, len(z), seen),
        )

    return jax.jit(invert_uint8, out_shardings=sharding.replicated(experiment.mesh))


def watch_step(experiment: Experiment, *, num_steps: int, count: int, guided: bool) -> Callable:
    """A part of a run of "ddim".

    (variables, z [b z], x_t, seed [], first [], seen) -> (x_t, uint8 [b h w c]): steps first to
    first + count - 1 of num_steps, and the picture as it is seen after them. From noise of the
    seed, with guidance and eta as the config says; or with neither, from an x_T of `invert_step`.
    """
    guidance = experiment.config.sample

    def steps(variables, z: Array, x_t: Array, seed: Array, first: Array, seen=None):
        rays = target_rays(experiment, len(z), seen)
        x_t, x_0 = ddim_steps(
            under_code(
                experiment.model,
                variables,
                z,
                guidance_scale=guidance.guidance_scale if guided else 0.0,
                target_rays=rays,
                guidance_interval=guidance.guidance_interval,
            ),
            experiment.process,
            x_t,
            first,
            count=count,
            num_steps=num_steps,
            eta=guidance.eta if guided else 0.0,
            keys=_noise_keys(seed, jnp.arange(len(z))),
            clip=experiment.farthest if guided else 0.0,
            spacing="t" if guided else "log_snr",
        )
        return x_t, to_uint8(x_0 / experiment.farthest)

    return jax.jit(steps)


def target_rays(
    experiment: Experiment, b: int, seen: Cameras | Frames | None = None
) -> Array | None:
    """[b h w r], what the denoiser is told of cameras seen [b], or of frames in the source; None
    where it knows of none, or needn't be told."""
    if experiment.located and seen is not None:
        whole = Frames(jnp.zeros((b, 2)), jnp.ones((b, 2)))
        return places_in(whole, seen, experiment.located)
    if experiment.cameras is None:
        return None
    seen = own_camera(experiment, (b,)) if seen is None else seen
    return ray_channels(seen, experiment.ray_size, experiment.cameras)


def noise_step(experiment: Experiment) -> Callable[[Array, Array], Array]:
    """(seed [], indices [b]) -> x_T [b h w c], the noise that `decode_step` starts from."""

    def noise(seed: Array, indices: Array) -> Array:
        return initial_noise(_noise_keys(seed, indices), experiment.target_shape)

    return jax.jit(noise)


def _noise_keys(seed: Array, indices: Array) -> Array:
    """[b] keys of all noise that a picture is drawn from."""
    return rngs.per_example(rngs.stream(rngs.root(seed), "x_T"), indices)


def to_uint8(x_0: Array) -> Array:
    """Values in [-1, 1] as pictures."""
    return jnp.round(jnp.clip(x_0 * 127.5 + 127.5, 0, 255)).astype(jnp.uint8)


def target_pictures(experiment: Experiment, images: np.ndarray) -> np.ndarray:
    """uint8 [b h w c] at the denoiser's size: what a reconstruction is compared with."""

    def converted(some: np.ndarray) -> np.ndarray:
        pictures = plain(jnp.asarray(some), experiment.target_view)
        return np.asarray(to_uint8(pictures / experiment.farthest))

    parts = range(0, max(len(images), 1), AT_A_TIME)
    return np.concatenate([converted(images[start : start + AT_A_TIME]) for start in parts])


def eval_variables(state: Any, weights: str = "ema") -> PyTree:
    """What `model.apply` takes: the averaged or the raw parameters, and their statistics."""
    if weights == "ema":
        return {"params": state.ema_params, "batch_stats": state.ema_batch_stats}
    return {"params": state.params, "batch_stats": state.batch_stats}
