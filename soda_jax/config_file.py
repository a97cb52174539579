"""Runs a config file, and says in one line where and why it can't be."""

import importlib
import importlib.machinery
import importlib.util
import inspect
import pathlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ml_collections

from soda_jax.config_kinds import resembling

CLONE = pathlib.Path(__file__).absolute().parents[1]


class ConfigError(ValueError):
    """A config that can't be used: one line for each of its `problems`."""

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def run_config_file(file: str, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """What get_config(*arguments) of a Python file returns, as plain nested dicts.

    While the file runs, the folder above its own is importable, whatever the cwd is, and so are the
    `configs` of the cwd or of the clone that soda_jax runs from, unless there are others.

    Raises:
      ConfigError: there is no such file, it breaks, or it returns no ConfigDict.
    """
    path = pathlib.Path(file).absolute()
    if not path.is_file() and (CLONE / file).is_file():
        path = CLONE / file
    if not path.is_file():
        raise ConfigError(_missing_file(file, path))
    try:
        with _importable(path.parent):
            get_config = getattr(_run(path), "get_config", None)
            if not callable(get_config):
                raise ConfigError(f"{file}: it has no function get_config()")
            try:
                inspect.signature(get_config).bind(*arguments)
            except TypeError as error:
                raise ConfigError(_wrong_arguments(file, get_config, arguments, error)) from None
            config = get_config(*arguments)
            if not isinstance(config, ml_collections.ConfigDict):
                kind = type(config).__name__
                raise ConfigError(f"{file}: get_config() returns {kind}, not a ConfigDict")
            return config.to_dict()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(_crash(file, path, error)) from None


def _run(path: pathlib.Path) -> Any:
    loader = importlib.machinery.SourceFileLoader("soda_jax_given_config", str(path))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader(loader.name, loader, origin=str(path))
    )
    loader.exec_module(module)
    return module


@contextmanager
def _importable(folder: pathlib.Path) -> Iterator[None]:
    """Lets a config import its neighbours (`from configs import base`), whatever the cwd is.

    Packages of the same name that were imported before are put aside, and come back after.
    """

    def same_name() -> dict[str, Any]:
        names = (folder.name, "configs")
        return {n: m for n, m in sys.modules.items() if n.partition(".")[0] in names}

    aside, path = same_name(), list(sys.path)
    for name in aside:
        del sys.modules[name]
    sys.path.insert(0, str(folder.parent))
    sys.path += [str(home) for home in (pathlib.Path.cwd(), CLONE) if (home / "configs").is_dir()]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = path
        for name in same_name():
            del sys.modules[name]
        sys.modules.update(aside)


def _wrong_arguments(file: str, get_config: Any, arguments: Sequence[str], error: TypeError) -> str:
    given = ":".join([file, *arguments])
    names = list(inspect.signature(get_config).parameters)
    takes = f"takes {', '.join(names)}: {file}:{names[0].upper()}" if names else "takes nothing"
    return f"{given}: {error}; get_config {takes}"


def _missing_file(file: str, path: pathlib.Path) -> str:
    if path.is_dir():
        return f"{file}: a folder; a config is a Python file in it"
    if not path.parent.is_dir():
        clone = "; the configs are in the clone: run from there" if file[:8] == "configs/" else ""
        return f"{file}: no such file, and no folder {path.parent}{clone}"
    if (path.parent / "configs" / f"{path.stem}.py").is_file():
        return f"{file}: no such file (nearest: configs/{path.stem}.py)"
    names = {str(pathlib.Path(file).with_name(f.name)) for f in path.parent.glob("[!_]*.py")}
    near = resembling(file, sorted(names), 3)
    hint = f"nearest: {', '.join(near)}" if near else f"there: {', '.join(sorted(names)) or 'none'}"
    return f"{file}: no such file ({hint})"


def _crash(file: str, path: pathlib.Path, error: Exception) -> str:
    """Where in the user's own files a config broke, and why, in one line."""
    if isinstance(error, SyntaxError) and error.filename:
        name, line, reason = error.filename, error.lineno, error.msg
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if pathlib.Path(f.filename).is_relative_to(path.parent)]
        name, line = (own[-1].filename, own[-1].lineno) if own else (str(path), 0)
        reason = " ".join(str(error).split())[:300]
    shown = file if pathlib.Path(name) == path else name
    return f"{shown}, line {line}: {type(error).__name__}: {reason}"
