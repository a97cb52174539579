"""Suite "fine_tune": the network goes on learning from labels, pretrained or from scratch."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from soda_jax import inference, page, pretrained, rngs
from soda_jax.array_types import Array, PyTree
from soda_jax.data.sources import Source, num_classes
from soda_jax.data.views import augmented, plain, whole
from soda_jax.evaluation.fine_tune import fine_tune
from soda_jax.evaluation.layers import denoiser_layers
from soda_jax.evaluation.picture_keys import keys_of
from soda_jax.pretrained import Pretrained
from soda_jax.probe import some


def run(model: Pretrained, train: Source, test: Source) -> dict:
    """The fine-tuned network beside the same one that starts from its initial weights.

    The encoder, under a head on z; where there is none the denoiser, under a head on the block that
    the config names.
    """
    config = model.parts.config
    chosen = some(train, config.probe.max_examples, config.seed)
    test_y = test.labels(np.arange(len(test)))
    tuned = "encoder" if model.parts.z_size else "denoiser"
    rows = []
    for name, one in (("pretrained", model), ("from scratch", pretrained.untrained(model.parts))):
        found = fine_tune(
            encoder_of(one) if one.parts.z_size else denoiser_of(one),
            {
                collection: {tuned: tree[tuned]}
                for collection, tree in one.variables.items()
                if tuned in tree
            },
            lambda indices: train.images(chosen[indices]),
            train.labels(chosen),
            test.images,
            test_y,
            num_classes=num_classes(train),
            augment_fn=augment_of(one),
            validation_fraction=config.probe.validation_fraction,
            num_epochs=config.evaluate.fine_tune_epochs,
            warmup_epochs=config.evaluate.fine_tune_epochs // 10,
            seed=config.seed,
        )
        rows.append(
            {
                "start": name,
                "accuracy": found.result.accuracy,
                "validation_accuracy": found.result.validation_accuracy,
                "protocol": found.result.protocol
                | {
                    "weights": config.probe.weights if one is model else "initial",
                    "step": one.step,
                },
            }
        )
    return {"rows": rows}


def encoder_of(one: Pretrained):
    """apply_fn of `fine_tune`: uint8 pictures are resized and scaled, others are views already."""
    model, view = one.alone, one.parts.source_view

    def apply(variables: PyTree, images: Array, train: bool) -> tuple[Array, PyTree]:
        source = whole(images, view) if images.dtype == jnp.uint8 else images
        z, new = model.apply(variables, source, train, method="encode", mutable=["batch_stats"])
        return z, new.get("batch_stats", {})

    return apply


def denoiser_of(one: Pretrained):
    """The same for a denoiser alone: its block under noise that depends on the picture alone.

    Without dropout, in training too [D].
    """
    parts, probe = one.parts, one.parts.config.probe
    key = rngs.stream(rngs.root(parts.config.seed), "block")

    def apply(variables: PyTree, images: Array, train: bool) -> tuple[Array, PyTree]:
        x_0 = plain(images, parts.target_view) if images.dtype == jnp.uint8 else images
        keys = keys_of(key, inference.to_uint8(x_0 / parts.farthest))
        arguments = (variables, x_0, None, probe.t, keys)
        block = denoiser_layers(one.alone, parts.process, *arguments, names=(probe.block,))
        return block[probe.block], {}

    return apply


def augment_of(one: Pretrained):
    """augment_fn of `fine_tune`: the views that the network was pretrained on."""
    view = one.parts.source_view if one.parts.z_size else one.parts.target_view
    if view.edm_prob:  # of which the denoiser would have to be told; its mirrors stay
        view = dataclasses.replace(view, edm_prob=0.0, flip_prob=0.5)

    def augment(key: Array, images: Array) -> Array:
        return augmented(rngs.per_example(key, jnp.arange(len(images))), images, view)

    return augment


def show(values: dict, folder) -> list[str]:
    rows = {row["start"]: [f"{100 * row['accuracy']:.2f}"] for row in values["rows"]}
    epochs = values["rows"][0]["protocol"]["epochs"]
    return [
        "<h2>Fine-tuned with all labels</h2>",
        f"<p>The encoder and a linear head on z, or without an encoder the denoiser and a head on "
        f"its block, {epochs} epochs; the epoch was chosen on a part of the training split. In "
        "percent on the test split.</p>",
        page.table("weights", ["accuracy"], rows),
    ]
