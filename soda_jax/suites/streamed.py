"""Suite "streamed": published linear probes, whose pictures are augmented anew in every epoch."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from soda_jax import report, rngs
from soda_jax.array_types import Array, PyTree
from soda_jax.data.sources import Source, num_classes
from soda_jax.data.views import View, augmented
from soda_jax.evaluation.features import extract
from soda_jax.evaluation.layers import denoiser_layers, encoder_layers
from soda_jax.evaluation.picture_keys import keys_of
from soda_jax.evaluation.stream_probe import stream_probe
from soda_jax.evaluation.stream_protocol import DDAE_PROBE, MAE_PROBE, SODA_PROBE
from soda_jax.pretrained import Pretrained

# name: (protocol, how a training picture is augmented, what is read)
PROTOCOLS = {
    # There one draw decides on both, and flips half of what it crops: as often here, not tied [R].
    "soda": (
        SODA_PROBE,
        {"crop_prob": 0.65, "crop_scale": (0.08, 1.0), "flip_prob": 0.325},
        "encoder",
    ),
    "mae": (MAE_PROBE, {"crop_prob": 1.0, "crop_scale": (0.08, 1.0), "flip_prob": 0.5}, "encoder"),
    "ddae": (DDAE_PROBE, {"crop_prob": 0.0, "shift": 4, "flip_prob": 0.5}, "block"),
}
PLAIN = {"crop_prob": 0.0, "flip_prob": 0.0}


def run(model: Pretrained, train: Source, test: Source) -> dict:
    """The protocols that config.evaluate.streamed names: on z and pooled features, or on a block.

    Features of training pictures are made again in every epoch and never kept, so a set of any size
    can stream by.

    Raises:
      ValueError: a protocol reads the encoder, and there is none.
    """
    config = model.parts.config
    test_labels = test.labels(np.arange(len(test)))
    root = rngs.stream(rngs.root(config.seed), "streamed")
    rows = []
    for name in config.evaluate.streamed:
        protocol, view, read = PROTOCOLS[name]
        if read == "encoder" and not model.parts.z_size:
            raise ValueError(
                f"config.evaluate.streamed: {name!r} reads the encoder, and this model has none; "
                "nearest: 'ddae'"
            )
        size = min(protocol.batch_size, len(train))
        augmented_fn, plain_fn = (reader(model, read, options) for options in (view, PLAIN))
        of_test = extract(
            lambda images, fn=plain_fn: fn(model.variables, images, rngs.stream(root, "test")),
            test.images,
            len(test),
            **model.in_batches(),
        )
        results = stream_probe(
            training_stream(model, train, augmented_fn, size),
            lambda size=size, of_test=of_test: chunks(of_test, test_labels, size),
            num_classes=num_classes(train),
            protocol=protocol,
            steps_per_epoch=len(train) // size,
            seed=config.seed,
        )
        where = {"block": config.probe.block, "t": config.probe.t} if read == "block" else {}
        for representation, result in results.items():
            rows.append(
                {
                    "representation": representation,
                    "dimensions": result.protocol["dimensions"],
                    "probe": f"{result.protocol['probe']}",
                    "accuracy": result.accuracy,
                    "weights": config.probe.weights,
                    "step": model.step,
                    "protocol": result.protocol | {"view": view} | where,
                }
            )
    return {"rows": rows}


def reader(
    model: Pretrained, read: str, view: dict
) -> Callable[[PyTree, Array, Array], dict[str, Array]]:
    """(variables, images uint8, key) -> features of views of them: name -> [b d].

    Of the encoder, z and pooled features; or the denoiser's config.probe.block at config.probe.t,
    with noise from the key, under the view's own z (where there is one) and under none. Views that
    are read are as large as probes see whole pictures.
    """
    parts, probe = model.parts, model.parts.config.probe

    def seen(name: str, side: View, images: Array, key: Array) -> Array:
        size = (read == "encoder" and side.whole_size) or side.size
        options = View(size=size, mean=side.mean, std=side.std, **view)
        return augmented(keys_of(rngs.stream(key, name), images), images, options)

    @jax.jit
    def encode(variables: PyTree, images: Array, key: Array) -> dict[str, Array]:
        if read == "encoder":
            source = seen("view", parts.source_view, images, key)
            return encoder_layers(model.alone, variables, source, names=("z", "pooled"))
        x_0 = seen("view", parts.target_view, images, key)
        codes = {"block, no z" if parts.z_size else "block": None}
        if parts.z_size:
            source, t = seen("view", parts.source_view, images, key), jnp.full(len(x_0), probe.t)
            codes["block"] = model.alone.apply(variables, source, t=t, method="encode")
        noise = keys_of(rngs.stream(key, "noise"), images)
        return {
            name: denoiser_layers(
                model.alone, parts.process, variables, x_0, z, probe.t, noise, names=(probe.block,)
            )[probe.block]
            for name, z in codes.items()
        }

    return encode


def training_stream(
    model: Pretrained, train: Source, encode_fn: Callable, size: int
) -> Callable[[int], Iterator[tuple[dict[str, np.ndarray], np.ndarray]]]:
    """epoch -> batches of features of augmented pictures, in an order of its own.

    What is left over of an epoch after the last full batch is other pictures each time.
    """
    config = model.parts.config
    root = rngs.stream(rngs.root(config.seed), "streamed")

    def batches(epoch: int):
        key = jax.random.fold_in(root, epoch)
        order = np.random.default_rng((config.seed, epoch)).permutation(len(train))
        for start in range(0, len(order) - size + 1, size):
            some = order[start : start + size]
            features = extract(
                lambda images: encode_fn(model.variables, images, key),
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
