"""Rules between the fields of the networks, and the words in which a broken rule is told."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Values = Mapping[str, Any]


class Broken(NamedTuple):
    """A broken rule: the key to change, what is allowed for it, and what comes nearest."""

    key: str
    allowed: str
    nearest: str = ""


def num_sections(values: Values) -> int:
    """m + 1: a section of z for each skip of the denoiser, and one for its middle; or one."""
    if values["model.bottleneck.sections"] == "one" or is_ncsnpp(values):
        return 1
    num_levels = len(values["model.denoiser.multipliers"])
    return num_levels * (values["model.denoiser.num_blocks"] + 1) + 1


def is_ncsnpp(values: Values) -> bool:
    return values["model.denoiser.variant"] == "ncsnpp"


def divisors_near(number: int, near: int) -> str:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    below, above = [d for d in divisors if d < near], [d for d in divisors if d > near]
    return " or ".join(str(d) for d in below[-1:] + above[:1])


def multiples_near(factor: int, near: int) -> str:
    below = near // factor * factor
    return " or ".join(str(multiple) for multiple in (below, below + factor) if multiple > 0)


def _drl_networks(values: Values) -> Iterator[Broken]:
    """What DRL's networks lack."""
    posed = values["cameras.encoding"] != "none"
    if posed and is_ncsnpp(values):
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
    if is_ncsnpp(values) and values["model.denoiser.patch"] > 1:
        yield Broken("model.denoiser.patch", "1 for model.denoiser.variant = 'ncsnpp'", "1")
    of_resnets = {
        "stem": "small", "norm": "batch", "features": 0, "pooling": "last", "moments": 1,
        "places": False,
    }  # fmt: skip
    for key, none in ((f"model.encoder.{name}", none) for name, none in of_resnets.items()):
        if values[key] != none and values["model.encoder.variant"] == "wide_resnet":
            allowed = f"{none!r} for model.encoder.variant = 'wide_resnet'"
            yield Broken(key, allowed, repr(none))


def _code(values: Values) -> Iterator[Broken]:
    """The encoder's map to z, and what is asked of z."""
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
    if values["optimizer.head_learning_rate"]:
        no_head = values["model.encoder.variant"] == "none" or not values["model.encoder.linear"]
        if no_head or not values["optimizer.encoder_learning_rate"]:
            reason = "no linear map makes z" if no_head else "the encoder's rate is 0"
            yield Broken("optimizer.head_learning_rate", f"0.0 where {reason}", "0.0")


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


def _target_size(values: Values) -> Iterator[Broken]:
    multipliers, size = values["model.denoiser.multipliers"], values["views.target.size"]
    patch = values["model.denoiser.patch"]
    factor = patch * 2 ** (len(multipliers) - 1)
    if size % factor:
        patches = f" and patch = {patch}" if patch > 1 else ""
        allowed = f"a multiple of {factor}, for model.denoiser.multipliers = {multipliers}{patches}"
        yield Broken("views.target.size", allowed, multiples_near(factor, size))


def _attention(values: Values) -> Iterator[Broken]:
    if values["model.denoiser.attention_kernel"] == "cudnn":
        yield from _cudnn(values)
    if is_ncsnpp(values):
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
            nearest = divisors_near(channels, head_size)
            yield Broken("model.denoiser.head_size", allowed, nearest)
            return


def _cudnn(values: Values) -> Iterator[Broken]:
    kernel, head_size = "model.denoiser.attention_kernel", values["model.denoiser.head_size"]
    if is_ncsnpp(values):
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


NETWORK_RULES = (_drl_networks, _code, _target_size, _attention, _sections)
