"""The pretraining loop: `python -m soda_jax pretrain`."""

import contextlib
import io
import math
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import ml_collections

from soda_jax import config_schema, experiment
from soda_jax.array_types import Array
from soda_jax.data.sources import Source
from soda_jax.experiment import Experiment
from soda_jax.observers import make_observers
from soda_jax.training import metrics
from soda_jax.training.checkpoint import Checkpointer
from soda_jax.training.progress import Profile, Progress
from soda_jax.training.state import TrainState
from soda_jax.workdir import prepare_workdir


class NonFiniteLossError(RuntimeError):
    """The loss became infinite or NaN; nothing was saved since."""


def pretrain(config: ml_collections.ConfigDict, workdir: str, dry_run: bool = False) -> None:
    """Trains until config.train.num_steps; resumes from the newest checkpoint in workdir.

    Every step is a function of (config, seed, step): an interrupted run that is started again ends
    in the same bits, and in the same metrics.jsonl, as one that was never interrupted.
    """
    parts = experiment.build(config)
    if dry_run:
        print(summary(parts))
        return
    workdir = prepare_workdir(workdir)
    train_source = experiment.open_data(parts, "train")
    test_source = experiment.open_data(parts, "test")
    config_schema.remember(config, workdir)
    with contextlib.ExitStack() as stack:
        checkpointer = stack.enter_context(
            Checkpointer(
                workdir,
                keep=config.train.checkpoints_to_keep,
                asynchronous=config.train.checkpoint_async,
            )
        )
        start = checkpointer.latest_step() or 0
        # First of all the pictures: one that can't be read shows before anything is compiled.
        batches = stack.enter_context(experiment.open_batches(parts, train_source, start))
        if start:
            state, run = checkpointer.restore(experiment.abstract_state(parts), start)
            check_data(run, train_source)
            window = metrics.Window(**run["window"])
        else:
            state, window = experiment.init_state(parts), metrics.Window()
        writer = stack.enter_context(metrics.Writer(workdir, resume_step=start))
        announce(parts, train_source, start, state)
        if not jax.process_index():
            table = metrics.parameter_table(state.params)
            pathlib.Path(workdir, "parameters.txt").write_text(table + "\n")
        observers = make_observers(parts, writer, train_source, test_source)
        profile = Profile(workdir, start + 10, config.train.profile_steps)
        record = {"data": train_source.fingerprint}
        run_steps(parts, state, window, batches, observers, checkpointer, writer, profile, record)


def run_steps(
    parts: Experiment,
    state: TrainState,
    window: metrics.Window,
    batches: Iterator[Array],
    observers: Sequence[tuple[int, Callable[[int, TrainState], None]]],
    checkpointer: Checkpointer,
    writer: metrics.Writer,
    profile: Profile,
    run: dict[str, Any],
) -> TrainState:
    """The loop itself: the host reads the metrics of step n - 1 while step n runs.

    What a step gives is written before its checkpoint, so that a resumed run writes no line twice.
    """
    config = parts.config.train
    step_fn = parts.step(experiment.train_step)
    quiet = io.StringIO() if jax.process_index() else None
    progress = Progress(config.num_steps, config.batch_size, quiet)
    pending = metrics.Pending()

    def record(finished) -> None:
        if finished is None:
            return
        step, values = finished
        if not math.isfinite(values["loss"]):
            raise NonFiniteLossError(
                f"the loss of step {step} is {values['loss']}; the newest checkpoint is of step "
                f"{checkpointer.latest_step()}. Lower config.optimizer.learning_rate or clip_norm"
            )
        window.add(values)
        if step % config.log_every == 0 or step == config.num_steps:
            writer.scalars(step, window.take())
            writer.timing(step, progress.rates(step))
        progress.update(step, values)

    for step in range(int(state.step) + 1, config.num_steps + 1):
        profile.step(step, state)
        state, step_metrics = step_fn(state, next(batches))
        record(pending.exchange(step, step_metrics))
        last = step == config.num_steps
        due = [observe for every, observe in observers if every and (step % every == 0 or last)]
        save = last or step % config.checkpoint_every == 0
        if due or save:
            record(pending.flush())
        with progress.paused():
            for observe in due:
                observe(step, state)
            if save:
                writer.flush()
                checkpointer.save(step, state, run | {"window": window.to_json()})
    checkpointer.wait()
    progress.close()
    profile.close()
    return state


def check_data(run: dict, source: Source) -> None:
    """Refuses to go on with other pictures than the run began with."""
    if run["data"] != source.fingerprint:
        raise config_schema.ConfigError(
            "the pictures are not those that this run began with: fingerprint "
            f"{source.fingerprint}, saved {run['data']}; restore them, or choose another --workdir"
        )


def announce(parts: Experiment, source: Source, start: int, state: TrainState) -> None:
    if jax.process_index():
        return
    kind = jax.devices()[0].device_kind
    counts = {name: metrics.count(tree) / 1e6 for name, tree in state.params.items()}
    print(
        f"{parts.config.name}: {len(source)} pictures; "
        + ", ".join(f"{name} {count:.2f} M" for name, count in counts.items())
        + f" parameters; {jax.device_count()} x {kind}; "
        + (f"resuming from step {start}" if start else "starting at step 0; compiling"),
        file=sys.stderr,
    )


def summary(parts: Experiment) -> str:
    """What a run would be: the config, parameters, FLOPs a picture, memory a device."""
    state = experiment.abstract_state(parts)
    compiled = experiment.train_step(parts).lower(state, experiment.abstract_batch(parts)).compile()
    memory = compiled.memory_analysis()
    mebibytes = (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**20
    return "\n".join(
        [
            config_schema.to_json(parts.config),
            metrics.parameter_table(state.params),
            f"{parts.num_sections} sections of z",
            f"{metrics.count(state.params) / 1e6:.2f} M parameters",
            f"{experiment.flops_per_image(parts) / 1e9:.3f} GFLOP a picture and training step",
            f"{mebibytes:.0f} MiB a device for state, batch and activations, on "
            f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        ]
    )
