"""What a trained model is given, checked: pictures, cameras, codes, sections, boxes.

Each function returns what it was given as arrays of the right type, or raises a ValueError that
says what was expected.
"""

from collections.abc import Sequence

import numpy as np

from soda_jax.data.cameras import Cameras, check_facing, check_lenses, check_poses, cropped
from soda_jax.data.images import to_uint8
from soda_jax.data.places import Frames, frames_of
from soda_jax.experiment import Experiment

ENOUGH = 6  # sources of an object, fewer of which may seem to look at one point by chance


def pictures(parts: Experiment, images: np.ndarray) -> np.ndarray:
    """Pictures uint8 [n h w c], of uint8 or of floats in [0, 1]; of others the middle square."""
    images = np.asarray(images)
    channels = parts.config.data.channels
    if images.ndim != 4 or images.shape[-1] != channels or not len(images):
        raise ValueError(
            f"pictures must be [n h w {channels}] with n > 0, not {list(images.shape)}"
        )
    size, (height, width) = min(images.shape[1:3]), images.shape[1:3]
    top, left = (height - size) // 2, (width - size) // 2
    return to_uint8(images[:, top : top + size, left : left + size], "the pictures")


def views(
    parts: Experiment, images: np.ndarray, seen: Cameras, source_mask: np.ndarray | None
) -> tuple[np.ndarray, Cameras, np.ndarray]:
    """Sources uint8 [n k h w c], their cameras [n k], and which of them count, bool [n k]."""
    images = np.asarray(images)
    if images.ndim != 5 or not images.shape[1]:
        raise ValueError(f"views must be [n k h w c] with k > 0 sources, not {list(images.shape)}")
    n, k, height, width = images.shape[:4]
    flat = pictures(parts, images.reshape(n * k, *images.shape[2:]))
    images = flat.reshape(n, k, *flat.shape[1:])
    seen = cameras(parts, seen, (n, k), "sources")
    seen = Cameras(seen.pose, cropped(seen.intrinsics, height, width))
    mask = np.ones((n, k), bool) if source_mask is None else np.asarray(source_mask, bool)
    if mask.shape != (n, k) or not mask.any(1).all():
        raise ValueError(f"source_mask must be [{n} {k}], and keep a source of each object")
    for number, poses in enumerate(seen.pose):
        if mask[number].sum() >= ENOUGH:
            check_facing(poses[mask[number]], f"sources of object {number}")
    return images, seen, mask


def cameras(
    parts: Experiment, seen: Cameras, lead: tuple[int, ...], name: str, given: bool = True
) -> Cameras:
    """Cameras float32, one for each picture of `lead`; a pose must be a rotation and a place.

    Those that were made of others aren't `given`, so only their shape is looked at: the product of
    two rotations that are right to few digits may not be.
    """
    if parts.cameras is None:
        raise ValueError(f"{name}: this model was trained without cameras (cameras.encoding)")
    if seen is None:
        raise ValueError(f"{name}: no cameras; there must be one for each picture")
    pose, lens = (np.asarray(part, np.float32) for part in seen)
    if pose.shape != (*lead, 4, 4) or lens.shape != (*lead, 4):
        raise ValueError(
            f"{name}: cameras of shapes {list(pose.shape)} and {list(lens.shape)}; expected "
            f"{[*lead, 4, 4]} and {[*lead, 4]}: one for each picture"
        )
    if given:
        check_poses(pose.reshape(-1, 4, 4), name)
        check_lenses(lens.reshape(-1, 4), name)
    return Cameras(pose, lens)


def codes(parts: Experiment, z: np.ndarray, shares: np.ndarray | None) -> np.ndarray:
    """Codes float32 [n z], or [n k z] where there are shares [n k]."""
    z, size = np.asarray(z, np.float32), parts.z_size
    lead = z.shape[:1] if shares is None else np.shape(shares)
    if z.shape != (*lead, size) or not z.size and size:
        raise ValueError(
            f"codes must be [n {size}] with n > 0, or [n k {size}] with shares [n k], not "
            f"{list(z.shape)}"
        )
    if not np.isfinite(z).all():
        raise ValueError("codes must be finite numbers")
    return z


def section_mask(parts: Experiment, sections: Sequence[int] | np.ndarray, count: int) -> np.ndarray:
    """Which sections of each code count, bool [count l]: those named, () for all, or a mask."""
    known = range(parts.num_sections)
    if isinstance(sections, np.ndarray) and sections.dtype == bool:
        if sections.shape != (count, len(known)):
            raise ValueError(
                f"a mask of sections must be [{count} {len(known)}], not {list(sections.shape)}"
            )
        return sections
    if any(isinstance(section, bool | np.bool_) for section in sections):
        raise ValueError(
            f"sections are numbers from 0 to {len(known) - 1}, or a mask: a bool array of shape "
            f"[{count} {len(known)}]"
        )
    chosen = {int(section) for section in sections}
    if unknown := chosen - set(known):
        raise ValueError(f"sections are 0 to {len(known) - 1}; there is no {min(unknown)}")
    return np.tile(np.isin(known, list(chosen or known)), (count, 1))


def frames(parts: Experiment, boxes: np.ndarray, n: int) -> Frames:
    """Where in its source each of n pictures lies, of boxes [n 4]: top, left, bottom, right."""
    if not parts.located:
        raise ValueError("boxes: this model was not told of places (config.views.located)")
    boxes = np.asarray(boxes, np.float32)
    if boxes.shape != (n, 4) or not (boxes[:, 2:] != boxes[:, :2]).all():
        raise ValueError(
            f"boxes must be [{n} 4], each with a height and a width, not {list(boxes.shape)}: "
            "top, left, bottom, right, from 0 to 1"
        )
    return frames_of(boxes)
