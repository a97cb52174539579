"""What the uses measure, on a model whose pictures are a known function of z."""

import types

import numpy as np
import pytest

from soda_jax.applications.directions import Directions
from soda_jax.data.records import ArraySource
from soda_jax.evaluation.picture_attributes import picture_attributes
from soda_jax.uses import directions, mix
from soda_jax.uses.common import Studio

RNG = np.random.default_rng(0)


def test_the_weight_of_a_section_is_that_of_the_regression():
    a, b = RNG.normal(size=(2, 60))
    assert mix._weight(a, a, b) == pytest.approx(1)
    assert mix._weight(b + 3, a, b) == pytest.approx(0, abs=1e-9)
    assert mix._weight(0.3 * a + 0.7 * b, a, b) == pytest.approx(0.3)


def test_change_is_after_less_before_in_deviations():
    """Brightness is the first number of z: 2 deviations of .5 each way are a change of 2."""
    studio = types.SimpleNamespace(
        draw=lambda z, noise: z, attributes=lambda pictures: {"brightness": pictures[:, 0]}
    )
    found = Directions(np.eye(3)[:2], np.array([0.5, 0.5]), np.ones(2))
    z = RNG.normal(size=(10, 3))
    assert directions.change(studio, z, found, 0, {"brightness": 1.0}) == [pytest.approx(2.0)]
    assert directions.change(studio, z, found, 1, {"brightness": 1.0}) == [pytest.approx(0.0)]
    assert directions.change(studio, z, found, 0, {"brightness": 4.0}) == [pytest.approx(0.5)]


def test_pictures_of_a_sorted_set_are_of_all_classes():
    labels = np.repeat(np.arange(5), 40).astype(np.int32)
    pictures = np.broadcast_to(labels[:, None, None, None], (200, 8, 8, 1)).astype(np.uint8)
    source = ArraySource("sorted", "test", 8, 1, pictures, labels)
    config = types.SimpleNamespace(seed=0, apply=types.SimpleNamespace(num_images=5))
    model = types.SimpleNamespace(parts=types.SimpleNamespace(config=config))
    studio = Studio(model, source, source, None)
    assert sorted(studio.sources[:, 0, 0, 0]) == [0, 1, 2, 3, 4]
    assert len(set(labels[studio.some_of(source, 30)])) == 5
    with pytest.raises(ValueError, match="sorted: 200 training and 1 test pictures"):
        Studio(model, source, ArraySource("sorted", "test", 8, 1, pictures[:1]), None)


def test_attributes_of_pictures_made_by_hand():
    images = np.zeros((3, 10, 10, 3), np.uint8)
    images[0, 2:4, 7:9] = 255  # a white spot, up and to the right
    images[1, ..., 0] = 200  # red all over
    images[2, ::2] = 255  # stripes
    found = picture_attributes(images)
    np.testing.assert_allclose(found["brightness"], [0.04, 200 / 765, 0.5], atol=1e-6)
    assert found["horizontal"][0] > 0.5 and found["vertical"][0] < -0.3
    assert found["red to blue"][1] == pytest.approx(200 / 255)
    assert found["saturation"][1] == pytest.approx(200 / 255) and found["saturation"][2] == 0
    assert found["detail"][2] > found["detail"][0] and found["contrast"][1] < 1e-12
    assert "saturation" not in picture_attributes(images[..., :1])
    with pytest.raises(ValueError, match="uint8"):
        picture_attributes(images / 255)
