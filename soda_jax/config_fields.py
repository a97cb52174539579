"""What each config field may hold: kinds of values, and a table with one line for every field.

Plain Python, no JAX: a wrong config is found before devices or the workdir are touched. Each kind
has accepts(value), allowed() in words, and closest(value): the nearest value that is accepted, or
None where nothing is near.
"""

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


def resembling(word: Any, words: Iterable[str], count: int = 1) -> list[str]:
    """The words that look most like `word`, best first; [] where none does."""
    by_lower = {candidate.lower(): candidate for candidate in words}
    found = difflib.get_close_matches(str(word).lower(), by_lower, count, cutoff=0.5)
    return [by_lower[candidate] for candidate in found]


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and not math.isnan(value)


@dataclass(frozen=True)
class Number:
    """An int or a float between two limits, which it may reach unless they are `open`."""

    type: type
    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def accepts(self, value: Any) -> bool:
        if type(value) is not self.type or not self.low <= value <= self.high:
            return False
        return not (self.open_low and value == self.low or self.open_high and value == self.high)

    def allowed(self) -> str:
        kind, form = ("a whole number", "_") if self.type is int else ("a number", "g")
        low = f"{'above' if self.open_low else 'from'} {self.low:{form}}"
        return f"{kind} {low} {'and below' if self.open_high else 'up to'} {self.high:{form}}"

    def closest(self, value: Any) -> Any:
        if not is_number(value):
            return None
        inside = self.type(min(max(value, self.low), self.high))
        return inside if self.accepts(inside) else None


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple

    def accepts(self, value: Any) -> bool:
        return any(type(value) is type(v) and value == v for v in self.values)

    def allowed(self) -> str:
        return "one of " + ", ".join(str(v) for v in self.values)

    def closest(self, value: Any) -> Any:
        if isinstance(value, str):
            words = resembling(value, [v for v in self.values if isinstance(v, str)])
            return words[0] if words else None
        numbers = [v for v in self.values if is_number(v)]
        if not numbers or not is_number(value):
            return None
        return min(numbers, key=lambda v: abs(v - value))


@dataclass(frozen=True)
class Text:
    """One line of text."""

    may_be_empty: bool = False

    def accepts(self, value: Any) -> bool:
        if not isinstance(value, str) or not value.isprintable() or len(value) > 4096:
            return False
        return bool(value) or self.may_be_empty

    def allowed(self) -> str:
        return "one line of text" + ("" if self.may_be_empty else ", not empty")

    def closest(self, value: Any) -> Any:
        return str(value) if is_number(value) else None


@dataclass(frozen=True)
class Flag:
    """True or False."""

    def accepts(self, value: Any) -> bool:
        return type(value) is bool

    def allowed(self) -> str:
        return "True or False"

    def closest(self, value: Any) -> Any:
        if isinstance(value, str):
            return {"true": True, "false": False}.get("".join(resembling(value, ("true", "false"))))
        return bool(value) if is_number(value) and value in (0, 1) else None


@dataclass(frozen=True)
class Several:
    """A tuple with `least` to `most` parts of one kind."""

    part: Number | Choice | Text
    least: int
    most: int
    distinct: bool = False

    def accepts(self, value: Any) -> bool:
        if not isinstance(value, tuple) or not self.least <= len(value) <= self.most:
            return False
        if not all(self.part.accepts(part) for part in value):
            return False
        return not self.distinct or len(set(value)) == len(value)

    def allowed(self) -> str:
        count = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        different = " different" if self.distinct else ""
        return f"a tuple of {count}{different} parts, each {self.part.allowed()}"

    def closest(self, value: Any) -> Any:
        parts = value if isinstance(value, tuple) else (value,)
        parts = tuple(v if self.part.accepts(v) else self.part.closest(v) for v in parts)
        if self.distinct:
            parts = tuple(dict.fromkeys(parts))
        return parts if self.accepts(parts) else None


def whole(low: int, high: int) -> Number:
    return Number(int, low, high)


def real(low: float, high: float, **open_limits: bool) -> Number:
    return Number(float, float(low), float(high), **open_limits)


def one_of(*values: Any) -> Choice:
    return Choice(values)


SEED = whole(0, 2**31 - 1)
PIXELS = whole(4, 4096)
COUNT = whole(0, 10**9)  # 0 means all, or never: base.py says which
POSITIVE = whole(1, 10**9)
BATCH = whole(1, 2**20)
SHARE = real(0, 1)
RATE = real(0, 1, open_high=True)  # a share that leaves something over
WEIGHTS = one_of("ema", "raw")
POSED_SOURCES = ("scenes", "nmr", "srn", "transforms", "posed_arrays")
SOURCES = one_of("digits", "tfds", "folder", "arrays", "cifar10", "cifar100", *POSED_SOURCES)
ENCODERS = one_of(
    "resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet", "none"
)
FEATURES = one_of("z", "pooled", "block")
PROTOCOLS = one_of("lbfgs", "adam", "knn", "knn_plain", "mlp")
SUITES = (
    "probes", "layers", "attributes", "disentanglement", "code", "pictures", "semi_supervised",
    "trajectory", "noisy", "streamed", "fine_tune",
)  # fmt: skip
STREAMED = ("soda", "mae", "ddae")
USES = ("reconstruct", "interpolate", "mix", "directions", "partial", "plane", "prior", "zoom")

VIEW_FIELDS = {
    "size": PIXELS,
    "whole_size": whole(0, 4096),
    "crop_prob": SHARE,
    "crop_scale": Several(real(0, 1, open_low=True), 2, 2),
    "crop_ratio": Several(real(0.01, 100), 2, 2),
    "shift": whole(0, 4096),
    "flip_prob": SHARE,
    "edm_prob": SHARE,
    "randaugment_prob": SHARE,
    "randaugment_ops": whole(1, 16),
    "randaugment_magnitude": real(0, 10),
    "jitter_prob": SHARE,
    "jitter_strength": Several(SHARE, 4, 4),
    "grayscale_prob": SHARE,
    "noise": real(0, 10),
    "mean": Several(SHARE, 1, 3),
    "std": Several(real(0, 10, open_low=True), 1, 3),
}

FIELDS = {
    "name": Text(),
    "seed": SEED,
    "data.source": SOURCES,
    "data.name": Text(may_be_empty=True),
    "data.path": Text(may_be_empty=True),
    "data.train_split": Text(),
    "data.test_split": Text(),
    "data.image_size": PIXELS,
    "data.channels": one_of(1, 3),
    "data.placement": one_of("device", "host", "auto"),
    "data.device_megabytes": whole(0, 2**20),
    "data.prefetch": whole(1, 1024),
    "data.max_unreadable": whole(0, 2**40),
    "views.shared": Flag(),
    "views.targets": whole(1, 64),
    "views.pairs": whole(1, 64),
    "views.located": Flag(),
    **{f"views.source.{key}": kind for key, kind in VIEW_FIELDS.items()},
    **{f"views.target.{key}": kind for key, kind in VIEW_FIELDS.items()},
    "cameras.encoding": one_of("none", "ray", "plucker", "sphere"),
    "cameras.channels": whole(6, 4096),
    "cameras.max_octave": real(0, 16),
    "cameras.frame": one_of("source", "upright", "world"),
    "cameras.up": one_of("y", "z"),
    "cameras.rgb_features": whole(1, 4096),
    "cameras.max_sources": whole(1, 64),
    "cameras.targets": whole(1, 64),
    "cameras.fusion": one_of("codes", "predictions"),
    "cameras.mirror_prob": real(0, 1),
    "cameras.field_of_view": real(1, 170),
    "model.dtype": one_of("float32", "bfloat16"),
    "model.z_size": whole(1, 2**16),
    "model.encoder.variant": ENCODERS,
    "model.encoder.width_multiplier": real(1 / 64, 16),
    "model.encoder.stem": one_of("small", "patch", "standard"),
    "model.encoder.norm": one_of("batch", "group"),
    "model.encoder.features": whole(0, 2**16),
    "model.encoder.pooling": one_of("last", "stages"),
    "model.encoder.moments": one_of(1, 2),
    "model.encoder.places": Flag(),
    "model.encoder.linear": Flag(),
    "model.encoder.code_norm": one_of("none", "batch"),
    "model.encoder.t": SHARE,
    "model.bottleneck.sections": one_of("layers", "one"),
    "model.bottleneck.penalty": one_of("none", "l1", "kl", "barlow"),
    "model.bottleneck.penalty_weight": real(0, 1000),
    "model.bottleneck.section_drop_rate": RATE,
    "model.bottleneck.latent_drop_rate": RATE,
    "model.denoiser.variant": one_of("unet", "ncsnpp"),
    "model.denoiser.width": whole(2, 2**13),
    "model.denoiser.multipliers": Several(whole(1, 64), 1, 8),
    "model.denoiser.patch": whole(1, 32),
    "model.denoiser.num_blocks": whole(1, 32),
    "model.denoiser.attention_levels": Several(whole(0, 7), 0, 8, distinct=True),
    "model.denoiser.mid_attention": Flag(),
    "model.denoiser.cross_attention_levels": Several(whole(0, 7), 0, 8, distinct=True),
    "model.denoiser.head_size": whole(1, 2**13),
    "model.denoiser.attention_kernel": one_of("xla", "cudnn"),
    "model.denoiser.dropout": RATE,
    "model.denoiser.resample": one_of("strided", "residual"),
    "model.denoiser.time_route": one_of("modulation", "added"),
    "model.denoiser.rescale": Flag(),
    "model.denoiser.zero_init": Flag(),
    "diffusion.schedule": one_of(
        "linear", "cosine", "inverted_cosine", "variance_exploding", "edm"
    ),
    "diffusion.prediction": one_of("epsilon", "x_0", "v"),
    "diffusion.loss_weight": one_of("uniform", "epsilon", "min_snr"),
    "diffusion.t_min": real(0, 1, open_low=True, open_high=True),
    "diffusion.law": one_of("uniform", "uniform_sigma", "single"),
    "diffusion.single_t": real(0, 1, open_low=True),
    "diffusion.shift": real(0.01, 1000),
    "diffusion.even": Flag(),
    "optimizer.method": one_of("adamw", "muon"),
    "optimizer.learning_rate": real(0, 10),
    "optimizer.encoder_learning_rate": real(0, 10),
    "optimizer.warmup_steps": COUNT,
    "optimizer.decay": one_of("constant", "cosine"),
    "optimizer.b1": RATE,
    "optimizer.b2": RATE,
    "optimizer.weight_decay": real(0, 10),
    "optimizer.clip_norm": real(0, 1e9),
    "optimizer.accumulate": BATCH,
    "optimizer.ema_decay": RATE,
    "optimizer.ema_warmup": Flag(),
    "train.batch_size": BATCH,
    "train.num_steps": POSITIVE,
    "train.log_every": POSITIVE,
    "train.checkpoint_every": POSITIVE,
    "train.checkpoints_to_keep": whole(2, 10_000),  # one to fall back on
    "train.checkpoint_async": Flag(),
    "train.diagnose_every": COUNT,
    "train.probe_every": COUNT,
    "train.probe_examples": POSITIVE,
    "train.frechet_images": COUNT,
    "train.sample_every": COUNT,
    "train.mixup": Flag(),
    "train.remat": Flag(),
    "train.max_skipped": whole(0, 10_000),
    "train.stall_seconds": real(0, 10**6),
    "train.profile_steps": whole(0, 10_000),
    "mesh.data": whole(-1, 2**16),
    "mesh.fsdp": whole(1, 2**16),
    "probe.batch_size": BATCH,
    "probe.weights": WEIGHTS,
    "probe.features": Several(FEATURES, 1, 3, distinct=True),
    "probe.block": Text(),
    "probe.t": real(0, 1),
    "probe.max_examples": COUNT,
    "probe.validation_fraction": real(0, 1, open_low=True, open_high=True),
    "probe.labels_per_class": Several(POSITIVE, 0, 16, distinct=True),
    "probe.draws": whole(1, 1000),
    "probe.protocols": Several(PROTOCOLS, 1, len(PROTOCOLS.values), distinct=True),
    "probe.baselines": Flag(),
    "sample.batch_size": BATCH,
    "sample.weights": WEIGHTS,
    "sample.num_images": POSITIVE,
    "sample.sampler": one_of("ddim", "dpm_solver", "heun"),
    "sample.num_steps": whole(1, 100_000),
    "sample.spacing": one_of("t", "log_snr", "rho", "balanced"),
    "sample.eta": SHARE,
    "sample.guidance_scale": real(-1, 1000),
    "sample.guidance_interval": Several(SHARE, 2, 2),
    "sample.sections": Several(whole(0, 2**16), 0, 1024, distinct=True),
    "sample.seed": SEED,
    "evaluate.suites": Several(one_of(*SUITES), 0, len(SUITES), distinct=True),
    "evaluate.compare": Several(Text(), 0, 16, distinct=True),
    "evaluate.labels_per_class": Several(POSITIVE, 0, 16, distinct=True),
    "evaluate.graph_examples": whole(20, 10**7),
    "evaluate.trajectory_points": whole(1, 1000),
    "evaluate.trajectory_epochs": whole(1, 10_000),
    "evaluate.noisy_epochs": whole(1, 10_000),
    "evaluate.layer_ts": Several(SHARE, 0, 32, distinct=True),
    "evaluate.layer_examples": POSITIVE,
    "evaluate.loss_images": whole(2, 10**6),
    "evaluate.num_images": whole(2, 10**6),
    "evaluate.streamed": Several(one_of(*STREAMED), 1, len(STREAMED), distinct=True),
    "evaluate.fine_tune_epochs": whole(1, 10_000),
    "evaluate.inception_path": Text(may_be_empty=True),
    "evaluate.lpips_network": one_of("alex", "vgg"),
    "evaluate.lpips_path": Text(may_be_empty=True),
    "evaluate.lpips_heads_path": Text(may_be_empty=True),
    "apply.uses": Several(one_of(*USES), 0, len(USES), distinct=True),
    "apply.num_images": whole(2, 64),
    "apply.num_steps": whole(1, 100_000),
    "apply.directions": whole(1, 1000),
    "apply.codes": whole(20, 10**8),
    "apply.prior_steps": POSITIVE,
    "explore.port": whole(0, 65535),
    "explore.num_images": whole(2, 64),
    "novel_views.num_objects": whole(2, 10**6),
    "novel_views.targets": whole(1, 1000),
    "novel_views.sources": whole(0, 64),
    "novel_views.averaged": whole(1, 10_000),
    "novel_views.num_shown": whole(1, 64),
    "novel_views.orbit_frames": whole(2, 1000),
    "novel_views.compare": Several(Text(), 0, 16, distinct=True),
}

# Fields that came after the first runs: what a saved config that lacks one of them stands for.
LATER_FIELDS = {
    "sample.guidance_interval": (0.0, 1.0),
    "train.frechet_images": 1024,
    "train.max_skipped": 10,
    "train.stall_seconds": 600.0,
    "data.max_unreadable": 0,
    "optimizer.method": "adamw",
    "views.shared": False,
    "views.targets": 1,
    "views.pairs": 1,
    "views.located": False,
    "views.source.whole_size": 0,
    "views.target.whole_size": 0,
    "views.source.shift": 0,
    "views.target.shift": 0,
    "views.source.edm_prob": 0.0,
    "views.target.edm_prob": 0.0,
    "model.encoder.features": 0,
    "model.encoder.pooling": "last",
    "model.encoder.moments": 1,
    "model.encoder.places": False,
    "model.encoder.linear": True,
    "model.encoder.code_norm": "none",
    "model.encoder.t": 0.5,
    "model.bottleneck.sections": "layers",
    "model.bottleneck.penalty": "none",
    "model.bottleneck.penalty_weight": 0.0,
    "model.denoiser.variant": "unet",
    "train.mixup": False,
    "evaluate.suites": (),
    "evaluate.compare": (),
    "evaluate.labels_per_class": (1, 2, 5, 10, 50),
    "evaluate.graph_examples": 10_000,
    "evaluate.trajectory_points": 10,
    "evaluate.trajectory_epochs": 100,
    "evaluate.noisy_epochs": 15,
    "evaluate.layer_ts": (0.1, 0.4, 0.7),
    "evaluate.layer_examples": 10_000,
    "evaluate.loss_images": 256,
    "evaluate.num_images": 1024,
    "evaluate.streamed": ("soda",),
    "evaluate.fine_tune_epochs": 10,
    "evaluate.inception_path": "",
    "evaluate.lpips_network": "alex",
    "evaluate.lpips_path": "",
    "evaluate.lpips_heads_path": "",
    "apply.uses": (),
    "apply.num_images": 8,
    "apply.num_steps": 25,
    "apply.directions": 10,
    "apply.codes": 10_000,
    "apply.prior_steps": 3000,
    "explore.port": 7860,
    "explore.num_images": 24,
    "cameras.encoding": "none",
    "cameras.channels": 54,
    "cameras.max_octave": 4.0,
    "cameras.frame": "source",
    "cameras.up": "y",
    "cameras.rgb_features": 32,
    "cameras.max_sources": 3,
    "cameras.targets": 1,
    "cameras.fusion": "codes",
    "cameras.mirror_prob": 0.0,
    "cameras.field_of_view": 60.0,
    "model.denoiser.patch": 1,
    "model.denoiser.attention_kernel": "xla",
    "model.denoiser.time_route": "modulation",
    "diffusion.law": "uniform",
    "diffusion.single_t": 0.5,
    "diffusion.shift": 1.0,
    "diffusion.even": False,
    "probe.block": "mid_block1",
    "probe.t": 0.05,
    "model.denoiser.cross_attention_levels": (),
    "novel_views.num_objects": 128,
    "novel_views.targets": 4,
    "novel_views.sources": 0,
    "novel_views.averaged": 1,
    "novel_views.num_shown": 6,
    "novel_views.orbit_frames": 24,
    "novel_views.compare": (),
}
