"""The pretraining loop: `python -m soda_jax pretrain`."""

import contextlib
import dataclasses
import io
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence

import jax
import ml_collections
import numpy as np
from absl import logging

from soda_jax import config_schema, experiment, preemption
from soda_jax.array_types import Array
from soda_jax.data import records
from soda_jax.data.sources import Source
from soda_jax.experiment import Experiment
from soda_jax.observers import make_observers
from soda_jax.training import metrics, processes
from soda_jax.training.checkpoint import Checkpointer
from soda_jax.training.progress import Profile, Progress
from soda_jax.training.state import TrainState
from soda_jax.watchdog import Watchdog
from soda_jax.workdir import WorkdirError, owned_workdir, prepare_workdir

# A step compiles first, a measure may draw hundreds of pictures: how much longer they may take.
SLOW = 6.0


class NonFiniteLossError(RuntimeError):
    """The loss or a gradient was infinite or NaN for too many steps; nothing was saved since."""


@dataclasses.dataclass
class Run:
    """What the loop works with, beside the state.

    Attributes:
      observers: (every so many steps, what is measured then).
      window: metrics since the last line of the log.
      skipped: steps in a row, up to now, whose update was not made.
      unobserved: whether the step that the run goes on from was saved before it was measured.
      fingerprint: of the pictures.
      stop: whether one of several processes was asked to stop; all learn of it at the same step.
    """

    parts: Experiment
    batches: Iterator[Array]
    observers: Sequence[tuple[int, Callable[[int, TrainState], None]]]
    checkpointer: Checkpointer
    writer: metrics.Writer
    profile: Profile
    watchdog: Watchdog
    window: metrics.Window
    skipped: int
    unobserved: bool
    fingerprint: str
    stop: bool = False

    def due(self, step: int, last: bool) -> list[Callable[[int, TrainState], None]]:
        return [run for every, run in self.observers if every and (step % every == 0 or last)]

    def record(self, step: int, values: dict[str, float], rates: dict[str, float]) -> None:
        """Counts a step's metrics, and writes a line where one is due.

        Raises:
          NonFiniteLossError: more than config.train.max_skipped steps in a row were skipped.
        """
        config = self.parts.config.train
        self.stop = bool(values.pop("stop", False))
        if values.pop("finite"):
            self.skipped = 0
            self.window.add(values)
        else:
            self.skipped += 1
            self.window.skip()
            tell(f"step {step}: the loss is {values['loss']}, or a gradient is not finite; skipped")
            if self.skipped > config.max_skipped:
                raise NonFiniteLossError(
                    f"{self.skipped} steps in a row, up to {step}, had a loss or gradient that is "
                    "not finite (config.train.max_skipped); the newest checkpoint is of step "
                    f"{self.checkpointer.latest_step()}. Lower config.optimizer.learning_rate or "
                    "clip_norm"
                )
        if step % config.log_every == 0 or step == config.num_steps:
            self.writer.scalars(step, self.window.take())
            self.writer.timing(step, rates)

    def save(self, step: int, state: TrainState, unobserved: bool = False) -> None:
        """What a step gave is written before its checkpoint, so that no line is written twice."""
        self.writer.flush()
        self.checkpointer.save(
            step,
            state,
            {
                "data": self.fingerprint,
                "window": self.window.to_json(),
                "skipped": self.skipped,
                "unobserved": unobserved,
                "metrics_size": self.writer.size,
                "versions": {"jax": jax.__version__},
            },
        )


def pretrain(config: ml_collections.ConfigDict, workdir: str, dry_run: bool = False) -> None:
    """Trains until config.train.num_steps; resumes from the newest intact checkpoint in workdir.

    Every step is a function of (config, seed, step): an interrupted run that is started again ends
    in the same bits, and in the same metrics.jsonl, as one that was never interrupted.

    Raises:
      Preempted: the machine is being taken away (`preemption.listen`); the step is saved.
    """
    parts = experiment.build(config)
    if dry_run:
        print(summary(parts))
        return
    workdir = prepare_workdir(workdir)
    with contextlib.ExitStack() as stack:
        own(workdir, stack)
        watchdog = stack.enter_context(Watchdog(config.train.stall_seconds))
        watchdog.expect(SLOW)
        train_source = experiment.open_data(parts, "train")
        test_source = experiment.open_data(parts, "test")
        config_schema.remember(config, workdir)
        checkpointer = stack.enter_context(
            Checkpointer(
                workdir,
                keep=config.train.checkpoints_to_keep,
                asynchronous=config.train.checkpoint_async,
            )
        )
        saved, start, state = {}, 0, None
        if not checkpointer.is_empty():
            state, saved = checkpointer.restore(experiment.abstract_state(parts))
            start = int(state.step)
            check_data(saved, train_source)
        # First of all the pictures: one that can't be read shows before anything is compiled.
        batches = stack.enter_context(experiment.open_batches(parts, train_source, start))
        state = state or experiment.init_state(parts)
        writer = stack.enter_context(
            metrics.Writer(workdir, resume_step=start, resume_size=saved.get("metrics_size"))
        )
        announce(parts, train_source, start, state)
        check_field_of_view(parts, train_source)
        if not jax.process_index():
            table = metrics.parameter_table(state.params)
            pathlib.Path(workdir, "parameters.txt").write_text(table + "\n")
        run = Run(
            parts=parts,
            batches=batches,
            observers=make_observers(parts, writer, train_source, test_source),
            checkpointer=checkpointer,
            writer=writer,
            profile=Profile(workdir, start + 10, config.train.profile_steps),
            watchdog=watchdog,
            window=metrics.Window(**saved.get("window", {})),
            skipped=saved.get("skipped", 0),
            unobserved=saved.get("unobserved", False),
            fingerprint=train_source.fingerprint,
        )
        run_steps(run, state)


def run_steps(run: Run, state: TrainState) -> TrainState:
    """The loop itself: the host reads the metrics of step n - 1 while step n runs."""
    config, start, several = run.parts.config.train, int(state.step), jax.process_count() > 1
    step_fn = run.parts.step(experiment.train_step)
    quiet = io.StringIO() if jax.process_index() else None
    progress = Progress(config.num_steps, config.batch_size, quiet)
    pending = metrics.Pending()

    def record(finished: tuple[int, dict[str, float]] | None) -> None:
        if finished is not None:
            step, values = finished
            run.record(step, values, progress.rates(step))
            progress.update(step, values)

    if run.unobserved:
        for observe in run.due(start, start == config.num_steps):
            observe(start, state)
    for step in range(start + 1, config.num_steps + 1):
        run.watchdog.expect(SLOW if step == start + 1 else 1.0)
        run.profile.step(step, state)
        state, step_metrics = step_fn(state, next(run.batches))
        if several:
            step_metrics["stop"] = processes.anywhere(run.parts.mesh, preemption.requested())
        record(pending.exchange(step, step_metrics))
        last = step == config.num_steps
        due, stop = run.due(step, last), run.stop if several else preemption.requested()
        save = stop or last or step % config.checkpoint_every == 0
        if not due and not save:
            continue
        record(pending.flush())
        run.watchdog.expect(SLOW)
        with progress.paused():
            for observe in due:
                if not stop:
                    observe(step, state)
            if save:
                run.save(step, state, unobserved=stop and bool(due))
            if stop or last:
                run.checkpointer.verify(step)
        if stop:
            raise preemption.stopped(step)
    progress.close()
    run.profile.close()
    return state


def own(workdir: str, stack: contextlib.ExitStack) -> None:
    """Process 0 locks the workdir; where it can't, all processes are refused."""
    refusal = None
    if not jax.process_index():
        try:
            stack.enter_context(owned_workdir(workdir))
        except WorkdirError as error:
            refusal = error
    if not processes.agree(refusal is None):
        raise refusal or WorkdirError(f"workdir {workdir}: process 0 can't have it")


def tell(line: str) -> None:
    if not jax.process_index():
        print(line, file=sys.stderr)


def check_data(run: dict, source: Source) -> None:
    """Refuses to go on with other pictures than the run began with."""
    if run["data"] != source.fingerprint:
        raise config_schema.ConfigError(
            "the pictures are not those that this run began with: fingerprint "
            f"{source.fingerprint}, saved {run['data']}; restore them, or choose another --workdir"
        )


def check_field_of_view(parts: Experiment, source: Source) -> None:
    """Warns where pictures that come without a camera would be taken to have another lens."""
    if parts.cameras is None or parts.needs_place:
        return
    focal = np.median(source.cameras(records.a_few(len(source))).intrinsics[:, 0])
    angle, told = np.degrees(2 * np.arctan(0.5 / focal)), parts.config.cameras.field_of_view
    if abs(angle - told) > 0.05 * told:
        logging.warning(
            "config.cameras.field_of_view = %.1f, but these pictures were taken at %.1f degrees; "
            "pictures that come alone (sample, apply, explore) are taken to have the former",
            told,
            angle,
        )


def announce(parts: Experiment, source: Source, start: int, state: TrainState) -> None:
    kind = jax.devices()[0].device_kind
    counts = {name: metrics.count(tree) / 1e6 for name, tree in state.params.items()}
    tell(
        f"{parts.config.name}: {len(source)} pictures; "
        + ", ".join(f"{name} {count:.2f} M" for name, count in counts.items())
        + f" parameters; {jax.device_count()} x {kind}; "
        + (f"resuming from step {start}" if start else "starting at step 0; compiling")
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
