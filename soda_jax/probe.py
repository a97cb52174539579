"""Probing a trained model: `python -m soda_jax probe`."""

import functools
import json
from collections.abc import Iterator, Sequence

import ml_collections
import numpy as np

from soda_jax import experiment, pretrained
from soda_jax.chapters import place_of
from soda_jax.data.sources import Source, num_classes
from soda_jax.evaluation.few_shot import few_label_probe
from soda_jax.evaluation.knn import knn
from soda_jax.evaluation.linear_probe import adam_probe, linear_probe
from soda_jax.evaluation.mlp_probe import mlp_probe
from soda_jax.evaluation.probe_data import shuffled
from soda_jax.pretrained import Pretrained
from soda_jax.workdir import results_folder, write_json

PROTOCOLS = {
    "lbfgs": linear_probe,
    "adam": adam_probe,
    "knn": knn,
    "knn_plain": functools.partial(knn, weighted=False),
    "mlp": mlp_probe,
}
SELECTING = ("lbfgs", "mlp")  # they choose a setting on a part of the training split


def probe(config: ml_collections.ConfigDict, workdir: str) -> list[dict]:
    """Fits the config's probes on every representation; a table, and workdir/probe/<step>.json.

    (<step>_raw.json for weights that aren't averaged.)

    Each row holds the accuracy and the whole protocol: what was fed, how it was normalised, how it
    was selected (never on the test set), how many labels it had.
    """
    model = pretrained.restore(config, workdir, weights=config.probe.weights)
    results_folder(workdir, "probe")
    path = place_of(workdir, "probe", model.step, config.probe.weights).with_suffix(".json")
    splits = [experiment.open_data(model.parts, split) for split in ("train", "test")]
    rows = measure(model, *splits, config.probe.protocols, config.probe.labels_per_class)
    write_json(path, rows)
    print(f"\nThe protocol of each number ({path}):")
    for row in rows:
        print(f"{row['representation']}, {row['probe']}: {json.dumps(row['protocol'])}")
    return rows


def measure(
    model: Pretrained,
    train_source: Source,
    test_source: Source,
    protocols: Sequence[str],
    labels_per_class: Sequence[int],
) -> list[dict]:
    """A row for each representation and probe; a line is printed as each representation is done.

    Raises:
      ValueError: the pictures have no labels.
    """
    config = model.parts.config
    train = some(train_source, config.probe.max_examples, config.seed)
    test = np.arange(len(test_source))
    train_y, test_y = train_source.labels(train), test_source.labels(test)
    classes = num_classes(train_source)
    fewest = int(np.unique(train_y, return_counts=True)[1].min())
    if too_many := [labels for labels in labels_per_class if labels > fewest]:
        print(f"no probe of {too_many} labels a class: a class has {fewest} pictures", flush=True)

    rows = []
    for name, train_x, test_x in representations(model, train_source, test_source, train):
        data = (train_x, train_y, test_x, test_y)
        described = {
            "representation": name,
            "dimensions": int(train_x.shape[1]),
            **weights_of(name, model),
            "pictures": "resized, not augmented",
            "train_examples": len(train),
            "test_examples": len(test),
        }
        for protocol in protocols:
            selection = (
                {"validation_fraction": config.probe.validation_fraction}
                if protocol in SELECTING
                else {}
            )
            seed = {} if protocol.startswith("knn") else {"seed": config.seed}
            result = PROTOCOLS[protocol](*data, num_classes=classes, **selection, **seed)
            rows.append(
                described
                | {"probe": protocol, "accuracy": result.accuracy, "protocol": result.protocol}
            )
        for labels in labels_per_class:
            if labels in too_many:
                continue
            mean, std, protocol = few_label_probe(
                *data,
                num_classes=classes,
                labels_per_class=labels,
                draws=config.probe.draws,
                seed=config.seed,
            )
            rows.append(
                described
                | {
                    "probe": f"{labels} labels a class",
                    "accuracy": mean,
                    "std": std,
                    "protocol": protocol,
                }
            )
        print(line(rows, name), flush=True)
    return rows


def representations(
    model: Pretrained, train_source: Source, test_source: Source, train: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, features of the training pictures at positions train [n], of all test pictures)."""
    config = model.parts.config.probe
    models = [("", model)]
    if config.baselines:
        models.append(("untrained ", pretrained.untrained(model.parts)))
    for prefix, one in models:
        of_train = one.features_of(train_source, train)
        of_test = one.features_of(test_source, np.arange(len(test_source)))
        for name in config.features:
            yield prefix + name, of_train[name], of_test[name]
    if config.baselines:
        yield (
            "raw pixels",
            raw_pixels(train_source.images(train)),
            raw_pixels(test_source.images(np.arange(len(test_source)))),
        )


def some(source: Source, count: int, seed: int) -> np.ndarray:
    """Sorted positions of `count` random pictures; of all where count is 0 or too many.

    Not of the first ones: a folder's pictures come class by class.
    """
    return np.sort(shuffled(np.arange(len(source)), seed)[: count or None])


def weights_of(representation: str, model: Pretrained) -> dict:
    """Which weights a representation was made with, and at which step."""
    if representation == "raw pixels":
        return {"weights": "none"}
    if representation.startswith("untrained "):
        return {"weights": "initial", "step": 0}
    return {"weights": model.parts.config.probe.weights, "step": model.step}


def raw_pixels(images: np.ndarray) -> np.ndarray:
    """Pictures uint8 [n h w c] -> their values in [-1, 1], [n h*w*c] float32."""
    return images.reshape(len(images), -1).astype(np.float32) / 127.5 - 1


def line(rows: list[dict], name: str) -> str:
    """One line of the table: a representation and its accuracies in percent."""
    cells = []
    for row in rows:
        if row["representation"] == name:
            spread = f" ± {100 * row['std']:.1f}" if "std" in row else ""
            cells.append(f"{row['probe']} {100 * row['accuracy']:.2f}{spread}")
    size = next(row["dimensions"] for row in rows if row["representation"] == name)
    return f"{name:<18} {size:>6} dims   " + "   ".join(cells)
