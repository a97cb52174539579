"""Suite "fine_tune": the encoder goes on learning from labels, pretrained or from scratch."""

import jax.numpy as jnp
import numpy as np

from soda_jax import page, pretrained, rngs
from soda_jax.array_types import Array, PyTree
from soda_jax.data.sources import Source, num_classes
from soda_jax.data.views import augmented, plain
from soda_jax.evaluation.fine_tune import fine_tune
from soda_jax.pretrained import Pretrained
from soda_jax.probe import some


def run(model: Pretrained, train: Source, test: Source) -> dict:
    """The fine-tuned encoder beside the same one that starts from its initial weights."""
    model.needs_z("fine_tune")
    config = model.parts.config
    chosen = some(train, config.probe.max_examples, config.seed)
    test_y = test.labels(np.arange(len(test)))
    rows = []
    for name, one in (("pretrained", model), ("from scratch", pretrained.untrained(config))):
        found = fine_tune(
            encoder_of(one),
            {
                collection: {"encoder": tree["encoder"]}
                for collection, tree in one.variables.items()
                if "encoder" in tree
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
        source = plain(images, view) if images.dtype == jnp.uint8 else images
        z, new = model.apply(variables, source, train, method="encode", mutable=["batch_stats"])
        return z, new.get("batch_stats", {})

    return apply


def augment_of(one: Pretrained):
    """augment_fn of `fine_tune`: the views that the encoder was pretrained on."""

    def augment(key: Array, images: Array) -> Array:
        return augmented(
            rngs.per_example(key, jnp.arange(len(images))), images, one.parts.source_view
        )

    return augment


def show(values: dict, folder) -> list[str]:
    rows = {row["start"]: [f"{100 * row['accuracy']:.2f}"] for row in values["rows"]}
    epochs = values["rows"][0]["protocol"]["epochs"]
    return [
        "<h2>Fine-tuned with all labels</h2>",
        f"<p>The encoder and a linear head on z, {epochs} epochs; the epoch was chosen on a part "
        "of the training split. In percent on the test split.</p>",
        page.table("encoder", ["accuracy"], rows),
    ]
