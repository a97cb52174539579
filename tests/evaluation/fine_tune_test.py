import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.evaluation import probe_data
from soda_jax.evaluation.fine_tune import fine_tune
from soda_jax.evaluation.linear_probe import linear_probe
from soda_jax.models.encoder import Encoder, ResNet

RNG = np.random.default_rng(0)
TRAIN_Y, TEST_Y = RNG.integers(0, 2, 300), RNG.integers(0, 2, 200)


def pictures(labels, seed):
    """4 x 4 pixels of strong noise; the sign of one of them is the label."""
    images = 3 * np.random.default_rng(seed).normal(size=(len(labels), 4, 4, 1))
    images[:, 1, 2, 0] = 2 * labels - 1
    return images.astype(np.float32)


TRAIN, TEST = pictures(TRAIN_Y, 1), pictures(TEST_Y, 2)
# Two features of sixteen pixels: hardly anything of the label is left in random ones.
VARIABLES = {"params": {"kernel": np.random.default_rng(3).normal(size=(16, 2)) / 4}}
SETTINGS = dict(num_classes=2, num_epochs=8, batch_size=32, learning_rate=0.05)


def project(variables, images, train):
    return images.reshape(len(images), 16) @ variables["params"]["kernel"], {}


def tune(
    apply_fn=project, variables=VARIABLES, test_y=TEST_Y, train_fn=TRAIN.__getitem__, **options
):
    return fine_tune(
        apply_fn,
        variables,
        train_fn,
        TRAIN_Y,
        lambda rows: TEST[rows],
        test_y,
        **{**SETTINGS, **options},
    )


class Normed(nn.Module):
    """An encoder with BatchNorm."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(4, name="dense")(x.reshape(len(x), 16))
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)


def normed(variables, images, train):
    features, new = Normed().apply(variables, images, train, mutable=["batch_stats"])
    return features, new["batch_stats"]


def accuracy(tuned, apply_fn, images, labels):
    features = np.asarray(apply_fn(tuned.variables, jnp.asarray(images), False)[0])
    logits = features @ np.asarray(tuned.head["kernel"]) + np.asarray(tuned.head["bias"])[None]
    return np.mean(np.argmax(logits, 1) == labels)


def test_fine_tuning_solves_what_the_frozen_encoder_has_lost():
    frozen = [project(VARIABLES, images, False)[0] for images in (TRAIN, TEST)]
    probed = linear_probe(frozen[0], TRAIN_Y, frozen[1], TEST_Y, num_classes=2, l2_values=[1e-3])
    tuned = tune()
    assert probed.accuracy < 0.7
    assert tuned.result.accuracy > 0.9
    protocol = tuned.result.protocol
    assert json.loads(json.dumps(protocol)) == protocol
    assert protocol["fit_examples"] + protocol["validation_examples"] == 300


def test_the_scores_are_those_of_the_weights_that_are_returned():
    """Of the best epoch: here the pictures that are trained on turn false after the third one."""
    _, validate_on = probe_data.stratified_split(TRAIN_Y, 0.1, seed=0)
    trained_on = 0

    def turning(rows):
        nonlocal trained_on
        images = np.array(TRAIN[rows])
        if not np.isin(rows, validate_on).any():
            trained_on += len(rows)
            if trained_on > 3 * 270:
                images[:, 1, 2] *= -1
        return images

    variables = Normed().init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)), False)
    tuned = tune(normed, variables, train_fn=turning, warmup_epochs=0)
    scores = tuned.result.protocol["validation_accuracies"]
    assert tuned.result.protocol["epoch_chosen"] == 1 + int(np.argmax(scores)) < len(scores)
    assert scores[-1] < max(scores) - 0.1
    assert max(scores) == tuned.result.validation_accuracy
    held_out = accuracy(tuned, normed, TRAIN[validate_on], TRAIN_Y[validate_on])
    assert held_out == pytest.approx(tuned.result.validation_accuracy)
    assert accuracy(tuned, normed, TEST, TEST_Y) == pytest.approx(tuned.result.accuracy)
    assert jax.tree.structure(tuned.variables) == jax.tree.structure(variables)
    assert not np.allclose(tuned.variables["batch_stats"]["norm"]["mean"], 0)


def test_held_out_pictures_are_never_trained_on():
    """The pictures carry their number, and the batch statistics count them."""
    numbered = np.array(TRAIN)
    numbered[:, 0, 0, 0] = np.arange(300)

    def counting(variables, images, train):
        features, _ = project(variables, images.at[:, 0, 0].set(0.0), train)
        return features, variables["batch_stats"].at[images[:, 0, 0, 0].astype(int)].add(1)

    variables = VARIABLES | {"batch_stats": jnp.zeros((300,))}
    tuned = fine_tune(
        counting,
        variables,
        lambda rows: numbered[rows],
        TRAIN_Y,
        lambda rows: numbered[rows],
        TEST_Y,
        **{**SETTINGS, "num_epochs": 1, "warmup_epochs": 0},
    )
    fit_on, validate_on = probe_data.stratified_split(TRAIN_Y, 0.1, seed=0)
    counts = np.asarray(tuned.variables["batch_stats"])
    assert counts[validate_on].tolist() == [0] * len(validate_on)
    assert counts.max() == 1 and counts.sum() == len(fit_on) // 32 * 32


def test_the_test_set_chooses_nothing_and_the_seed_is_the_only_chance():
    tuned, again, flipped = tune(), tune(), tune(test_y=1 - TEST_Y)
    assert tuned.result == again.result
    jax.tree.map(np.testing.assert_array_equal, tuned.variables, again.variables)
    jax.tree.map(np.testing.assert_array_equal, tuned.variables, flipped.variables)
    assert flipped.result.protocol == tuned.result.protocol
    assert flipped.result.accuracy == pytest.approx(1 - tuned.result.accuracy)
    other = tune(seed=1)
    assert not np.array_equal(
        other.variables["params"]["kernel"], tuned.variables["params"]["kernel"]
    )


def test_augmentation_is_for_training_alone():
    """Where it takes the label's pixel away there is nothing to learn, though test shows it."""
    blinded = tune(augment_fn=lambda key, images: images.at[:, 1, 2].set(0.0))
    assert blinded.result.accuracy < 0.7

    # Fresh at every step: the added noise is as large as the label's pixel, and averages out.
    noisy = tune(augment_fn=lambda key, images: images + jax.random.normal(key, images.shape))
    assert noisy.result.accuracy > 0.8


def test_the_encoder_of_this_house_with_the_recipe_of_the_docstring():
    model = Encoder(z_size=3, trunk=ResNet(variant="resnet10", width_multiplier=1 / 32))
    variables = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))

    def apply_fn(variables, images, train):
        z, new = model.apply(variables, images, train, mutable=["batch_stats"])
        return z, new.get("batch_stats", {})

    tuned = tune(apply_fn, variables, num_epochs=1, warmup_epochs=0)
    assert jax.tree.map(jnp.shape, tuned.variables) == jax.tree.map(jnp.shape, variables)
    before, after = (tree["batch_stats"]["trunk"] for tree in (variables, tuned.variables))
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, after)
    assert all(jax.tree.leaves(moved))
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), variables["params"], tuned.variables["params"]
    )
    assert all(jax.tree.leaves(moved))


def test_hostile_input_is_refused_in_words():
    def run(train_y=TRAIN_Y, test_y=TEST_Y, apply_fn=project, images=TRAIN, **options):
        return fine_tune(
            apply_fn,
            VARIABLES,
            lambda rows: images[rows],
            train_y,
            lambda rows: TEST[rows],
            test_y,
            **{**SETTINGS, **options},
        )

    with pytest.raises(ValueError, match="train_y holds the class 0 alone"):
        run(np.zeros(300, int))
    with pytest.raises(ValueError, match=r"test_y must be \[n\] with n > 0"):
        run(test_y=TEST_Y[:0])
    with pytest.raises(ValueError, match="train_y holds labels 0 to 1, but with num_classes=1"):
        run(num_classes=1)
    with pytest.raises(ValueError, match="the loss is NaN or infinite in epoch 0"):
        run(images=TRAIN * np.nan)
    with pytest.raises(ValueError, match="warmup_epochs=8 at least 0 and below num_epochs=8"):
        run(warmup_epochs=8)
    with pytest.raises(ValueError, match="learning_rate must be above 0"):
        run(learning_rate=0.0)
    with pytest.raises(ValueError, match=r"must give features \[b d\], but of one picture"):
        run(apply_fn=lambda variables, images, train: (images, {}))
    with pytest.raises(ValueError, match='variables must hold "params", but hold'):
        tune(variables={"kernel": 0})
