"""Suite "streamed": published linear probes, whose pictures are augmented anew in every epoch."""

from collections.abc import Callable, Iterator

import jax
import numpy as np

from soda_jax import report, rngs
from soda_jax.array_types import Array, PyTree
from soda_jax.data.sources import Source, num_classes
from soda_jax.data.views import View, augmented
from soda_jax.evaluation.features import extract
from soda_jax.evaluation.layers import encoder_layers
from soda_jax.evaluation.picture_keys import keys_of
from soda_jax.evaluation.stream_probe import stream_probe
from soda_jax.evaluation.stream_protocol import MAE_PROBE, SODA_PROBE
from soda_jax.pretrained import Pretrained

# name: (protocol, how a training picture is augmented)
PROTOCOLS = {
    "soda": (SODA_PROBE, {"crop_prob": 0.65, "flip_prob": 0.65}),  # [R]
    "mae": (MAE_PROBE, {"crop_prob": 1.0, "crop_scale": (0.08, 1.0), "flip_prob": 0.5}),
}


def run(model: Pretrained, train: Source, test: Source) -> dict:
    """The protocols that config.evaluate.streamed names, on z and on pooled features.

    Features of training pictures are made again in every epoch and never kept, so a set of any size
    can stream by.
    """
    config = model.parts.config
    of_test = model.features(test.images, len(test))
    test_labels = test.labels(np.arange(len(test)))
    rows = []
    for name in config.evaluate.streamed:
        protocol, view = PROTOCOLS[name]
        size = min(protocol.batch_size, len(train))
        results = stream_probe(
            training_stream(model, train, view, size),
            lambda size=size: chunks(of_test, test_labels, size),
            num_classes=num_classes(train),
            protocol=protocol,
            steps_per_epoch=len(train) // size,
            seed=config.seed,
        )
        for representation, result in results.items():
            rows.append(
                {
                    "representation": representation,
                    "dimensions": result.protocol["dimensions"],
                    "probe": f"{result.protocol['probe']}",
                    "accuracy": result.accuracy,
                    "weights": config.probe.weights,
                    "step": model.step,
                    "protocol": result.protocol | {"view": view},
                }
            )
    return {"rows": rows}


def training_stream(
    model: Pretrained, train: Source, view: dict, size: int
) -> Callable[[int], Iterator[tuple[dict[str, np.ndarray], np.ndarray]]]:
    """epoch -> batches of features ("z", "pooled") of augmented pictures, in an order of its own.

    What is left over of an epoch after the last full batch is other pictures each time.
    """
    config, of_source = model.parts.config, model.parts.source_view
    view = View(size=of_source.size, mean=of_source.mean, std=of_source.std, **view)
    root = rngs.stream(rngs.root(config.seed), "streamed")

    @jax.jit
    def encode(variables: PyTree, images: Array, key: Array) -> dict[str, Array]:
        views = augmented(keys_of(key, images), images, view)
        return encoder_layers(model.alone, variables, views, names=("z", "pooled"))

    def batches(epoch: int):
        key = jax.random.fold_in(root, epoch)
        order = np.random.default_rng((config.seed, epoch)).permutation(len(train))
        for start in range(0, len(order) - size + 1, size):
            some = order[start : start + size]
            features = extract(
                lambda images: encode(model.variables, images, key),
                lambda positions, some=some: train.images(some[positions]),
                size,
                **model.in_batches(size),
            )
            yield features, train.labels(some)

    return batches


def chunks(features: dict[str, np.ndarray], labels: np.ndarray, size: int):
    """Batches of at most `size`, in order."""
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        yield {name: x[part] for name, x in features.items()}, labels[part]


def show(values: dict, folder) -> list[str]:
    title = "<h2>Published probes, augmented anew in every epoch</h2>"
    return [title, *report.accuracies(values["rows"])[1:]]
