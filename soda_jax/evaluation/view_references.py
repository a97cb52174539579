"""What novel views are measured against: pictures that need no model."""

import numpy as np

from soda_jax.data.cameras import axis_angle

NEIGHBOURS = 32


def nearest_source(
    sources: np.ndarray, poses: np.ndarray, targets: np.ndarray, count: int
) -> np.ndarray:
    """For each target the source whose optical axis is nearest to its own.

    Args:
      sources: [b k h w c] of cameras poses [b k 4 4]; the first `count` are looked at.
      targets: [b n 4 4].

    Returns:
      [b n h w c].
    """
    angles = axis_angle(poses[:, None, :count], targets[:, :, None])
    return np.take_along_axis(sources, angles.argmin(-1)[:, :, None, None, None], axis=1)


def mean_of_nearest(pictures: np.ndarray, poses: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The mean of the pictures [m h w c] whose cameras [m 4 4] are most like each target's [...].

    The 32 nearest, by the distance of their places (in units of the median distance of all from
    their middle) plus the angle of their axes (in radians).

    Returns:
      [... h w c] uint8.
    """
    places = poses[:, :3, 3]
    unit = np.median(np.linalg.norm(places - places.mean(0), axis=-1))
    flat = targets.reshape(-1, 4, 4)
    found = np.empty((len(flat), *pictures.shape[1:]), np.uint8)
    for i, target in enumerate(flat):
        apart = np.linalg.norm(places - target[None, :3, 3], axis=-1) / max(unit, 1e-9)
        apart += np.radians(axis_angle(poses, target[None]))
        nearest = np.argsort(apart)[:NEIGHBOURS]
        found[i] = np.rint(pictures[nearest].mean(0))
    return found.reshape(*targets.shape[:-2], *pictures.shape[1:])
