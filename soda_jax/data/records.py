"""What all sources share: the interface, the array-backed one, division, words of errors."""

import dataclasses
import difflib
import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from soda_jax.data import images
from soda_jax.data.cameras import Cameras

DIVIDED = ("train", "test", "all")


class Source(Protocol):
    """Random-access pictures of one split, all of one shape.

    Attributes:
      name: which data set, without the place where it lies.
      split: which part of it.
      image_shape: (h, w, c) of every picture.
      class_names: a name for each label, or None.
      factor_names: a name for each known factor of variation; () where none is known.
      fingerprint: short hex digest of name, split, length, shape and a few records, by which a
        checkpoint knows the data that it was trained on.
    """

    name: str
    split: str
    class_names: tuple[str, ...] | None
    factor_names: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def images(self, indices: np.ndarray) -> np.ndarray:
        """uint8 [b h w c] of the records at int indices [b]."""

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """int32 [b]; ValueError where the set has none."""

    def factors(self, indices: np.ndarray) -> np.ndarray:
        """int64 [b k], a column for each of factor_names; ValueError where the set has none."""


@runtime_checkable
class PosedSource(Source, Protocol):
    """Pictures with cameras, several of each object: object i has pictures starts[i] to
    starts[i + 1] - 1, and nothing else is known of objects.

    Attributes:
      starts: [n + 1] int64, from 0 to the number of pictures.
    """

    starts: np.ndarray

    def cameras(self, indices: np.ndarray) -> Cameras:
        """The cameras [b] of the pictures at int indices [b], in the object's world."""


class SeenPictures:
    """cameras() of a source that keeps all its cameras, [n], in `seen`, for its fingerprint too."""

    seen: Cameras

    @functools.cached_property
    def fingerprint(self) -> str:
        seen = self.cameras(a_few(len(self)))
        return digest(self, [super().fingerprint.encode(), *(part.tobytes() for part in seen)])

    def cameras(self, indices: np.ndarray) -> Cameras:
        return Cameras(*(part[np.asarray(indices)] for part in self.seen))


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Pictures in an array: in memory, or a memory map that is fitted batch by batch.

    Attributes:
      pictures: [n h w] or [n h w c], uint8, bool, or float in [0, 1]; of any size.
      targets: [n] integer labels, or None.
      rows: which of the n belong to the split; None for all of them.
      factor_values: [n k] integers, what each picture was made from; or None.
      factor_names: k names; () where factor_values is None.
    """

    name: str
    split: str
    image_size: int
    channels: int
    pictures: np.ndarray
    targets: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    rows: np.ndarray | None = None
    factor_values: np.ndarray | None = None
    factor_names: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.image_size, self.image_size, self.channels

    def __len__(self) -> int:
        return len(self.pictures) if self.rows is None else len(self.rows)

    def images(self, indices: np.ndarray) -> np.ndarray:
        pictures = images.to_uint8(self.pictures[self._rows(indices)], self.name)
        return images.fit_arrays(pictures, self.image_size, self.channels)

    def labels(self, indices: np.ndarray) -> np.ndarray:
        if self.targets is None:
            raise no_labels(self)
        return self.targets[self._rows(indices)].astype(np.int32)

    def factors(self, indices: np.ndarray) -> np.ndarray:
        if self.factor_values is None:
            raise no_factors(self)
        return self.factor_values[self._rows(indices)].astype(np.int64)

    def _rows(self, indices: np.ndarray) -> np.ndarray:
        indices = np.asarray(indices)
        return indices if self.rows is None else self.rows[indices]

    @functools.cached_property
    def fingerprint(self) -> str:
        few = a_few(len(self))
        records = [self.images(few).tobytes()]
        if self.targets is not None:
            records.append(self.labels(few).tobytes())
        return digest(self, records)


def a_few(length: int) -> np.ndarray:
    """Up to 8 indices, spread over the whole."""
    return np.unique(np.linspace(0, length - 1, num=min(8, length)).astype(np.int64))


def digest(source: Source, records: Iterable[bytes]) -> str:
    """16 hex digits over what identifies the source and over the given records."""
    identity = (source.name, source.split, len(source), tuple(source.image_shape))
    sha = hashlib.sha256(repr(identity).encode())
    for record in records:
        sha.update(record)
    return sha.hexdigest()[:16]


def divide(names: Iterable[str], split: str) -> np.ndarray:
    """Indices of the names in "train" (about 90 %), "test" (10 %) or "all".

    For sets that come undivided [D]: by a hash of the name alone, so that pictures added later
    move no other from one side to the other.
    """
    hashes = (hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in names)
    held_out = np.array([int.from_bytes(value[:8], "big") % 10 == 0 for value in hashes], bool)
    chosen = {"train": ~held_out, "test": held_out, "all": np.ones_like(held_out)}[split]
    if not chosen.any():
        raise ValueError(
            f"dividing {len(held_out)} pictures 90/10 leaves none for the split {split!r}; "
            "use the split 'all', or divide them yourself"
        )
    return np.flatnonzero(chosen)


def check_split(name: str, split: str, splits: Sequence[str], folders: bool = False) -> None:
    """ValueError where there is no such split; of folders, what a single one could be taken for."""
    if split not in splits:
        hint = ""
        if folders and len(splits) == 1 and split in DIVIDED:
            hint = (
                f"; config.data.path of the folder {splits[0]!r} itself is divided, 90 % and 10 %"
            )
        raise ValueError(f"{name} has no split {split!r}; {choices(split, splits)}{hint}")


def choices(word: str, allowed: Sequence[str]) -> str:
    """The end of an error: what is allowed, and the nearest of it."""
    near = difflib.get_close_matches(word, allowed, n=1)
    shown = ", ".join(allowed[:12]) + (", ..." if len(allowed) > 12 else "")
    return f"there is: {shown or 'nothing'}" + (f" (did you mean {near[0]!r}?)" if near else "")


def no_labels(source: Source) -> ValueError:
    return ValueError(f"{source.name} ({source.split}) has no labels, only pictures")


def no_factors(source: Source) -> ValueError:
    return ValueError(
        f"{source.name} ({source.split}) has no factors of variation: an .npz tells them by an "
        "array latents_classes or factors, integers [n k]; a TFDS set by several class labels, or "
        "by a dictionary of yes and no"
    )
