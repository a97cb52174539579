"""The parts of a page: tables, coloured grids, curves and pictures, all inside one HTML file."""

import base64
import html
import itertools
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222 }}
body {{ max-width: 75rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
th, td {{ padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #ddd }}
th, td {{ font-size: .93rem; white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }}
img {{ max-width: 100%; image-rendering: pixelated; display: block; margin: .5rem 0 }}
.note {{ color: #666; font-size: .9rem }}
pre {{ background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: .8rem }}
</style></head><body>
{body}
</body></html>
"""

COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b")


def whole_page(title: str, body: Iterable[str]) -> str:
    """An HTML document with this title and these parts."""
    return PAGE.format(title=html.escape(title), body="\n".join(body))


def table(corner: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Names against columns; the cells are HTML already."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in (corner, *columns))
    lines = [
        f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{cell}</td>" for cell in cells)
        for name, cells in rows.items()
    ]
    return f'<div style="overflow-x:auto"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def heatmap(
    corner: str,
    columns: Sequence[str],
    rows: Mapping[str, Sequence[float]],
    *,
    low: float,
    high: float,
    form: str = ".2f",
    sign: bool = True,
) -> str:
    """Numbers as a table, the darker the nearer they are to `high`, which may be below `low`.

    Without `sign`, their size alone makes them dark.
    A number that is not finite leaves its cell empty.
    """

    def cell(value: float) -> str:
        if not math.isfinite(value):
            return "<td></td>"
        shown = value if sign else abs(value)
        share = min(max(0, (shown - low) / (high - low)), 1) if high != low else 0
        ink = "#fff" if share > 0.6 else "#222"
        style = f"background:rgba(31,119,180,{share:.2f});color:{ink}"
        return f'<td style="{style}">{value:{form}}</td>'

    head = "".join(f"<th>{html.escape(name)}</th>" for name in (corner, *columns))
    lines = [
        f"<tr><td>{html.escape(name)}</td>" + "".join(map(cell, values)) + "</tr>"
        for name, values in rows.items()
    ]
    return f'<div style="overflow-x:auto"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def details(summary: str, text: str) -> str:
    """Text that is folded up until somebody asks for it."""
    return (
        f"<details><summary>{html.escape(summary)}</summary>"
        f"<pre>{html.escape(text)}</pre></details>"
    )


def chart(
    series: Mapping[str, Sequence[tuple[float, float]]],
    width: int = 720,
    height: int = 200,
    unit: str = "step",
    best: str = "",
) -> str:
    """Lines of (x, value), as SVG; x is a training step unless `unit` names something else.

    Args:
      best: "high" or "low" marks the best point of each line, and tells it beside the last one.
    """
    steps = [step for points in series.values() for step, _ in points]
    values = [value for points in series.values() for _, value in points]
    low, high = min(values), max(values)
    left, right = min(steps), max(steps)

    def place(step: float, value: float) -> str:
        x = 60 + (width - 70) * (step - left) / (right - left or 1)
        y = height - 25 - (height - 40) * (value - low) / max(high - low, 1e-12)
        return f"{x:.1f},{y:.1f}"

    parts = [f'<svg viewBox="0 0 {width + 200} {height}" font-size="11">']
    for i, ((name, points), color) in enumerate(
        zip(series.items(), itertools.cycle(COLORS), strict=False)
    ):
        path = " ".join(place(*point) for point in points)
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="1.5" points="{path}"/>')
        legend = f"{html.escape(name)} {points[-1][1]:.4g}"
        if best:
            x, value = {"high": max, "low": min}[best](points, key=lambda point: point[1])
            cx, cy = place(x, value).split(",")
            parts.append(f'<circle cx="{cx}" cy="{cy}" r="3.5" fill="{color}"/>')
            legend += f", best {value:.4g} at {x:,.6g}"
        parts.append(f'<text x="{width + 5}" y="{20 + 16 * i}" fill="{color}">{legend}</text>')
    parts += [
        f'<text x="0" y="{height - 25}">{low:.3g}</text><text x="0" y="15">{high:.3g}</text>',
        f'<text x="60" y="{height - 5}">{unit} {left:,.6g}</text>',
        f'<text x="{width - 10}" y="{height - 5}" text-anchor="end">{right:,.6g}</text></svg>',
    ]
    return "".join(parts)


def beside(parts: Iterable[str]) -> str:
    """Parts next to each other, where the window is wide enough."""
    cells = "".join(f'<div style="flex:1 1 26rem">{part}</div>' for part in parts)
    return f'<div style="display:flex;flex-wrap:wrap;gap:1rem">{cells}</div>'


def thin(items: Sequence, count: int) -> list:
    """At most `count` items, evenly spread, the first and last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def embed(path: pathlib.Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    kind = path.suffix.removeprefix(".")
    return f'<img alt="{html.escape(path.stem)}" src="data:image/{kind};base64,{data}">'
