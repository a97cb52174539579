"""Pictures in folders: path/<split>/<class>/*, path/<class>/*, or loose files without labels."""

import collections
import dataclasses
import functools
import os

import numpy as np

from soda_jax.data import images, records

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
SPLIT_FOLDERS = ("train", "test", "val", "valid", "validation")


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
    """Picture files, decoded when they are asked for.

    Attributes:
      root: the folder of the split.
      files: names relative to root, in sorted order.
      targets: [n] int32 labels, or None for loose files.
    """

    name: str
    split: str
    image_size: int
    channels: int
    root: str
    files: tuple[str, ...]
    targets: np.ndarray | None
    class_names: tuple[str, ...] | None
    factor_names: tuple[str, ...] = ()

    turned = True  # pictures, as their EXIF orientation says

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.image_size, self.image_size, self.channels

    def __len__(self) -> int:
        return len(self.files)

    def images(self, indices: np.ndarray) -> np.ndarray:
        out = np.empty((len(indices), *self.image_shape), np.uint8)
        for n, index in enumerate(indices):
            path = os.path.join(self.root, self.files[index])
            out[n] = images.load_image(path, self.image_size, self.channels, self.turned)
        return out

    def labels(self, indices: np.ndarray) -> np.ndarray:
        if self.targets is None:
            raise records.no_labels(self)
        return self.targets[np.asarray(indices)]

    def factors(self, indices: np.ndarray) -> np.ndarray:
        raise records.no_factors(self)

    @functools.cached_property
    def fingerprint(self) -> str:
        # Of the files, not the pixels: those may change a little with the decoder's version.
        contents = ["\n".join(self.files).encode("utf-8", "surrogateescape")]
        for index in records.a_few(len(self)):
            with open(os.path.join(self.root, self.files[index]), "rb") as file:
                contents.append(file.read())
        return records.digest(self, contents)


def open_folder(path: str, split: str, image_size: int, channels: int) -> FolderSource:
    """Opens the pictures under `path`; where it has no folder for any split, divides them 90/10.

    Class folders are numbered in sorted order, over all splits together, so that a class which is
    missing from one split shifts no label.
    """
    path = os.path.abspath(os.path.expanduser(path))
    if not os.path.isdir(path):
        raise FileNotFoundError(f"no folder of pictures at {path}")
    split_folders = [name for name in _folders(path) if name in (*SPLIT_FOLDERS, split)]
    if split_folders:
        others = [name for name in _folders(path) if name not in split_folders]
        alike = [name for name in others if _pictures(path, name)]
        if alike and _pictures(path, split_folders[0]):
            raise ValueError(
                f"{path}: {split_folders[0]!r} holds pictures as {alike[0]!r} does: if it is a "
                f"class, put all classes into a folder 'train'; if a split, take {alike[0]!r} away"
            )
        records.check_split(path, split, split_folders, folders=True)
        root, siblings = os.path.join(path, split), split_folders
    else:
        records.check_split(path, split, records.DIVIDED)
        root, siblings = path, ["."]
    classes = {name for folder in siblings for name in _class_folders(os.path.join(path, folder))}
    class_names = tuple(sorted(classes))
    loose = _pictures(root)
    if loose and not _class_folders(root):
        class_names = ()  # of this split no picture has a label
    if class_names and loose:
        raise ValueError(
            f"{root}: pictures both in class folders and loose beside them, such as {loose[0]}"
        )
    files = [os.path.join(c, name) for c in class_names for name in _pictures(root, c)] or loose
    if not files:
        raise ValueError(f"{root}: no pictures ({', '.join(ENDINGS)}) there{_what_else(root)}")
    if not split_folders:
        names = (file.replace(os.sep, "/") for file in files)
        files = [files[index] for index in records.divide(names, split)]
    targets = None
    if class_names:
        number = {name: n for n, name in enumerate(class_names)}
        targets = np.array([number[os.path.dirname(file)] for file in files], np.int32)
    return FolderSource(
        "folder", split, image_size, channels, root, tuple(files), targets, class_names or None
    )


def _folders(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _pictures(path: str, folder: str = "") -> list[str]:
    path = os.path.join(path, folder)
    if not os.path.isdir(path):
        return []
    with os.scandir(path) as entries:
        names = [e.name for e in entries if e.is_file() and not e.name.startswith(".")]
    return sorted(name for name in names if name.lower().endswith(ENDINGS))


def _class_folders(path: str) -> list[str]:
    return [name for name in _folders(path) if _pictures(path, name)]


def _what_else(root: str) -> str:
    files = (name for _, _, names in os.walk(root) for name in names)
    found = collections.Counter(os.path.splitext(name)[1].lower() or "no ending" for name in files)
    listed = ", ".join(f"{count} x {ending}" for ending, count in found.most_common(3))
    return f"; found {listed}" if listed else ", the folder is empty"
