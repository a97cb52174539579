"""From a config to its parts: mesh, model, process, optimizer, state. It alone reads configs."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from soda_jax import rngs
from soda_jax.array_types import Array
from soda_jax.config_schema import ConfigError
from soda_jax.data import pipeline
from soda_jax.data.sources import Source, open_source
from soda_jax.data.views import View
from soda_jax.diffusion.process import Process
from soda_jax.diffusion.schedule import SCHEDULES
from soda_jax.models.autoencoder import DiffusionAutoencoder
from soda_jax.models.bottleneck import Bottleneck
from soda_jax.models.denoiser import Denoiser, num_sections
from soda_jax.models.encoder import Encoder, ResNet
from soda_jax.training import optimizer, sharding
from soda_jax.training.state import TrainState, create
from soda_jax.training.step import make_train_step


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts that a config chooses.

    Attributes:
      source_view, target_view: what the encoder and the denoiser see.
      source_shape, target_shape: (h, w, c) of a picture on each side.
      num_sections: m + 1, the sections of z.
    """

    config: ml_collections.ConfigDict
    mesh: jax.sharding.Mesh
    model: DiffusionAutoencoder
    process: Process
    source_view: View
    target_view: View
    source_shape: tuple[int, int, int]
    target_shape: tuple[int, int, int]
    num_sections: int
    tx: optax.GradientTransformation


def build(config: ml_collections.ConfigDict) -> Experiment:
    """Chooses the parts; nothing is computed or written.

    Raises:
      ConfigError: the devices that are here can't split the batch.
    """
    try:
        mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp)
    except ValueError as error:
        raise ConfigError(f"config.{error}") from error
    part = config.train.batch_size // config.optimizer.accumulate
    if part % mesh.size:
        raise ConfigError(
            f"config.train.batch_size = {config.train.batch_size}: its "
            f"{config.optimizer.accumulate} part(s) must divide among {mesh.size} devices"
        )
    source_view = View(**config.views.source)
    target_view = View(**config.views.target)
    model, rate = make_model(config), config.optimizer
    return Experiment(
        config=config,
        mesh=mesh,
        model=model,
        process=Process(
            schedule=SCHEDULES[config.diffusion.schedule](),
            prediction=config.diffusion.prediction,
            loss_weight=config.diffusion.loss_weight,
            t_min=config.diffusion.t_min,
        ),
        source_view=source_view,
        target_view=target_view,
        source_shape=(source_view.size, source_view.size, config.data.channels),
        target_shape=(target_view.size, target_view.size, config.data.channels),
        num_sections=model.bottleneck.num_sections,
        tx=optimizer.make_optimizer(
            *(
                optimizer.learning_rate(peak, rate.warmup_steps, rate.decay, config.train.num_steps)
                for peak in (rate.encoder_learning_rate, rate.learning_rate)
            ),
            b1=rate.b1,
            b2=rate.b2,
            weight_decay=rate.weight_decay,
            clip_norm=rate.clip_norm,
        ),
    )


def make_model(config: ml_collections.ConfigDict) -> DiffusionAutoencoder:
    dtype = jnp.dtype(config.model.dtype)
    remat = config.train.remat
    denoiser = config.model.denoiser
    return DiffusionAutoencoder(
        encoder=Encoder(
            z_size=config.model.z_size,
            trunk=ResNet(**config.model.encoder, remat=remat, dtype=dtype),
        ),
        bottleneck=Bottleneck(
            num_sections=num_sections(denoiser.multipliers, denoiser.num_blocks),
            **config.model.bottleneck,
        ),
        denoiser=Denoiser(**denoiser, remat=remat, dtype=dtype),
    )


def open_data(experiment: Experiment, split: str) -> Source:
    """The pictures of "train" or "test", as the config names them."""
    data = experiment.config.data
    return open_source(
        data.source,
        data.train_split if split == "train" else data.test_split,
        image_size=data.image_size,
        channels=data.channels,
        name=data.name,
        path=data.path,
    )


def open_batches(experiment: Experiment, source: Source, start_step: int):
    """The training batches from a step on: uint8 [b h w c], over all devices."""
    config, mesh = experiment.config, experiment.mesh
    megabytes = len(source) * np.prod(source.image_shape) / 2**20
    on_device = config.data.placement == "device" or (
        config.data.placement == "auto" and megabytes <= config.data.device_megabytes
    )
    common = dict(seed=config.seed, batch_size=config.train.batch_size, start_step=start_step)
    if on_device:
        return pipeline.device_batches(
            source,
            lambda array: sharding.replicate(mesh, array),
            lambda indices: sharding.split_batch(mesh, indices),
            **common,
        )
    return pipeline.host_batches(
        source,
        lambda array: sharding.shard_batch(mesh, array),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        prefetch=config.data.prefetch,
        **common,
    )


def init_fn(experiment: Experiment) -> Callable[[], TrainState]:
    """A function that makes the state at step 0; it is traced, never run eagerly."""
    model, tx = experiment.model, experiment.tx
    source = (1, *experiment.source_shape)
    target = (1, *experiment.target_shape)

    def init() -> TrainState:
        key = rngs.stream(rngs.root(experiment.config.seed), "init")
        variables = model.init(
            {"params": key}, jnp.zeros(source), jnp.zeros(target), jnp.zeros((1,))
        )
        return create(variables, tx)

    return init


def abstract_state(experiment: Experiment) -> TrainState:
    """Shapes, types and shardings of the state: the template of a restore."""
    shapes = jax.eval_shape(init_fn(experiment))
    shardings = sharding.state_sharding(experiment.mesh, shapes)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        shardings,
    )


def init_state(experiment: Experiment) -> TrainState:
    """The state at step 0, made in place on every device that will hold it."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(experiment))
    return jax.jit(init_fn(experiment), out_shardings=shardings)()


def train_step(experiment: Experiment) -> Callable[[TrainState, Array], tuple[TrainState, dict]]:
    """The jitted step: (state, images) -> (state, metrics); the state given is donated."""
    config, mesh = experiment.config, experiment.mesh
    step = make_train_step(
        experiment.model,
        experiment.process,
        experiment.source_view,
        experiment.target_view,
        experiment.tx,
        seed=config.seed,
        accumulate=config.optimizer.accumulate,
        ema_decay=config.optimizer.ema_decay,
        ema_warmup=config.optimizer.ema_warmup,
    )
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(experiment))
    return jax.jit(
        step,
        in_shardings=(shardings, sharding.over_batch(mesh)),
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0,
    )


def abstract_batch(experiment: Experiment) -> jax.ShapeDtypeStruct:
    """A training batch as shapes."""
    config = experiment.config
    size = config.data.image_size
    return jax.ShapeDtypeStruct(
        (config.train.batch_size, size, size, config.data.channels),
        jnp.uint8,
        sharding=sharding.over_batch(experiment.mesh),
    )


def flops_per_image(experiment: Experiment) -> float:
    """Floating-point operations of a training step for each picture, as XLA counts them."""
    lowered = train_step(experiment).lower(abstract_state(experiment), abstract_batch(experiment))
    return float(lowered.cost_analysis()["flops"]) / experiment.config.train.batch_size
