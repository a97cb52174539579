"""Kinds of values that a config field may hold: numbers, choices, texts, flags, tuples of them.

Each kind has accepts(value), allowed() in words, and closest(value): the nearest value that is
accepted, or None where nothing is near.
"""

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


def resembling(word: Any, words: Iterable[str], count: int = 1) -> list[str]:
    """The words that look most like `word`, best first; [] where none does."""
    by_lower = {candidate.lower(): candidate for candidate in words}
    found = difflib.get_close_matches(str(word).lower(), by_lower, count, cutoff=0.5)
    return [by_lower[candidate] for candidate in found]


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and not math.isnan(value)


@dataclass(frozen=True)
class Number:
    """An int or a float between two limits, which it may reach unless they are `open`."""

    type: type
    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def accepts(self, value: Any) -> bool:
        if type(value) is not self.type or not self.low <= value <= self.high:
            return False
        return not (self.open_low and value == self.low or self.open_high and value == self.high)

    def allowed(self) -> str:
        kind, form = ("a whole number", "_") if self.type is int else ("a number", "g")
        low = f"{'above' if self.open_low else 'from'} {self.low:{form}}"
        return f"{kind} {low} {'and below' if self.open_high else 'up to'} {self.high:{form}}"

    def closest(self, value: Any) -> Any:
        if not is_number(value):
            return None
        inside = self.type(min(max(value, self.low), self.high))
        return inside if self.accepts(inside) else None


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple

    def accepts(self, value: Any) -> bool:
        return any(type(value) is type(v) and value == v for v in self.values)

    def allowed(self) -> str:
        return "one of " + ", ".join(str(v) for v in self.values)

    def closest(self, value: Any) -> Any:
        if isinstance(value, str):
            words = resembling(value, [v for v in self.values if isinstance(v, str)])
            return words[0] if words else None
        numbers = [v for v in self.values if is_number(v)]
        if not numbers or not is_number(value):
            return None
        return min(numbers, key=lambda v: abs(v - value))


@dataclass(frozen=True)
class Text:
    """One line of text."""

    may_be_empty: bool = False

    def accepts(self, value: Any) -> bool:
        if not isinstance(value, str) or not value.isprintable() or len(value) > 4096:
            return False
        return bool(value) or self.may_be_empty

    def allowed(self) -> str:
        return "one line of text" + ("" if self.may_be_empty else ", not empty")

    def closest(self, value: Any) -> Any:
        return str(value) if is_number(value) else None


@dataclass(frozen=True)
class Flag:
    """True or False."""

    def accepts(self, value: Any) -> bool:
        return type(value) is bool

    def allowed(self) -> str:
        return "True or False"

    def closest(self, value: Any) -> Any:
        if isinstance(value, str):
            return {"true": True, "false": False}.get("".join(resembling(value, ("true", "false"))))
        return bool(value) if is_number(value) and value in (0, 1) else None


@dataclass(frozen=True)
class Several:
    """A tuple with `least` to `most` parts of one kind."""

    part: Number | Choice | Text
    least: int
    most: int
    distinct: bool = False

    def accepts(self, value: Any) -> bool:
        if not isinstance(value, tuple) or not self.least <= len(value) <= self.most:
            return False
        if not all(self.part.accepts(part) for part in value):
            return False
        return not self.distinct or len(set(value)) == len(value)

    def allowed(self) -> str:
        count = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        different = " different" if self.distinct else ""
        return f"a tuple of {count}{different} parts, each {self.part.allowed()}"

    def closest(self, value: Any) -> Any:
        parts = value if isinstance(value, tuple) else (value,)
        parts = tuple(v if self.part.accepts(v) else self.part.closest(v) for v in parts)
        if self.distinct:
            parts = tuple(dict.fromkeys(parts))
        return parts if self.accepts(parts) else None


def whole(low: int, high: int) -> Number:
    return Number(int, low, high)


def real(low: float, high: float, **open_limits: bool) -> Number:
    return Number(float, float(low), float(high), **open_limits)


def one_of(*values: Any) -> Choice:
    return Choice(values)
