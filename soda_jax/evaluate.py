"""Everything a trained model is judged by, in one run: `python -m soda_jax evaluate`."""

import html
import json
import pathlib
from collections.abc import Sequence

import ml_collections

from soda_jax import experiment, pretrained
from soda_jax.data.sources import Source, num_classes
from soda_jax.exit_codes import exit_code
from soda_jax.page import details, whole_page
from soda_jax.suites import (
    attributes,
    code,
    disentanglement,
    fine_tune,
    layers,
    pictures,
    probes,
    streamed,
)

SUITES = {
    "probes": probes,
    "layers": layers,
    "attributes": attributes,
    "disentanglement": disentanglement,
    "code": code,
    "pictures": pictures,
    "streamed": streamed,
    "fine_tune": fine_tune,
}


class SuiteError(ValueError):
    """Suites that gave no number, one line each, in `problems`."""

    def __init__(self, problems: Sequence[str]):
        super().__init__("; ".join(problems))
        self.problems = list(problems)


def evaluate(config: ml_collections.ConfigDict, workdir: str, names: Sequence[str] = ()) -> str:
    """Runs suites on a checkpoint; returns the path of the page that shows them all.

    workdir/evaluation/<step>/ (<step>_raw/ for weights that aren't averaged) gets <suite>.json as
    each suite ends, with every number's protocol, and page.html, which also shows the suites that
    earlier runs left there.

    Args:
      names: of SUITES; config.evaluate.suites where there are none, and what the data allow where
        that is empty too.

    Raises:
      SuiteError: a suite needs what the data lack (labels, factors of variation), or got numbers
        from which none can be made; the others have run then, and the page is there.
    """
    model = pretrained.restore(config, workdir, weights=config.probe.weights)
    splits = [experiment.open_data(model.parts, split) for split in ("train", "test")]
    raw = "" if config.probe.weights == "ema" else f"_{config.probe.weights}"
    folder = pathlib.Path(workdir) / "evaluation" / f"{model.step:08d}{raw}"
    folder.mkdir(parents=True, exist_ok=True)
    problems = []
    for name in names or config.evaluate.suites or allowed_by(splits[0]):
        print(f"{name} ...", flush=True)
        file = folder / f"{name}.json"
        file.unlink(missing_ok=True)  # an old result is not shown for a suite that fails
        try:
            found = SUITES[name].run(model, *splits)
        except (ValueError, OSError) as error:
            if exit_code(error) is None:
                raise
            problems.append(f"{name}: {' '.join(str(error).split())}")
            continue
        file.write_text(json.dumps(found, indent=1) + "\n")
    path = folder / "page.html"
    path.write_text(page(folder, config))
    print(path)
    if problems:
        raise SuiteError(problems)
    return str(path)


def allowed_by(train: Source) -> list[str]:
    """The suites that need nothing which the data lack, but for the slow ones."""
    names = ["code", "pictures"]
    if train.factor_names:
        names = ["attributes", "disentanglement", *names]
    if num_classes(train) > 1:
        names = ["probes", "layers", *names]
    return names


def page(folder: pathlib.Path, config: ml_collections.ConfigDict) -> str:
    """One HTML page of all the suites whose JSON is in the folder."""
    step = int(folder.name.partition("_")[0])
    seen = step * config.train.batch_size
    body = [
        f"<h1>{html.escape(config.name)}, evaluated</h1>",
        f"<p>Step {step:,}, {seen:,} pictures seen, seed {config.seed}, "
        f"{config.probe.weights} weights.</p>",
    ]
    for name, suite in SUITES.items():
        file = folder / f"{name}.json"
        if file.exists():
            text = file.read_text()
            body += suite.show(json.loads(text))
            body.append(details(f"{name}: every number and its protocol", text))
    return whole_page(f"{config.name}, evaluated", body)
