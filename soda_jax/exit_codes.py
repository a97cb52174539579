"""Which exit code an error ends the program with, and the line that tells of it (sysexits.h).

A launcher may start a run again after 74, 75 and signals; never after 64, 65, 73 and 78.
"""

import errno
import sys
import traceback

USAGE, DATA, INTERNAL, MEMORY, WORKDIR, IO, PREEMPTED, CONFIG = 64, 65, 70, 71, 73, 74, 75, 78
INTERRUPTED = 130

# By name, so that a wrong config needs no import of JAX.
BY_CLASS = {
    "soda_jax.exit_codes.UsageError": USAGE,
    "soda_jax.config_file.ConfigError": CONFIG,
    "soda_jax.workdir.WorkdirError": WORKDIR,
    "soda_jax.training.checkpoint_reader.CheckpointMismatch": CONFIG,
    "soda_jax.training.checkpoint.SaveError": IO,
    "soda_jax.training.integrity.CorruptCheckpoint": DATA,
    "soda_jax.training.integrity.NonFiniteStateError": INTERNAL,
    "soda_jax.pretrain.NonFiniteLossError": INTERNAL,
    "soda_jax.preemption.Interrupted": INTERRUPTED,
    "soda_jax.preemption.Preempted": PREEMPTED,
    "soda_jax.chapters.ChaptersFailed": DATA,
    "builtins.KeyboardInterrupt": INTERRUPTED,
    "builtins.MemoryError": MEMORY,
}
STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
# What JAX says where another process of the run is gone: to be started again, as it must be.
PEER_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "heartbeat timeout",
    "remote process exited",  # NCCL
    "recognize coordinator address",  # a TPU's process 0 that didn't come
)
SHOWN = 10  # problems of a config


class UsageError(ValueError):
    """A command line that can't be understood."""


def tell(error: BaseException) -> int:
    """Tells of an error on stderr, in lines `soda_jax: error: ...`, and returns the exit code.

    An error that nobody expected keeps its traceback.
    """
    code = exit_code(error)
    if code is None:
        traceback.print_exception(error)
        code = INTERNAL
    lines = getattr(error, "problems", None) or [" ".join(str(error).split())]
    if isinstance(error, KeyboardInterrupt):
        lines = ["interrupted"]
    if code == MEMORY:
        lines = [
            f"out of memory: {lines[0][:300]}; raise config.optimizer.accumulate, lower "
            "config.train.batch_size, set config.train.remat=true, config.model.dtype=bfloat16 or "
            "config.mesh.fsdp"
        ]
    for line in lines[:SHOWN]:
        print(f"soda_jax: error: {line or type(error).__name__}", file=sys.stderr)
    if len(lines) > SHOWN:
        print(f"soda_jax: error: and {len(lines) - SHOWN} more", file=sys.stderr)
    return code


def exit_code(error: BaseException) -> int | None:
    """The exit code of an expected error; None for any other."""
    for kind in type(error).__mro__:
        if (code := BY_CLASS.get(f"{kind.__module__}.{kind.__qualname__}")) is not None:
            return code
    if "RuntimeError" in type(error).__name__:
        if "RESOURCE_EXHAUSTED" in str(error):
            return MEMORY
        if any(words in str(error) for words in PEER_LOST):
            return PREEMPTED
    raised_in = _module_that_raised(error)
    if isinstance(error, ModuleNotFoundError) and error.name is None:
        return CONFIG  # our own words: the config asks for an optional package
    if isinstance(error, FileNotFoundError) and raised_in in (
        "soda_jax.config_schema",
        "soda_jax.report",
        "soda_jax.training.checkpoint_reader",
    ):
        return WORKDIR
    if isinstance(error, OSError) and error.errno in STORAGE:
        # A picture that may not be read will not be readable next time.
        denied = error.errno in (errno.EACCES, errno.EPERM)
        return DATA if denied and raised_in.startswith("soda_jax.data.") else IO
    rooms = tuple(
        f"soda_jax.{room}." for room in ("data", "evaluation", "applications", "suites", "uses")
    )
    if isinstance(error, ValueError | OSError) and raised_in.startswith(rooms):
        return DATA
    return None


def _module_that_raised(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_globals.get("__name__", "") if trace else ""
