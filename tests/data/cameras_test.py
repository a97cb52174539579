"""Cameras against ones that were worked out by hand, and there and back."""

import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.data import cameras
from soda_jax.data.cameras import Cameras
from soda_jax.data.ray_encoding import encode_rays

LENS = np.array([0.5, 0.5, 0.5, 0.5], np.float32)  # 90 degrees from edge to edge
UP = np.array([0.0, 1.0, 0.0])


def around(count, seed=0):
    """Poses around the origin, as look_at gives them."""
    random = np.random.RandomState(seed)
    places = random.normal(size=(count, 3))
    places *= random.uniform(2, 3, (count, 1)) / np.linalg.norm(places, axis=1, keepdims=True)
    return cameras.look_at(places, np.zeros(3), UP)


def test_a_camera_worked_out_by_hand():
    """At (0, 0, -2), looking along +z, y of the world upwards: x of the picture is -x, y is -y."""
    pose = cameras.look_at(np.array([0.0, 0.0, -2.0]), np.zeros(3), UP)
    expected = [[-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, -2], [0, 0, 0, 1]]
    np.testing.assert_allclose(pose, expected, atol=1e-6)
    origin, directions = cameras.rays(Cameras(pose, LENS), 2, 2)
    np.testing.assert_allclose(origin, [0, 0, -2])
    # Pixel centres lie a quarter of the picture from its middle: tan = .25 / .5.
    expected = np.array([[[0.5, 0.5, 1], [-0.5, 0.5, 1]], [[0.5, -0.5, 1], [-0.5, -0.5, 1]]])
    np.testing.assert_allclose(directions, expected / np.sqrt(1.5), atol=1e-6)
    seen, depth = cameras.project(jnp.array([[0.0, 1.0, 0.0]]), Cameras(pose, LENS))
    np.testing.assert_allclose(seen, [[0.5, 0.25]], atol=1e-6)  # above the middle
    np.testing.assert_allclose(depth, [2.0])


def test_opengl_and_opencv_name_the_same_camera():
    """In OpenGL a camera at (0, 0, 2) with the world's own axes looks at the origin."""
    opengl = np.eye(4)
    opengl[2, 3] = 2
    opencv = cameras.to_opencv(opengl, "opengl")
    np.testing.assert_allclose(
        opencv, cameras.look_at(np.array([0.0, 0.0, 2.0]), np.zeros(3), UP), atol=1e-6
    )
    np.testing.assert_array_equal(cameras.to_opencv(opencv, "blender"), opengl)
    with pytest.raises(ValueError, match="no camera convention 'maya'"):
        cameras.to_opencv(opengl, "maya")


@pytest.mark.parametrize("lens", [LENS, np.array([0.7, 0.9, 0.45, 0.6], np.float32)])
def test_points_on_rays_are_projected_to_their_pixels(lens):
    pose = around(5)
    seen = Cameras(pose, np.tile(lens, (5, 1)))
    origins, directions = cameras.rays(seen, 6, 4)
    points = origins[:, None] + 1.7 * directions.reshape(5, 24, 3)
    places, depth = cameras.project(points, seen)
    column, row = np.meshgrid((np.arange(4) + 0.5) / 4, (np.arange(6) + 0.5) / 6)
    expected = np.stack([column, row], -1).reshape(1, 24, 2)
    np.testing.assert_allclose(places, np.broadcast_to(expected, places.shape), atol=1e-5)
    assert (depth > 0).all()


def test_rays_don_t_change_with_the_resolution():
    seen = Cameras(around(1)[0], LENS)
    fine, coarse = cameras.rays(seen, 9, 9)[1], cameras.rays(seen, 3, 3)[1]
    np.testing.assert_allclose(fine[1::3, 1::3], coarse, atol=1e-6)


def test_a_mirrored_camera_sees_the_mirrored_world_mirrored():
    lens = np.tile(np.array([0.7, 0.9, 0.45, 0.6], np.float32), (5, 1))
    seen, points = Cameras(around(5), lens), np.random.RandomState(0).normal(size=(5, 7, 3)) / 3
    mirror = cameras.mirrored(seen)
    cameras.check_poses(mirror.pose, "mirrored")
    places, depth = cameras.project(points, seen)
    found, found_depth = cameras.project(points * np.array([[[-1, 1, 1]]]), mirror)
    np.testing.assert_allclose(found[..., 0], 1 - places[..., 0], atol=1e-5)
    np.testing.assert_allclose(found[..., 1], places[..., 1], atol=1e-5)
    np.testing.assert_allclose(found_depth, depth, atol=1e-5)


@pytest.mark.parametrize("up", ["y", "z"])
def test_an_upright_world_forgets_its_bearing_and_nothing_else(up):
    height = "xyz".index(up)
    first, second = (axis for axis in range(3) if axis != height)
    pose = around(4)
    turn = np.eye(4)
    turn[[first, second, first, second], [first, second, second, first]] = [0.6, 0.6, -0.8, 0.8]
    turned = turn[None] @ pose
    found = np.asarray(cameras.upright(pose, pose[:1], up))
    np.testing.assert_allclose(cameras.upright(turned, turned[:1], up), found, atol=1e-5)
    np.testing.assert_allclose(found[0, second, 3], 0, atol=1e-6)
    assert found[0, first, 3] > 0
    np.testing.assert_allclose(found[:, height], pose[:, height], atol=1e-6)
    np.testing.assert_allclose(
        cameras.relative(found, found[:1]), cameras.relative(pose, pose[:1]), atol=1e-5
    )
    above = np.eye(4)
    above[height, 3] = 2
    np.testing.assert_array_equal(cameras.upright(above, above, up), above)


def test_turning_the_world_changes_no_relative_pose():
    pose, turn = around(4), around(1, seed=7)[0]
    turned = turn[None] @ pose
    np.testing.assert_allclose(
        cameras.relative(turned, turned[:1]), cameras.relative(pose, pose[:1]), atol=1e-5
    )
    np.testing.assert_allclose(cameras.relative(pose[0], pose[0]), np.eye(4), atol=1e-6)
    np.testing.assert_allclose(
        cameras.inverse(pose) @ pose, np.tile(np.eye(4), (4, 1, 1)), atol=1e-5
    )


@pytest.mark.parametrize("kind", ["ray", "plucker", "sphere"])
def test_encodings_tell_rays_apart_and_fill_their_channels(kind):
    seen = Cameras(around(3), np.tile(LENS, (3, 1)))
    encoded = encode_rays(seen, 4, kind=kind, channels=40, max_octave=4.0)
    assert encoded.shape == (3, 4, 4, 40)
    assert np.abs(encoded[..., 6:]).max() <= 1
    np.testing.assert_array_equal(encoded[..., 30:], 0)  # 6 values, 2 octaves of 12: 30
    flat = np.asarray(encoded).reshape(48, 40)
    apart = np.abs(flat[:, None] - flat[None]).max(-1) + np.eye(48)
    assert apart.min() > 1e-3


def test_pluecker_coordinates_are_those_of_the_whole_ray():
    seen = Cameras(around(1)[0], LENS)
    origin, directions = cameras.rays(seen, 3, 3)
    encoded = encode_rays(seen, 3, kind="plucker", channels=6, max_octave=0.0)
    later = origin[None, None] + 1.3 * directions
    np.testing.assert_allclose(encoded[..., 3:], np.cross(later, directions), atol=1e-5)


def test_the_sphere_is_met_on_the_ray():
    seen = Cameras(around(1)[0], np.array([2.0, 2.0, 0.5, 0.5], np.float32))
    encoded = np.asarray(encode_rays(seen, 3, kind="sphere", channels=6, max_octave=0.0))
    np.testing.assert_allclose(np.linalg.norm(encoded[..., :3], axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(encoded[..., 3:], axis=-1), 1, atol=1e-5)
    places, _ = cameras.project(jnp.asarray(encoded[1, 1].reshape(2, 3)), seen)
    np.testing.assert_allclose(places, 0.5, atol=1e-5)


def test_rays_that_miss_the_sphere_are_told_apart_and_nearly_touch_it_where_they_graze():
    def encoded(places, directions):
        pose = cameras.look_at(places, places + directions, UP)
        seen = Cameras(pose, np.tile(LENS, (len(pose), 1)))
        return np.asarray(encode_rays(seen, 1, kind="sphere", channels=6, max_octave=0.0))[:, 0, 0]

    # Through one point at right angles to its own direction: the nearest point is the same.
    ahead, aside = encoded(np.array([[2.0, 0, 0]] * 2), np.array([[0, 0, 1.0], [0, 0.6, 0.8]]))
    assert np.abs(ahead - aside).max() > 0.3
    inside, outside = encoded(np.array([[1 - 1e-5, 0, -3], [1 + 1e-5, 0, -3]]), np.eye(3)[[2, 2]])
    np.testing.assert_allclose(inside, outside, atol=0.02)


def test_a_lens_that_is_none_is_named():
    lens = np.tile(LENS, (3, 1))
    cameras.check_lenses(lens, "cup")
    for view, value in ((1, 0.0), (2, np.nan)):
        wrong = lens.copy()
        wrong[view, 0] = value
        with pytest.raises(ValueError, match=f"cup: the lens of view {view} has"):
            cameras.check_lenses(wrong, "cup")
    with pytest.raises(ValueError, match="a picture of 0 x 4 pixels"):
        cameras.intrinsics_of(np.eye(3), 4, 0)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (lambda p: p.__setitem__((2, slice(0, 3), 0), p[2, :3, 0] * 2), "view 2 is not a rotation"),
        (lambda p: p.__setitem__((1, slice(0, 3), 0), -p[1, :3, 0]), "view 1 is a mirror image"),
        (lambda p: p.__setitem__((3, 0, 3), np.nan), "view 3 has numbers that aren't finite"),
        (lambda p: p.__setitem__((0, 3, 0), 1), "view 0 has no last row"),
    ],
)
def test_what_is_no_pose_is_named(fault, told):
    pose = around(4)
    cameras.check_poses(pose, "cup")
    fault(pose)
    with pytest.raises(ValueError, match=f"cup: the pose of {told}"):
        cameras.check_poses(pose, "cup")
    with pytest.raises(ValueError, match=r"expected \[n 4 4\]"):
        cameras.check_poses(pose[0], "cup")


def test_mixed_and_wrong_conventions_are_seen():
    pose = around(6)
    cameras.check_facing(pose, "cup")
    mixed = pose.copy()
    mixed[4] = cameras.to_opencv(mixed[4], "opengl")
    with pytest.raises(ValueError, match="1 of 6 cameras look away.*view 4.*mixed"):
        cameras.check_facing(mixed, "cup")
    with pytest.raises(ValueError, match="all cameras look away"):
        cameras.check_facing(cameras.to_opencv(pose, "opengl"), "cup")
    # One that looks elsewhere keeps nothing from being seen.
    astray = around(12)
    astray[:5] = cameras.to_opencv(astray[:5], "opengl")
    turn = np.eye(4)
    turn[[0, 2, 0, 2], [0, 2, 2, 0]] = np.cos(0.3), np.cos(0.3), np.sin(0.3), -np.sin(0.3)
    astray[11] = astray[11] @ turn
    with pytest.raises(ValueError, match="5 of 12 cameras look away.*view 0"):
        cameras.check_facing(astray, "cup")
    # Cameras that look outwards from a room meet nowhere: nothing can be said.
    outwards = around(6)
    outwards[:, :3, 3] = np.random.RandomState(3).normal(size=(6, 3))
    cameras.check_facing(outwards, "room")
