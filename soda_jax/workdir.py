"""The workdir: found to be writable, and nobody else's, before anything is compiled; its files."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
import sys
from collections.abc import Iterator
from typing import Any


class WorkdirError(OSError):
    """The workdir can't be used; str() is one line with the path and the reason in words."""


def prepare_workdir(path: str) -> str:
    """Creates the workdir and shows that files can be made in it.

    A probe file is written, flushed to the disk, renamed and deleted. Its name holds host and
    process, so that all processes of a run may do this at once. Returns the absolute path.

    Raises:
      WorkdirError: it can't be created or written.
    """
    folder = _absolute(path)
    try:
        os.makedirs(folder, exist_ok=True)
        _write_probe(os.path.join(folder, f".probe-{socket.gethostname()}-{os.getpid()}"))
    except OSError as error:
        raise _refusal(folder, error) from None
    return folder


@contextlib.contextmanager
def owned_workdir(folder: str) -> Iterator[None]:
    """Nobody else trains in this workdir until the block ends, or the process does.

    A file .lock is locked and says who holds it, as far as the file system's locks reach: some
    mounts keep them to one host. Where there are none it goes on without, and says so.

    Raises:
      WorkdirError: another process has it.
    """
    try:
        file = open(os.path.join(folder, ".lock"), "a+", encoding="utf-8")
    except OSError as error:
        raise _refusal(folder, error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise WorkdirError(
                f"workdir {folder}: {owner} trains in it; choose another, or wait for its end"
            ) from None
        except OSError as error:
            print(f"soda_jax: {folder} can't be locked: {error.strerror}", file=sys.stderr)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {now},")
        file.flush()
        yield
        file.truncate(0)


def existing_workdir(path: str) -> str:
    """The absolute path of a workdir that is only read.

    Raises:
      WorkdirError: it isn't a folder that can be listed.
    """
    folder = _absolute(path)
    try:
        os.listdir(folder)
    except OSError as error:
        raise _refusal(folder, error) from None
    return folder


def results_folder(workdir: str, *names: str) -> pathlib.Path:
    """A folder in a workdir for results, made before they are worked for.

    Raises:
      WorkdirError: it can't be made or written.
    """
    return pathlib.Path(prepare_workdir(os.path.join(workdir, *names)))


def write_whole(path: str | os.PathLike, text: str) -> None:
    """Writes a file whole or not at all, over what was there."""
    part = f"{path}.part-{socket.gethostname()}-{os.getpid()}"
    try:
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        if os.path.lexists(part):
            os.remove(part)


def write_json(path: str | os.PathLike, values: Any) -> None:
    """`write_whole` of values that JSON can hold."""
    write_whole(path, json.dumps(values, indent=1) + "\n")


def _absolute(path: str) -> str:
    if not path:
        raise WorkdirError("workdir: the path is empty")
    if "://" in path:
        raise WorkdirError(f"workdir {path}: must be a folder; mount the bucket as one")
    return os.path.abspath(os.path.expanduser(path))


def _write_probe(probe: str) -> None:
    renamed = f"{probe}.renamed"
    try:
        with open(probe, "xb") as file:
            file.write(bytes(4096))  # whole blocks, so that a full disk shows here
            file.flush()
            os.fsync(file.fileno())
        os.rename(probe, renamed)
    finally:
        for name in (probe, renamed):
            if os.path.lexists(name):
                os.remove(name)


def _refusal(folder: str, error: OSError) -> WorkdirError:
    code = errno.errorcode.get(error.errno, str(error.errno))
    blocker = folder
    while not os.path.lexists(blocker):
        blocker = os.path.dirname(blocker)
    file = f"; {blocker} is a file" if os.path.isfile(blocker) else ""
    return WorkdirError(f"workdir {folder}: {error.strerror} ({code}){file}")
