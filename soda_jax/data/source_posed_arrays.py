"""Posed pictures of objects in one .npz file."""

import dataclasses
import os

import numpy as np

from soda_jax.data import cameras, images, records
from soda_jax.data.cameras import Cameras
from soda_jax.data.source_arrays import check_factors, check_labels
from soda_jax.data.source_views import check_cameras


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PosedArrays(records.SeenPictures, records.ArraySource):
    """Pictures in an array with cameras: see `records.PosedSource`."""

    seen: Cameras
    starts: np.ndarray


def open_posed_arrays(path: str, split: str, image_size: int, channels: int) -> PosedArrays:
    """Opens an .npz of n objects with v views each.

    Its arrays: images [n v h w c] uint8; cam2world [n v 4 4] or [v 4 4]; K [3 3], in pixels of
    these pictures. And, where they are known: convention ("opencv", the default, "opengl" or
    "blender"), labels [n], factors [n v k] with factor_names [k], split [n] (names of splits).
    """
    path = os.path.abspath(os.path.expanduser(path))
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no arrays at {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # a broken file makes numpy raise nearly anything
        raise ValueError(f"{path}: cannot be read as .npz ({error})") from error
    for key in ("images", "cam2world", "K"):
        if key not in arrays:
            raise ValueError(
                f"{path}: no array {key!r} ({', '.join(arrays)}); posed pictures need images "
                "[n v h w c], cam2world [n v 4 4] and K [3 3]"
            )
    pictures, matrix = arrays["images"], arrays["K"]
    if pictures.ndim != 5 or pictures.shape[-1] not in (1, 3, 4) or matrix.shape != (3, 3):
        raise ValueError(
            f"{path}: images of shape {pictures.shape} and K of shape {matrix.shape}; expected "
            "[n v h w 1|3|4] and [3 3]"
        )
    n, v, height, width = pictures.shape[:4]
    poses = arrays["cam2world"]
    if poses.shape not in ((v, 4, 4), (n, v, 4, 4)):
        raise ValueError(
            f"{path}: cam2world of shape {poses.shape}; expected {(n, v, 4, 4)}: a camera for each "
            "picture"
        )
    poses = cameras.to_opencv(poses, str(arrays.get("convention", "opencv")))
    poses = np.broadcast_to(poses, (n, v, 4, 4))
    intrinsics = cameras.cropped(cameras.intrinsics_of(matrix, height, width), height, width)
    seen = Cameras(poses, np.broadcast_to(intrinsics, (n, v, 4)))
    divided = arrays.get("split")
    if divided is not None and divided.shape != (n,):
        raise ValueError(f"{path}: split of shape {divided.shape}; expected a name for each of {n}")
    chosen = _chosen_objects(path, divided, n, split)
    for index in chosen:
        check_cameras(f"{path}, object {index}", Cameras(*(part[index] for part in seen)), v)
    factors = arrays.get("factors")
    names = tuple(str(name) for name in arrays.get("factor_names", ()))
    if factors is not None:
        if factors.ndim != 3 or factors.shape[:2] != (n, v):
            raise ValueError(f"{path}: factors of shape {factors.shape}; expected [{n} {v} k]")
        names = names or tuple(f"factor{i}" for i in range(factors.shape[2]))
        check_factors(path, factors.reshape(n * v, -1), names, n * v)
    labels = arrays.get("labels")
    labels = None if labels is None else check_labels(path, labels, n, "objects")
    fitted = images.to_uint8(pictures[chosen].reshape(-1, *pictures.shape[2:]), path)
    return PosedArrays(
        f"posed_arrays {os.path.basename(path)}",
        split,
        image_size,
        channels,
        images.fit_arrays(fitted, image_size, channels),
        None if labels is None else np.repeat(labels[chosen].astype(np.int32), v),
        None,
        None,
        None if factors is None else factors[chosen].reshape(len(chosen) * v, -1),
        () if factors is None else names,
        seen=Cameras(*(part[chosen].reshape(len(chosen) * v, *part.shape[2:]) for part in seen)),
        starts=np.arange(len(chosen) + 1, dtype=np.int64) * v,
    )


def _chosen_objects(path: str, splits: np.ndarray | None, count: int, split: str) -> np.ndarray:
    if splits is None or split == "all":
        records.check_split(path, split, records.DIVIDED)
        return records.divide(map(str, range(count)), split)
    records.check_split(path, split, sorted({str(name) for name in splits}))
    return np.flatnonzero(np.array([str(name) for name in splits]) == split)
