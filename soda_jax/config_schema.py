"""The one door for configs: loads a file, applies overrides, checks everything; chooses nothing.

It imports no JAX, so a wrong config costs a second and touches neither devices nor the workdir.
"""

import ast
import json
import os
import pathlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from soda_jax.config_fields import FIELDS, LATER_FIELDS
from soda_jax.config_file import ConfigError, run_config_file
from soda_jax.config_kinds import Choice, Number, Several, Text, resembling
from soda_jax.config_rules import broken_rules

PREFIX = "--config."

# A run that is resumed may change these: they don't enter what its steps compute.
CHANGEABLE = (
    "name",
    "data.path",
    "data.placement",
    "data.device_megabytes",
    "data.prefetch",
    "data.max_unreadable",
    "train.max_skipped",
    "train.stall_seconds",
    "cameras.fusion",
    "train.num_steps",  # unless the learning rate decays towards it
    "train.log_every",
    "train.checkpoint_every",
    "train.checkpoints_to_keep",
    "train.checkpoint_async",
    "train.diagnose_every",
    "train.probe_every",
    "train.probe_examples",
    "train.frechet_images",
    "train.sample_every",
    "train.remat",
    "train.profile_steps",
    *(
        key
        for key in FIELDS
        if key.startswith(
            ("mesh.", "probe.", "sample.", "evaluate.", "apply.", "explore.", "novel_views.")
        )
    ),
)
# What a checkpoint holds is a function only together with these: it is never read under others.
_AT_USE = (  # how it is computed, trained or asked, not what it is
    "model.dtype", "model.encoder.t", "model.bottleneck.penalty_weight",
    "model.bottleneck.section_drop_rate", "model.bottleneck.latent_drop_rate",
    "model.denoiser.attention_kernel", "model.denoiser.dropout", "model.denoiser.zero_init",
    "cameras.max_sources", "cameras.targets", "cameras.fusion", "cameras.mirror_prob",
    "cameras.field_of_view",
)  # fmt: skip
MODEL = (
    "diffusion.schedule",
    "diffusion.prediction",
    "diffusion.t_min",
    "data.channels",
    "views.located",
    *(f"views.{side}.{name}" for side in ("source", "target") for name in ("mean", "std")),
    *(key for key in FIELDS if key.startswith(("model.", "cameras.")) and key not in _AT_USE),
)


def load(path: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """Loads `configs/x.py`, or `configs/x.py:argument` for get_config(argument), and checks it.

    Args:
      path: a Python file with get_config(); while it runs, the folder above its own is importable.
      overrides: words such as "--config.train.batch_size=64" and "--config.sample.sections=(0,1)".

    Returns:
      A locked config that has every field of the table, each with a value that is allowed.

    Raises:
      ConfigError: with one line for each problem.
    """
    file, has_argument, argument = str(path).partition(".py:")
    file = f"{file}.py" if has_argument else file
    return _checked(flatten(run_config_file(file, [argument] if has_argument else [])), overrides)


def remember(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Saves the config of a run in its workdir; a run that is resumed keeps to what it began with.

    All processes of a run may call this at once: they write the same bytes, and never a part.

    Raises:
      ConfigError: workdir has a run under another config, with a line for each difference that
        changes what its steps compute.
    """
    path = pathlib.Path(workdir) / "config.json"
    if path.exists():
        saved = recall(workdir)
        free = set(CHANGEABLE)
        if config.optimizer.decay != "constant":
            free.remove("train.num_steps")
        found = [line for line in differences(saved, config) if line.split(":")[0] not in free]
        if found:
            if any(line.startswith("train.num_steps:") for line in found):
                decay = f"optimizer.decay = {config.optimizer.decay!r}"
                found.append(f"{decay}: the rate falls towards the last step, so that must stay")
            advice = f"{workdir} holds a run with another config: choose another --workdir"
            raise ConfigError(*found, advice)
    part = path.with_name(f".config-{socket.gethostname()}-{os.getpid()}")
    with open(part, "w", encoding="utf-8") as file:
        file.write(to_json(config))
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def recall(workdir: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """The config that `remember` saved, with overrides on top, checked as by `load`.

    A run that an older version began lacks the fields that came later: LATER_FIELDS has them.

    Raises:
      FileNotFoundError: workdir holds no run.
      ConfigError: with one line for each problem.
    """
    path = pathlib.Path(workdir) / "config.json"
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"workdir {workdir}: no run is there, as it has no {path.name}; pretrain writes it"
        ) from None
    try:
        saved = flatten(from_json(text))
        # What cameras.frame was called before there were three of them.
        if (relative := saved.pop("cameras.relative", None)) is not None:
            saved.setdefault("cameras.frame", "source" if relative else "world")
        values = LATER_FIELDS | saved
        config = _checked(values, ())
    except ConfigError as error:
        raise ConfigError(*(f"{path}: {problem}" for problem in error.problems)) from None
    return _checked(values, overrides) if overrides else config


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks a config against the table of fields, then against the rules between them.

    Raises:
      ConfigError: with a line `key = value: what is allowed (nearest: ...)` for each problem.
    """
    found = _problems(flatten(config))
    if found:
        raise ConfigError(*found)


def to_json(config: ml_collections.ConfigDict) -> str:
    """A config as text that people can read; from_json gives back an equal one."""
    return json.dumps(nested(flatten(config)), indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> ml_collections.ConfigDict:
    """The locked config of to_json: JSON has no tuples, so the table says where they belong.

    Raises:
      ConfigError: the text isn't a JSON object. Its values are not checked: see `validate`.
    """
    try:
        saved = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"not a saved config: {error}") from None
    if not isinstance(saved, dict):
        raise ConfigError(f"not a saved config: {_short(saved)} where an object was expected")
    return ml_collections.ConfigDict(nested(flatten(saved))).lock()


def differences(saved: ml_collections.ConfigDict, given: ml_collections.ConfigDict) -> list[str]:
    """One line for each field that differs: "train.batch_size: saved 256, given 512"."""
    saved, given = flatten(saved), flatten(given)

    def shown(values: dict[str, Any], key: str) -> str:
        return _short(values[key]) if key in values else "nothing"

    return [
        f"{key}: saved {shown(saved, key)}, given {shown(given, key)}"
        for key in dict.fromkeys([*saved, *given])
        if key not in saved or key not in given or saved[key] != given[key]
    ]


def flatten(config: Mapping[str, Any] | ml_collections.ConfigDict) -> dict[str, Any]:
    """{"train.batch_size": 256, ...} in the table's order, unknown keys last.

    Lists become tuples, and ints floats, where the table says so.
    """

    def leaves(section: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in section.items():
            key = f"{prefix}{name}"
            if isinstance(value, Mapping | ml_collections.ConfigDict):
                yield from leaves(value, f"{key}.")
            else:
                yield key, _normal(value, FIELDS.get(key))

    values = dict(leaves(config, ""))
    known = {key: values[key] for key in FIELDS if key in values}
    return known | values


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"train": {"batch_size": 256, ...}, ...} of a flat dict."""
    outer = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        inner = outer
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    return outer


def _normal(value: Any, kind: Any) -> Any:
    if isinstance(kind, Several) and isinstance(value, list | tuple):
        return tuple(_normal(part, kind.part) for part in value)
    if isinstance(kind, Number) and kind.type is float and type(value) is int:
        return float(value) if abs(value) < 2**53 else value
    return value


def _checked(values: dict[str, Any], overrides: Sequence[str]) -> ml_collections.ConfigDict:
    for word in overrides:
        key, has_value, text = word.removeprefix(PREFIX).partition("=")
        if not word.startswith(PREFIX) or not has_value:
            raise ConfigError(f"{word}: an override is one word, --config.KEY=VALUE")
        values[key] = _normal(_parse(text, FIELDS.get(key)), FIELDS.get(key))
    found = _problems(values)
    if found:
        raise ConfigError(*found)
    return ml_collections.ConfigDict(nested(values)).lock()


def _parse(text: str, kind: Any) -> Any:
    """What an override's text stands for: a Python literal, or else the text itself."""
    holds_text = isinstance(kind, Choice) and isinstance(kind.values[0], str)
    if holds_text or isinstance(kind, Text):
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _problems(values: Mapping[str, Any]) -> list[str]:
    found = []
    for key in values:
        children = _children(key)
        if children:
            found.append(f"{key} = {_short(values[key])}: a section; it has {', '.join(children)}")
        elif key not in FIELDS:
            found.append(_unknown(key))
    for key, kind in FIELDS.items():
        if key in values and not kind.accepts(values[key]):
            closest = kind.closest(values[key])
            hint = "" if closest is None else f" (nearest: {closest!r})"
            found.append(f"{key} = {_short(values[key])}: {kind.allowed()}{hint}")
        elif key not in values and not any(key.startswith(f"{other}.") for other in values):
            found.append(f"{key}: missing; {kind.allowed()}; configs/base.py has every field")
    return found or broken_rules(values)


def _unknown(key: str) -> str:
    parent = key.rpartition(".")[0]
    siblings = _children(parent) if parent else []
    words = resembling(key, FIELDS, count=1 if siblings else 3)
    hint = f" (nearest: {', '.join(words)})" if words else ""
    beside = f"; {parent} has {', '.join(siblings)}" if siblings else ""
    return f"{key}: unknown key{hint}{beside}"


def _children(section: str) -> list[str]:
    """The names right under a section, in the table's order."""
    inside = [key[len(section) + 1 :] for key in FIELDS if key.startswith(f"{section}.")]
    return list(dict.fromkeys(name.partition(".")[0] for name in inside))


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes out no int of over 4300 digits
        return "a huge number"
    return text if len(text) <= 80 else f"{text[:77]}..."
