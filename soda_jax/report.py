"""A run on one page, pictures included: `python -m soda_jax report`."""

import base64
import html
import json
import pathlib
from collections.abc import Iterable, Sequence

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222 }}
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
th, td {{ padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ddd }}
th:first-child, td:first-child {{ text-align: left }}
img {{ max-width: 100%; image-rendering: pixelated; display: block; margin: .5rem 0 }}
.best {{ font-weight: 600 }} .note {{ color: #666; font-size: .9rem }}
pre {{ background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: .8rem }}
</style></head><body>
{body}
</body></html>
"""


def report(workdir: str) -> str:
    """Writes workdir/report.html from what pretrain, probe and sample left there; returns its path.

    The page holds its pictures, so it can be sent as one file. Nothing is computed again.

    Raises:
      FileNotFoundError: workdir holds no run.
    """
    folder = pathlib.Path(workdir)
    if not (folder / "metrics.jsonl").exists():
        raise FileNotFoundError(f"{workdir} holds no run to report: pretrain writes it")
    config = json.loads((folder / "config.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    body = [f"<h1>SODA on {html.escape(config['name'])}</h1>", facts(folder, config, lines)]
    body += reconstructions(folder)
    body += probe_table(folder)
    body += curves(lines)
    body += [
        "<h2>Config</h2>",
        f"<details><summary>every field</summary><pre>{html.escape(json.dumps(config, indent=1))}"
        "</pre></details>",
    ]
    path = folder / "report.html"
    path.write_text(PAGE.format(title=html.escape(config["name"]), body="\n".join(body)))
    return str(path)


def facts(folder: pathlib.Path, config: dict, lines: Sequence[dict]) -> str:
    """A sentence on what was trained, and for how long."""
    step = max((line["step"] for line in lines), default=0)
    images = step * config["train"]["batch_size"]
    text = f"{step:,} steps, {images:,} pictures seen, seed {config['seed']}"
    timing = folder / "timing.jsonl"
    rates = [
        rate
        for line in (timing.read_text().splitlines() if timing.exists() else ())
        if (rate := json.loads(line).get("images_per_second"))
    ]
    if rates:
        text += f", {rates[-1]:.0f} pictures a second"
    return f"<p>{text}.</p>"


def reconstructions(folder: pathlib.Path) -> list[str]:
    """The sampled grid and its scores, then how the reconstructions came about."""
    parts = []
    grid, scores = (folder / "samples" / f"reconstructions{suffix}" for suffix in (".png", ".json"))
    if grid.exists() and scores.exists():
        values = json.loads(scores.read_text())
        ssim = f", SSIM {values['ssim']:.3f}" if "ssim" in values else ""
        parts += [
            "<h2>Pictures from their codes</h2>",
            "<p>Top: pictures of the test split, as the encoder sees them. Second: the same at the "
            f"denoiser's size. Below: drawn from z alone, from {values['seeds']} seeds of the "
            "noise. What is the same in a column is what the code holds.</p>",
            embed(grid),
            f'<p class="note">PSNR {values["psnr"]:.2f} dB{ssim} over {values["images"]} pictures '
            f"x {values['seeds']} seeds; {values['sampler']}, {values['num_steps']} steps, "
            f"eta {values['eta']}, guidance {values['guidance_scale']}, {values['weights']} "
            f"weights of step {values['step']}.</p>",
        ]
    stages = sorted((folder / "samples").glob("reconstructions_*.png"))
    if stages:
        parts.append("<h2>How they came about</h2>")
        for stage in thin(stages, 4):
            step = int(stage.stem.rpartition("_")[2])
            parts += [f'<p class="note">step {step:,}</p>', embed(stage)]
    return parts


def probe_table(folder: pathlib.Path) -> list[str]:
    """Representations against probes, in percent; the best of each column is bold."""
    files = sorted((folder / "probe").glob("*.json"))
    if not files:
        return []
    rows = json.loads(files[-1].read_text())
    names = list(dict.fromkeys(row["representation"] for row in rows))
    probes = list(dict.fromkeys(row["probe"] for row in rows))
    cells = {(row["representation"], row["probe"]): row for row in rows}
    best = {probe: max(cells[name, probe]["accuracy"] for name in names) for probe in probes}
    table = ["<table><tr><th>representation</th><th>dimensions</th>"]
    table += [f"<th>{html.escape(probe)}</th>" for probe in probes] + ["</tr>"]
    for name in names:
        dimensions = cells[name, probes[0]]["dimensions"]
        table.append(f"<tr><td>{html.escape(name)}</td><td>{dimensions}</td>")
        for probe in probes:
            row = cells[name, probe]
            mark = ' class="best"' if row["accuracy"] == best[probe] else ""
            spread = f" ± {100 * row['std']:.1f}" if "std" in row else ""
            table.append(f"<td{mark}>{100 * row['accuracy']:.2f}{spread}</td>")
        table.append("</tr>")
    protocols = {row["probe"]: row["protocol"] for row in rows}
    return [
        "<h2>What the code knows</h2>",
        "<p>Accuracy on the test split, in percent, of the same probes on each representation. "
        "None of them was tuned on the test split.</p>",
        "".join(table) + "</table>",
        "<details><summary>protocols</summary><pre>"
        f"{html.escape(json.dumps(protocols, indent=1))}</pre></details>",
    ]


def curves(lines: Iterable[dict]) -> list[str]:
    """The loss, whether z is used, and what it is worth, over the steps."""
    lines = list(lines)
    parts = ["<h2>Training</h2>"]
    for title, names in (
        ("Training loss", ["loss"]),
        (
            "Held-out loss with the picture's own z, another picture's, and none",
            [f"loss_with_code/{name}" for name in ("z", "shuffled", "null")],
        ),
        ("kNN accuracy on the training split's labels", ["knn/z", "knn/pooled"]),
        ("Effective rank of z", ["effective_rank"]),
    ):
        series = {
            name: [(line["step"], float(line[name])) for line in lines if name in line]
            for name in names
        }
        series = {name: points for name, points in series.items() if len(points) > 1}
        if series:
            parts += [f"<p>{title}</p>", chart(series)]
    return parts


def chart(series: dict[str, list[tuple[int, float]]], width: int = 720, height: int = 200) -> str:
    """Lines of (step, value), as SVG."""
    colors = ("#1f77b4", "#ff7f0e", "#2ca02c")
    steps = [step for points in series.values() for step, _ in points]
    values = [value for points in series.values() for _, value in points]
    low, high = min(values), max(values)
    left, right = min(steps), max(steps)

    def place(step: int, value: float) -> str:
        x = 60 + (width - 70) * (step - left) / max(right - left, 1)
        y = height - 25 - (height - 40) * (value - low) / max(high - low, 1e-12)
        return f"{x:.1f},{y:.1f}"

    parts = [f'<svg viewBox="0 0 {width + 200} {height}" font-size="11">']
    for i, ((name, points), color) in enumerate(zip(series.items(), colors, strict=False)):
        path = " ".join(place(*point) for point in points)
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="1.5" points="{path}"/>')
        parts.append(
            f'<text x="{width + 5}" y="{20 + 16 * i}" fill="{color}">'
            f"{html.escape(name)} {points[-1][1]:.4g}</text>"
        )
    parts += [
        f'<text x="0" y="{height - 25}">{low:.3g}</text><text x="0" y="15">{high:.3g}</text>',
        f'<text x="60" y="{height - 5}">step {left:,}</text>',
        f'<text x="{width - 10}" y="{height - 5}" text-anchor="end">{right:,}</text></svg>',
    ]
    return "".join(parts)


def thin(items: Sequence, count: int) -> list:
    """At most `count` items, evenly spread, the first and last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def embed(path: pathlib.Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}">'
