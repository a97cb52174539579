"""Cameras that go around an object."""

import numpy as np

from soda_jax.data.cameras import meeting_point


def orbit(poses: np.ndarray, num_frames: int) -> np.ndarray:
    """Poses [s 4 4] on a circle, which begins at the first of an object's cameras [n 4 4].

    Around the point that their optical axes meet in, and the mean of their upward axes.

    Raises:
      ValueError: they look in parallel.
    """
    poses = np.asarray(poses, np.float64)
    centre = _centre(poses)
    up = -poses[:, :3, 1].mean(0)
    up /= np.linalg.norm(up)
    angles = np.arange(num_frames) * (2 * np.pi / num_frames)
    return np.stack([turned(poses[0], centre, up, angle) for angle in angles]).astype(np.float32)


def stand(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How cameras [n 4 4] of an object stand: what they look at, and upwards, as each sees it.

    The point that all axes meet in, and the mean upward axis, in each camera's own coordinates:
    [n 3] and, of length 1, [n 3].

    Raises:
      ValueError: they look in parallel.
    """
    poses = np.asarray(poses, np.float64)
    centre, up = _centre(poses), -poses[:, :3, 1].mean(0)
    axes = poses[:, :3, :3]
    seen = np.einsum("nji,nj->ni", axes, centre - poses[:, :3, 3])
    return seen, np.einsum("nji,j->ni", axes, up / np.linalg.norm(up))


def beside(centre: np.ndarray, up: np.ndarray, turn: float, lift: float) -> np.ndarray:
    """The pose [4 4], as the camera at the origin sees it, after it went around a centre.

    Lifted over it, then turned around the upward axis, both by radians; see `stand`.
    """
    lifted = turned(np.eye(4), centre, np.array([1.0, 0.0, 0.0]), -lift)
    return turned(lifted, centre, up, turn).astype(np.float32)


def _centre(poses: np.ndarray) -> np.ndarray:
    centre = meeting_point(poses)
    if centre is None:
        raise ValueError(
            "these cameras look in parallel: there is nothing that they could go around"
        )
    return centre


def turned(pose: np.ndarray, centre: np.ndarray, axis: np.ndarray, angle: float) -> np.ndarray:
    """A pose [4 4], carried around the line through a centre along a unit axis, radians."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues
    moved = np.eye(4)
    moved[:3, :3] = turn @ pose[:3, :3]
    moved[:3, 3] = centre + turn @ (pose[:3, 3] - centre)
    return moved
