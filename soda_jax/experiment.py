"""From a config to its parts: mesh, model, process, optimizer, state. It alone reads configs."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from soda_jax import rngs
from soda_jax.array_types import Array, Poses
from soda_jax.config_kinds import resembling
from soda_jax.config_schema import ConfigError
from soda_jax.data import pipeline
from soda_jax.data.cameras import Cameras
from soda_jax.data.edm_augment import LABELS
from soda_jax.data.records import PosedSource
from soda_jax.data.sources import Source, open_source
from soda_jax.data.tolerant import Tolerant
from soda_jax.data.views import CameraOptions, Posed, View
from soda_jax.diffusion.process import Process
from soda_jax.diffusion.schedule import SCHEDULES
from soda_jax.models.autoencoder import DiffusionAutoencoder
from soda_jax.models.bottleneck import Bottleneck, Predictor
from soda_jax.models.denoiser import Denoiser, num_sections, section_of_block
from soda_jax.models.encoder import Encoder, ResNet
from soda_jax.models.ncsnpp import NCSNpp
from soda_jax.models.wide_resnet import WideResNet
from soda_jax.training import optimizer, sharding
from soda_jax.training.state import TrainState, create
from soda_jax.training.step import make_train_step


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """The parts that a config chooses.

    Attributes:
      source_view, target_view: what the encoder and the denoiser see.
      cameras: how the networks are told of cameras; None where they aren't.
      source_shape, target_shape: (h, w, c) of a picture on each side.
      num_sections: m + 1, the sections of z; 0 without an encoder.
    """

    config: ml_collections.ConfigDict
    mesh: jax.sharding.Mesh
    model: DiffusionAutoencoder
    process: Process
    source_view: View
    target_view: View
    cameras: CameraOptions | None
    source_shape: tuple[int, int, int]
    target_shape: tuple[int, int, int]
    num_sections: int
    tx: optax.GradientTransformation
    steps: dict[tuple, Callable] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def ray_size(self) -> int:
        """Height and width of the rays that the denoiser is given: one for each of its patches."""
        return self.target_view.size // self.config.model.denoiser.patch

    @property
    def located(self) -> int:
        """Height and width of the places that the denoiser is told; 0 where it isn't told any."""
        return self.ray_size if self.config.views.located else 0

    @property
    def z_size(self) -> int:
        """Dimensions of z; 0 without an encoder."""
        return self.config.model.z_size if self.model.encoder else 0

    @property
    def timed(self) -> bool:
        """Whether z is a curve t -> z(t)."""
        return self.model.encoder is not None and self.model.encoder.timed

    @property
    def blocks(self) -> dict[str, int]:
        """Name of each block of the denoiser -> the section of z that it reads."""
        denoiser = self.config.model.denoiser
        unet = denoiser.variant == "unet"
        owners = section_of_block(
            denoiser.multipliers,
            denoiser.num_blocks,
            self.ray_size,
            denoiser.resample if unet else "residual",
        )
        return owners if self.num_sections != 1 else dict.fromkeys(owners, 0)

    @property
    def needs_place(self) -> bool:
        """Whether the encoder must know where in the world a picture was taken."""
        return self.cameras is not None and self.cameras.frame != "source"

    @property
    def farthest(self) -> float:
        """Targets lie in [-farthest, farthest]."""
        return 0.5 / self.target_view.std[0]

    def step(self, make_step: Callable[..., Callable], **options: Any) -> Callable:
        """make_step(self, **options), a jitted function: made once, so traced and compiled once."""
        key = (make_step, *sorted(options.items()))
        if key not in self.steps:
            self.steps[key] = make_step(self, **options)
        return self.steps[key]


def build(
    config: ml_collections.ConfigDict,
    devices: Sequence[jax.Device] | None = None,
    training: bool = True,
) -> Experiment:
    """Chooses the parts; nothing is computed or written.

    Args:
      devices: those of the mesh; all that are here where None.
      training: whether it is to be trained, for which the devices must split the batch.

    Raises:
      ConfigError: the devices can't split the batch, or the denoiser hasn't the block that is to
        be probed.
    """
    mesh = make_mesh(config, devices, training)
    source_view = View(**config.views.source)
    target_view = View(**config.views.target)
    model, rate = make_model(config), config.optimizer
    head = rate.head_learning_rate
    parts = Experiment(
        config=config,
        mesh=mesh,
        model=model,
        process=Process(
            schedule=SCHEDULES[config.diffusion.schedule](),
            prediction=config.diffusion.prediction,
            loss_weight=config.diffusion.loss_weight,
            t_min=config.diffusion.t_min,
            law=config.diffusion.law,
            single_t=config.diffusion.single_t,
            shift=config.diffusion.shift,
            even=config.diffusion.even,
            pure_noise=config.diffusion.pure_noise,
        ),
        source_view=source_view,
        target_view=target_view,
        cameras=camera_options(config),
        source_shape=(source_view.size, source_view.size, config.data.channels),
        target_shape=(target_view.size, target_view.size, config.data.channels),
        num_sections=model.bottleneck.num_sections if model.bottleneck else 0,
        tx=optimizer.make_optimizer(
            *(
                optimizer.learning_rate(peak, rate.warmup_steps, rate.decay, config.train.num_steps)
                for peak in (rate.encoder_learning_rate, rate.learning_rate)
            ),
            b1=rate.b1,
            b2=rate.b2,
            weight_decay=rate.weight_decay,
            clip_norm=rate.clip_norm,
            method=rate.method,
            head_share=head / rate.encoder_learning_rate if head else 1.0,
        ),
    )
    if "block" in config.probe.features:
        modules = abstract_state(parts).params["denoiser"]
        layers = [name for name in modules if name.startswith(("down_", "mid_", "up_"))]
        layers = [name for name in layers if not name.endswith("_sample")]
        if config.probe.block not in layers:
            near = resembling(config.probe.block, layers)
            raise ConfigError(
                f"config.probe.block = {config.probe.block!r}: one of {', '.join(layers)}"
                + (f" (nearest: {near[0]})" if near else "")
            )
    return parts


def make_mesh(
    config: ml_collections.ConfigDict, devices: Sequence[jax.Device] | None, training: bool
) -> jax.sharding.Mesh:
    """The config's mesh; where it isn't of these devices and none is needed, all side by side."""
    try:
        mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, devices)
    except ValueError as error:
        if not training:
            return sharding.make_mesh(devices=devices)
        raise ConfigError(f"config.{error}") from error
    if not training:
        return mesh
    part = config.train.batch_size // config.optimizer.accumulate
    if part % mesh.size:
        unit = mesh.size * config.optimizer.accumulate
        near = max(unit, round(config.train.batch_size / unit) * unit)
        raise ConfigError(
            f"config.train.batch_size = {config.train.batch_size}: its "
            f"{config.optimizer.accumulate} part(s) must divide among {mesh.size} devices "
            f"(nearest: {near})"
        )
    return mesh


def camera_options(config: ml_collections.ConfigDict) -> CameraOptions | None:
    if config.cameras.encoding == "none":
        return None
    names = [field.name for field in dataclasses.fields(CameraOptions) if field.name != "patch"]
    return CameraOptions(
        **{name: config.cameras[name] for name in names}, patch=config.model.denoiser.patch
    )


def make_model(config: ml_collections.ConfigDict) -> DiffusionAutoencoder:
    rgb_features = 0 if config.cameras.encoding == "none" else config.cameras.rgb_features
    common = {"remat": config.train.remat, "dtype": jnp.dtype(config.model.dtype)}
    encoder, denoiser = dict(config.model.encoder), dict(config.model.denoiser)
    whole_code = config.model.bottleneck.sections == "one" or denoiser["variant"] == "ncsnpp"
    if denoiser.pop("variant") == "ncsnpp":
        kept = ("width", "multipliers", "num_blocks", "dropout")
        network = NCSNpp(**{name: denoiser[name] for name in kept}, dtype=common["dtype"])
    else:
        labels = LABELS if config.views.target.edm_prob else 0
        network = Denoiser(
            **denoiser,
            **common,
            whole_code=whole_code,
            labels=labels,
            rgb_features=rgb_features,
            located=config.views.located,
        )
    code_t, linear, code_norm = (encoder.pop(name) for name in ("t", "linear", "code_norm"))
    if encoder["variant"] == "none":
        return DiffusionAutoencoder(encoder=None, bottleneck=None, denoiser=network)
    if encoder["variant"] == "wide_resnet":
        trunk = WideResNet(width=2 * encoder["width_multiplier"], dtype=common["dtype"])
    else:
        trunk = ResNet(**encoder, **common)
    bottleneck = dict(config.model.bottleneck)
    del bottleneck["sections"]
    levels = denoiser["multipliers"], denoiser["num_blocks"]
    return DiffusionAutoencoder(
        encoder=Encoder(
            z_size=config.model.z_size,
            trunk=trunk,
            rgb_features=rgb_features,
            linear=linear,
            gaussian=bottleneck["penalty"] == "kl",
            code_norm=code_norm,
        ),
        bottleneck=Bottleneck(
            num_sections=1 if whole_code else num_sections(*levels), **bottleneck
        ),
        denoiser=network,
        code_t=code_t,
        predictor=Predictor() if bottleneck["penalty"] == "bootstrap" else None,
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
    """The training batches from a step on, over all devices: uint8 [b h w c], or Posed."""
    config, mesh = experiment.config, experiment.mesh
    megabytes = len(source) * np.prod(source.image_shape) / 2**20
    on_device = config.data.placement == "device" or (
        config.data.placement == "auto" and megabytes <= config.data.device_megabytes
    )
    order = batch_order(experiment, source, config.train.batch_size)
    if config.data.max_unreadable:
        source = Tolerant(source, config.data.max_unreadable)
    if on_device:
        return pipeline.device_batches(
            source,
            lambda array: sharding.replicate(mesh, array),
            lambda indices: sharding.split_batch(mesh, indices),
            order=order,
            start_step=start_step,
        )
    return pipeline.host_batches(
        source,
        lambda array: sharding.shard_batch(mesh, array),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        prefetch=config.data.prefetch,
        batch_size=config.train.batch_size,
        order=order,
        start_step=start_step,
    )


def batch_order(
    experiment: Experiment, source: Source, batch_size: int
) -> Callable[[int], np.ndarray]:
    """step -> the indices of a training batch's pictures: [b], or [b v] of views.

    Raises:
      ConfigError: the model is to know of cameras, and these pictures have none.
    """
    seed = experiment.config.seed
    if experiment.cameras is None:
        count = len(source)
        return lambda step: pipeline.batch_indices(seed, step, batch_size, count)
    if not isinstance(source, PosedSource):
        raise ConfigError(
            f"config.cameras.encoding = {experiment.cameras.encoding!r} needs pictures with "
            f"cameras, and those of {source.name} have none; nearest: 'none'"
        )
    starts, views = source.starts, experiment.cameras.max_sources + experiment.cameras.targets
    return lambda step: pipeline.view_indices(seed, step, batch_size, starts, views)


def init_fn(experiment: Experiment) -> Callable[[], TrainState]:
    """A function that makes the state at step 0; its jit lets all who need it share one trace."""
    model, tx = experiment.model, experiment.tx
    source, target = experiment.source_shape, experiment.target_shape

    def init() -> TrainState:
        key = rngs.stream(rngs.root(experiment.config.seed), "init")
        t = jnp.zeros((1,))
        if experiment.cameras is None:
            arguments = (jnp.zeros((1, *source)), jnp.zeros((1, *target)), t)
        else:
            channels, size = experiment.cameras.channels, experiment.ray_size
            poses = Poses(
                jnp.zeros((1, 1, *source[:2], channels)),
                jnp.zeros((1, size, size, channels)),
                jnp.ones((1, 1)),
            )
            arguments = (jnp.zeros((1, 1, *source)), jnp.zeros((1, *target)), t, False, poses)
        return create(model.init({"params": key}, *arguments), tx)

    return jax.jit(init)


def abstract_state(experiment: Experiment) -> TrainState:
    """Shapes, types and shardings of the state: the template of a restore."""
    shapes = jax.eval_shape(experiment.step(init_fn))
    shardings = sharding.state_sharding(experiment.mesh, shapes)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        shardings,
    )


def init_state(experiment: Experiment) -> TrainState:
    """The state at step 0, made in place on every device that will hold it."""
    return experiment.step(init_in_place)()


def init_in_place(experiment: Experiment) -> Callable[[], TrainState]:
    """`init_fn` jitted so that its state is sharded from the start."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(experiment))
    # It runs once: less time for its compiler makes the same bits (docs/performance.md).
    on_cpu = experiment.mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 1} if on_cpu else None
    return jax.jit(experiment.step(init_fn), out_shardings=shardings, compiler_options=options)


def train_step(experiment: Experiment) -> Callable[[TrainState, Array], tuple[TrainState, dict]]:
    """The jitted step: (state, images) -> (state, metrics); the state given is donated."""
    config, mesh = experiment.config, experiment.mesh
    step = make_train_step(
        experiment.model,
        experiment.process,
        experiment.source_view,
        experiment.target_view,
        experiment.tx,
        cameras=experiment.cameras,
        shared=config.views.shared,
        targets=config.views.targets,
        pairs=config.views.pairs,
        located=experiment.located,
        mixup=config.train.mixup,
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


def abstract_batch(experiment: Experiment) -> jax.ShapeDtypeStruct | Posed:
    """A training batch as shapes."""
    config = experiment.config
    b, size = config.train.batch_size, config.data.image_size
    picture = (size, size, config.data.channels)

    def shape(*sizes: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=sharding.over_batch(experiment.mesh))

    if experiment.cameras is None:
        return shape(b, *picture, dtype=jnp.uint8)
    v = experiment.cameras.max_sources + experiment.cameras.targets
    return Posed(shape(b, v, *picture, dtype=jnp.uint8), Cameras(shape(b, v, 4, 4), shape(b, v, 4)))


def flops_per_image(experiment: Experiment, platform: str | None = None) -> float:
    """Floating-point operations of a training step for each picture, as XLA counts them.

    Those that the step asks for, without what remat computes again; on this platform ("tpu",
    "cuda"), the mesh's own where None.
    """
    config = experiment.config.copy_and_resolve_references()
    config.train.remat = False
    # Of parts that follow each other, a loop's body, XLA would count one.
    config.optimizer.accumulate = 1
    whole = dataclasses.replace(experiment, config=config, model=make_model(config), steps={})
    traced = train_step(whole).trace(abstract_state(whole), abstract_batch(whole))
    lowered = traced.lower(lowering_platforms=(platform,) if platform else None)
    return float(lowered.cost_analysis()["flops"]) / config.train.batch_size
