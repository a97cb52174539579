"""Features of any layer: of the encoder's blocks, of z and its sections, of the denoiser's blocks.

A layer is called by the name of its sub-module. All functions are pure; under `jax.jit` XLA leaves
out what comes after the last layer that is asked for. Dictionaries that come out of `jax.jit` are
sorted by name: `encoder_layer_names` and `denoiser_layer_names` keep the network's own order.
"""

import difflib
from collections.abc import Iterable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from soda_jax import rngs
from soda_jax.array_types import Array, PyTree
from soda_jax.diffusion.process import Process
from soda_jax.diffusion.schedule import InvertedCosine
from soda_jax.models.bottleneck import split_sections


def encoder_layers(
    model: nn.Module, variables: PyTree, source: Array, *, names: Sequence[str] | None = None
) -> dict[str, Array]:
    """The encoder's layers, each averaged over space in float32: name -> [b d].

    "stem" is the first convolution; "stage0_block0", ... are the outputs of the residual blocks,
    before the next block's norm; "pooled" is the mean of the last map after the last norm, from
    which z is a linear map, or z itself; "z" is the code and "section0", ... are its parts. Nothing
    is dropped and running statistics are used, so a picture's features don't depend on its batch.

    Args:
      model: a DiffusionAutoencoder with an encoder.
      variables: what `model.apply` takes.
      source: [b h w c] float, as the encoder was trained to see it.
      names: the layers to return; all where None.

    Raises:
      ValueError: the model has no encoder, source is not finite [b h w c] of floats, or a name is
        unknown.
    """
    if model.encoder is None:
        raise ValueError("this model has no encoder, so it has no layers of one and no z")
    _check_pictures("source", source)

    def is_layer(path):
        block = path[:-1] == ("encoder", "trunk") and path[-1].startswith(("stem", "stage"))
        return block or path == ("encoder", "trunk")

    z, layers = _apply_and_capture(model, variables, is_layer, "encode", source)
    layers["pooled"] = layers.pop("trunk")
    layers["z"] = z
    for index, section in enumerate(split_sections(z, model.bottleneck.num_sections)):
        layers[f"section{index}"] = section
    return _chosen(layers, names, "the encoder")


def denoiser_layers(
    model: nn.Module,
    process: Process,
    variables: PyTree,
    x_0: Array,
    z: Array | None,
    t: float | Array,
    keys: Array,
    *,
    names: Sequence[str] | None = None,
) -> dict[str, Array]:
    """The denoiser's blocks at time t, each averaged over space in float32: name -> [b d].

    x_0 is noised to x_t and the denoiser runs once. Layers are the residual blocks and the
    attention after them, such as "down_16x16_block0", "down_16x16_block0_attention", "mid_block0",
    "mid_attention", "up_4x4_block0"; not the stem and the resampling [D].

    Features of denoising autoencoders: Baranchuk et al. 2022 (arXiv 2112.03126, section 3); Xiang
    et al. 2023 (DDAE, arXiv 2303.09769, section 3).

    Args:
      model: a DiffusionAutoencoder.
      process: the one that the denoiser was trained with.
      variables: what `model.apply` takes.
      x_0: [b h w c] float in [-1, 1], the clean pictures.
      z: [b z] codes; None for no code, which is a code of zeros, as training knows it if it drops
        codes (with a model that has no encoder: no modulation by a code at all).
      t: in [0, 1]: a scalar for all pictures, or [b].
      keys: [b] random keys, one for each picture: its noise depends on its key alone, and with it
        its features don't depend on its batch. The same keys give the same noise at every t.
      names: the layers to return; all where None.

    Raises:
      ValueError: a shape is wrong, x_0 or z is not of finite floats, t is outside [0, 1], a name is
        unknown, or z is given to a model that has no encoder.
    """
    _check_denoiser_inputs(model, x_0, z, keys)
    b = x_0.shape[0]
    _check_t(t, b)
    if z is None and model.encoder is not None:
        z = jnp.zeros((b, model.encoder.z_size), jnp.float32)
    times = jnp.broadcast_to(jnp.asarray(t, jnp.float32), (b,))
    x_0 = jnp.asarray(x_0, jnp.float32)
    x_t = process.corrupt(x_0, _noise(keys, x_0.shape[1:]), times)

    def is_layer(path):
        return (
            len(path) == 2
            and path[0] == "denoiser"
            and path[1].startswith(("down_", "mid_", "up_"))
            and not path[1].endswith("_sample")
        )

    _, layers = _apply_and_capture(model, variables, is_layer, "denoise", x_t, times, z)
    return _chosen(layers, names, "the denoiser")


def layer_grid(
    model: nn.Module,
    process: Process,
    variables: PyTree,
    x_0: Array,
    z: Array | None,
    ts: Sequence[float],
    keys: Array,
    blocks: Sequence[str] | None = None,
) -> dict[str, Array]:
    """The denoiser's blocks at several times: "block@t=0.05" -> [b d].

    The network runs once for each t, and is compiled once for all of them: this function is not to
    be jitted again. The noise of a picture is the same at every t [D].

    Args:
      model, process, variables, x_0, z, keys: see `denoiser_layers`.
      ts: numbers in [0, 1], which the names show to six digits.
      blocks: names of layers; all where None.

    Raises:
      ValueError: as `denoiser_layers`, or ts is empty, or two of its numbers have one name.
    """
    _check_denoiser_inputs(model, x_0, z, keys)
    names = None if blocks is None else _as_names(blocks)
    ts = [float(t) for t in ts]
    labels = [f"{t:g}" for t in ts]
    if not ts or len(set(labels)) < len(ts):
        raise ValueError(f"ts must hold one time or more, all different to six digits, not {ts}")
    for t in ts:
        _check_t(t, x_0.shape[0])
    grid = {}
    for label, t in zip(labels, ts, strict=True):
        at_t = _denoiser_layers(model, process, variables, x_0, z, jnp.float32(t), keys, names)
        grid |= {f"{name}@t={label}": value for name, value in at_t.items()}
    return grid


def encoder_layer_names(
    model: nn.Module, variables: PyTree, shape: tuple[int, int, int]
) -> tuple[str, ...]:
    """What `encoder_layers` would return for sources (h, w, c), in the network's order.

    Nothing is computed: the variables may be shapes. Raises ValueError as `encoder_layers` does.
    """
    return _names_of(partial(encoder_layers, model), variables, _picture(shape))


def denoiser_layer_names(
    model: nn.Module, variables: PyTree, shape: tuple[int, int, int]
) -> tuple[str, ...]:
    """What `denoiser_layers` would return for targets (h, w, c), in the network's order.

    Nothing is computed: the variables may be shapes. Raises ValueError as `denoiser_layers` does.
    """

    def layers(variables, x_0):
        keys = rngs.per_example(rngs.root(0), jnp.arange(1))
        any_process = Process(InvertedCosine())  # names don't depend on the noise
        return denoiser_layers(model, any_process, variables, x_0, None, 0.5, keys)

    return _names_of(layers, variables, _picture(shape))


def check_layer_names(names: Iterable[str], existing: Iterable[str], where: str) -> tuple[str, ...]:
    """The names as a tuple, where all are among the existing ones of `where`, "the encoder".

    Raises:
      ValueError: there is no name, one stands twice, or one is unknown: the nearest one is told.
    """
    names, existing = _as_names(names), tuple(existing)
    for name in names:
        if name not in existing:
            near = difflib.get_close_matches(str(name), existing, 1, cutoff=0.0)
            raise ValueError(
                f"{name!r} is no layer of {where}"
                + (f" (nearest: {near[0]!r})" if near else "")
                + f"; there are {', '.join(existing) or 'none'}"
            )
    return names


@partial(jax.jit, static_argnames=("model", "process", "names"))
def _denoiser_layers(model, process, variables, x_0, z, t, keys, names):
    return denoiser_layers(model, process, variables, x_0, z, t, keys, names=names)


def _apply_and_capture(model, variables, is_layer, method, *arguments):
    """What the method returns, and name -> output of the layers, in the order in which they ran."""
    paths = {}

    def capture(module, method_name):
        found = method_name == "__call__" and is_layer(module.path)
        if found:
            paths[module.path] = None
        return found

    output, captured = model.apply(
        variables,
        *arguments,
        method=method,
        capture_intermediates=capture,
        mutable=["intermediates"],
    )
    outputs = {}
    for path in paths:
        node = captured["intermediates"]
        for name in path:
            node = node[name]
        # A rematerialised block is captured inside and outside: twice the same.
        outputs[path[-1]] = node["__call__"][-1]
    return output, outputs


def _chosen(layers, names, where):
    names = layers if names is None else check_layer_names(names, layers, where)
    return {name: _pool(layers[name]) for name in names}


def _pool(h: Array) -> Array:
    """The mean over all axes but the first and the last, in float32."""
    return jnp.mean(h.astype(jnp.float32), axis=tuple(range(1, h.ndim - 1)))


def _noise(keys: Array, shape: tuple[int, ...]) -> Array:
    return jax.vmap(lambda key: jax.random.normal(rngs.stream(key, "epsilon"), shape))(keys)


def _names_of(layers_fn, variables, picture) -> tuple[str, ...]:
    names: list[str] = []
    jax.eval_shape(lambda *arguments: names.extend(layers_fn(*arguments)), variables, picture)
    return tuple(names)


def _picture(shape) -> jax.ShapeDtypeStruct:
    shape = tuple(shape)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape must be (h, w, c) of a picture, but is {shape}")
    return jax.ShapeDtypeStruct((1, *shape), jnp.float32)


def _as_names(names) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ValueError(f"names of layers must be a list of them, not the word {names!r}")
    names = tuple(names)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"names of layers must be one or more, each once, not {names}")
    return names


def _check_pictures(name: str, x: Array) -> None:
    if jnp.ndim(x) != 4 or 0 in jnp.shape(x) or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"{name} must be pictures [b h w c] of floats, not {jnp.shape(x)} of {x.dtype}"
        )
    _check_finite(name, x)


def _check_finite(name: str, x: Array) -> None:
    """Values are looked at only where they are known: not while a function is traced."""
    if not isinstance(x, jax.core.Tracer) and not np.all(np.isfinite(np.asarray(x))):
        raise ValueError(f"{name} holds NaN or infinity")


def _check_t(t: float | Array, b: int) -> None:
    if jnp.shape(t) not in ((), (b,)):
        raise ValueError(
            f"t must be one number for all {b} pictures, or one for each, but its shape is "
            f"{jnp.shape(t)}"
        )
    if not isinstance(t, jax.core.Tracer) and not np.all(
        (np.asarray(t) >= 0) & (np.asarray(t) <= 1)
    ):
        raise ValueError(f"t must be in [0, 1], but is {np.asarray(t).tolist()}")


def _check_denoiser_inputs(model, x_0, z, keys) -> None:
    _check_pictures("x_0", x_0)
    b = x_0.shape[0]
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.shape != (b,):
        raise ValueError(
            f"keys must be [{b}] random keys, one a picture, not {keys.shape} of {keys.dtype}"
        )
    if z is None:
        return
    if model.encoder is None:
        raise ValueError("this model has no encoder and takes no code: z must be None")
    if z.shape != (b, model.encoder.z_size):
        raise ValueError(
            f"z must be [{b} {model.encoder.z_size}], a code for each picture, but is {z.shape}"
        )
    _check_finite("z", z)
