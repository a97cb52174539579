"""Suite "probes": how much of the label can be read off each representation."""

from soda_jax import probe
from soda_jax.data.sources import Source
from soda_jax.pretrained import Pretrained
from soda_jax.report import accuracies

PROBES = ("lbfgs", "adam", "knn", "knn_plain", "mlp")


def run(model: Pretrained, train: Source, test: Source) -> dict:
    """Every probe on z, on pooled features, on an untrained encoder's, and on raw pixels."""
    labels_per_class = model.parts.config.evaluate.labels_per_class
    return {"rows": probe.measure(model, train, test, PROBES, labels_per_class)}


def show(values: dict, folder) -> list[str]:
    return accuracies(values["rows"])
