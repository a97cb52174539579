"""Suite "attributes": which of several yes-or-no attributes can be read off each representation."""

import numpy as np

from soda_jax import page, probe
from soda_jax.data.sources import Source
from soda_jax.evaluation.attribute_probe import attribute_probe
from soda_jax.pretrained import Pretrained

MOST_VALUES = 10  # of a factor: beyond, its values are a scale, and no attributes [D]
FEWEST = 10  # training pictures with an attribute, and without it [D]
SHOWN = 40


def run(model: Pretrained, train: Source, test: Source) -> dict:
    """A binary classifier for each attribute, on z, pooled, an untrained encoder's, raw pixels.

    Raises:
      ValueError: the set has neither factors nor labels, or nothing that both splits show.
    """
    config = model.parts.config
    chosen = probe.some(train, config.probe.max_examples, config.seed)
    names, train_y, test_y = attributes(train, chosen, test)
    rows = []
    for name, train_x, test_x in probe.representations(model, train, test, chosen):
        found = attribute_probe(
            train_x,
            train_y,
            test_x,
            test_y,
            names=names,
            validation_fraction=config.probe.validation_fraction,
            seed=config.seed,
        )
        rows.append(
            {
                "representation": name,
                **probe.weights_of(name, model),
                "mean": found.mean,
                "attributes": found.attributes,
                "protocol": found.protocol,
            }
        )
        mean = found.mean
        print(f"{name:<18} F1 {mean['f1']:.3f}   average precision {mean['average_precision']:.3f}")
    return {"names": names, "rows": rows}


def attributes(
    train: Source, chosen: np.ndarray, test: Source
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names [a], and 0 or 1 for the chosen training pictures [n a] and for all of test [m a].

    A factor of two values is an attribute; one of up to 10 is an attribute for each value. Where
    the set knows no factors, its classes are the attributes. What too few pictures of a split have,
    or too many, is left out.
    """
    everything = np.arange(len(test))
    if train.factor_names:
        columns, splits = train.factor_names, (train.factors(chosen), test.factors(everything))
    else:
        columns = ("class",)
        splits = tuple(y[:, None] for y in (train.labels(chosen), test.labels(everything)))
    names, pairs = [], []
    for k, column in enumerate(columns):
        values = np.unique(splits[0][:, k]).tolist()
        if not 2 <= len(values) <= MOST_VALUES and train.factor_names:
            continue
        for value in values[1:] if len(values) == 2 else values:
            pair = [(y[:, k] == value).astype(np.int8) for y in splits]
            rarer = [min(y.sum(), len(y) - y.sum()) for y in pair]
            if rarer[0] >= FEWEST and rarer[1] >= 1:
                pairs.append(pair)
                names.append(column if values == [0, 1] else f"{column} = {_shown(train, value)}")
    if not pairs:
        raise ValueError(f"{train.name}: no factor has 2 to {MOST_VALUES} values in both splits")
    return names, *(np.stack(columns, axis=1) for columns in zip(*pairs, strict=True))


def _shown(source: Source, value: int) -> str:
    """A class by its name, a factor's value by its number."""
    if source.factor_names or not source.class_names:
        return str(value)
    return source.class_names[value]


def show(values: dict, folder) -> list[str]:
    """Means for all representations, then the attributes one by one."""
    representations = [row["representation"] for row in values["rows"]]
    means = {
        row["representation"]: [row["mean"][kind] for kind in ("f1", "average_precision")]
        for row in values["rows"]
    }
    single = {
        name: [row["attributes"][name]["average_precision"] for row in values["rows"]]
        + [values["rows"][0]["attributes"][name]["base_rate"]]
        for name in values["names"][:SHOWN]
    }
    left_out = len(values["names"]) - len(single)
    return [
        "<h2>Attributes, one by one</h2>",
        f"<p>Means over {len(values['names'])} attributes, on the test split:</p>",
        page.heatmap("", ["F1", "average precision"], means, low=0.0, high=1.0, form=".3f"),
        "<p>Average precision of each"
        + (f" (the JSON has {left_out} more)" if left_out else "")
        + ", beside the share of pictures that have it:</p>",
        page.heatmap("attribute", [*representations, "share"], single, low=0.0, high=1.0),
    ]
