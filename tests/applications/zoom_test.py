"""Zoom: boxes reach the denoiser as places in the source; it refuses them where it knows none."""

import pathlib

import numpy as np
import pytest

from soda_jax import experiment, pretrained
from soda_jax.config_schema import load
from soda_jax.inference import target_pictures
from soda_jax.uses import zoom

SMOKE = str(pathlib.Path(__file__).parents[2] / "configs" / "smoke.py")
# An untrained denoiser that says something: its last convolution isn't zero.
DRAWS = ("model.denoiser.zero_init=False", "sample.guidance_scale=0.", "data.channels=3")


def untrained(*words):
    config = load(SMOKE, [f"--config.{word}" for word in (*DRAWS, *words)])
    return pretrained.untrained(experiment.build(config))


@pytest.fixture(scope="module")
def located():
    return untrained("views.located=True")


def codes(model, n):
    return np.random.default_rng(0).normal(size=(n, model.parts.z_size)).astype(np.float32)


def test_the_whole_box_is_what_is_drawn_without_one(located):
    z = codes(located, 2)
    plain = located.decode(z)
    np.testing.assert_allclose(located.decode(z, boxes=[zoom.WHOLE] * 2), plain, atol=1)
    corner = located.decode(z, boxes=[zoom.WHOLE, zoom.CORNERS["upper left"]])
    np.testing.assert_allclose(corner[0], plain[0], atol=1)
    assert np.abs(corner[1].astype(int) - plain[1]).max() > 10


def test_boxes_are_refused_where_they_mean_nothing(located):
    z = codes(located, 2)
    with pytest.raises(ValueError, match=r"boxes must be \[2 4\], each with a height"):
        located.decode(z, boxes=[zoom.WHOLE])
    with pytest.raises(ValueError, match="each with a height and a width"):
        located.decode(z, boxes=[zoom.WHOLE, (0, 0.5, 1, 0.5)])
    with pytest.raises(ValueError, match=r"was not told of places \(config.views.located\)"):
        untrained().decode(z, boxes=[zoom.WHOLE] * 2)


def test_a_part_is_what_the_picture_shows_there(located):
    size = located.parts.target_shape[0]
    images = np.random.RandomState(0).randint(0, 256, (2, 4 * size, 4 * size, 3)).astype(np.uint8)
    whole = zoom.part(images, zoom.WHOLE, size)
    np.testing.assert_allclose(whole, target_pictures(located.parts, images), atol=1)
    corner = zoom.part(images, (0.5, 0.0, 0.75, 0.25), size)
    np.testing.assert_array_equal(corner, images[:, 2 * size : 3 * size, :size])
