"""Pictures in numpy files: .npz with named arrays, or .npy, which stays on the disk."""

import os
from typing import NamedTuple

import numpy as np

from soda_jax.data import images, records

IMAGE_KEYS = ("images", "image", "imgs", "x", "X")
LABEL_KEYS = ("labels", "label", "y", "Y")
FACTOR_KEYS = ("latents_classes", "factors")
FACTOR_NAME_KEYS = ("factor_names", "latents_names")
# dSprites keeps its names in a pickle, which stays shut; they are the published ones.
DSPRITES = ("color", "shape", "scale", "orientation", "posX", "posY")


def open_arrays(path: str, split: str, image_size: int, channels: int) -> records.ArraySource:
    """Opens .npz, .npy, or a folder of <split>.npz or <split>.npy (and <split>_labels.npy).

    In an .npz the keys are images and labels, or x and y, alone or with the split before or
    behind (x_train, train_images). Pictures are [n h w] or [n h w c], uint8 or float in [0, 1];
    a set of uint8 whose largest value is 1 is taken for black and white. Objects are never
    unpickled.

    Factors of variation may lie beside them, as in dSprites: integers [n k] under latents_classes
    or factors (with the split, where the pictures have it), and k names under factor_names or
    latents_names; else the names are dSprites' own, or factor0, factor1, ...
    """
    path = os.path.abspath(os.path.expanduser(path))
    if os.path.isdir(path):
        path = _file_of_split(path, split)
        whole_file = True
    elif os.path.isfile(path):
        whole_file = False
    else:
        raise FileNotFoundError(f"no arrays at {path}")
    if path.endswith(".npz"):
        contents = _read_npz(path, split)
        pictures, targets, divided = contents.pictures, contents.labels, contents.divided
        factors, factor_names = contents.factors, contents.factor_names
        if pictures.dtype == np.uint8 and pictures.size and pictures.max() <= 1:
            pictures = pictures.astype(bool)
    elif path.endswith(".npy"):
        pictures, targets, divided = _read(path), None, False
        factors, factor_names = None, ()
        beside = path.removesuffix(".npy") + "_labels.npy"
        if os.path.isfile(beside):
            targets = _read(beside)
    else:
        raise ValueError(f"{path}: expected an .npz, an .npy, or a folder of them")
    _check(path, pictures)
    targets = None if targets is None else check_labels(path, targets, len(pictures))
    if factors is not None:
        check_factors(path, factors, factor_names, len(pictures))
    rows = None
    if not (divided or whole_file):
        records.check_split(path, split, records.DIVIDED)
        rows = records.divide((str(n) for n in range(len(pictures))), split)
    if path.endswith(".npz"):
        chosen = slice(None) if rows is None else rows
        pictures = images.to_uint8(pictures[chosen], path)
        pictures = images.fit_arrays(pictures, image_size, channels)
        targets = None if targets is None else targets[chosen]
        factors = None if factors is None else factors[chosen]
        rows = None
    return records.ArraySource(
        f"arrays {os.path.basename(path)}",
        split,
        image_size,
        channels,
        pictures,
        targets,
        None,
        rows,
        factors,
        factor_names,
    )


def _file_of_split(folder: str, split: str) -> str:
    for ending in (".npz", ".npy"):
        if os.path.isfile(path := os.path.join(folder, split + ending)):
            return path
    names = sorted(name for name in os.listdir(folder) if name.endswith((".npz", ".npy")))
    stems = [os.path.splitext(name)[0] for name in names if not name.endswith("_labels.npy")]
    raise FileNotFoundError(
        f"no {split}.npz or {split}.npy in {folder}; {records.choices(split, stems)}"
    )


class _Npz(NamedTuple):
    """pictures, labels or None, factors or None with their names; did the keys tell the split?"""

    pictures: np.ndarray
    labels: np.ndarray | None
    factors: np.ndarray | None
    factor_names: tuple[str, ...]
    divided: bool


def _read_npz(path: str, split: str) -> _Npz:
    opened = open(path, "rb")  # numpy leaves a file open that it finds damaged
    try:
        file = np.load(opened, allow_pickle=False)
    except Exception as error:  # a broken file makes numpy raise nearly anything
        opened.close()
        raise ValueError(f"{path}: cannot be read as .npz ({error})") from error
    with opened, file:
        keys = list(file.files)
        for divided in (True, False):
            image_key, label_key, factor_key = (
                next((key for key in wanted if key in keys), None)
                for names in (IMAGE_KEYS, LABEL_KEYS, FACTOR_KEYS)
                for wanted in [_with_split(names, split) if divided else names]
            )
            if image_key:
                labels = _entry(file, label_key, path) if label_key else None
                factors = _entry(file, factor_key, path) if factor_key else None
                names = () if factors is None else _factor_names(file, factors)
                return _Npz(_entry(file, image_key, path), labels, factors, names, divided)
    splits = _splits(keys)
    if splits:
        raise ValueError(f"{path} has no split {split!r}; {records.choices(split, splits)}")
    raise ValueError(
        f"{path}: no pictures among its arrays ({', '.join(keys) or 'none'}); expected images, "
        f"x, images_{split}, x_{split} or {split}_images"
    )


def _factor_names(file: np.lib.npyio.NpzFile, factors: np.ndarray) -> tuple[str, ...]:
    """The names where they are a plain array of text; they are never unpickled."""
    for key in FACTOR_NAME_KEYS:
        if key not in file.files:
            continue
        try:
            names = _entry(file, key, "")
        except ValueError:
            continue
        if names.ndim == 1 and names.dtype.kind == "U":
            return tuple(names.tolist())
    count = factors.shape[-1] if factors.ndim else 0
    if {"imgs", "latents_values", "latents_classes"} <= {*file.files} and count == len(DSPRITES):
        return DSPRITES
    return tuple(f"factor{k}" for k in range(count))


def _with_split(names: tuple[str, ...], split: str) -> list[str]:
    return [key for name in names for key in (f"{name}_{split}", f"{split}_{name}")]


def _splits(keys: list[str]) -> list[str]:
    """The splits that the picture keys of an .npz speak of."""
    found = set()
    for key in keys:
        for name in IMAGE_KEYS:
            if key.startswith(name + "_"):
                found.add(key.removeprefix(name + "_"))
            elif key.endswith("_" + name):
                found.add(key.removesuffix("_" + name))
    return sorted(found)


def _entry(file: np.lib.npyio.NpzFile, key: str, path: str) -> np.ndarray:
    try:
        return file[key]
    except Exception as error:  # a broken file makes numpy raise nearly anything
        raise ValueError(f"{path}: its array {key!r} cannot be read ({error})") from error


def _read(path: str) -> np.ndarray:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a broken file makes numpy raise nearly anything
        raise ValueError(f"{path}: cannot be read as .npy ({error})") from error


def _check(path: str, pictures: np.ndarray) -> None:
    shape = pictures.shape
    if not (len(shape) == 3 or (len(shape) == 4 and shape[-1] in (1, 3, 4))) or 0 in shape:
        raise ValueError(f"{path}: pictures of shape {shape}; expected [n h w] or [n h w 1|3|4]")
    images.to_uint8(pictures[:1], path)


def check_labels(
    path: str, labels: np.ndarray, num_examples: int, what: str = "pictures"
) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (num_examples,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{path}: labels of shape {labels.shape} and type {labels.dtype}; expected one "
            f"integer for each of {num_examples} {what}"
        )
    if labels.min() < 0:
        raise ValueError(f"{path}: labels must not be negative, the least is {labels.min()}")
    return labels.astype(np.int32)


def check_factors(path: str, factors: np.ndarray, names: tuple[str, ...], num: int) -> None:
    is_integer = np.issubdtype(factors.dtype, np.integer)
    if factors.ndim != 2 or len(factors) != num or factors.shape[1] < 1 or not is_integer:
        raise ValueError(
            f"{path}: factors of shape {factors.shape} and type {factors.dtype}; expected integers "
            f"[n k], a row for each of {num} pictures"
        )
    if len(names) != factors.shape[1] or len(set(names)) != len(names):
        raise ValueError(
            f"{path}: {len(names)} factor names ({', '.join(names)}) for {factors.shape[1]} "
            "factors; each needs one, and no two the same"
        )
