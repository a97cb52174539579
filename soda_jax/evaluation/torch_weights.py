"""Published weights as NumPy arrays, from PyTorch's files and safetensors; nothing is executed."""

import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from soda_jax.evaluation.torch_pickle import BFLOAT16, MAX_AXES, Refused, Storage, Tensor, follow

MAX_BYTES = 2**32  # of all storages that are read, and of all tensors that are made of them [D]
_MAX_PICKLE = 2**24
_MAX_HEADER = 100_000_000  # safetensors' own limit [P]
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of PyTorch's files before 1.6
_LEGACY_VERSION = 1001
_SAFETENSORS_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": BFLOAT16,
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
}  # fmt: skip


def read(path: str | os.PathLike, where: str = "") -> dict[str, np.ndarray]:
    """`read_safetensors` for a name that ends so, `read_torch` for every other.

    Args:
      where: a sentence that says where to get the file; it ends the error of a missing one.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: as the two readers.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file of weights at {path!r}. {where}".strip())
    return read_safetensors(path) if path.endswith(".safetensors") else read_torch(path)


def read_torch(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a state dict that torch.save wrote: name -> array, in the file's order.

    Both of PyTorch's formats: the zip archive (since 1.6), and the pickles with raw storages after
    them, which many published files still are. bfloat16 becomes float32; arrays may be read-only.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, is something else, asks for a function or class that weights
        don't need, or holds more than MAX_BYTES; the message begins with its name.
    """
    with _named_errors(path), open(path, "rb") as file:
        start = file.read(4)
        file.seek(0)
        is_zip = start == b"PK\x03\x04"
        if not is_zip and start[:1] != b"\x80":
            raise Refused("it is neither a zip archive nor a pickle, as PyTorch's files are")
        tree, read_storage = _open_zip(file) if is_zip else _open_legacy(file)
        if not isinstance(tree, dict) or not tree:
            raise Refused("it holds no dictionary of tensors")
        for name, tensor in tree.items():
            if not isinstance(name, str) or not isinstance(tensor, Tensor):
                raise Refused(f"its entry {name!r:.80} is no tensor: it is not a plain state dict")
        return _arrays(tree, read_storage)


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a .safetensors file: name -> array; bfloat16 becomes float32.

    The format: eight bytes with the header's length, a JSON header of types, shapes and offsets,
    then the numbers, little-endian and in C order (README of the safetensors project, "Format").

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: damaged, out of bounds, or of a type that is not known; it begins with the name.
    """
    with _named_errors(path), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_HEADER):
            raise Refused(f"a safetensors header of {length} bytes doesn't fit its {size} bytes")
        header = json.loads(file.read(length).decode())
        header.pop("__metadata__", None)
        tensors, starts = {}, {}
        for name, entry in header.items():
            dtype = _SAFETENSORS_TYPES.get(entry["dtype"])
            if dtype is None:
                raise Refused(f"{name!r:.80} is of type {entry['dtype']!r:.80}, which is not read")
            shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
            numbers = (*shape, begin, end)
            if len(shape) > MAX_AXES or not all(type(n) is int and n >= 0 for n in numbers):
                raise Refused(
                    f"{name!r:.80} must have at most {MAX_AXES} axes, "
                    "and integers from 0 for sizes and offsets"
                )
            count = math.prod(shape)
            if end - begin != count * _item_size(dtype) or end > size - 8 - length:
                raise Refused(
                    f"{name!r:.80} of {count} numbers can't lie at bytes {begin} to {end} "
                    f"of {size - 8 - length}"
                )
            strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
            tensors[name] = Tensor(Storage(name, dtype, count, 0, count), 0, shape, strides)
            starts[name] = 8 + length + begin
        if not tensors:
            raise Refused("it holds no tensor")
        return _arrays(tensors, _reader_at(file, starts))


def take(
    weights: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], what: str
) -> dict[str, np.ndarray]:
    """The arrays that shapes names, as float32.

    Args:
      what: the name of the network, for the errors.

    Raises:
      ValueError: a name is missing, a shape is another, or a value is NaN or infinite.
    """
    missing = [name for name in shapes if name not in weights]
    if missing:
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise ValueError(
            f"these are not the weights of {what}: {', '.join(missing[:8])}{more} missing"
        )
    taken = {}
    for name, shape in shapes.items():
        if weights[name].shape != tuple(shape):
            raise ValueError(
                f"these are not the weights of {what}: {name} must be {list(shape)}, "
                f"but is {list(weights[name].shape)}"
            )
        taken[name] = np.asarray(weights[name], np.float32)
        if not np.isfinite(taken[name]).all():
            raise ValueError(f"{name} of {what} holds NaN or infinity")
    return taken


def fingerprint(path: str | os.PathLike, published: str) -> dict[str, Any]:
    """What a protocol says of a file of weights.

    Args:
      published: the digits that the published file's SHA-256 begins with.

    Returns:
      "file": its name without the folder; "sha256"; "published": whether it is that very file.
    """
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = os.path.basename(os.fspath(path))
    return {"file": name, "sha256": digest, "published": digest.startswith(published)}


@contextmanager
def _named_errors(path):
    try:
        yield
    except Refused as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
    except (
        ArithmeticError, AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError,
        zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise ValueError(
            f"{os.fspath(path)}: damaged, or no file of weights ({type(error).__name__}: "
            f"{str(error)[:200]})"
        ) from error


def _open_zip(file):
    """(what data.pkl describes, storage -> its bytes)."""
    archive = zipfile.ZipFile(file)
    size = os.fstat(file.fileno()).st_size
    infos = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in infos if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Refused("it is a zip archive, but not one that torch.save wrote: no single data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if any(name.startswith(folder + "code/") for name in infos):
        raise Refused("it is a TorchScript program; a file of weights alone is needed")

    def record(name, limit):
        info = infos.get(folder + name)
        if info is None:
            raise Refused(f"its record {name!r:.80} is missing")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > min(limit, size):
            raise Refused(f"its record {name!r:.80} is compressed or too large")
        return archive.read(info)

    if folder + "byteorder" in infos and record("byteorder", 16) != b"little":
        raise Refused("its numbers are not little-endian")
    tree, _ = follow(io.BytesIO(record("data.pkl", _MAX_PICKLE)))
    return tree, lambda storage: record(f"data/{storage.key}", _num_bytes(storage))


def _open_legacy(file):
    """(what the fourth of five pickles describes, storage -> its bytes): before PyTorch 1.6."""
    head = io.BytesIO(file.read(_MAX_PICKLE))
    magic, _ = follow(head)
    if magic != _LEGACY_MAGIC:
        raise Refused("it is a pickle, but not one that torch.save wrote")
    version, _ = follow(head)
    system, _ = follow(head)
    if version != _LEGACY_VERSION or system.get("little_endian") is not True:
        raise Refused("it is of an unknown version, or its numbers are not little-endian")
    tree, storages = follow(head)
    keys, _ = follow(head)
    if sorted(keys) != sorted(storages):
        raise Refused("its list of storages is not the one that its tensors use")
    size, position, starts = os.fstat(file.fileno()).st_size, head.tell(), {}
    for key in keys:
        file.seek(position)
        count = int.from_bytes(file.read(8), "little")
        starts[key] = position + 8
        position = starts[key] + _num_bytes(storages[key])
        if count != storages[key].count or position > size:
            raise Refused(f"its storage {key!r:.80} is cut off, or not of the announced size")
    return tree, _reader_at(file, starts)


def _reader_at(file, starts) -> Callable[[Storage], bytes]:
    def read_storage(storage):
        file.seek(starts[storage.key])
        return file.read(_num_bytes(storage))

    return read_storage


def _item_size(dtype):
    return 2 if dtype == BFLOAT16 else np.dtype(dtype).itemsize


def _num_bytes(storage):
    return storage.count * _item_size(storage.dtype)


def _arrays(tensors: Mapping[str, Tensor], read_storage) -> dict[str, np.ndarray]:
    """Reads each storage once and lays the tensors over it."""
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    needed = sum(_num_bytes(storage) for storage in storages.values())
    made = sum(
        math.prod(tensor.shape) * _item_size(tensor.storage.dtype) for tensor in tensors.values()
    )
    if max(needed, made) > MAX_BYTES:
        raise Refused(f"its tensors have {max(needed, made)} bytes; {MAX_BYTES} are allowed")
    rows = {}
    for key, storage in storages.items():
        data = read_storage(storage)
        if len(data) != _num_bytes(storage):
            raise Refused(
                f"its storage {key!r:.80} has {len(data)} bytes for {_num_bytes(storage)}"
            )
        if storage.dtype == BFLOAT16:
            upper = np.frombuffer(data, "<u2").astype(np.uint32)
            rows[key] = (upper << 16).view(np.float32)
        else:
            rows[key] = np.frombuffer(data, storage.dtype)
    return {name: _array(tensor, rows[tensor.storage.key]) for name, tensor in tensors.items()}


def _array(tensor, row):
    storage = tensor.storage
    row = row[storage.start + tensor.offset : storage.start + storage.length]
    strides = tuple(stride * row.itemsize for stride in tensor.strides)
    view = np.lib.stride_tricks.as_strided(row, tensor.shape, strides, writeable=False)
    return np.asarray(view, order="C")
