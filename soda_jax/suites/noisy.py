"""Suite "noisy": can the denoiser's features tell the class of a picture under noise?"""

import json

import jax
import numpy as np

from soda_jax import page
from soda_jax.array_types import Array
from soda_jax.data.sources import Source, num_classes
from soda_jax.data.views import plain
from soda_jax.evaluation.layers import denoiser_layers
from soda_jax.evaluation.noisy_head import noisy_classifier
from soda_jax.evaluation.picture_keys import keys_of
from soda_jax.pretrained import Pretrained, untrained
from soda_jax.probe import some

TS = tuple((1 + 50 * i) / 1000 for i in range(20))  # [R: of DDPM's noise]


def run(model: Pretrained, train: Source, test: Source) -> dict:
    """The head on config.probe.block of the trained denoiser, and of an untrained one; no z."""
    config = model.parts.config
    chosen = some(train, config.evaluate.layer_examples, config.seed)
    read = some(test, config.evaluate.layer_examples, config.seed)
    found = {}
    for name, one in (("trained", model), ("untrained", untrained(model.parts))):
        found[name] = noisy_classifier(
            features_of(one),
            lambda rows: train.images(chosen[rows]),
            train.labels(chosen),
            lambda rows: test.images(read[rows]),
            test.labels(read),
            num_classes=num_classes(train),
            t_min=config.diffusion.t_min,
            ts=TS,
            num_epochs=config.evaluate.noisy_epochs,
            seed=config.seed,
        )
    return {
        "block": config.probe.block,
        "step": model.step,
        "weights": config.probe.weights,
        "heads": found,
    }


def features_of(one: Pretrained):
    """(images uint8, t [b], key) -> the block's mean over space [b d], under no z."""
    parts, block = one.parts, one.parts.config.probe.block

    @jax.jit
    def features(images: Array, t: Array, key: Array) -> Array:
        x_0, keys = plain(images, parts.target_view), keys_of(key, images)
        return denoiser_layers(
            one.alone, parts.process, one.variables, x_0, None, t, keys, names=(block,)
        )[block]

    return features


def show(values: dict, folder) -> list[str]:
    curves = {
        name: list(zip(head["ts"], (100 * np.array(head["accuracies"])).tolist(), strict=True))
        for name, head in values["heads"].items()
    }
    protocols = {name: head["protocol"] for name, head in values["heads"].items()}
    return [
        "<h2>The class of a picture under noise</h2>",
        f"<p>Accuracy on the test split, in percent, of one head for all t on {values['block']} of "
        "the denoiser, which sees nothing but the noisy picture:</p>",
        page.chart(curves, unit="t ="),
        page.details("protocols", json.dumps(protocols, indent=1)),
    ]
