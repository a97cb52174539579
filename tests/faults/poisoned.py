"""Row 6: steps whose loss is NaN, or finite with gradients that are NaN."""

import contextlib
import io
import json
import pathlib
import random

import jax
import jax.numpy as jnp
import pytest

from soda_jax import experiment, pretrain
from soda_jax.config_schema import load
from soda_jax.training import integrity, step
from soda_jax.training.checkpoint_reader import CheckpointReader
from tests.faults.results import Result
from tests.faults.runs import TINY


@jax.custom_vjp
def spoil_gradient(value, bad):
    return value


spoil_gradient.defvjp(
    lambda value, bad: (value, bad), lambda bad, g: (jnp.where(bad, jnp.nan, g), None)
)


@contextlib.contextmanager
def poisoning(bad: list[int]):
    """Makes the loss NaN at these steps, counted from 1."""
    clean_step, clean_loss, steps = step.make_train_step, step.training_loss, jnp.asarray(bad)

    def make(*arguments, **options):
        train_step = clean_step(*arguments, **options)

        def poisoned_step(state, images):
            def loss(*arguments):
                value, stats = clean_loss(*arguments)
                bad = jnp.isin(state.step + 1, steps)
                # Every other one has a loss that is finite, and gradients that are not.
                of_loss = bad & (state.step % 2 == 0)
                return jnp.where(of_loss, jnp.nan, spoil_gradient(value, bad & ~of_loss)), stats

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(step, "training_loss", loss)
                return train_step(state, images)

        return poisoned_step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "make_train_step", make)
        yield


def run(
    workdir: pathlib.Path, bad: list[int], num_steps: int, *overrides: str
) -> BaseException | None:
    words = [f"--config.{word}" for word in (f"train.num_steps={num_steps}", *overrides)]
    with poisoning(bad), contextlib.redirect_stderr(io.StringIO()):
        try:
            pretrain.pretrain(load(TINY, words), str(workdir))
        except Exception as error:
            return error
    return None


def arrays(workdir: pathlib.Path, at: int | None = None) -> dict:
    """The digests of a checkpoint's arrays, read anew."""
    config = load(TINY)
    template = experiment.abstract_state(experiment.build(config))
    state, _ = CheckpointReader(workdir).restore(template, at)
    return integrity.digests(state)


def poisoned(count: int, seed: int, folder: pathlib.Path) -> Result:
    """NaN at random steps of one run, steps of a save among them; the run goes on."""
    result = Result(
        "a loss, or gradients, that are NaN",
        "the step changes nothing, no checkpoint has a NaN, resumed runs end in the same bits; "
        "more than 10 in a row end the run before a save",
    )
    draw, num_steps = random.Random(seed), 4 * count
    bad = sorted(draw.sample(range(1, num_steps + 1), count))
    error = run(folder / "whole", bad, num_steps, "train.max_skipped=1000")
    result.expect(error is None, f"ended: {error!r}")
    cut = num_steps // 2 // 5 * 5
    run(folder / "parts", bad, cut, "train.max_skipped=1000")
    run(folder / "parts", bad, num_steps, "train.max_skipped=1000")
    result.expect(
        arrays(folder / "whole") == arrays(folder / "parts"), "a resumed run has other bits"
    )
    lines = [json.loads(x) for x in (folder / "whole" / "metrics.jsonl").read_text().splitlines()]
    skipped = [line["step"] for line in lines if "skipped_steps" in line]
    result.expect(skipped == bad, f"skipped {len(skipped)} of {len(bad)}")
    result.trials += count
    # A skipped step changes nothing: steps 11 to 15, all bad, leave what the save of 10 held.
    error = run(folder / "ends", list(range(6, 30)), 30)
    before, after = arrays(folder / "ends", 10), arrays(folder / "ends", 15)
    changed = [name for name in before if before[name] != after[name]]
    result.expect(changed == ["step"], f"skipped steps changed {changed[:3]}")
    result.expect(isinstance(error, pretrain.NonFiniteLossError), f"no end: {error!r}")
    result.expect("11 steps in a row, up to 16" in str(error), str(error))
    result.expect(CheckpointReader(folder / "ends").steps()[-1] == 15, "saved after the end")
    return result
