"""Everything a trained model is judged by, in one run: `python -m soda_jax evaluate`."""

from collections.abc import Sequence

import ml_collections

from soda_jax import experiment, pretrained
from soda_jax.chapters import ChaptersFailed, folder_of, run_chapters, write_page
from soda_jax.config_schema import ConfigError
from soda_jax.data.sources import Source, num_classes
from soda_jax.pretrained import Pretrained
from soda_jax.suites import (
    attributes,
    code,
    disentanglement,
    fine_tune,
    layers,
    noisy,
    pictures,
    probes,
    semi_supervised,
    streamed,
    trajectory,
)

SUITES = {
    "probes": probes,
    "layers": layers,
    "attributes": attributes,
    "disentanglement": disentanglement,
    "code": code,
    "pictures": pictures,
    "semi_supervised": semi_supervised,
    "trajectory": trajectory,
    "noisy": noisy,
    "streamed": streamed,
    "fine_tune": fine_tune,
}


def evaluate(config: ml_collections.ConfigDict, workdir: str, names: Sequence[str] = ()) -> str:
    """Runs suites on a checkpoint; returns the path of the page that shows them all.

    workdir/evaluation/<step>/ gets <suite>.json as each suite ends, with every number's protocol,
    and page.html, which also shows the suites that earlier runs left there.

    Args:
      names: of SUITES; config.evaluate.suites where there are none, and what the data allow where
        that is empty too.

    Raises:
      ConfigError: no suites are named, and data and model allow none.
      ChaptersFailed: a suite needs what the data lack (labels, factors of variation), or got
        numbers from which none can be made; the others have run then, and the page is there.
    """
    return evaluate_model(
        pretrained.restore(config, workdir, weights=config.probe.weights), workdir, names
    )


def evaluate_model(model: Pretrained, workdir: str, names: Sequence[str] = ()) -> str:
    """`evaluate`, of a model that was restored with the weights that config.probe names."""
    config = model.parts.config
    splits = [experiment.open_data(model.parts, split) for split in ("train", "test")]
    folder = folder_of(workdir, "evaluation", model.step, config.probe.weights)
    names = names or config.evaluate.suites or allowed_by(model, *splits)
    if not names:
        raise ConfigError(
            "config.evaluate.suites is empty, and no suite is possible: these pictures have no "
            "labels and no factors, and this model no z of pictures that come alone"
        )
    problems = run_chapters(
        {name: SUITES[name] for name in names},
        lambda suite: suite.run(model, *splits),
        folder,
    )
    facts = (
        f"Step {model.step:,}, {model.step * config.train.batch_size:,} pictures seen, seed "
        f"{config.seed}, {config.probe.weights} weights."
    )
    path = write_page(folder, f"{config.name}, evaluated", facts, SUITES)
    if problems:
        raise ChaptersFailed(problems)
    return path


def allowed_by(model: Pretrained, train: Source, test: Source) -> list[str]:
    """The suites that need nothing which the data or the model lack, but for the slow ones."""
    alone = not model.parts.needs_place  # whether pictures can be encoded without cameras
    has_z = model.parts.z_size > 0
    names = ["code", "pictures"] if has_z and alone else []
    if names and min(len(test), code.CODES) <= model.parts.z_size:
        print(f"no suite code: {len(test)} test pictures for {model.parts.z_size} dimensions of z")
        names.remove("code")
    if train.factor_names:
        names = ["attributes", *(["disentanglement"] if has_z else []), *names]
    if num_classes(train) > 1:
        names = ["probes", *(["layers"] if alone else []), *names]
    return names
