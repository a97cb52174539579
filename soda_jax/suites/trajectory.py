"""Suite "trajectory": what the curve t -> z(t) knows of the label, at each t and as a whole."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np

from soda_jax import page, probe
from soda_jax.config_schema import ConfigError
from soda_jax.data.sources import Source, num_classes
from soda_jax.data.views import whole
from soda_jax.evaluation.features import extract
from soda_jax.evaluation.trajectory_readers import read_curve
from soda_jax.pretrained import Pretrained


def run(model: Pretrained, train: Source, test: Source) -> dict:
    """A reader of each z(t) alone, and two of the whole curve.

    Raises:
      ConfigError: z doesn't depend on t.
    """
    parts, config = model.parts, model.parts.config
    if not parts.timed:
        raise ConfigError(
            f"config.model.encoder.variant = {config.model.encoder.variant!r}: its code doesn't "
            "depend on t, so there is no curve to read; nearest: 'wide_resnet'"
        )
    count = config.evaluate.trajectory_points
    times = np.linspace(0, 1, count + 1) if count > 1 else np.array([0.5])
    chosen = probe.some(train, config.probe.max_examples, config.seed)
    of_train, of_test = (
        curves_of(model, source, rows, times)
        for source, rows in ((train, chosen), (test, np.arange(len(test))))
    )
    labels = train.labels(chosen), test.labels(np.arange(len(test)))
    options = {
        "num_classes": num_classes(train),
        "num_epochs": config.evaluate.trajectory_epochs,
        "validation_fraction": config.probe.validation_fraction,
        "seed": config.seed,
    }

    def read(reader: str, where: slice) -> dict:
        x, test_x = of_train[:, where], of_test[:, where]
        found = read_curve(x, labels[0], test_x, labels[1], reader=reader, **options)
        return dataclasses.asdict(found)

    alone = [read("one time", slice(i, i + 1)) for i in range(len(times))]
    whole = {reader: read(reader, slice(None)) for reader in ("recurrent", "transformer")}
    return {
        "times": times.tolist(),
        "alone": alone,
        "best": max(range(len(times)), key=lambda i: alone[i]["validation_accuracy"]),
        "whole": whole,
        "step": model.step,
        "weights": config.probe.weights,
    }


def curves_of(model: Pretrained, source: Source, rows: np.ndarray, times: np.ndarray) -> np.ndarray:
    """z(t) of pictures of a source at these times: [n s z]."""
    parts = model.parts

    @jax.jit
    def encode(variables, images):
        x = whole(images, parts.source_view)

        def at(t):
            ts = jnp.full(x.shape[:1], t)
            return parts.model.apply(variables, x, t=ts, method="encode")

        codes = jax.lax.map(at, jnp.asarray(times, jnp.float32))
        return {"curve": codes.swapaxes(0, 1).reshape(len(x), -1)}

    found = extract(
        lambda images: encode(model.variables, images),
        lambda positions: source.images(rows[positions]),
        len(rows),
        **model.in_batches(),
    )["curve"]
    return found.reshape(len(rows), len(times), -1)


def show(values: dict, folder) -> list[str]:
    """The accuracy over t, and beside it that of the readers of all of it."""
    accuracies = [100 * row["accuracy"] for row in values["alone"]]
    best = values["best"]
    rows = {f"z({values['times'][best]:g}), the best in validation": [f"{accuracies[best]:.2f}"]}
    rows |= {
        f"all of z(t), {name}": [f"{100 * row['accuracy']:.2f}"]
        for name, row in values["whole"].items()
    }
    return [
        "<h2>The code as a curve</h2>",
        "<p>Accuracy on the test split, in percent, of a hidden layer on z(t) for each t:</p>",
        page.chart({"z(t)": list(zip(values["times"], accuracies, strict=True))}, unit="t ="),
        page.table("what is read", ["accuracy"], rows),
        page.details("protocols", json.dumps(values["whole"], indent=1)),
    ]
