"""Codes from nothing: a diffusion model of z, fitted to the codes of a trained encoder."""

import dataclasses
import json
import os
from functools import partial

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from soda_jax import rngs
from soda_jax.array_types import Array, PyTree
from soda_jax.diffusion.process import Process
from soda_jax.diffusion.sampler import initial_noise, sample
from soda_jax.diffusion.schedule import Cosine
from soda_jax.models.latent_prior import LatentDenoiser

PROCESS = Process(Cosine(), prediction="v")  # [D]
_CHUNK = 50  # steps that one call runs


@dataclasses.dataclass(frozen=True)
class LatentPrior:
    """A distribution of codes.

    Attributes:
      model: the denoiser of codes.
      params: its averaged parameters.
      mean, std: [z], of the codes that it was fitted to: it works on standardised ones.
      protocol: plain values: how it was fitted, and its losses.
    """

    model: LatentDenoiser
    params: PyTree
    mean: np.ndarray
    std: np.ndarray
    protocol: dict

    def sample(self, count: int, *, seed: int = 0, num_steps: int = 50) -> np.ndarray:
        """Codes [n z], drawn by Heun's method; code i depends on (seed, i) alone."""
        keys = rngs.per_example(rngs.stream(rngs.root(seed), "latent_prior"), jnp.arange(count))
        drawn = _sample(self.model, self.params, keys, len(self.mean), num_steps)
        return np.asarray(drawn) * self.std[None] + self.mean[None]

    def save(self, path: str | os.PathLike) -> None:
        """Writes an .npz, without any pickle, that `load_prior` reads."""
        flat = flax.traverse_util.flatten_dict(self.params, sep="/")
        meta = {"model": _fields(self.model), "protocol": self.protocol}
        part = f"{os.fspath(path)}.part"
        with open(part, "wb") as file:
            np.savez(
                file,
                meta=np.array(json.dumps(meta)),
                mean=self.mean,
                std=self.std,
                **{f"params/{name}": np.asarray(leaf) for name, leaf in flat.items()},
            )
        os.replace(part, path)


def load_prior(path: str | os.PathLike) -> LatentPrior:
    """The prior that `save` wrote.

    Raises:
      FileNotFoundError: there is none.
      ValueError: the file is something else.
    """
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            params = {
                name.removeprefix("params/"): file[name]
                for name in file.files
                if name.startswith("params/")
            }
            return LatentPrior(
                LatentDenoiser(**meta["model"]),
                flax.traverse_util.unflatten_dict(params, sep="/"),
                file["mean"],
                file["std"],
                meta["protocol"],
            )
    except FileNotFoundError:
        raise
    except Exception as error:  # a broken file makes numpy raise nearly anything
        raise ValueError(f"{os.fspath(path)} holds no latent prior ({error})") from error


def fit_prior(
    z,
    *,
    features: int = 256,
    num_blocks: int = 4,
    dropout: float = 0.1,
    num_steps: int = 3000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.01,
    ema_decay: float = 0.995,
    held_out_fraction: float = 0.1,
    seed: int = 0,
) -> LatentPrior:
    """Fits the distribution of codes z [n z]; every default is ours [D].

    A small part is held out: a loss that rises there while that of training falls says that the
    prior learns the codes by heart. AdamW, its rate falls by a cosine to 0.

    Raises:
      ValueError: z is not finite [n z] with 20 codes or more, or a setting is out of range.
    """
    z = np.asarray(z, np.float32)
    if z.ndim != 2 or len(z) < 20 or not z.shape[1] or not np.isfinite(z).all():
        raise ValueError(f"z must be finite codes [n z], 20 or more, but is {list(z.shape)}")
    if min(features, num_blocks, num_steps, batch_size) < 1 or not 0 < held_out_fraction < 1:
        raise ValueError(
            "features, num_blocks, num_steps and batch_size must be at least 1, and "
            f"held_out_fraction in (0, 1); they are {features}, {num_blocks}, {num_steps}, "
            f"{batch_size}, {held_out_fraction}"
        )
    mean, std = z.mean(axis=0), z.std(axis=0)
    std = np.where(std > 1e-6 * np.abs(mean), std, 1.0).astype(np.float32)
    x = jnp.asarray((z - mean[None]) / std[None])
    order = np.random.default_rng(seed).permutation(len(x))
    count = max(1, round(held_out_fraction * len(x)))
    held_out, fitted = x[order[:count]], x[order[count:]]

    model = LatentDenoiser(features, num_blocks, dropout)
    root = rngs.stream(rngs.root(seed), "fit_prior")
    params = model.init(rngs.stream(root, "init"), x[:1], jnp.zeros((1,)))["params"]
    rate = optax.cosine_decay_schedule(learning_rate, num_steps)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=weight_decay))
    state = (params, jax.tree.map(jnp.copy, params), tx.init(params))
    losses = []
    for start in range(0, num_steps, _CHUNK):
        steps = jnp.arange(start, min(start + _CHUNK, num_steps))
        state, loss = _train(model, tx, state, fitted, root, steps, batch_size, ema_decay)
        losses.append(float(loss))
    averaged = state[1]
    protocol = {
        "codes": len(z),
        "steps": num_steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "ema_decay": ema_decay,
        "process": "cosine, v",
        "training_losses": losses,
        "loss": _loss(model, averaged, fitted, root),
        "held_out_loss": _loss(model, averaged, held_out, root),
        "seed": seed,
    }
    return LatentPrior(model, averaged, mean, std, protocol)


@partial(jax.jit, static_argnames=("model", "tx", "batch_size", "ema_decay"), donate_argnums=2)
def _train(model, tx, state, x, root, steps, batch_size, ema_decay):
    """Some steps of training, and the mean of their losses."""

    def body(state, step):
        params, averaged, opt_state = state
        key = rngs.stream(root, "step", step)
        rows = jax.random.randint(rngs.stream(key, "rows"), (batch_size,), 0, len(x))

        def loss_fn(params):
            apply = partial(
                model.apply, {"params": params}, train=True, rngs={"dropout": rngs.stream(key, "d")}
            )
            return jnp.mean(_errors(apply, x[rows], key))

        loss, gradient = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        averaged = jax.tree.map(lambda a, p: a + (1 - ema_decay) * (p - a), averaged, params)
        return (params, averaged, opt_state), loss

    state, losses = jax.lax.scan(body, state, steps)
    return state, losses.mean()


def _errors(apply_fn, x: Array, key: Array) -> Array:
    """Squared errors of the predictions [b], each code at a t of its own."""
    t = PROCESS.draw_t(rngs.stream(key, "t"), len(x))
    epsilon = jax.random.normal(rngs.stream(key, "epsilon"), x.shape)
    prediction = apply_fn(PROCESS.corrupt(x, epsilon, t), t)
    return jnp.mean(jnp.square(prediction - PROCESS.target(x, epsilon, t)), axis=-1)


def _loss(model, params, x, root) -> float:
    """The mean over many draws for each code."""
    repeated = jnp.repeat(x, -(-4096 // len(x)), axis=0)
    errors = _errors(partial(model.apply, {"params": params}), repeated, rngs.stream(root, "test"))
    return float(errors.mean())


@partial(jax.jit, static_argnames=("model", "z_size", "num_steps"))
def _sample(model, params, keys, z_size, num_steps):
    return sample(
        partial(model.apply, {"params": params}),
        PROCESS,
        initial_noise(keys, (z_size,)),
        num_steps=num_steps,
        sampler="heun",
        clip=0.0,
    )


def _fields(model: LatentDenoiser) -> dict:
    return {name: getattr(model, name) for name in ("features", "num_blocks", "dropout")}
