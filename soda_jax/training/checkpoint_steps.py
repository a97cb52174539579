"""Which directories under workdir/checkpoints are finished checkpoints; arrays are not read."""

import json
from collections.abc import Iterator
from typing import Any

import orbax.checkpoint as ocp
from etils import epath


def steps_by_name(directory: epath.Path) -> list[int]:
    """Steps of the directories that aren't empty, by their names alone, newest first."""
    if not directory.exists():
        return []
    paths = [path for path in directory.iterdir() if _is_step_name(path.name)]
    return sorted((int(path.name) for path in paths if _holds_something(path)), reverse=True)


def _holds_something(path: epath.Path) -> bool:
    try:
        return any(path.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False  # deleted since it was listed, or a file of that name


def is_finished(directory: epath.Path) -> bool:
    """Whether a step's directory was committed and has its parts."""
    try:
        commit = json.loads((directory / "_CHECKPOINT_METADATA").read_text())
        json.loads((directory / "state" / "_METADATA").read_text())
        json.loads((directory / "run" / "metadata").read_text())
        manifest = (directory / "state" / "manifest.ocdbt").stat().length > 0
        return manifest and commit.get("commit_timestamp_nsecs") is not None
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
        return False  # any other error says nothing about the checkpoint


class FinishedSteps:
    """Orbax's names of steps, without directories that only look like a step.

    Orbax goes by the name alone: an empty 99/ would count as the newest, push a real checkpoint
    out of those that are kept, and refuse the save of step 99.
    """

    def __init__(self) -> None:
        self._names = ocp.path.step.standard_name_format()

    def build_name(self, step: int) -> str:
        return self._names.build_name(step)

    def find_all(self, base_path: epath.PathLike) -> Iterator[Any]:
        return (found for found in self._names.find_all(base_path) if is_finished(found.path))

    def find_step(self, base_path: epath.PathLike, step: int) -> Any:
        return self._names.find_step(base_path, step)


def set_aside(directory: epath.Path) -> epath.Path:
    """Renames a damaged step to N.corrupt (or N.corrupt-2, ...), so that nothing is lost."""
    count, path = 1, directory.with_name(f"{directory.name}.corrupt")
    while path.exists():
        count += 1
        path = directory.with_name(f"{directory.name}.corrupt-{count}")
    directory.rename(path)
    return path


def _is_step_name(name: str) -> bool:
    return name.isascii() and name.isdigit() and str(int(name)) == name
