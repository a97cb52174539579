"""From the name of a data set to its records: `open_source`, and the digits of scikit-learn."""

import numpy as np

from soda_jax.data import (
    images,
    records,
    source_arrays,
    source_cifar,
    source_folder,
    source_posed_arrays,
    source_scenes,
    source_tfds,
    source_views,
)
from soda_jax.data.records import Source

POSED_FILES = ("nmr", "srn", "transforms", "posed_arrays")
SOURCES = ("digits", "tfds", "folder", "arrays", "cifar10", "cifar100", "scenes", *POSED_FILES)


def open_source(
    source: str, split: str, *, image_size: int, channels: int, name: str = "", path: str = ""
) -> Source:
    """Opens one split of a data set as square uint8 pictures.

    Args:
      source: "digits" (scikit-learn's 1797 handwritten digits), "tfds", "folder" (of picture
        files), "arrays" (.npz or .npy), "cifar10" or "cifar100" (the published files); and with
        cameras, as `records.PosedSource`: "scenes" (built in, drawn when asked for), "nmr", "srn",
        "transforms" (folders, see `source_views`) or "posed_arrays" (see `source_posed_arrays`).
      split: such as "train" or "test"; for tfds also a slice, such as "train[:80%]". A folder or
        array that comes undivided has "train" and "test" (90/10 by a hash) and "all".
      image_size: pictures are resized by their shorter side, then cut to this square.
      channels: 1 or 3.
      name: tfds: the data set's name.
      path: folder, arrays, cifar: where the files are; tfds: its data_dir.

    Raises:
      FileNotFoundError: what was asked for is not there.
      ValueError: an unknown source or split, or files that cannot be read as pictures.
      ModuleNotFoundError: the optional package that the source needs is not installed.
    """
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1, not {image_size}")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, not {channels}")
    if source in SOURCES and source not in ("digits", "tfds", "scenes") and not path:
        raise ValueError(f"the source {source!r} needs a path to its files: config.data.path")
    match source:
        case "digits":
            return open_digits(split, image_size, channels)
        case "tfds":
            return source_tfds.open_tfds(name, split, image_size, channels, data_dir=path)
        case "folder":
            return source_folder.open_folder(path, split, image_size, channels)
        case "arrays":
            return source_arrays.open_arrays(path, split, image_size, channels)
        case "cifar10" | "cifar100":
            return source_cifar.open_cifar(source, path, split, image_size, channels)
        case "scenes":
            return source_scenes.Scenes(split, image_size, channels)
        case "posed_arrays":
            return source_posed_arrays.open_posed_arrays(path, split, image_size, channels)
        case "nmr" | "srn" | "transforms":
            return source_views.open_views(source, path, split, image_size, channels)
    raise ValueError(f"no data source {source!r}; {records.choices(source, SOURCES)}")


def num_classes(source: Source) -> int:
    """How many classes the labels tell apart; 0 where there are no labels.

    Labels without names (arrays) are taken to run from 0 to the largest that occurs.
    """
    if source.class_names:
        return len(source.class_names)
    try:
        labels = source.labels(np.arange(len(source)))
    except ValueError:
        return 0
    return int(labels.max()) + 1


def open_digits(split: str, image_size: int, channels: int) -> records.ArraySource:
    """The 8x8 digits of scikit-learn, grey values 0..16, enlarged by bicubic interpolation.

    They come undivided: of each class, a fixed random 20 % are the test split [D].
    """
    records.check_split("digits", split, records.DIVIDED)
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the source 'digits' comes with scikit-learn: pip install scikit-learn"
        ) from error
    digits = datasets.load_digits()
    pictures = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    random = np.random.RandomState(0)
    is_test = np.zeros(len(pictures), bool)
    for label in range(10):
        of_class = random.permutation(np.flatnonzero(digits.target == label))
        is_test[of_class[: round(0.2 * len(of_class))]] = True
    rows = {"train": ~is_test, "test": is_test, "all": np.ones_like(is_test)}[split]
    return records.ArraySource(
        "digits",
        split,
        image_size,
        channels,
        images.fit_arrays(pictures[rows], image_size, channels),
        digits.target[rows].astype(np.int32),
        tuple(str(label) for label in range(10)),
    )
