"""A run on one page, pictures included: `python -m soda_jax report`."""

import html
import json
import pathlib
from collections.abc import Iterable, Sequence

from soda_jax.page import beside, chart, details, embed, table, thin, whole_page


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
    lines = logged(folder / "metrics.jsonl")
    body = [f"<h1>{html.escape(config['name'])}</h1>", facts(folder, config, lines)]
    body += reconstructions(folder)
    body += probe_table(folder)
    body += curves(lines)
    body += [
        "<h2>Config</h2>",
        details("every field", json.dumps(config, indent=1)),
    ]
    path = folder / "report.html"
    path.write_text(whole_page(config["name"], body))
    return str(path)


def logged(path: pathlib.Path) -> list[dict]:
    """A run's log, line by line, but for a last one that was cut off; [] where there is no file."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def speeds(folder: pathlib.Path) -> list[float]:
    """Pictures a second, each time that a run told it."""
    lines = logged(folder / "timing.jsonl")
    return [rate for line in lines if (rate := line.get("images_per_second"))]


def facts(folder: pathlib.Path, config: dict, lines: Sequence[dict]) -> str:
    """A sentence on what was trained, and for how long."""
    step = max((line["step"] for line in lines), default=0)
    images = step * config["train"]["batch_size"]
    text = f"{step:,} steps, {images:,} pictures seen, seed {config['seed']}"
    if rates := speeds(folder):
        text += f", {rates[-1]:.0f} pictures a second"
    return f"<p>{text}.</p>"


def reconstructions(folder: pathlib.Path) -> list[str]:
    """The sampled grid and its scores, then how the reconstructions came about."""
    parts = []
    grid, scores = (folder / "samples" / f"reconstructions{suffix}" for suffix in (".png", ".json"))
    if grid.exists() and scores.exists():
        values = json.loads(scores.read_text())
        psnr = f"PSNR {values['psnr']:.2f} dB" if "psnr" in values else "Drawn"
        ssim = f", SSIM {values['ssim']:.3f}" if "ssim" in values else ""
        about = (
            "<p>Top: pictures of the test split, as the encoder sees them. Second: the same at the "
            f"denoiser's size. Below: drawn from z alone, from {values['seeds']} seeds of the "
            "noise. What is the same in a column is what the code holds.</p>"
        )
        if "psnr" not in values:
            about = f"<p>From noise alone, {values['seeds']} times.</p>"
        parts += [
            "<h2>Pictures that it draws</h2>",
            about,
            embed(grid),
            f'<p class="note">{psnr}{ssim}, {values["images"]} pictures '
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
    """The newest table of `probe`, of averaged weights if they were probed, if there is one."""
    files = (folder / "probe").glob("*.json")
    newest = max(files, key=lambda file: (file.stem[:8], "_" not in file.stem), default=None)
    return accuracies(json.loads(newest.read_text())) if newest else []


def accuracies(rows: Sequence[dict]) -> list[str]:
    """Representations against probes, in percent; the best of each column is bold.

    A cell is empty where a representation had no such probe.
    """
    names = list(dict.fromkeys(row["representation"] for row in rows))
    probes = list(dict.fromkeys(row["probe"] for row in rows))
    cells = {(row["representation"], row["probe"]): row for row in rows}
    best = {
        probe: max(row["accuracy"] for row in rows if row["probe"] == probe) for probe in probes
    }
    dimensions = {row["representation"]: row["dimensions"] for row in rows}
    lines = {}
    for name in names:
        lines[name] = [str(dimensions[name])]
        for probe in probes:
            row = cells.get((name, probe))
            if row is None:
                lines[name].append("")
                continue
            spread = f" ± {100 * row['std']:.1f}" if "std" in row else ""
            mark = "*" if row["protocol"].get("too_few_iterations") else ""
            text = f"{100 * row['accuracy']:.2f}{spread}{mark}"
            lines[name].append(f"<b>{text}</b>" if row["accuracy"] == best[probe] else text)
    protocols = {f"{row['representation']}, {row['probe']}": row["protocol"] for row in rows}
    return [
        "<h2>What the code knows</h2>",
        "<p>Accuracy on the test split, in percent, of the same probes on each representation. "
        "None of them was tuned on the test split.</p>",
        table("representation", ["dimensions", *probes], lines),
        *(
            ['<p class="note">* a published protocol whose epochs are too few for so small a set.']
            if any(row["protocol"].get("too_few_iterations") for row in rows)
            else []
        ),
        details("protocols", json.dumps(protocols, indent=1)),
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
        ("Effective rank of z", ["effective_rank"]),
    ):
        if series := series_of(lines, names):
            parts += [f"<p>{title}</p>", chart(series)]
    judged = [
        chart(series, best=best)
        for best, names in (
            ("high", ["linear/z", "linear/pooled", "linear/block"]),
            ("high", ["knn/z", "knn/pooled", "knn/block"]),
            ("low", ["relative_frechet/pooled", "relative_frechet/block"]),
        )
        if (series := series_of(lines, names))
    ]
    if judged:
        parts += [
            "<p>Every checkpoint, judged: linear probe and kNN on a part of the training split, "
            "and the Fréchet distance of reconstructions (DDIM, few steps, averaged weights, "
            "guided as the config says) on the checkpoint's own pooled features, in units of "
            "their variance: no FID. They may be at their best at different steps.</p>",
            beside(judged),
        ]
    return parts


def series_of(lines: Sequence[dict], names: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """name -> (step, value) wherever a line has it; names with two points or more."""
    series = {
        name: [(line["step"], float(line[name])) for line in lines if name in line]
        for name in names
    }
    return {name: points for name, points in series.items() if len(points) > 1}
