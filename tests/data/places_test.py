"""Places: what the target shows is what the source shows where the places say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.data import views
from soda_jax.data.places import Frames, places_in
from soda_jax.data.views import View
from soda_jax.models.layers import own_places, place_waves

SOURCE = View(size=24, crop_prob=0.9, crop_scale=(0.3, 1.0))
TARGET = View(size=16, crop_prob=0.9, crop_scale=(0.3, 1.0))


def ramps(b):
    """Pictures whose red rises to the right and whose green rises downwards."""
    images = np.zeros((b, 32, 32, 3), np.uint8)
    images[..., 0] = np.linspace(0, 255, 32)
    images[..., 1] = np.linspace(0, 255, 32)[:, None]
    return jnp.asarray(images)


@pytest.mark.parametrize("squares", [16, 8])
def test_places_say_what_of_the_source_the_target_shows(squares):
    batch = views.pair(jax.random.key(0), ramps(16), SOURCE, TARGET, targets=2, located=squares)
    assert batch.poses.source_rays is None and batch.poses.source_mask is None
    places = np.asarray(batch.poses.target_rays)
    assert places.shape == (32, squares, squares, 2)
    source = np.repeat(batch.source, 2, axis=0)
    target = np.asarray(batch.target).reshape(32, squares, 16 // squares, squares, -1, 3)
    target = target.mean((2, 4))
    inside = (2 * np.arange(24) + 1) / 24 - 1
    mirrored = 0
    for i in range(32):
        for axis, colour in ((0, 1), (1, 0)):  # down: green; right: red
            profile = source[i].mean(1 - axis)[3:-3, colour]
            line = np.polyfit(inside[3:-3], profile, 1)
            seen = np.polyval(line, places[i, ..., axis])
            edge = slice(1, -1)  # pictures end at their edge, ramps don't
            np.testing.assert_allclose(
                seen[edge, edge], target[i, edge, edge, colour], rtol=0, atol=0.02
            )
        mirrored += places[i, 0, 0, 1] > places[i, 0, -1, 1]
    assert 5 < mirrored < 27  # one side of about half of the pairs is mirrored


def test_a_view_lies_in_itself_as_the_denoiser_expects_where_it_is_told_nothing():
    batch = views.pair(jax.random.key(1), ramps(4), TARGET, TARGET, shared=True, located=16)
    np.testing.assert_allclose(batch.poses.target_rays, own_places(batch.target), atol=1e-5)


def test_places_of_a_quarter_and_of_a_mirrored_picture():
    whole = Frames(jnp.zeros((2, 2)), jnp.array([[1.0, 1.0], [1.0, -1.0]]))
    # The upper right quarter: of the picture, and of its mirror image.
    quarter = Frames(jnp.array([[-0.5, 0.5]] * 2), jnp.full((2, 2), 0.5))
    places = places_in(whole, quarter, 2)
    np.testing.assert_allclose(places[0, :, :, 0], [[-0.75, -0.75], [-0.25, -0.25]])
    np.testing.assert_allclose(places[0, :, :, 1], [[0.25, 0.75]] * 2)
    np.testing.assert_allclose(places[1, :, :, 1], [[-0.25, -0.75]] * 2)
    np.testing.assert_allclose(places[1, :, :, 0], places[0, :, :, 0])
    # And the whole picture lies in its quarter far beyond it.
    np.testing.assert_allclose(places_in(quarter, whole, 2)[0, 0, :, 1], [-2.0, 0.0])


def test_waves_tell_places_apart_on_both_axes():
    places = own_places(jnp.zeros((1, 8, 8, 3)))
    waves = np.asarray(place_waves(places)).reshape(64, 14)
    apart = np.linalg.norm(waves[:, None] - waves, axis=-1) + 9 * np.eye(64)
    assert apart.min() > 0.3
