"""Suite "semi_supervised": what a few labels are worth, spread over what looks alike."""

import json

import numpy as np

from soda_jax import page, probe
from soda_jax.data.sources import Source, num_classes
from soda_jax.evaluation.label_propagation import label_propagation, neighbour_graph
from soda_jax.pretrained import Pretrained


def run(model: Pretrained, train: Source, test: Source) -> dict:
    """Label propagation on each representation, for each number of labels.

    Raises:
      ValueError: no number of labels (config.evaluate.labels_per_class) is small enough.
    """
    config = model.parts.config
    chosen = probe.some(train, config.evaluate.graph_examples, config.seed)
    train_y, test_y = train.labels(chosen), test.labels(np.arange(len(test)))
    fewest = int(np.unique(train_y, return_counts=True)[1].min())
    numbers = [count for count in config.evaluate.labels_per_class if count < fewest]
    if not numbers:
        raise ValueError(
            f"config.evaluate.labels_per_class = {config.evaluate.labels_per_class}: a class has "
            f"{fewest} pictures, and some must be left without a label"
        )
    rows = []
    for name, train_x, test_x in probe.representations(model, train, test, chosen):
        graph = neighbour_graph(train_x)
        for labels_per_class in numbers:
            result = label_propagation(
                train_x,
                train_y,
                test_x,
                test_y,
                num_classes=num_classes(train),
                labels_per_class=labels_per_class,
                draws=config.probe.draws,
                seed=config.seed,
                graph=graph,
            )
            rows.append(
                {
                    "representation": name,
                    "labels_per_class": labels_per_class,
                    **probe.weights_of(name, model),
                    **result._asdict(),
                }
            )
    return {"rows": rows, "pictures": len(chosen)}


def show(values: dict, folder) -> list[str]:
    """A table of test accuracies; in brackets, of the pseudo-labels."""
    rows = values["rows"]
    numbers = list(dict.fromkeys(row["labels_per_class"] for row in rows))
    lines: dict[str, list[str]] = {}
    for row in rows:
        text = f"{100 * row['accuracy']:.2f} ± {100 * row['std']:.1f}"
        lines.setdefault(row["representation"], []).append(
            f"{text} ({100 * row['pseudo_accuracy']:.1f})"
        )
    protocols = {f"{r['representation']}, {r['labels_per_class']}": r["protocol"] for r in rows}
    return [
        "<h2>A few labels, spread among neighbours</h2>",
        f"<p>The graph of which of {values['pictures']:,} training pictures look alike labels all "
        "of them from a few of each class; a linear classifier learns from that. Percent on the "
        "test split; in brackets, how many of the spread labels are right.</p>",
        page.table("representation", [f"{n} labels a class" for n in numbers], lines),
        page.details("protocols", json.dumps(protocols, indent=1)),
    ]
