"""Rows 4 and 22: checkpoints whose bytes were changed."""

import contextlib
import gc
import logging
import pathlib
import random
import shutil
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from soda_jax.training.checkpoint import Checkpointer
from soda_jax.training.checkpoint_reader import CheckpointReader
from tests.faults.results import Result


def make_state(seed: int) -> dict:
    """Of every kind of array that a state has."""
    keys = iter(jax.random.split(jax.random.key(seed), 8))
    params = {
        "a": jax.random.normal(next(keys), (40, 30)),
        "b": jax.random.normal(next(keys), (7,)),
    }
    return {
        "step": jnp.asarray(seed, jnp.int32),
        "params": params,
        "ema_params": jax.tree.map(lambda x: x * 0.9, params),
        "stats": jax.random.normal(next(keys), (50,)).astype(jnp.bfloat16),
    }


def flip(path: pathlib.Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def truncate(path: pathlib.Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def zero(path: pathlib.Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = draw.randrange(len(data))
    data[start : start + 512] = bytes(len(data[start : start + 512]))
    path.write_bytes(data)


def delete(path: pathlib.Path, draw: random.Random) -> None:
    path.unlink()


def swap(path: pathlib.Path, draw: random.Random) -> None:
    """With another file of the same step, or with the same file of the step before."""
    step = next(parent for parent in path.parents if parent.name == "2")
    others = [p for p in step.rglob("*") if p.is_file() and p != path]
    older = step.with_name("1") / path.relative_to(step)
    other = older if older.exists() and draw.random() < 0.5 else draw.choice(others)
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    if other != older:
        other.write_bytes(mine)


def append(path: pathlib.Path, draw: random.Random) -> None:
    with open(path, "ab") as file:
        file.write(draw.randbytes(draw.randrange(1, 600)))


CHANGES = (flip, flip, flip, truncate, zero, delete, swap, append)


def corruptions(count: int, seed: int, folder: pathlib.Path) -> Result:
    """One change to one file of the newer of two steps, and it is restored."""
    result = Result(
        "a bit flipped; a file cut, zeroed, deleted, swapped, lengthened",
        "no wrong weights: the step as it was saved, or the one before",
    )
    with quiet("absl", "asyncio"):  # they tell of each damage
        result.seen = tally(count, seed, folder, result)
        gc.collect()
    return result


def tally(count: int, seed: int, folder: pathlib.Path, result: Result) -> dict[str, int]:
    """Makes the trials; how many changes made it fall back, how many did no harm."""
    original, states = folder / "original", {step: make_state(step) for step in (1, 2)}
    with Checkpointer(original, asynchronous=False) as checkpointer:
        for step, state in states.items():
            checkpointer.save(step, state, {"note": f"of step {step}"})
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    template = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), states[1]
    )
    names = [p.relative_to(original) for p in original.rglob("*") if p.is_file()]
    names = [name for name in names if "2" in name.parts]
    draw = random.Random(seed)
    seen = {"fell back": 0, "harmless": 0}
    for trial in range(count):
        workdir = folder / "trial"
        shutil.copytree(original, workdir)
        change, name = draw.choice(CHANGES), draw.choice(names)
        if (workdir / name).stat().st_size == 0 and change is not append:
            change = delete
        change(workdir / name, draw)
        try:
            state, run = CheckpointReader(workdir).restore(template)
        except Exception as error:
            result.failures.append(f"{trial}: {change.__name__} {name}: {error!r:.200}")
        else:
            step = int(state["step"])
            same = step in states and run == {"note": f"of step {step}"}
            result.expect(
                same and jax.tree.all(jax.tree.map(equal, state, states[step])),
                f"{trial}: {change.__name__} {name}: wrong arrays",
            )
            seen["harmless" if step == 2 else "fell back"] += 1
        shutil.rmtree(workdir)
        result.trials += 1
    return seen


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def equal(a: jax.Array, b: jax.Array) -> bool:
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()
