"""What the text of a compiled program says: how often each line runs, cycles, collectives."""

import math
import re
from collections.abc import Iterator

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}  # others have 4
_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"\b(body|condition|calls|to_apply|\w+_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\b(?:branch|called)_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONSTANT = re.compile(r"= s32\[\]\S* constant\((\d+)\)")
# Not the cost analysis' "optimal_seconds": those of a large step were negative (libtpu 0.0.42).
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_COLLECTIVE = re.compile(rf"= (\(.*?\)|\S+) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+[0-9]+|pred)\[([\d,]*)\]")
_GROUPS = re.compile(r"replica_groups=(?:\[\d+,(\d+)\]|\{\{([\d,]+)\})")


def lines_run(hlo: str) -> Iterator[tuple[str, int]]:
    """Each instruction, and how often a call of the program runs it.

    What a loop calls runs as often as the compiler says, or as the one number says that its
    condition compares with; else once. Of branches each is taken to run.
    """
    owner, lines, limits = "", [], {}
    for line in hlo.splitlines():
        if header := _HEADER.match(line):
            owner = header[1]
            continue
        lines.append((owner, line))
        if limit := _CONSTANT.search(line):
            limits.setdefault(owner, []).append(int(limit[1]))
    callers = {}
    for owner, line in lines:
        called = _CALLED.findall(line)
        for names in _BRANCHES.findall(line):
            called += [("", name.strip(" %")) for name in names.split(",")]
        known = _TRIPS.search(line)
        own = [
            limit for kind, name in called if kind == "condition" for limit in limits.get(name, ())
        ]
        trips = int(known[1]) if known else own[0] if len(own) == 1 else 1
        for _, name in called:
            callers.setdefault(name, []).append((owner, trips))
    times = {}

    def runs(name: str) -> int:
        if name not in times:
            found = (factor * runs(caller) for caller, factor in callers.get(name, ()))
            times[name] = sum(found) if name in callers else 1
        return times[name]

    for owner, line in lines:
        yield line, runs(owner)


def kernels(hlo: str) -> Iterator[tuple[str, int]]:
    """Each line that the compiler of a TPU says cycles of, and its cycles in a call."""
    for line, times in lines_run(hlo):
        if found := _CYCLES.search(line):
            yield line, times * int(found[1])


def collectives(hlo: str) -> dict[str, tuple[int, int]]:
    """{kind: (how many a call, bytes of what comes out of them)}; of a reduce-scatter, what goes
    in, as a chip sends all parts of it but its own."""
    found = {}
    for line, times in lines_run(hlo):
        if not (match := _COLLECTIVE.search(line)):
            continue
        shapes, kind, started = match.groups()
        sizes = sizes_of(shapes)
        if started and kind == "collective-permute":
            sizes = sizes[1:2]  # what goes in, what comes out, and what it counts with
        elif started and kind != "all-reduce":
            sizes = sizes[len(sizes) // 2 :]  # what goes in stands before what comes out
        parts = group_size(line) if kind == "reduce-scatter" else 1
        count, total = found.get(kind, (0, 0))
        found[kind] = (count + times, total + times * parts * sum(sizes))
    return found


def group_size(line: str) -> int:
    """How many chips a collective is among; 1 where the line doesn't say."""
    match = _GROUPS.search(line)
    if not match:
        return 1
    return int(match[1]) if match[1] else len(match[2].split(","))


def sizes_of(shapes: str) -> list[int]:
    """Bytes of each array that is named, such as "bf16[8,3]"."""
    return [
        math.prod(map(int, filter(None, lengths.split(","))))
        * BYTES.get(dtype, 8 if dtype.endswith("64") else 4)
        for dtype, lengths in _ARRAY.findall(shapes)
    ]
