"""Several processes as one run: `jax.distributed`, only where it is asked for."""

import re

from soda_jax.exit_codes import UsageError

ALLOWED = (
    "auto (Cloud TPU, SLURM, Open MPI before 5 and, with jax[k8s], Kubernetes tell JAX "
    "themselves), mpi4py, or "
    "ADDRESS:PORT,COUNT,NUMBER: process 0's address, how many there are, which this one is"
)
MINUTES_TO_MEET = 10
HEARTBEAT_SECONDS = 30  # a process that isn't heard of for so long is dead, and ends the others


def parse(how: str) -> dict:
    """The arguments of `jax.distributed.initialize` for a word of the command line.

    Raises:
      UsageError: it is none of ALLOWED.
    """
    waiting = {"initialization_timeout": 60 * MINUTES_TO_MEET}
    if how == "auto":
        return waiting
    if how == "mpi4py":
        return waiting | {"cluster_detection_method": how}
    found = re.fullmatch(r"(\S+:\d+),(\d+),(\d+)", how)
    if found is None:
        raise UsageError(f"--distributed={how}: {ALLOWED}")
    address, count, number = found[1], int(found[2]), int(found[3])
    if not number < count:
        raise UsageError(
            f"--distributed={how}: processes are numbered from 0, so {count} have the numbers 0 to "
            f"{count - 1}, not {number}"
        )
    return waiting | {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": number,
    }


def join(how: str) -> None:
    """Waits for the other processes; from here on JAX sees the devices of all.

    Raises:
      UsageError: the word can't be understood, or nothing here says who the others are.
    """
    arguments = parse(how)
    import jax

    try:
        jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except ValueError as error:
        raise UsageError(f"--distributed={how}: {error}; {ALLOWED}") from error
    if not jax.process_index():
        print(f"{jax.process_count()} processes, {jax.device_count()} devices", flush=True)
