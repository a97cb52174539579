"""A folder of results, one JSON file a chapter, and one page that shows them all.

A chapter is a module with run(...) -> values that JSON can hold, and show(values, folder) -> HTML.
"""

import html
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from soda_jax.exit_codes import exit_code
from soda_jax.page import details, whole_page
from soda_jax.workdir import results_folder, write_json, write_whole


class ChaptersFailed(ValueError):
    """Chapters that gave no result, one line each, in `problems`."""

    def __init__(self, problems: Iterable[str]):
        self.problems = list(problems)
        super().__init__("; ".join(self.problems))


def folder_of(workdir: str, kind: str, step: int, weights: str) -> pathlib.Path:
    """`place_of`, made."""
    return results_folder(str(place_of(workdir, kind, step, weights)))


def place_of(workdir: str, kind: str, step: int, weights: str) -> pathlib.Path:
    """workdir/<kind>/<step>; <step>_raw for weights that aren't averaged."""
    suffix = "" if weights == "ema" else f"_{weights}"
    return pathlib.Path(workdir, kind, f"{step:08d}{suffix}")


def run_chapters(
    chapters: Mapping[str, ModuleType], run_fn: Callable[[ModuleType], Any], folder: pathlib.Path
) -> list[str]:
    """Runs each and writes <name>.json as it ends; returns what went wrong, a line a chapter.

    One that fails for a reason that a user can mend doesn't stop the others, and leaves no file of
    an earlier run that could stand in for its result.
    """
    problems = []
    for name, chapter in chapters.items():
        print(f"{name} ...", flush=True)
        file = folder / f"{name}.json"
        file.unlink(missing_ok=True)
        try:
            found = run_fn(chapter)
        except (ValueError, OSError) as error:
            if exit_code(error) is None:
                raise
            problems.append(f"{name}: {' '.join(str(error).split())}")
            continue
        write_json(file, found)
    return problems


def write_page(
    folder: pathlib.Path, title: str, facts: str, chapters: Mapping[str, ModuleType]
) -> str:
    """Writes page.html with all the chapters whose JSON is in the folder; returns its path."""
    body = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(facts)}</p>"]
    for name, chapter in chapters.items():
        file = folder / f"{name}.json"
        if file.exists():
            text = file.read_text()
            body += chapter.show(json.loads(text), folder)
            body.append(details(f"{name}: every number and its protocol", text))
    path = folder / "page.html"
    write_whole(path, whole_page(title, body))
    print(path)
    return str(path)
