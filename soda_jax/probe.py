"""Probing a trained model: `python -m soda_jax probe`."""

import json
import pathlib
from collections.abc import Iterator

import ml_collections
import numpy as np

from soda_jax import experiment, pretrained
from soda_jax.data.sources import Source
from soda_jax.evaluation.few_shot import few_label_probe
from soda_jax.evaluation.knn import knn
from soda_jax.evaluation.linear_probe import adam_probe, linear_probe
from soda_jax.pretrained import Pretrained

PROTOCOLS = {"lbfgs": linear_probe, "adam": adam_probe, "knn": knn}


def probe(config: ml_collections.ConfigDict, workdir: str) -> list[dict]:
    """Fits the config's probes on every representation; a table, and workdir/probe/<step>.json.

    Each row holds the accuracy and the whole protocol: what was fed, how it was normalised, how it
    was selected (never on the test set), how many labels it had.
    """
    model = pretrained.restore(config, workdir, weights=config.probe.weights)
    train_source = experiment.open_data(model.parts, "train")
    test_source = experiment.open_data(model.parts, "test")
    count = config.probe.max_examples or len(train_source)
    train = np.arange(min(count, len(train_source)))
    test = np.arange(len(test_source))
    train_y, test_y = train_source.labels(train), test_source.labels(test)
    num_classes = len(train_source.class_names)

    rows = []
    for name, train_x, test_x in representations(model, train_source, test_source, len(train)):
        data = (train_x, train_y, test_x, test_y)
        described = {
            "representation": name,
            "dimensions": int(train_x.shape[1]),
            **weights_of(name, model),
            "pictures": "resized, not augmented",
            "train_examples": len(train),
            "test_examples": len(test),
        }
        for protocol in config.probe.protocols:
            selection = (
                {"validation_fraction": config.probe.validation_fraction}
                if protocol == "lbfgs"
                else {}
            )
            seed = {} if protocol == "knn" else {"seed": config.seed}
            result = PROTOCOLS[protocol](*data, num_classes=num_classes, **selection, **seed)
            rows.append(
                described
                | {"probe": protocol, "accuracy": result.accuracy, "protocol": result.protocol}
            )
        for labels in config.probe.labels_per_class:
            mean, std, protocol = few_label_probe(
                *data,
                num_classes=num_classes,
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

    path = pathlib.Path(workdir) / "probe" / f"{model.step:08d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"\nThe protocol of each number ({path}):")
    for row in rows:
        print(f"{row['representation']}, {row['probe']}: {json.dumps(row['protocol'])}")
    return rows


def representations(
    model: Pretrained, train_source: Source, test_source: Source, num_train: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, features of the training pictures [n d], of the test pictures [n d])."""
    config = model.parts.config.probe
    models = [("", model)]
    if config.baselines:
        models.append(("untrained ", pretrained.untrained(model.parts.config)))
    for prefix, one in models:
        train = one.features(train_source.images, num_train)
        test = one.features(test_source.images, len(test_source))
        for name in config.features:
            yield prefix + name, train[name], test[name]
    if config.baselines:
        yield (
            "raw pixels",
            *(
                raw_pixels(source.images(np.arange(count)))
                for source, count in ((train_source, num_train), (test_source, len(test_source)))
            ),
        )


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
