"""Rules between config fields: sizes that must fit each other, and what one choice asks of another.

They read a flat dict, {"train.batch_size": 256, ...}, whose values config_fields has accepted.
"""

from collections.abc import Iterator

from soda_jax.config_fields import POSED_SOURCES
from soda_jax.config_model_rules import (
    NETWORK_RULES,
    Broken,
    Values,
    divisors_near,
    is_ncsnpp,
    multiples_near,
)

# Penalties that compare the codes of a picture's two pairs.
OF_TWO_CODES = ("barlow", "bootstrap")

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
        _data, _colours, _crops, _ascending, _shared, _several, _located, _cameras,
        *NETWORK_RULES, _law, _accumulate, _mesh, _eta,
    )  # fmt: skip
    return [
        f"{broken.key} = {values[broken.key]!r}: {broken.allowed}"
        + (f" (nearest: {broken.nearest})" if broken.nearest else "")
        for rule in rules
        for broken in rule(values)
    ]


def _data(values: Values) -> Iterator[Broken]:
    source = values["data.source"]
    if source == "tfds" and not values["data.name"]:
        yield Broken("data.name", "data.source = 'tfds' needs a data set's name, such as 'cifar10'")
    if source not in ("digits", "tfds", "scenes") and not values["data.path"]:
        where = f"; {WHERE[source]}" if source in WHERE else ""
        yield Broken("data.path", f"data.source = {source!r} needs the path of its pictures{where}")
    if source in ("digits", "scenes") and values["data.path"]:
        yield Broken("data.path", f"'' for data.source = {source!r}, which reads no files", "''")
    if source != "tfds" and values["data.name"]:
        yield Broken("data.name", f"'' for data.source = {source!r}; a name is for 'tfds'", "''")
    if source == "scenes" and values["data.channels"] != 3:
        yield Broken("data.channels", "3 for data.source = 'scenes', which are in colour", "3")


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
    if values["views.target.whole_size"]:
        allowed = "0: the denoiser knows views.target.size alone"
        yield Broken("views.target.whole_size", allowed, "0")
    if values["cameras.encoding"] != "none" and values["views.source.whole_size"]:
        allowed = "0 where there are cameras: rays are drawn for views.source.size"
        yield Broken("views.source.whole_size", allowed, "0")
    if values["views.source.edm_prob"]:
        yield Broken("views.source.edm_prob", "0.0: it is for what is denoised", "0.0")
    if values["views.target.edm_prob"] and is_ncsnpp(values):
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
        if name not in ("size", "whole_size", "noise", "mean", "std") and values[key] != other:
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
    penalty = values["model.bottleneck.penalty"]
    if penalty not in OF_TWO_CODES or encoder == "none":  # refused elsewhere
        return
    for where in hindrances:
        yield Broken("model.bottleneck.penalty", f"another where {where}", "'none'")
    if not hindrances and values["views.pairs"] != 2:
        allowed = (
            f"2 for model.bottleneck.penalty = {penalty!r}, which compares a picture's two codes"
        )
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
        (is_ncsnpp(values), "model.denoiser.variant = 'ncsnpp', which can't be told of it"),
    ):
        if holds:
            yield Broken("views.located", f"False where {where}", "False")
    for view in ("views.source", "views.target"):
        for key in ("shift", "edm_prob", "randaugment_prob"):
            none = 0 if key == "shift" else 0.0
            if values[f"{view}.{key}"]:
                allowed = f"{none} for views.located, which knows of crops and mirrors alone"
                yield Broken(f"{view}.{key}", allowed, str(none))


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
    if frame != "source" and "block" in values["probe.features"]:
        allowed = f"without 'block' for cameras.frame = {frame!r}: it is read of pictures alone"
        yield Broken("probe.features", allowed, "('z', 'pooled')")
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


def _law(values: Values) -> Iterator[Broken]:
    law, schedule = values["diffusion.law"], values["diffusion.schedule"]
    if law == "uniform_sigma" and schedule != "variance_exploding":
        allowed = f"'uniform' or 'single' for diffusion.schedule = {schedule!r}"
        yield Broken("diffusion.law", allowed, "'uniform'")
    if law != "uniform" and values["diffusion.shift"] != 1:
        yield Broken("diffusion.shift", f"1.0 for diffusion.law = {law!r}", "1.0")
    if values["diffusion.pure_noise"] and values["diffusion.prediction"] == "epsilon":
        allowed = "0.0 for diffusion.prediction = 'epsilon': x_t is epsilon there, nothing to learn"
        yield Broken("diffusion.pure_noise", allowed, "0.0")
    t_min = values["diffusion.t_min"]
    if law == "single" and values["diffusion.single_t"] < t_min:
        yield Broken("diffusion.single_t", f"at least diffusion.t_min = {t_min}", str(t_min))


def _accumulate(values: Values) -> Iterator[Broken]:
    batch_size, accumulate = values["train.batch_size"], values["optimizer.accumulate"]
    if batch_size % accumulate:
        nearest = divisors_near(batch_size, accumulate)
        yield Broken("optimizer.accumulate", f"divides train.batch_size = {batch_size}", nearest)
    compared = {
        "model.encoder.code_norm": values["model.encoder.code_norm"] == "batch",
        "model.bottleneck.penalty": values["model.bottleneck.penalty"] in OF_TWO_CODES,
    }
    for key, is_so in compared.items():
        if is_so and batch_size // accumulate < 2:
            allowed = f"2 or more pictures in each part of a batch for {key} = {values[key]!r}"
            yield Broken("train.batch_size", allowed, str(2 * accumulate))


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
        yield Broken("train.batch_size", allowed, multiples_near(factor, batch_size))


def _eta(values: Values) -> Iterator[Broken]:
    sampler = values["sample.sampler"]
    if values["sample.eta"] > 0 and sampler != "ddim":
        allowed = f"0.0 for sample.sampler = {sampler!r}, as only ddim adds noise"
        yield Broken("sample.eta", allowed, "0.0")
