"""Methods side by side, each from its own run: `python -m soda_jax compare`."""

import dataclasses
import html
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from soda_jax import config_schema, experiment, inference, page, pretrained
from soda_jax.chapters import place_of
from soda_jax.config_schema import ConfigError
from soda_jax.evaluate import evaluate_model
from soda_jax.evaluation.frechet import frechet_distance
from soda_jax.evaluation.probe_data import shuffled
from soda_jax.pretrained import Pretrained
from soda_jax.report import logged, series_of, speeds
from soda_jax.workdir import results_folder, write_json, write_whole

LABELS = 10  # of each class, where few are given
# What must be the same, and what is told where it isn't.
PICTURES = (
    "data.source", "data.name", "data.path", "data.train_split", "data.test_split",
    "data.image_size", "data.channels", "views.target.size",
)  # fmt: skip
MEASURES = (
    "seed", "probe.weights", "probe.max_examples", "probe.validation_fraction", "probe.draws",
    "evaluate.labels_per_class", "evaluate.graph_examples", "evaluate.layer_ts",
    "evaluate.layer_examples", "evaluate.num_images", "sample.sampler", "sample.num_steps",
    "sample.spacing", "sample.eta", "sample.guidance_scale", "sample.guidance_interval",
    "sample.sections", "sample.seed",
)  # fmt: skip
SETTINGS = (
    "train_examples", "test_examples", "draws", "l2_values", "validation_fraction", "images", "ts",
    *inference.SAMPLER_OPTIONS,
)  # fmt: skip
COLUMNS = (
    "linear, z", "linear, best block", "kNN", f"{LABELS} labels a class", f"{LABELS}, spread",
    "disentanglement", "PSNR", "Fréchet", "pictures/s",
)  # fmt: skip


@dataclasses.dataclass
class Run:
    """A trained model that is compared, and what its own evaluation said."""

    name: str
    workdir: str
    config: ml_collections.ConfigDict
    model: Pretrained
    suites: dict[str, Any]

    @property
    def representation(self) -> str:
        """What is judged: z, or without an encoder the block that its config names."""
        return "z" if self.model.parts.z_size else "block"

    @property
    def pictures_seen(self) -> int:
        return self.model.step * self.config.train.batch_size


def compare(workdirs: Sequence[str], workdir: str) -> str:
    """Measures every run as `evaluate` does, and writes workdir/comparison.html and .json.

    What a run's own folder already holds for its newest checkpoint isn't measured again. A Fréchet
    distance needs one network for all: it is on the pooled features of the first run that has an
    encoder, between pictures that each model draws (from codes of test pictures, or from nothing)
    and training pictures.

    Raises:
      ConfigError: fewer than two runs, or `check_alike` refuses them.
      ChaptersFailed: a suite of a run failed.
    """
    workdirs = list(dict.fromkeys(workdirs))
    if len(workdirs) < 2:
        raise ConfigError("--of needs two runs or more, such as --of=runs/soda,runs/ddae")
    check_alike({path: config_schema.recall(path) for path in workdirs})
    folder = results_folder(workdir)
    runs = [open_run(path) for path in workdirs]
    if len({run.pictures_seen for run in runs}) > 1:
        seen = ", ".join(f"{run.name} {run.pictures_seen:,}" for run in runs)
        print(f"not the same budget of pictures: {seen}", flush=True)
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            run.name = f"{run.name} ({run.workdir})"
    judge = next(run for run in runs if run.model.parts.z_size)
    distances = frechet(runs, judge)
    rows = {run.name: row_of(run) | {"Fréchet": distances[run.name]} for run in runs}
    rows |= baselines(judge)
    found = {
        "rows": rows,
        "judge": judge.name,
        "differing": differing(runs),
        "runs": {
            run.name: {
                "step": run.model.step,
                "pictures_seen": run.pictures_seen,
                "parameters": sizes(run),
                "seed": run.config.seed,
                "curves": learned(run),
                "config": json.loads(config_schema.to_json(run.config)),
            }
            for run in runs
        },
    }
    write_json(folder / "comparison.json", found)
    path = folder / "comparison.html"
    write_whole(path, page.whole_page("Methods side by side", show(found)))
    print(path)
    return str(path)


def open_run(workdir: str) -> Run:
    """A run with all that its evaluation has; what is missing is measured now."""
    config = config_schema.recall(workdir)
    model = pretrained.restore(config, workdir, weights=config.probe.weights)
    train = experiment.open_data(model.parts, "train")
    wanted = ["probes", "layers", "semi_supervised"]
    if model.parts.z_size:
        wanted += ["pictures"] + (["disentanglement"] if train.factor_names else [])
    folder = place_of(workdir, "evaluation", model.step, config.probe.weights)
    held = {name: folder / f"{name}.json" for name in wanted}
    suites = {name: json.loads(x.read_text()) for name, x in held.items() if x.exists()}
    run = Run(config.name, workdir, config, model, suites)
    if missing := [name for name in wanted if not has(run, name)]:
        print(f"{workdir}: {', '.join(missing)}", flush=True)
        evaluate_model(model, workdir, missing)
        suites |= {name: json.loads(held[name].read_text()) for name in missing}
    return run


def has(run: Run, suite: str) -> bool:
    """Whether a suite's results are there, with all that is compared: an `evaluate` under another
    config may have left out some of it."""
    found = run.suites.get(suite)
    if found is None:
        return False
    if suite == "probes":
        rows = {(row["representation"], row["probe"]) for row in found["rows"]}
        return {(run.representation, probe) for probe in ("lbfgs", "knn")} <= rows
    return suite != "layers" or any("@t=" in name for name in found["heads"])


def check_alike(configs: Mapping[str, ml_collections.ConfigDict]) -> None:
    """Refuses runs that can't be put on one page, before anything is measured.

    Raises:
      ConfigError: they are of other pictures; one needs cameras; none has an encoder; one's probes
        leave out what is compared.
    """
    first, *others = configs
    for path in others:
        for line in config_schema.differences(configs[first], configs[path]):
            key = line.partition(":")[0]
            if key in PICTURES:
                raise ConfigError(
                    f"{path} and {first} are of other pictures, and only the same at the same size "
                    f"compare: {line}"
                )
    for path, config in configs.items():
        wanted = "block" if config.model.encoder.variant == "none" else "z"
        if config.cameras.encoding != "none":
            raise ConfigError(f"{path}: a model of views is measured by novel_views, not here")
        probes = {"lbfgs", "knn"} - {*config.probe.protocols}
        if wanted not in config.probe.features or not config.evaluate.layer_ts or probes:
            raise ConfigError(
                f"{path}: config.probe.features must have {wanted!r}, config.probe.protocols "
                "'lbfgs' and 'knn', and config.evaluate.layer_ts a number, as these are compared"
            )
    if all(config.model.encoder.variant == "none" for config in configs.values()):
        raise ConfigError("none of these runs has an encoder, on whose features to compare")


def differing(runs: Sequence[Run]) -> list[str]:
    """Settings of measures in which runs differ from the first, a line each; and where a run's
    probes were made with others, as what an earlier `evaluate` left is taken over."""
    lines, first = [], protocols(runs[0])
    for run in runs[1:]:
        for line in config_schema.differences(runs[0].config, run.config):
            if line.partition(":")[0] in MEASURES:
                lines.append(f"{run.name}: {line}")
        own = protocols(run)
        for name in sorted(first.keys() & own.keys()):
            if own[name] != first[name]:
                lines.append(f"{run.name}: {name}: {first[name]!r} -> {own[name]!r}")
    return lines


def protocols(run: Run) -> dict[str, Any]:
    """What a run's measures were made with: "measure, setting" -> value."""
    made = [
        (row.get("probe") or row.get("metric") or "spread", row["protocol"])
        for suite in ("probes", "semi_supervised", "pictures")
        for row in run.suites.get(suite, {"rows": ()})["rows"]
    ]
    layers = run.suites["layers"]
    made.append(("layers", layers["protocol"] | {"ts": layers["ts"]}))
    return {
        f"{name}, {key}": protocol[key]
        for name, protocol in made
        for key in SETTINGS
        if key in protocol
    }


def row_of(run: Run) -> dict[str, str]:
    """The columns of one run that its own suites tell; the representation is z, or the block."""
    row = judged(run, run.representation)
    if run.representation == "block":
        row["linear, z"] = ""
    heads = run.suites["layers"]["heads"]
    blocks = {name: head for name, head in heads.items() if "@t=" in name}
    best = max(blocks, key=lambda name: blocks[name]["validation_accuracy"])
    row["linear, best block"] = f"{100 * blocks[best]['accuracy']:.1f} ({best})"
    if "pictures" in run.suites:
        (psnr,) = (x for x in run.suites["pictures"]["rows"] if x["metric"] == "PSNR")
        row["PSNR"] = f"{psnr['value']:.2f}"
    if "disentanglement" in run.suites:
        (dci,) = (
            x
            for x in run.suites["disentanglement"]["rows"]
            if x["metric"] == "disentanglement (trees)" and x["representation"] == "z"
        )
        row["disentanglement"] = f"{dci['value']:.3f}"
    if rates := speeds(pathlib.Path(run.workdir)):
        row["pictures/s"] = f"{np.median(rates):.0f}"
    return row


def judged(run: Run, representation: str) -> dict[str, str]:
    """The probes' columns of a representation in a run's suites."""
    probes = {
        row["probe"]: row
        for row in run.suites["probes"]["rows"]
        if row["representation"] == representation
    }
    spread = {
        row["labels_per_class"]: row
        for row in run.suites["semi_supervised"]["rows"]
        if row["representation"] == representation
    }

    def percent(row: dict | None) -> str:
        if row is None:
            return ""
        deviation = f" ± {100 * row['std']:.1f}" if "std" in row else ""
        return f"{100 * row['accuracy']:.1f}{deviation}"

    return {
        "linear, z": percent(probes["lbfgs"]),
        "kNN": percent(probes["knn"]),
        f"{LABELS} labels a class": percent(probes.get(f"{LABELS} labels a class")),
        f"{LABELS}, spread": percent(spread.get(LABELS)),
    }


def learned(run: Run) -> dict[str, list[tuple[int, float]]]:
    """What a run's representation was worth on the way: (pictures seen, accuracy) of the probes
    that training made, "linear" and "knn", where there were two or more."""
    own = run.representation
    lines = logged(pathlib.Path(run.workdir) / "metrics.jsonl")
    series = series_of(lines, [f"linear/{own}", f"knn/{own}"])
    batch_size = run.config.train.batch_size
    return {
        name.partition("/")[0]: [(step * batch_size, value) for step, value in points]
        for name, points in series.items()
    }


def baselines(run: Run) -> dict[str, dict[str, str]]:
    """What no training gives: a row each for raw pixels and an untrained encoder's z."""
    known = {row["representation"] for row in run.suites["probes"]["rows"]}
    return {name: judged(run, name) for name in ("untrained z", "raw pixels") if name in known}


def frechet(runs: Sequence[Run], judge: Run) -> dict[str, str]:
    """Each run's distance to training pictures, on the judge's pooled features."""
    test, train = (experiment.open_data(judge.model.parts, split) for split in ("test", "train"))
    count = min(judge.config.evaluate.num_images, len(test), len(train))
    chosen, others = (
        shuffled(np.arange(len(source)), judge.config.seed)[:count] for source in (test, train)
    )
    pooled = judge.model.pooled
    real = pooled(inference.target_pictures(judge.model.parts, train.images(others)))
    distances = {}
    for run in runs:
        drawn = run.model.reconstruct(test.images(chosen), seed=run.config.sample.seed)
        distance = frechet_distance(pooled(drawn), real, allow_few=True)
        distances[run.name] = f"{distance.value:.3g}"
    return distances


def sizes(run: Run) -> dict[str, int]:
    """Parameters of encoder and denoiser."""
    return {
        name: sum(leaf.size for leaf in jax.tree.leaves(part))
        for name, part in run.model.variables["params"].items()
    }


def show(found: dict) -> list[str]:
    columns = [name for name in COLUMNS if any(row.get(name) for row in found["rows"].values())]
    rows = {
        name: [html.escape(row.get(column, "")) for column in columns]
        for name, row in found["rows"].items()
    }
    about = {
        name: [
            f"{run['pictures_seen']:,}",
            f"{sum(run['parameters'].values()) / 1e6:.2f} M",
            str(run["seed"]),
        ]
        for name, run in found["runs"].items()
    }
    return [
        "<h1>Methods side by side</h1>",
        "<p>Each from its own run, under the same probes; percent on the test split. z is what is "
        "judged, or without an encoder the block that its config names, in the columns of kNN and "
        "few labels. The best block of the denoiser is chosen by the held-out part of the training "
        "split. Spread: labels that went from neighbour to neighbour (semi_supervised).</p>",
        page.table("method", columns, rows),
        '<p class="note">The Fréchet distance is between pictures drawn and training pictures, on '
        f"the pooled features of {html.escape(found['judge'])}, which may favour it; no FID. "
        "Pictures a second are those of training, on whatever machine that was.</p>",
        page.table("method", ["pictures seen", "parameters", "seed"], about),
        *on_the_way(found["runs"]),
        *(
            [page.details("measured otherwise than the first", "\n".join(found["differing"]))]
            if found["differing"]
            else []
        ),
        page.details("configs, and every number", json.dumps(found, indent=1)),
    ]


def on_the_way(runs: Mapping[str, dict]) -> list[str]:
    """A chart for each probe that runs made as they trained; [] where none did."""
    charts = [
        f"<p>{probe}</p>" + page.chart(series, unit="pictures", best="high")
        for probe in ("linear", "knn")
        if (
            series := {
                name: run["curves"][probe] for name, run in runs.items() if probe in run["curves"]
            }
        )
    ]
    if not charts:
        return []
    return [
        "<h2>On the way</h2>",
        "<p>Probes that each run made as it trained, on a part of the training split "
        "(config.train.probe_examples).</p>",
        page.beside(charts),
    ]
