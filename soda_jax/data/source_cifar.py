"""CIFAR-10 and CIFAR-100 from the published files, binary or Python batches (Krizhevsky 2009)."""

import os

import numpy as np

from soda_jax.data import images, records, restricted_pickle

# sub-folder in the archive, files of each split, key of the labels in the Python batches
CIFAR10_FILES = {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]}
CIFAR100_FILES = {"train": ["train"], "test": ["test"]}
CIFAR10_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
PICKLE = "CIFAR batch"


def open_cifar(
    source: str, path: str, split: str, image_size: int, channels: int
) -> records.ArraySource:
    """CIFAR in memory, from `path` or the archive's folder in it; of 100, the fine labels."""
    is_10 = source == "cifar10"
    files = CIFAR10_FILES if is_10 else CIFAR100_FILES
    records.check_split(source, split, tuple(files))
    folder, ending = _locate(source, path, files)
    pictures, labels = [], []
    for file in files[split]:
        batch = os.path.join(folder, file + ending)
        if not os.path.isfile(batch):
            raise FileNotFoundError(f"{source} is incomplete: {batch} is missing")
        x, y = (_read_binary if ending else _read_python)(batch, is_10)
        if len(y) and not 0 <= y.min() <= y.max() < (10 if is_10 else 100):
            raise ValueError(f"{batch}: labels from {y.min()} to {y.max()} are not {source}'s")
        pictures.append(x)
        labels.append(y)
    fitted = [images.fit_arrays(x, image_size, channels) for x in pictures]
    names = CIFAR10_NAMES if is_10 else _cifar100_names(folder)
    return records.ArraySource(
        source, split, image_size, channels, np.concatenate(fitted), np.concatenate(labels), names
    )


def _locate(source: str, path: str, files: dict[str, list[str]]) -> tuple[str, str]:
    """The folder that holds the batches, and the ending of their names: ".bin" or none."""
    path = os.path.abspath(os.path.expanduser(path))
    archive = "cifar-10-batches" if source == "cifar10" else "cifar-100"
    binary, python = ("-bin", "-py") if source == "cifar10" else ("-binary", "-python")
    folders = [path, os.path.join(path, archive + binary), os.path.join(path, archive + python)]
    wanted = [name for names in files.values() for name in names]
    for folder in folders:
        for ending in (".bin", ""):
            if any(os.path.isfile(os.path.join(folder, name + ending)) for name in wanted):
                return folder, ending
    raise FileNotFoundError(
        f"no {source} at {path}: looked for {wanted[0]}.bin or {wanted[0]} there and in "
        f"{archive}{binary} and {archive}{python} inside; the binary and the Python version are at "
        "www.cs.toronto.edu/~kriz/cifar.html"
    )


def _read_binary(path: str, is_10: bool) -> tuple[np.ndarray, np.ndarray]:
    """Records of 1 (CIFAR-10) or 2 label bytes (coarse, fine) and 3 planes of 32 x 32."""
    record = 3073 if is_10 else 3074
    size = os.path.getsize(path)
    if not size or size % record:
        raise ValueError(f"{path}: {size} bytes are not whole records of {record}: cut short?")
    rows = np.fromfile(path, np.uint8).reshape(-1, record)
    pictures = rows[:, record - 3072 :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return pictures, rows[:, record - 3073].astype(np.int32)


def _read_python(path: str, is_10: bool) -> tuple[np.ndarray, np.ndarray]:
    batch = restricted_pickle.load(path, PICKLE)
    data = _entry(batch, "data", path)
    labels = _entry(batch, "labels" if is_10 else "fine_labels", path)
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape[1:] == (3072,)):
        raise ValueError(f"{path}: its 'data' is not uint8 of shape (n, 3072)")
    labels = np.asarray(labels)
    if labels.shape != data.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{path}: its labels are not one integer for each of {len(data)} pictures")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int32)


def _cifar100_names(folder: str) -> tuple[str, ...] | None:
    text, meta = os.path.join(folder, "fine_label_names.txt"), os.path.join(folder, "meta")
    if os.path.isfile(text):
        with open(text, encoding="utf-8") as file:
            return tuple(file.read().split())
    if os.path.isfile(meta):
        names = _entry(restricted_pickle.load(meta, PICKLE), "fine_label_names", meta)
        return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
    return None


def _entry(batch: object, key: str, path: str) -> object:
    # Keys are bytes where Python 2 wrote the file, str where somebody wrote it anew.
    for name in (key.encode(), key):
        if isinstance(batch, dict) and name in batch:
            return batch[name]
    raise ValueError(f"{path}: no {key!r} inside: not a CIFAR batch")
