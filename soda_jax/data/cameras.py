"""Cameras: conventions, poses, rays through pixels, projection.

Inside this house a camera has the axes of OpenCV: x right, y down, z forward, whatever the world's
own axes are; pixel [row, column] has its centre at (column + .5, row + .5); and intrinsics are
shares of the picture's width and height, so that they hold at every resolution.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from soda_jax.array_types import Array

# Signs of the camera's own axes (x, y, z) that turn a convention into OpenCV's.
CONVENTIONS = {"opencv": (1, 1, 1), "opengl": (1, -1, -1), "blender": (1, -1, -1)}

ORTHONORMAL = 1e-3  # files hold few digits


class Cameras(NamedTuple):
    """Pinhole cameras, of any leading shape.

    Attributes:
      pose: [... 4 4] world from camera: its columns are the camera's axes and place in the world.
      intrinsics: [... 4] (fx, fy, cx, cy): focal lengths and principal point; x as shares of the
        picture's width, y of its height.
    """

    pose: Array | np.ndarray
    intrinsics: Array | np.ndarray


def intrinsics_of(matrix: np.ndarray, height: float, width: float) -> np.ndarray:
    """K [... 3 3] in pixels of a picture of that size -> intrinsics [... 4] in shares.

    Raises:
      ValueError: a picture without a height or a width.
    """
    if not (height > 0 and width > 0):
        raise ValueError(f"the lens of a picture of {width:g} x {height:g} pixels")
    matrix = np.asarray(matrix, np.float64)
    parts = (matrix[..., 0, 0], matrix[..., 1, 1], matrix[..., 0, 2], matrix[..., 1, 2])
    return (np.stack(parts, -1) / (width, height, width, height)).astype(np.float32)


def cropped(intrinsics: np.ndarray, height: float, width: float) -> np.ndarray:
    """Intrinsics [... 4] of the middle square that pictures are cut to."""
    scale = np.array([width, height] * 2) / min(height, width)
    offset = np.array([0, 0, (scale[0] - 1) / 2, (scale[1] - 1) / 2])
    return (intrinsics * scale - offset).astype(np.float32)


def intrinsics_of_angle(degrees: float) -> np.ndarray:
    """Intrinsics [4] of a square picture that sees this angle from edge to edge."""
    focal = 0.5 / np.tan(np.radians(degrees) / 2)
    return np.array([focal, focal, 0.5, 0.5], np.float32)


def to_opencv(pose: np.ndarray, convention: str) -> np.ndarray:
    """World-from-camera poses [... 4 4] of a named convention, with OpenCV's camera axes.

    Raises:
      ValueError: a convention that isn't one of CONVENTIONS.
    """
    if convention not in CONVENTIONS:
        raise ValueError(
            f"no camera convention {convention!r}; there is: {', '.join(CONVENTIONS)} "
            "(opencv: x right, y down, z forward; opengl and blender: x right, y up, z backward)"
        )
    signs = np.array([*CONVENTIONS[convention], 1.0], np.float32)
    return np.asarray(pose, np.float32) * signs


def look_at(place: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Poses [... 4 4] of cameras at place [... 3] that look at target [... 3], upright."""

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    forward = unit(np.asarray(target, np.float64) - place)
    right = unit(np.cross(forward, up))
    pose = np.zeros((*forward.shape[:-1], 4, 4))
    pose[..., :3, :3] = np.stack([right, np.cross(forward, right), forward], axis=-1)
    pose[..., :3, 3] = place
    pose[..., 3, 3] = 1
    return pose.astype(np.float32)


def mirrored(seen: Cameras) -> Cameras:
    """The cameras that see the world, mirrored along x, as these see it, left and right exchanged.

    Both the world's x and the camera's change sign, so a pose stays a rotation.
    """
    pose, signs = jnp.asarray(seen.pose), jnp.array([-1.0, 1.0, 1.0, 1.0])
    fx, fy, cx, cy = jnp.moveaxis(jnp.asarray(seen.intrinsics), -1, 0)
    return Cameras(
        pose * jnp.broadcast_to(jnp.outer(signs, signs), pose.shape),
        jnp.stack([fx, fy, 1 - cx, cy], axis=-1),
    )


def check_poses(pose: np.ndarray, name: str) -> None:
    """Refuses what isn't a rotation and a place.

    Args:
      pose: [n 4 4] world from camera.
      name: stands in the errors.

    Raises:
      ValueError: which view is wrong, and how.
    """
    pose = np.asarray(pose)
    if pose.ndim != 3 or pose.shape[1:] != (4, 4):
        raise ValueError(f"{name}: poses of shape {pose.shape}; expected [n 4 4]")
    axes = pose[:, :3, :3].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        skew = np.abs(np.swapaxes(axes, 1, 2) @ axes - np.eye(3)).max((1, 2))
        faults = {
            "has numbers that aren't finite": ~np.isfinite(pose).all((1, 2)),
            "has no last row 0 0 0 1": np.abs(pose[:, 3] - [0, 0, 0, 1]).max(-1) > ORTHONORMAL,
            "is not a rotation and a place: its axes aren't perpendicular and of length 1": (
                skew > ORTHONORMAL
            ),
            "is a mirror image (determinant -1): an axis of another convention?": (
                np.linalg.det(np.where(np.isfinite(axes), axes, 0)) < 0
            ),
        }
    for fault, views in faults.items():
        if views.any():
            raise ValueError(f"{name}: the pose of view {int(np.flatnonzero(views)[0])} {fault}")


def check_lenses(intrinsics: np.ndarray, name: str) -> None:
    """Refuses intrinsics [n 4] that no pinhole camera has.

    Raises:
      ValueError: which view is wrong: a number that isn't finite, a focal length of 0 or less.
    """
    intrinsics = np.asarray(intrinsics)
    good = np.isfinite(intrinsics).all(-1) & (intrinsics[..., :2] > 0).all(-1)
    if not good.all():
        view = int(np.flatnonzero(~good)[0])
        fx, fy, cx, cy = (f"{float(value):g}" for value in intrinsics[view])
        raise ValueError(
            f"{name}: the lens of view {view} has the focal lengths {fx} and {fy} and the centre "
            f"({cx}, {cy}), in shares of the picture; all are finite, and focal lengths above 0"
        )


def check_facing(pose: np.ndarray, name: str) -> None:
    """Refuses poses around one object of which some look away from it: another convention.

    Judged are cameras whose optical axes nearly meet, if nine in ten do, and three or more; of
    others nothing can be said, and nothing is.

    Args:
      pose: [n 4 4] world from camera.
      name: stands in the errors.

    Raises:
      ValueError: all, or some, look away.
    """
    pose = np.asarray(pose, np.float64)
    point = meeting_point(pose)
    if len(pose) < 3 or point is None:
        return
    forward, to_point = pose[:, :3, 2], point - pose[:, :3, 3]
    along = (to_point * forward).sum(-1, keepdims=True)
    missed = np.linalg.norm(to_point - along * forward, axis=-1)
    judged = missed <= 0.2 * np.linalg.norm(to_point, axis=-1)
    if judged.sum() < max(3, 0.9 * len(pose)):
        return
    away = judged & (along[:, 0] < 0)
    if away.sum() == judged.sum():
        raise ValueError(
            f"{name}: all cameras look away from the point that their axes meet in; are the poses "
            "of another convention (opencv, opengl)?"
        )
    if away.any():
        raise ValueError(
            f"{name}: {away.sum()} of {len(pose)} cameras look away from the point that the others "
            f"look at (view {int(np.flatnonzero(away)[0])} first); are conventions mixed?"
        )


def meeting_point(pose: np.ndarray) -> np.ndarray | None:
    """The point [3] nearest to the optical axes of poses [n 4 4]; None where they are parallel."""
    place, forward = pose[:, :3, 3], pose[:, :3, 2]
    # The least sum of squared distances: sum of (1 - f f') (p - place) = 0.
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    normal = across.sum(0)
    if np.linalg.cond(normal) > 100:
        return None
    return np.linalg.solve(normal, np.einsum("nij,nj->i", across, place))


def inverse(pose: Array) -> Array:
    """The inverse [... 4 4] of a rotation and a place."""
    turned = jnp.swapaxes(pose[..., :3, :3], -1, -2)
    place = -jnp.einsum("...ij,...j->...i", turned, pose[..., :3, 3])
    top = jnp.concatenate([turned, place[..., None]], axis=-1)
    return jnp.concatenate([top, jnp.broadcast_to(pose[..., 3:, :], place.shape[:-1] + (1, 4))], -2)


def relative(pose: Array, reference: Array) -> Array:
    """Poses [... 4 4] as the reference camera [... 4 4] sees them: its own becomes the identity."""
    return jnp.einsum("...ij,...jk->...ik", inverse(reference), pose)


def upright(pose: Array, reference: Array, up: str) -> Array:
    """Poses [... 4 4] in a world that is turned about its upright axis through the origin.

    So far that the reference camera [... 4 4] stands in the half plane of the first of the other
    two axes; where it stands on the upright one, not at all.

    Args:
      up: the upright axis, "y" or "z".
    """
    height = "xyz".index(up)
    first, second = (axis for axis in range(3) if axis != height)
    x, y = reference[..., first, 3], reference[..., second, 3]
    distance = jnp.hypot(x, y)
    somewhere = distance > 1e-6
    cos = jnp.where(somewhere, x / jnp.maximum(distance, 1e-6), 1.0)
    sin = jnp.where(somewhere, y / jnp.maximum(distance, 1e-6), 0.0)
    turn = jnp.zeros(cos.shape + (4, 4)).at[..., height, height].set(1).at[..., 3, 3].set(1)
    turn = turn.at[..., first, first].set(cos).at[..., first, second].set(sin)
    turn = turn.at[..., second, first].set(-sin).at[..., second, second].set(cos)
    return jnp.einsum("...ij,...jk->...ik", turn, pose)


def rays(cameras: Cameras, height: int, width: int) -> tuple[Array, Array]:
    """Origins [... 3] and unit directions [... h w 3], through the centre of every pixel."""
    focal, centre = cameras.intrinsics[..., :2], cameras.intrinsics[..., 2:]
    column = (jnp.arange(width, dtype=jnp.float32) + 0.5) / width
    row = (jnp.arange(height, dtype=jnp.float32) + 0.5) / height
    place = jnp.stack(jnp.broadcast_arrays(column[None, :], row[:, None]), axis=-1)  # [h w 2]
    place = place.reshape((1,) * (focal.ndim - 1) + place.shape)
    seen = (place - centre[..., None, None, :]) / focal[..., None, None, :]
    seen = jnp.concatenate([seen, jnp.ones_like(seen[..., :1])], axis=-1)
    seen = seen / jnp.linalg.norm(seen, axis=-1, keepdims=True)
    axes, place = cameras.pose[..., :3, :3], cameras.pose[..., :3, 3]
    return place, jnp.einsum("...ij,...hwj->...hwi", axes, seen)


def project(points: Array, cameras: Cameras) -> tuple[Array, Array]:
    """Where cameras [...] see points [... n 3] of the world.

    Returns:
      [... n 2] (x, y) as shares of width and height, and the depth [... n] before the camera:
      points of negative depth lie behind it.
    """
    pose = inverse(cameras.pose)
    seen = jnp.einsum("...ij,...nj->...ni", pose[..., :3, :3], points) + pose[..., None, :3, 3]
    depth = seen[..., 2]
    focal, centre = cameras.intrinsics[..., None, :2], cameras.intrinsics[..., None, 2:]
    return seen[..., :2] / depth[..., None] * focal + centre, depth


def axis_angle(pose: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Angle [...] in degrees between the optical axes of two cameras [... 4 4]."""
    cosine = (np.asarray(pose)[..., :3, 2] * np.asarray(other)[..., :3, 2]).sum(-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))
