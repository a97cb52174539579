"""A bounded number of pictures that can't be read, for a set too large to be mended first."""

import sys
import threading

import numpy as np

from soda_jax.data.records import Source

UNREADABLE = (ValueError, FileNotFoundError)  # not a disk that fails today and not tomorrow


class Tolerant:
    """The pictures of a source, with the next readable one in the place of one that is not.

    What takes whose place depends on the records alone, so a resumed run sees the same batches.

    Args:
      source: pictures without cameras.
      most: so many different ones may be unreadable, of those that this process has met since it
        began; one more is raised as it is.
    """

    def __init__(self, source: Source, most: int):
        self._source, self._most = source, most
        self._unreadable: set[int] = set()
        self._lock = threading.Lock()
        self.image_shape = source.image_shape

    def __len__(self) -> int:
        return len(self._source)

    def images(self, indices: np.ndarray) -> np.ndarray:
        """uint8 [b h w c]; ValueError or FileNotFoundError where too many can't be read."""
        try:
            return self._source.images(indices)
        except UNREADABLE:
            return np.stack([self._image(int(index)) for index in indices])

    def _image(self, index: int) -> np.ndarray:
        while True:
            try:
                return self._source.images(np.array([index]))[0]
            except UNREADABLE as error:
                with self._lock:
                    new = index not in self._unreadable
                    self._unreadable.add(index)
                    if len(self._unreadable) > min(self._most, len(self) - 1):
                        raise
                if new:
                    print(f"soda_jax: left out: {error}", file=sys.stderr)
            index = (index + 1) % len(self)
