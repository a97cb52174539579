"""The ray caster against pictures worked out by hand, and the set that it draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.data import cameras, ray_caster, records
from soda_jax.data.cameras import Cameras
from soda_jax.data.ray_caster import AMBIENT, SHAPES, Room
from soda_jax.data.source_scenes import VIEWS, Scenes
from soda_jax.data.sources import num_classes, open_source

RED, GREY, BLUE = (1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.0, 0.0, 1.0)
SIZE = 33


def room(shape, light=(0.0, 1.0, 0.0), size=0.5, place=(0.0, 0.0)):
    """One red solid on a grey floor among blue walls."""
    values = Room(
        floor=GREY, walls=BLUE, light=light, shape=[SHAPES.index(shape)], place=[place],
        size=[size], turn=[0.0], colour=[RED],
    )  # fmt: skip
    return Room(*(jnp.asarray(value)[None] for value in values))


def look(place, target=(0.0, 0.5, 0.0), up=(0.0, 1.0, 0.0)):
    pose = cameras.look_at(np.array(place), np.array(target), np.array(up))
    return Cameras(pose[None], cameras.intrinsics_of_angle(60.0)[None])


draw = jax.jit(ray_caster.draw, static_argnums=2)


def is_red(picture):
    return np.asarray(picture[..., 0] > 0) & np.asarray(picture[..., 2] == 0)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [("sphere", np.pi), ("box", (2 * ray_caster.BOX) ** 2), ("cylinder", np.pi), ("cone", np.pi)],
)
def test_the_outline_from_far_above_is_the_foot(shape, expected):
    """Its area, in units of the size: circles and a square."""
    seen = look((0.0, 60.0, 0.0), target=(0.0, 0.0, 0.0), up=(0.0, 0.0, 1.0))
    lens = np.array([[30.0, 30.0, 0.5, 0.5]], np.float32)  # sees two units from edge to edge
    picture = draw(room(shape, size=0.5), Cameras(seen.pose, lens), 65)[0]
    red = np.asarray(picture[..., 0] > picture[..., 2] + 0.1)
    np.testing.assert_allclose(red.mean() * 4 / 0.25, expected, rtol=0.06)


def test_shading_is_lamberts_and_shadows_hold_the_ambient_light():
    light = np.array([1.0, 1.0, 0.0]) / np.sqrt(2)
    seen = look((0.0, 2.0, -2.0), target=(0.0, 0.0, 0.0))
    picture = np.asarray(draw(room("box", light=light, size=0.3), seen, SIZE)[0])
    floor = picture[SIZE - 1, SIZE // 2]
    np.testing.assert_allclose(floor, 0.5 * (AMBIENT + (1 - AMBIENT) / np.sqrt(2)), atol=1e-5)
    # The light comes from +x, which is on the left: the shadow falls to the right, at -x.
    dark = np.isclose(picture, 0.5 * AMBIENT, atol=1e-5).all(-1)
    assert dark.any() and np.nonzero(dark)[1].min() > SIZE // 2
    bright = np.isclose(picture[..., 0], AMBIENT + (1 - AMBIENT) / np.sqrt(2), atol=1e-5)
    assert (bright & is_red(picture)).any()  # the box's top, as the floor


def test_a_solid_is_seen_where_its_camera_projects_it():
    seen = look((2.0, 1.0, 0.5))
    for place in ((0.3, 0.4), (-0.5, 0.2)):
        picture = draw(room("sphere", size=0.1, place=place), seen, 65)[0]
        rows, columns = np.nonzero(is_red(picture))
        middle = np.array([place[0], 0.1, place[1]])
        expected, _ = cameras.project(jnp.asarray(middle)[None, None], seen)
        found = (np.array([columns.mean(), rows.mean()]) + 0.5) / 65
        np.testing.assert_allclose(found, expected[0, 0], atol=0.01)


def test_what_isn_t_there_isn_t_drawn():
    seen = look((2.0, 1.0, 0.5))
    assert not is_red(draw(room("none"), seen, SIZE)[0]).any()


def test_a_whole_turn_of_the_world_draws_the_same_picture():
    """Turned by a right angle with its camera and light, the room looks alike but for its walls."""
    seen = look((2.0, 1.2, 0.7))
    quarter = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]], np.float32)
    light = np.array([0.6, 0.64, 0.48], np.float32)
    first = draw(room("cone", light=light, place=(0.4, -0.3)), seen, SIZE)[0]
    x, z = quarter[[0, 2]][:, [0, 2]] @ np.array([0.4, -0.3], np.float32)
    turned = room("cone", light=quarter[:3, :3] @ light, place=(x, z))
    second = draw(turned, Cameras(quarter[None] @ seen.pose, seen.intrinsics), SIZE)[0]
    red = is_red(first)
    assert red.sum() > 20
    np.testing.assert_allclose(first[red], second[red], atol=1e-4)


def test_scenes_are_functions_of_their_numbers():
    scenes = open_source("scenes", "train", image_size=16, channels=3)
    assert isinstance(scenes, records.PosedSource)
    some = np.array([5, 70_001, 3, 5])
    pictures = scenes.images(some)
    np.testing.assert_array_equal(pictures[0], pictures[3])
    np.testing.assert_array_equal(scenes.images(some[1:2])[0], pictures[1])
    test = Scenes("test", 16, 3)
    assert scenes.fingerprint != test.fingerprint
    assert not np.array_equal(test.images(np.arange(2)), scenes.images(np.arange(2)))
    cameras.check_poses(scenes.cameras(np.arange(64)).pose, "scenes")
    for first in range(0, 64, VIEWS):
        cameras.check_facing(scenes.cameras(np.arange(first, first + VIEWS)).pose, "scenes")
    with pytest.raises(ValueError, match="no split 'val'"):
        Scenes("val", 16, 3)
    with pytest.raises(ValueError, match="channels must be 3"):
        Scenes("test", 16, 1)


def test_factors_are_those_of_the_scene_and_of_the_view():
    scenes = Scenes("train", 16, 3)
    factors = scenes.factors(np.arange(0, 40_000, 5))
    counts = {name: len(np.unique(column)) for name, column in
              zip(scenes.factor_names, factors.T, strict=True)}  # fmt: skip
    assert counts == {
        "number of solids": 3, "floor colour": 8, "wall colour": 8, "shape": 4, "colour": 8,
        "size": 3, "side": 3, "distance": 3,
    }  # fmt: skip
    np.testing.assert_array_equal(scenes.labels(np.arange(64)), scenes.factors(np.arange(64))[:, 0])
    assert num_classes(scenes) == 3
    one = scenes.factors(np.arange(VIEWS))
    assert (one[:, :6] == one[:1, :6]).all() and len(np.unique(one[:, 6:], axis=0)) > 1
