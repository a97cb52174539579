"""What the benchmarks share: their command line, their lines and their JSON; no JAX, no PyTorch."""

import argparse
import json
from typing import Any


def parser(description: str, **defaults: str) -> argparse.ArgumentParser:
    """Options that every benchmark has; `defaults` are further ones, words with a default."""
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    for name, default in defaults.items():
        made.add_argument(f"--{name}", default=default)
    made.add_argument("--json", help="also write the figures here")
    return made


def parse(made: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the words --config.KEY=VALUE; anything else is refused."""
    arguments, words = made.parse_known_args()
    if unknown := [word for word in words if not word.startswith("--config.")]:
        made.error(f"unknown: {' '.join(unknown)}")
    return arguments, words


def show(figures: dict[str, Any]) -> None:
    """A line for each figure."""
    width = max(map(len, figures)) + 1
    for name, value in figures.items():
        print(
            f"{name:<{width}} {value:.4g}"
            if isinstance(value, float)
            else f"{name:<{width}} {value}"
        )


def write(figures: Any, path: str | None) -> None:
    """As JSON, where a path was given."""
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)
