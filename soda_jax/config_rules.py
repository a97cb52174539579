"""Rules between config fields: sizes that must fit each other, and what one choice asks of another.

They read a flat dict, {"train.batch_size": 256, ...}, whose values config_fields has accepted.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from soda_jax.config_fields import POSED_SOURCES

Values = Mapping[str, Any]


class Broken(NamedTuple):
    """A broken rule: the key to change, what is allowed for it, and what comes nearest."""

    key: str
    allowed: str
    nearest: str = ""


# Where posed sets are to be had, and how DIR, config.data.path, must hold them.
WHERE = {
    "nmr": "NMR (24 views of 43,783 objects of ShapeNet) is the NMR_Dataset.zip that "
    "github.com/autonomousvision/differentiable_volumetric_rendering links; unpacked, DIR/CATEGORY "
    "holds softras_train.lst and a folder for each object, with image/0000.png ... and cameras.npz",
    "srn": "ShapeNet-SRN's cars and chairs are the zips that github.com/sxyu/pixel-nerf links; "
    "unpacked, DIR/cars_train and DIR/cars_test hold a folder for each object, with rgb/*.png, "
    "pose/*.txt and intrinsics.txt",
    "transforms": "Google Scanned Objects are meshes, at app.gazebosim.org under 'Scanned Objects "
    "by Google Research'; render them in Blender. DIR holds a folder for each object, with its "
    "pictures and a transforms.json as for NeRF (camera_angle_x; for each frame file_path and "
    "transform_matrix)",
    "posed_arrays": "one .npz: images [n v h w 3] uint8, cam2world [n v 4 4], K [3 3]",
}


def broken_rules(values: Values) -> list[str]:
    """One line for each broken rule: `key = value: what is allowed (nearest: ...)`."""
    rules = (
        _data, _colours, _crops, _ascending, _shared, _several, _located, _cameras, _timed, _law,
        _accumulate, _target_size, _attention, _sections, _mesh, _eta,
    )  # fmt: skip
    return [
        f"{broken.key} = {values[broken.key]!r}: {broken.allowed}"
        + (f" (nearest: {broken.nearest})" if broken.nearest else "")
        for rule in rules
        for broken in rule(values)
    ]


def num_sections(values: Values) -> int:
    """m + 1: a section of z for each skip of the denoiser, and one for its middle; or one."""
    if values["model.bottleneck.sections"] == "one" or _is_ncsnpp(values):
        return 1
    num_levels = len(values["model.denoiser.multipliers"])
    return num_levels * (values["model.denoiser.num_blocks"] + 1) + 1


def _is_ncsnpp(values: Values) -> bool:
    return values["model.denoiser.variant"] == "ncsnpp"


def _divisors_near(number: int, near: int) -> str:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    below, above = [d for d in divisors if d < near], [d for d in divisors if d > near]
    return " or ".join(str(d) for d in below[-1:] + above[:1])


def _multiples_near(factor: int, near: int) -> str:
    below = near // factor * factor
    return " or ".join(str(multiple) for multiple in (below, below + factor) if multiple > 0)


def _data(values: Values) -> Iterator[Broken]:
    source = values["data.source"]
    if source == "tfds" and not values["data.name"]:
        yield Broken("data.name", "data.source = 'tfds' needs a data set's name, such as 'cifar10'")
    if source not in ("digits", "tfds", "scenes") and not values["data.path"]:
        where = f"; {WHERE[source]}" if source in WHERE else ""
        yield Broken("data.path", f"data.source = {source!r} needs the path of its pictures{where}")
    if source == "scenes" and values["data.channels"] != 3:
        yield Broken("data.channels", "3 for data.source = 'scenes', which are in colour", "3")


def _law(values: Values) -> Iterator[Broken]:
    law, schedule = values["diffusion.law"], values["diffusion.schedule"]
    if law == "uniform_sigma" and schedule != "variance_exploding":
        allowed = f"'uniform' or 'single' for diffusion.schedule = {schedule!r}"
        yield Broken("diffusion.law", allowed, "'uniform'")
    if law != "uniform" and values["diffusion.shift"] != 1:
        yield Broken("diffusion.shift", f"1.0 for diffusion.law = {law!r}", "1.0")
    t_min = values["diffusion.t_min"]
    if law == "single" and values["diffusion.single_t"] < t_min:
        yield Broken("diffusion.single_t", f"at least diffusion.t_min = {t_min}", str(t_min))


def _colours(values: Values) -> Iterator[Broken]:
    channels = values["data.channels"]
    lengths = (3,) if channels == 3 else (1, 3)  # of three, a grey picture uses the first
    for view in ("views.source", "views.target"):
        for key in (f"{view}.mean", f"{view}.std"):
            value = values[key]
            if len(value) not in lengths:
                allowed = f"{' or '.join(map(str, lengths))} parts for data.channels = {channels}"
                yield Broken(key, allowed, str((value * 3)[:channels]))
                break
        else:
            if len(values[f"{view}.mean"]) != len(values[f"{view}.std"]):
                allowed = f"as many parts as {view}.std = {values[f'{view}.std']}"
                yield Broken(f"{view}.mean", allowed)
        if view == "views.target":
            # Samplers clip what they predict to one range around 0, and make pictures from it.
            if {*values[f"{view}.mean"]} != {0.5}:
                yield Broken(f"{view}.mean", "0.5: targets lie around 0", "(0.5, 0.5, 0.5)")
            if len({*values[f"{view}.std"]}) != 1:
                yield Broken(f"{view}.std", "one number, three times", "(0.5, 0.5, 0.5)")
        strength = values[f"{view}.jitter_strength"]
        if strength[3] > 0.5:
            allowed = "its last part, the hue's, is at most 0.5"
            yield Broken(f"{view}.jitter_strength", allowed, str((*strength[:3], 0.5)))


def _crops(values: Values) -> Iterator[Broken]:
    if values["views.source.edm_prob"]:
        yield Broken("views.source.edm_prob", "0.0: it is for what is denoised", "0.0")
    if values["views.target.edm_prob"] and _is_ncsnpp(values):
        allowed = "0.0 for model.denoiser.variant = 'ncsnpp', which can't be told of it"
        yield Broken("views.target.edm_prob", allowed, "0.0")


def _ascending(values: Values) -> Iterator[Broken]:
    crops = ("crop_scale", "crop_ratio")
    pairs = [f"views.{side}.{key}" for side in ("source", "target") for key in crops]
    for key in (*pairs, "sample.guidance_interval"):
        low, high = values[key]
        if low > high:
            yield Broken(key, "the smaller one first", str((high, low)))


def _shared(values: Values) -> Iterator[Broken]:
    if not values["views.shared"]:
        return
    for key in (key for key in values if key.startswith("views.source.")):
        name = key.removeprefix("views.source.")
        other = values[f"views.target.{name}"]
        if name not in ("size", "noise", "mean", "std") and values[key] != other:
            allowed = f"views.target.{name} = {other!r} for views.shared: one view of both"
            yield Broken(key, allowed, repr(other))
    if values["cameras.encoding"] == "none":
        return
    for view in ("views.source", "views.target"):
        if values[f"{view}.noise"]:
            allowed = "0.0 for views.shared with cameras: all views would have the same noise"
            yield Broken(f"{view}.noise", allowed, "0.0")
        strength = tuple(values[f"{view}.jitter_strength"])
        if values[f"{view}.jitter_prob"] and strength[1]:
            changed = (strength[0], 0.0, *strength[2:])
            allowed = f"{changed} for views.shared with cameras: contrast depends on the view"
            yield Broken(f"{view}.jitter_strength", allowed, str(changed))


def _several(values: Values) -> Iterator[Broken]:
    """Several targets or pairs of a picture, and the penalty that compares two pairs."""
    encoder = values["model.encoder.variant"]
    hindrances = [
        where
        for holds, where in (
            (values["cameras.encoding"] != "none", "there are cameras, which have cameras.targets"),
            (encoder == "none", "there is no code: use train.batch_size"),
            (encoder == "wide_resnet", "the code follows the target's time"),
            (values["train.mixup"], "train.mixup is on"),
        )
        if holds
    ]
    for key in ("views.targets", "views.pairs"):
        if values[key] != 1:
            yield from (Broken(key, f"1 where {where}", "1") for where in hindrances)
    if values["model.bottleneck.penalty"] != "barlow" or encoder == "none":  # see _sections
        return
    for where in hindrances:
        yield Broken("model.bottleneck.penalty", f"another where {where}", "'none'")
    if not hindrances and values["views.pairs"] != 2:
        allowed = "2 for model.bottleneck.penalty = 'barlow', which compares a picture's two codes"
        yield Broken("views.pairs", allowed, "2")


def _located(values: Values) -> Iterator[Broken]:
    """What would move a picture where the denoiser is told of crops and mirrors, or can't be."""
    if not values["views.located"]:
        if "zoom" in values["apply.uses"]:
            others = tuple(use for use in values["apply.uses"] if use != "zoom")
            allowed = "without 'zoom' where views.located = False: the denoiser knows of no places"
            yield Broken("apply.uses", allowed, str(others))
        return
    for holds, where in (
        (values["cameras.encoding"] != "none", "there are cameras, which say where views lie"),
        (values["model.encoder.variant"] == "none", "there is no source"),
        (_is_ncsnpp(values), "model.denoiser.variant = 'ncsnpp', which can't be told of it"),
    ):
        if holds:
            yield Broken("views.located", f"False where {where}", "False")
    for view in ("views.source", "views.target"):
        for key in ("shift", "edm_prob", "randaugment_prob"):
            none = 0 if key == "shift" else 0.0
            if values[f"{view}.{key}"]:
                allowed = f"{none} for views.located, which knows of crops and mirrors alone"
                yield Broken(f"{view}.{key}", allowed, str(none))


def _timed(values: Values) -> Iterator[Broken]:
    """What DRL's networks lack."""
    posed = values["cameras.encoding"] != "none"
    if values["views.target.whole_size"]:
        allowed = "0: the denoiser knows views.target.size alone"
        yield Broken("views.target.whole_size", allowed, "0")
    if posed and values["views.source.whole_size"]:
        allowed = "0 where there are cameras: rays are drawn for views.source.size"
        yield Broken("views.source.whole_size", allowed, "0")
    if posed and _is_ncsnpp(values):
        yield Broken("model.denoiser.variant", "'unet' where there are cameras", "'unet'")
    if posed and values["train.mixup"]:
        yield Broken("train.mixup", "False where there are cameras", "False")
    if values["model.encoder.variant"] == "wide_resnet":
        if posed:
            allowed = "another one where there are cameras"
            yield Broken("model.encoder.variant", allowed, "'resnet18'")
        if values["sample.guidance_scale"]:
            allowed = "0.0 for model.encoder.variant = 'wide_resnet', whose code follows t"
            yield Broken("sample.guidance_scale", allowed, "0.0")
    if _is_ncsnpp(values) and values["model.denoiser.patch"] > 1:
        yield Broken("model.denoiser.patch", "1 for model.denoiser.variant = 'ncsnpp'", "1")
    of_resnets = {"features": 0, "pooling": "last", "moments": 1, "places": False}
    for key, none in ((f"model.encoder.{name}", none) for name, none in of_resnets.items()):
        if values[key] != none and values["model.encoder.variant"] == "wide_resnet":
            allowed = f"{none!r} for model.encoder.variant = 'wide_resnet'"
            yield Broken(key, allowed, repr(none))
    normalised = values["model.encoder.code_norm"] != "none"
    if normalised and values["model.bottleneck.penalty"] != "none":
        allowed = "'none' for model.encoder.code_norm = 'batch', which fixes the size of z"
        yield Broken("model.bottleneck.penalty", allowed, "'none'")
    if not values["model.encoder.linear"]:
        if values["model.bottleneck.penalty"] == "kl":
            allowed = "True for model.bottleneck.penalty = 'kl': it gives mean and variance"
            yield Broken("model.encoder.linear", allowed, "True")
        width = pooled_size(values)
        if values["model.z_size"] != width:
            allowed = f"{width}, as many as there are pooled features, for model.encoder.linear"
            yield Broken("model.z_size", f"{allowed} = False", str(width))


def pooled_size(values: Values) -> int:
    """Pooled features of the encoder."""
    variant, multiplier = values["model.encoder.variant"], values["model.encoder.width_multiplier"]
    if variant == "wide_resnet":
        return round(128 * multiplier)
    deep = 4 if variant in ("resnet50", "resnet101") else 1
    stages = [2**stage * max(1, round(64 * multiplier)) * deep for stage in range(4)]
    if values["model.encoder.features"]:
        stages[3] = values["model.encoder.features"]
    width = sum(stages) if values["model.encoder.pooling"] == "stages" else stages[3]
    return width * values["model.encoder.moments"]


def _cameras(values: Values) -> Iterator[Broken]:
    encoding, source = values["cameras.encoding"], values["data.source"]
    if encoding == "none":
        if values["cameras.mirror_prob"]:
            yield Broken("cameras.mirror_prob", "0.0 for cameras.encoding = 'none'", "0.0")
        return
    if source not in POSED_SOURCES:
        allowed = f"'none' for data.source = {source!r}; {', '.join(POSED_SOURCES)} have cameras"
        yield Broken("cameras.encoding", allowed, "'none'")
    if values["data.max_unreadable"]:
        allowed = "0 where there are cameras: the next picture has another one"
        yield Broken("data.max_unreadable", allowed, "0")
    for view in ("views.source", "views.target"):
        for key in ("crop_prob", "shift", "flip_prob", "edm_prob", "randaugment_prob"):
            none = 0 if key == "shift" else 0.0
            if values[f"{view}.{key}"]:
                allowed = f"{none} for cameras.encoding = {encoding!r}: it would move the rays"
                yield Broken(f"{view}.{key}", allowed, str(none))
    frame = values["cameras.frame"]
    if frame != "source":
        drawn = {
            "train.sample_every": values["train.sample_every"],
            "train.frechet_images": values["train.probe_every"] and values["train.frechet_images"],
        }
        for key, every in drawn.items():
            if every:
                allowed = (
                    f"0 for cameras.frame = {frame!r}: a picture alone doesn't say where it was"
                )
                yield Broken(key, allowed, "0")


def _accumulate(values: Values) -> Iterator[Broken]:
    batch_size, accumulate = values["train.batch_size"], values["optimizer.accumulate"]
    if batch_size % accumulate:
        nearest = _divisors_near(batch_size, accumulate)
        yield Broken("optimizer.accumulate", f"divides train.batch_size = {batch_size}", nearest)


def _target_size(values: Values) -> Iterator[Broken]:
    multipliers, size = values["model.denoiser.multipliers"], values["views.target.size"]
    patch = values["model.denoiser.patch"]
    factor = patch * 2 ** (len(multipliers) - 1)
    if size % factor:
        patches = f" and patch = {patch}" if patch > 1 else ""
        allowed = f"a multiple of {factor}, for model.denoiser.multipliers = {multipliers}{patches}"
        yield Broken("views.target.size", allowed, _multiples_near(factor, size))


def _attention(values: Values) -> Iterator[Broken]:
    if values["model.denoiser.attention_kernel"] == "cudnn":
        yield from _cudnn(values)
    if _is_ncsnpp(values):
        return
    multipliers = values["model.denoiser.multipliers"]
    last, attending = len(multipliers) - 1, []
    for key in ("model.denoiser.attention_levels", "model.denoiser.cross_attention_levels"):
        levels = values[key]
        inside = tuple(level for level in levels if level <= last)
        if inside != levels:
            allowed = f"levels from 0 to {last}, for model.denoiser.multipliers = {multipliers}"
            yield Broken(key, allowed, str(inside or (last,)))
        attending += [(f"level {level}", multipliers[level]) for level in inside]
    if values["model.denoiser.mid_attention"]:
        attending.append(("the middle (model.denoiser.mid_attention)", multipliers[-1]))
    head_size = values["model.denoiser.head_size"]
    for place, multiplier in attending:
        channels = values["model.denoiser.width"] * multiplier
        if channels % head_size:
            allowed = f"divides the {channels} channels of {place}"
            nearest = _divisors_near(channels, head_size)
            yield Broken("model.denoiser.head_size", allowed, nearest)
            return


def _cudnn(values: Values) -> Iterator[Broken]:
    kernel, head_size = "model.denoiser.attention_kernel", values["model.denoiser.head_size"]
    if _is_ncsnpp(values):
        yield Broken(kernel, "'xla' for model.denoiser.variant = 'ncsnpp'", "'xla'")
    elif values["model.dtype"] != "bfloat16":
        yield Broken(kernel, f"'xla' for model.dtype = {values['model.dtype']!r}", "'xla'")
    elif head_size % 8 or head_size > 128:
        allowed = (
            f"'xla' for model.denoiser.head_size = {head_size}: cuDNN has multiples of 8 to 128"
        )
        yield Broken(kernel, allowed, "'xla'")


def _sections(values: Values) -> Iterator[Broken]:
    if values["model.encoder.variant"] == "none":
        if values["probe.features"] != ("block",):
            allowed = "('block',) where there is no encoder"
            yield Broken("probe.features", allowed, "('block',)")
        for key, none in (
            ("sample.guidance_scale", 0.0),
            ("train.mixup", False),
            ("model.bottleneck.penalty", "none"),
        ):
            if values[key] != none:
                yield Broken(key, f"{none!r} where there is no encoder: no z for it", repr(none))
        return
    count = num_sections(values)
    if values["model.z_size"] < count:
        allowed = f"at least {count}, for that many sections: levels x (num_blocks + 1) + 1"
        yield Broken("model.z_size", allowed, str(count))
    inside = tuple(section for section in values["sample.sections"] if section < count)
    if inside != values["sample.sections"]:
        allowed = f"sections from 0 to {count - 1}, or () for all"
        yield Broken("sample.sections", allowed, str(inside))


def _mesh(values: Values) -> Iterator[Broken]:
    data, fsdp = values["mesh.data"], values["mesh.fsdp"]
    if data == 0:
        yield Broken("mesh.data", "at least 1, or -1 for all devices that mesh.fsdp leaves", "-1")
        return
    accumulate, batch_size = values["optimizer.accumulate"], values["train.batch_size"]
    factor = max(data, 1) * fsdp * accumulate
    if batch_size % accumulate == 0 and batch_size % factor:
        mesh = f"mesh.data = {data} x mesh.fsdp = {fsdp}" if data > 0 else f"mesh.fsdp = {fsdp}"
        parts = f" x optimizer.accumulate = {accumulate}" if accumulate > 1 else ""
        allowed = f"a multiple of {mesh}{parts}"
        yield Broken("train.batch_size", allowed, _multiples_near(factor, batch_size))


def _eta(values: Values) -> Iterator[Broken]:
    sampler = values["sample.sampler"]
    if values["sample.eta"] > 0 and sampler != "ddim":
        allowed = f"0.0 for sample.sampler = {sampler!r}, as only ddim adds noise"
        yield Broken("sample.eta", allowed, "0.0")
