"""Posed pictures of objects in the folders of NMR, SRN and NeRF."""

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from soda_jax.data import cameras, images, records
from soda_jax.data.cameras import Cameras
from soda_jax.data.source_folder import ENDINGS, SPLIT_FOLDERS, FolderSource

# A folder is an object's where it holds this.
MARKS = {"nmr": "cameras.npz", "srn": "pose", "transforms": "transforms.json"}
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")  # as COLMAP names it
STRAIGHT = 0.005  # of the focal length: about half a pixel of 100


class PosedObject(NamedTuple):
    """An object's pictures (names relative to the root) and their cameras [v]."""

    folder: str
    files: list[str]
    seen: Cameras


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PosedFolder(records.SeenPictures, FolderSource):
    """Picture files with cameras: see `records.PosedSource`. They stay as they are stored: what
    wrote the cameras looks at no EXIF orientation."""

    turned = False

    seen: Cameras
    starts: np.ndarray


def open_views(layout: str, path: str, split: str, image_size: int, channels: int):
    """Opens posed pictures: a `records.PosedSource`. All cameras get the axes of OpenCV.

    Args:
      layout: "nmr": <object>/image/*.png and cameras.npz, as the softras split of NMR has them,
        with softras_<split>.lst in each category's folder; "srn": <object>/rgb/*.png, pose/*.txt
        and intrinsics.txt, as in ShapeNet-SRN; "transforms": <object>/transforms.json, as
        Blender, NeRF and instant-ngp write them, or transforms_<split>.json of one object.
      split: a folder named so or ending in _<split>; else a list (nmr); else objects are divided
        90/10 by a hash of their names.

    Raises:
      FileNotFoundError, ValueError: what is missing or wrong, and where: no camera for a picture,
        a pose that isn't a rotation, mixed conventions, ...
    """
    path = os.path.abspath(os.path.expanduser(path))
    if not os.path.isdir(path):
        raise FileNotFoundError(f"no folder of objects at {path}")
    read = {"nmr": _read_nmr, "srn": _read_srn, "transforms": _read_transforms}[layout]
    whole = os.path.join(path, f"transforms_{split}.json")
    if layout == "transforms" and os.path.isfile(whole):
        objects = [_read_transforms(path, path, whole)]
        names = ("",)
    else:
        root, folders, names = _of_split(path, split, MARKS[layout])
        objects = [read(root, folder) for folder in folders]
        path = root
    for item in objects:
        check_cameras(os.path.join(path, item.folder), item.seen, len(item.files))
    categories = [os.path.dirname(item.folder) for item in objects]
    counts = [len(item.files) for item in objects]
    classes = np.repeat([names.index(category) for category in categories], counts)
    return PosedFolder(
        layout,
        split,
        image_size,
        channels,
        path,
        tuple(file for item in objects for file in item.files),
        classes.astype(np.int32) if len(names) > 1 else None,
        names if len(names) > 1 else None,
        seen=Cameras(*map(np.concatenate, zip(*(item.seen for item in objects), strict=True))),
        starts=np.cumsum([0, *counts]).astype(np.int64),
    )


def check_cameras(name: str, seen: Cameras, num_pictures: int) -> None:
    if len(seen.pose) != num_pictures:
        raise ValueError(f"{name}: {num_pictures} pictures, but {len(seen.pose)} cameras")
    cameras.check_poses(seen.pose, name)
    cameras.check_lenses(seen.intrinsics, name)
    cameras.check_facing(seen.pose, name)


def _of_split(path: str, split: str, mark: str) -> tuple[str, list[str], tuple[str, ...]]:
    """The root of a split, its objects' folders relative to it, sorted, and the categories of all
    splits, so that one that is missing from a split shifts no label."""
    tops = sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
    splits = {
        top: name
        for top in tops
        for name in dict.fromkeys((split, *SPLIT_FOLDERS))
        if f"_{top}".endswith(f"_{name}")
    }
    if splits and split != "all":
        records.check_split(path, split, sorted({*splits.values()}), folders=True)
    named = [top for top, name in splits.items() if name == split]
    if len(named) > 1:
        raise ValueError(
            f"{path}: {' and '.join(named)} are both the split {split!r}; give each set a folder "
            "of its own"
        )
    if [*splits] == [split]:
        for top in tops:
            if top != split and any(_marked(os.path.join(path, top), mark)):
                raise ValueError(
                    f"{path}: is {split!r} the split, or a category as {top!r} is? If the split, "
                    "keep the others elsewhere; if a category, rename it"
                )
    root = os.path.join(path, named[0]) if named else path
    found = sorted(_marked(root, mark))
    if not found:
        raise ValueError(f"{root}: no objects there (folders that hold {mark!r})")
    categories = {os.path.dirname(folder) for folder in found}
    if named:
        for other in splits:
            others = _marked(os.path.join(path, other), mark)
            categories |= {os.path.dirname(folder) for folder in others}
        return root, found, tuple(sorted(categories))
    names = tuple(sorted(categories))
    listed = _listed(root, split)
    if listed is not None:
        found = [folder for folder in found if folder in listed]
        if not found:
            raise ValueError(f"{root}: none of the objects of softras_{split}.lst is there")
        return root, found, names
    if split != "all" and (lists := [name for name in SPLIT_FOLDERS if _listed(root, name)]):
        records.check_split(path, split, lists)
    records.check_split(path, split, records.DIVIDED)
    return root, [found[index] for index in records.divide(found, split)], names


def _marked(root: str, mark: str) -> Iterator[str]:
    for folder, inner, files in os.walk(root, followlinks=True):
        if mark in inner or mark in files:
            inner.clear()
            yield os.path.relpath(folder, root)


def _listed(root: str, split: str) -> set[str] | None:
    """The objects that softras_<split>.lst files name, in the folders of categories."""
    found, known = set(), False
    for category in sorted(os.listdir(root)):
        file = os.path.join(root, category, f"softras_{split}.lst")
        if os.path.isfile(file):
            known = True
            with open(file, encoding="utf-8") as lines:
                found |= {os.path.join(category, line.strip()) for line in lines if line.strip()}
    return found if known else None


def _pictures(root: str, folder: str, inner: str) -> list[str]:
    place = os.path.join(root, folder, inner)
    if not os.path.isdir(place):
        raise ValueError(f"{os.path.join(root, folder)}: no folder {inner!r} of pictures")
    names = sorted(name for name in os.listdir(place) if name.lower().endswith(ENDINGS))
    if not names:
        raise ValueError(f"{place}: no pictures ({', '.join(ENDINGS)}) there")
    return [os.path.join(folder, inner, name) for name in names]


def _read_nmr(root: str, folder: str) -> PosedObject:
    files = _pictures(root, folder, "image")
    path = os.path.join(root, folder, MARKS["nmr"])
    try:
        with np.load(path, allow_pickle=False) as held:
            numbers = [re.findall(r"\d+", os.path.basename(file)) for file in files]
            for found, file in zip(numbers, files, strict=True):
                if not found:
                    raise ValueError(f"{file} has no number, by which its camera is found")
            numbers = [int(found[-1]) for found in numbers]
            for number, file in zip(numbers, files, strict=True):
                if not {f"world_mat_{number}", f"world_mat_inv_{number}"} & {*held.files}:
                    raise ValueError(f"{file} has no camera world_mat_{number}")
            poses = [
                held[f"world_mat_inv_{number}"]
                if f"world_mat_inv_{number}" in held.files
                else np.linalg.inv(_last_row([held[f"world_mat_{number}"]])[0].astype(np.float64))
                for number in numbers
            ]
            lens = [held[f"camera_mat_{number}"] for number in numbers]
    except Exception as error:  # a broken file makes numpy raise nearly anything
        raise ValueError(f"{path}: {error}") from error
    # Its lens maps to [-1, 1]: halves are shares of the picture.
    lens = np.stack(lens)
    intrinsics = np.stack([lens[:, 0, 0], lens[:, 1, 1]], -1) / 2
    centre = (lens[:, :2, 2] + 1) / 2
    whole = np.concatenate([intrinsics, centre], -1)
    whole = cameras.cropped(whole, *images.size_of(os.path.join(root, files[0])))
    return PosedObject(folder, files, Cameras(_last_row(poses), whole))


def _read_srn(root: str, folder: str) -> PosedObject:
    files = _pictures(root, folder, "rgb")
    place = os.path.join(root, folder)
    lens = _numbers(os.path.join(place, "intrinsics.txt"))
    if len(lens) < 8:
        raise ValueError(f"{place}/intrinsics.txt: expected f cx cy 0, three zeros, 1, h w")
    height, width = lens[-2:]
    matrix = np.array([[lens[0], 0, lens[1]], [0, lens[0], lens[2]], [0, 0, 1]])
    try:
        intrinsics = cameras.cropped(cameras.intrinsics_of(matrix, height, width), height, width)
    except ValueError as error:
        raise ValueError(f"{place}/intrinsics.txt: {error}") from error
    poses = []
    for file in files:
        stem = os.path.splitext(os.path.basename(file))[0]
        path = os.path.join(place, "pose", f"{stem}.txt")
        if not os.path.isfile(path):
            raise ValueError(f"{os.path.join(root, file)} has no camera: no {path}")
        pose = _numbers(path)
        if len(pose) != 16:
            raise ValueError(f"{path}: {len(pose)} numbers; a pose has 16")
        poses.append(np.reshape(pose, (4, 4)))
    seen = Cameras(_last_row(poses), np.tile(intrinsics, (len(files), 1)))
    return PosedObject(folder, files, seen)


def _read_transforms(root: str, folder: str, path: str = "") -> PosedObject:
    path = path or os.path.join(root, folder, MARKS["transforms"])
    folder = os.path.relpath(os.path.dirname(path), root)
    try:
        with open(path, encoding="utf-8") as file:
            held = json.load(file)
        frames = held["frames"]
        poses = [np.array(frame["transform_matrix"], np.float64) for frame in frames]
        names = [str(frame["file_path"]) for frame in frames]
        poses = _last_row(poses) if frames else None
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a transforms.json ({error})") from error
    if not frames:
        raise ValueError(f"{path}: no frames")
    files = []
    for name in names:
        file = os.path.normpath(os.path.join(folder, name))
        file = file if file.lower().endswith(ENDINGS) else f"{file}.png"
        if file.startswith("..") or os.path.isabs(file):
            raise ValueError(f"{path}: the picture {name!r} lies outside its folder")
        files.append(file)
    size = images.size_of(os.path.join(root, files[0]))
    # What a frame says of its lens goes before what is said of all.
    lenses = [_lens_of_frame(path, {**held, **frame}, size) for frame in frames]
    return PosedObject(folder, files, Cameras(cameras.to_opencv(poses, "opengl"), np.stack(lenses)))


def _lens_of_frame(path: str, held: dict, size: tuple[int, int]) -> np.ndarray:
    """Intrinsics [4] from the fields of a transforms.json."""
    if "FISHEYE" in str(held.get("camera_model", "")).upper():
        raise ValueError(f"{path}: a camera with a fisheye lens; only pinhole cameras are read")
    try:
        height, width = float(held.get("h", size[0])), float(held.get("w", size[1]))
        if "fl_x" in held:
            focal = float(held["fl_x"])
        elif "camera_angle_x" in held:
            focal = 0.5 * width / np.tan(float(held["camera_angle_x"]) / 2)
        else:
            raise ValueError("no camera_angle_x and no fl_x: pictures without a camera")
        focal_y = float(held.get("fl_y", focal))
        x, y = float(held.get("cx", width / 2)), float(held.get("cy", height / 2))
        bent = {name: float(held[name]) for name in DISTORTION if held.get(name)}
        if bent and (shift := _bend(bent, x / focal, y / focal_y)) > STRAIGHT:
            told = ", ".join(f"{name} = {value:g}" for name, value in bent.items())
            raise ValueError(
                f"the lens distorts ({told}), by {shift:.1%} of the focal length in a corner; only "
                "pinhole cameras are read: undistort the pictures first, and write 0 there"
            )
        matrix = np.array([[focal, 0, x], [0, focal_y, y], [0, 0, 1]])
        return cameras.cropped(cameras.intrinsics_of(matrix, height, width), height, width)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{path}: {error}") from error


def _bend(bent: dict[str, float], x: float, y: float) -> float:
    """How far a lens shifts what is seen at (x, y), in focal lengths (OpenCV's model)."""
    k1, k2, k3, k4, p1, p2 = (bent.get(name, 0.0) for name in DISTORTION)
    square = x * x + y * y
    radial = square * (k1 + square * (k2 + square * (k3 + square * k4)))
    along_x = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x)
    along_y = y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y
    return float(np.hypot(along_x, along_y))


def _last_row(poses: list[np.ndarray]) -> np.ndarray:
    """Poses [v 3 4] or [v 4 4] as [v 4 4]."""
    poses = np.stack(poses).astype(np.float32)
    if poses.shape[1:] == (3, 4):
        last = np.broadcast_to(np.eye(4, dtype=np.float32)[3:], (len(poses), 1, 4))
        poses = np.concatenate([poses, last], axis=1)
    return poses


def _numbers(path: str) -> tuple[float, ...]:
    try:
        with open(path, encoding="utf-8") as file:
            return tuple(map(float, file.read().split()))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected numbers ({error})") from error
