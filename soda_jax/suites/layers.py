"""Suite "layers": which layer of encoder or denoiser knows most of the label, and at which t."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from soda_jax import page, rngs
from soda_jax.array_types import Array
from soda_jax.data.sources import Source, num_classes
from soda_jax.data.views import plain, whole
from soda_jax.evaluation.code_health import alignment, uniformity
from soda_jax.evaluation.features import extract
from soda_jax.evaluation.layers import (
    denoiser_layer_names,
    encoder_layer_names,
    encoder_layers,
    layer_grid,
)
from soda_jax.evaluation.picture_keys import keys_of
from soda_jax.evaluation.probe_data import shuffled, stratified_split
from soda_jax.evaluation.stream_probe import best_head, stream_probe
from soda_jax.evaluation.stream_protocol import DDAE_PROBE
from soda_jax.pretrained import Pretrained
from soda_jax.probe import some

PROTOCOL = dataclasses.replace(
    DDAE_PROBE,
    name="layer heads [D]",
    norm="batch",
    batch_size=256,
    pictures="not augmented, features computed once",
    source="own [D]: as the grid of FutureXiang/ddae, with a norm",
)
WITHOUT = "no z: "
CONTRASTED = 2000  # test pictures whose blocks are looked at under two noises


def run(model: Pretrained, train: Source, test: Source) -> dict:
    """A linear head on every layer of the encoder, and of the denoiser at some t, with z or not.

    All heads learn in one pass over features that are computed once; a part of the training
    pictures says which is best, never the test set.
    """
    parts, config = model.parts, model.parts.config
    chosen = some(train, config.evaluate.layer_examples, config.seed)
    read = some(test, config.evaluate.layer_examples, config.seed)
    layers_fn = make_layers_fn(model)
    of_train, of_test = (
        extract(
            layers_fn,
            lambda positions, source=source, rows=rows: source.images(rows[positions]),
            len(rows),
            **model.in_batches(),
        )
        for source, rows in ((train, chosen), (test, read))
    )
    count = min(CONTRASTED, len(read))
    again = extract(
        make_layers_fn(model, "again"),
        lambda positions: test.images(read[positions]),
        count,
        **model.in_batches(),
    )
    labels, test_labels = train.labels(chosen), test.labels(read)
    fit_on, held_out = stratified_split(labels, config.probe.validation_fraction, config.seed)

    size = min(PROTOCOL.batch_size, len(fit_on))

    def batches(features, labels, rows):
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield {name: x[part] for name, x in features.items()}, labels[part]

    results = stream_probe(
        lambda epoch: batches(of_train, labels, shuffled(fit_on, config.seed, epoch)),
        lambda: batches(of_test, test_labels, np.arange(len(read))),
        validation_batches_fn=lambda: batches(of_train, labels, held_out),
        num_classes=num_classes(train),
        protocol=PROTOCOL,
        seed=config.seed,
    )
    return {
        "encoder": list(encoder_layer_names(model.alone, model.variables, parts.source_shape))
        if parts.z_size
        else [],
        "denoiser": list(denoiser_layer_names(model.alone, model.variables, parts.target_shape)),
        "ts": list(config.evaluate.layer_ts),
        "best": best_head(results),
        "heads": {
            name: {
                "accuracy": result.accuracy,
                "validation_accuracy": result.validation_accuracy,
                "dimensions": result.protocol["dimensions"],
                **(contrast(of_test[name][:count], again[name]) if "@t=" in name else {}),
            }
            for name, result in results.items()
        },
        "protocol": {
            name: value
            for name, value in next(iter(results.values())).protocol.items()
            if name != "dimensions"
        }
        | {"weights": config.probe.weights, "step": model.step},
    }


def contrast(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Of features [n d] under two noises: how near they are, and how evenly they spread (DDAE)."""
    spread = (uniformity(x) + uniformity(y)) / 2
    return {"alignment": alignment(x, y), "uniformity": spread}


def make_layers_fn(model: Pretrained, noise: str = "layers") -> Callable[[Array], dict[str, Array]]:
    """uint8 [b h w c] -> name -> [b d]: the encoder's layers, and the denoiser's at each t.

    "block@t=.." is under the picture's z, "no z: block@t=.." without it. Another name of the noise
    gives other noise.
    """
    parts, config = model.parts, model.parts.config
    encoder = jax.jit(lambda variables, x: encoder_layers(model.alone, variables, x))
    code_at = jax.jit(
        lambda variables, x, t: model.alone.apply(
            variables, x, t=jnp.full(x.shape[:1], t), method="encode"
        )
    )
    key = rngs.stream(rngs.root(config.seed), noise)

    def layers(images: Array) -> dict[str, Array]:
        x_0, source = (plain(images, view) for view in (parts.target_view, parts.source_view))
        read = whole(images, parts.source_view)
        found = dict(encoder(model.variables, read)) if parts.z_size else {}
        arguments = (model.alone, parts.process, model.variables, x_0)
        keys, ts = keys_of(key, images), config.evaluate.layer_ts
        for t in ts if parts.z_size else ():
            other = parts.timed or parts.source_view.whole_size  # than what is read
            z = code_at(model.variables, source, t) if other else found["z"]
            found |= layer_grid(*arguments, z, (t,), keys)
        if ts:
            without = layer_grid(*arguments, None, ts, keys)
            found |= {f"{WITHOUT}{name}": value for name, value in without.items()}
        return found

    return layers


def show(values: dict, folder) -> list[str]:
    """The encoder's layers as a line each; the denoiser's as block x t, with z and without."""
    heads = values["heads"]
    accuracies = [100 * head["accuracy"] for head in heads.values()]
    limits = {"low": min(accuracies), "high": max(accuracies), "form": ".1f"}
    best = heads[values["best"]]

    def accuracy(name: str) -> float:
        return 100 * heads[name]["accuracy"]

    encoder = {name: [accuracy(name)] for name in values["encoder"]}
    parts = [
        "<h2>Which layer knows the class</h2>",
        f"<p>Linear heads on the mean over space of each layer, in percent on the test split. Best "
        f"by the held-out part of the training split: <b>{values['best']}</b>, "
        f"{100 * best['accuracy']:.2f} with {best['dimensions']} dimensions.</p>",
        *([page.heatmap("encoder", ["accuracy"], encoder, **limits)] if encoder else []),
    ]
    if values["ts"]:
        columns = [
            (f"t = {t:g}{', no z' if prefix else ''}", f"{prefix}{{}}@t={t:g}")
            for prefix in (("", WITHOUT) if encoder else (WITHOUT,))
            for t in values["ts"]
        ]
        rows = {
            block: [accuracy(form.format(block)) for _, form in columns]
            for block in values["denoiser"]
        }
        names = [name for name, _ in columns]
        parts.append(page.heatmap("denoiser", names, rows, **limits))
        for measure, about in (
            ("alignment", "how far apart two noises leave a picture's features, of length 1"),
            ("uniformity", "how evenly they spread; the smaller, the more"),
        ):
            found = {
                block: [heads[form.format(block)].get(measure, np.nan) for _, form in columns]
                for block in values["denoiser"]
            }
            numbers = np.array(list(found.values()))
            if not np.isfinite(numbers).any():  # of an older version
                continue
            low, high = float(np.nanmax(numbers)), float(np.nanmin(numbers))
            parts += [
                f"<p>{measure.capitalize()}: {about} (Wang and Isola 2020).</p>",
                page.heatmap("denoiser", names, found, low=low, high=high),
            ]
    return parts
