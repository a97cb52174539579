import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from soda_jax.evaluation import torch_weights
from soda_jax.evaluation.torch_weights import fingerprint, read, read_safetensors, read_torch, take

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}
RNG = np.random.default_rng(0)
ARRAYS = {
    "conv.weight": RNG.normal(size=(4, 3, 2, 1)).astype(np.float32),
    "half": RNG.normal(size=(5,)).astype(np.float16),
    "count": np.array(7),
}


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def row(*items):
    return b"(" + b"".join(items) + b"t"


def name_of(module, name):
    return f"c{module}\n{name}\n".encode()


def storage(key, kind, count, view=b""):
    identity = row(
        text("storage"), name_of("torch", kind), text(key), text("cpu"), number(count), view
    )
    return identity + b"Q"


def tensor(stored, offset, shape, strides):
    """The operations that rebuild a tensor, as torch.save writes them."""
    arguments = row(
        stored, number(offset), row(*map(number, shape)), row(*map(number, strides)), b"\x89"
    )
    return name_of("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def state_dict(**tensors):
    items = b"".join(text(name) + value for name, value in tensors.items())
    return b"\x80\x02" + name_of("collections", "OrderedDict") + b")R(" + items + b"u."


def contiguous(arrays):
    """(the pickle of a state dict, key -> numbers) of whole arrays, each with its own storage."""
    tensors, storages = {}, {}
    for key, (name, array) in enumerate(arrays.items()):
        strides = [stride // array.itemsize for stride in array.strides]
        kind = STORAGES[array.dtype.name]
        tensors[name] = tensor(storage(str(key), kind, array.size), 0, array.shape, strides)
        storages[str(key)] = array
    return state_dict(**tensors), storages


def zipped(path, program, storages, compression=zipfile.ZIP_STORED, **more):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        for name, content in more.items():
            archive.writestr(f"archive/{name}", content)
    return path


def legacy(path, program, storages, little_endian=True, keys=None):
    system = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"int": 4}}
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    parts += [program, pickle.dumps(list(storages) if keys is None else keys, 2)]
    parts += [struct.pack("<q", array.size) + array.tobytes() for array in storages.values()]
    path.write_bytes(b"".join(parts))
    return path


def safetensors(path, header, data):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def assert_same(actual, expected):
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype and actual[name].shape == array.shape
        assert actual[name].flags.c_contiguous
        np.testing.assert_array_equal(actual[name], array)


@pytest.mark.parametrize("write", [zipped, legacy])
def test_a_state_dict_is_read_from_both_formats(write, tmp_path):
    assert_same(read(write(tmp_path / "weights.pth", *contiguous(ARRAYS))), ARRAYS)


@pytest.mark.parametrize("write", [zipped, legacy])
def test_tensors_that_are_parts_of_a_storage(write, tmp_path):
    numbers = np.arange(24, dtype=np.float32)
    shared = storage("0", "FloatStorage", 24)
    # Before PyTorch 0.4 a storage could itself be a part: here numbers 10 to 15.
    view = storage("0", "FloatStorage", 24, row(text("v"), number(10), number(6)))
    program = state_dict(
        transposed=tensor(shared, 0, (6, 4), (1, 6)),
        every_second=tensor(shared, 3, (5,), (2,)),
        scalar=tensor(shared, 23, (), ()),
        view=tensor(view, 1, (2, 2), (2, 1)),
    )
    expected = {
        "transposed": numbers.reshape(4, 6).T,
        "every_second": numbers[3:12:2],
        "scalar": numbers[23],
        "view": np.array([[11, 12], [13, 14]], np.float32),
    }
    assert_same(read_torch(write(tmp_path / "weights.pt", program, {"0": numbers})), expected)


def test_a_bfloat16_is_the_upper_half_of_a_float32(tmp_path):
    numbers = np.array([1.0, -2.5, 0.15625, 3e38], np.float32)
    upper = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    expected = {"w": (upper.astype(np.uint32) << 16).view(np.float32)}
    np.testing.assert_array_equal(expected["w"][:3], numbers[:3])
    program = state_dict(w=tensor(storage("0", "BFloat16Storage", 4), 0, (4,), (1,)))
    assert_same(read_torch(zipped(tmp_path / "w.pth", program, {"0": upper})), expected)
    header = {"w": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}
    assert_same(read(safetensors(tmp_path / "w.safetensors", header, upper.tobytes())), expected)


class Evil:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("write", [zipped, legacy])
def test_a_hostile_pickle_runs_nothing(write, protocol, tmp_path):
    program = pickle.dumps({"w": Evil(tmp_path / "made")}, protocol)
    path = write(tmp_path / "weights.pth", program, {})
    with pytest.raises(ValueError, match=r"weights.pth: .* asks for (posix|nt)\.mkdir, .*was run"):
        read(path)
    path.write_bytes(program)
    with pytest.raises(ValueError, match=r"asks for (posix|nt)\.mkdir"):
        read(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "program, message",
    [
        (name_of("os", "system") + text("true") + b"\x85R.", r"asks for os\.system"),
        (name_of("builtins", "eval") + text("1") + b"\x85R.", r"asks for builtins\.eval"),
        (name_of("torch", "load") + text("1") + b"\x85R.", r"asks for torch\.load"),
        (text("os") + text("system") + b"\x93.", r"asks for os\.system"),
        (b"(" + text("true") + b"ios\nsystem\n.", "operation INST"),
        (name_of("torch", "FloatStorage") + b")\x81.", "operation NEWOBJ"),
        (b"\x82\x01.", "operation EXT1"),
        (name_of("torch", "FloatStorage") + b")R.", "calls what is no function"),
        (name_of("torch", "FloatStorage") + b"}b.", "sets the state"),
        (b"](" + text("a") + number(1) + b"u.", "no dictionary"),
        (b"}(" + b"))" + b"u.", "neither a string nor an integer"),
        (b"}(" + text("a") + number(1) + b"u.", "entry 'a' is no tensor"),
        (b"}.", "no dictionary of tensors"),
        (b"0.", "operation POP"),
        (b"\x85.", "never put down"),
        (b"(((t.", "ends before"),
        (b")).", "ends before"),
        (b"\x8a", "damaged"),
        (b"", "damaged"),
    ],
)
def test_operations_that_no_weights_need_are_refused(program, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_torch(zipped(tmp_path / "weights.pth", b"\x80\x02" + program, {}))


@pytest.mark.parametrize(
    "offset, shape, strides, message",
    [
        (0, (7,), (1,), "out of the bounds"),
        (1, (6,), (1,), "out of the bounds"),
        (0, (2, 3), (4, 1), "out of the bounds"),
        (-1, (2,), (1,), "out of the bounds"),
        (0, (7,), (0,), "out of the bounds"),  # one number shown as seven
        (5, (2,), (-1,), "integers from 0"),
        (0, (2,), (1, 1), "1 axes and 2 strides"),
        (0, (0,), (1,), "empty"),
    ],
)
def test_tensors_beyond_their_storage_are_refused(offset, shape, strides, message, tmp_path):
    numbers = np.zeros(6, np.float32)
    program = state_dict(w=tensor(storage("0", "FloatStorage", 6), offset, shape, strides))
    for write in (zipped, legacy):
        with pytest.raises(ValueError, match=message):
            read_torch(write(tmp_path / "weights.pth", program, {"0": numbers}))


def test_storages_that_are_not_as_announced_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    whole = tensor(storage("0", "FloatStorage", 6), 0, (6,), (1,))
    program, six, five = state_dict(w=whole), np.zeros(6, np.float32), np.zeros(5, np.float32)
    with pytest.raises(ValueError, match="has 20 bytes for 24"):
        read_torch(zipped(path, program, {"0": five}))
    with pytest.raises(ValueError, match="record 'data/0' is missing"):
        read_torch(zipped(path, program, {"1": six}))
    with pytest.raises(ValueError, match="cut off, or not of the announced size"):
        read_torch(legacy(path, program, {"0": five}))
    with pytest.raises(ValueError, match="list of storages"):
        read_torch(legacy(path, program, {"0": six}, keys=["1"]))
    other = tensor(storage("0", "LongStorage", 3), 0, (3,), (1,))
    with pytest.raises(ValueError, match="described in two ways"):
        read_torch(zipped(path, state_dict(w=whole, v=other), {"0": six}))
    long_view = storage("0", "FloatStorage", 6, row(text("v"), number(3), number(4)))
    with pytest.raises(ValueError, match="view lies out of the bounds"):
        read_torch(zipped(path, state_dict(w=tensor(long_view, 0, (4,), (1,))), {"0": six}))
    with pytest.raises(ValueError, match="not little-endian"):
        read_torch(legacy(path, program, {"0": six}, little_endian=False))
    with pytest.raises(ValueError, match="not little-endian"):
        read_torch(zipped(path, program, {"0": six}, byteorder="big"))
    with pytest.raises(ValueError, match="compressed"):
        read_torch(zipped(path, program, {"0": six}, compression=zipfile.ZIP_DEFLATED))
    twice = zipped(path, state_dict(w=whole, v=whole), {"0": six})
    monkeypatch.setattr(torch_weights, "MAX_BYTES", 47)
    with pytest.raises(ValueError, match="have 48 bytes; 47 are allowed"):
        read_torch(twice)


def test_other_files_are_refused_in_words(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(FileNotFoundError, match="no file of weights at .*weights.pth'. Look there"):
        read(path, "Look there.")
    for content in (b"", b"PK", b"\x89PNG\r\n", b"<html>", bytes(999)):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match="weights.pth: it is neither a zip archive nor a pickle"
        ):
            read(path)
    for content in (b"PK\x03\x04", b"\x80", b"\x80\x02"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="weights.pth: damaged, or no file of weights"):
            read(path)
    path.write_bytes(pickle.dumps({"a": 1}, 2))
    with pytest.raises(ValueError, match="not one that torch.save wrote"):
        read(path)
    with pytest.raises(ValueError, match="TorchScript"):
        read(zipped(path, b"", {}, **{"code/model.py": "import os"}))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("document.txt", "")
    with pytest.raises(ValueError, match="no single data.pkl"):
        read(path)


@pytest.mark.parametrize("write", [zipped, legacy])
def test_a_file_that_is_cut_anywhere_is_an_error_in_words(write, tmp_path):
    path = write(tmp_path / "weights.pth", *contiguous(ARRAYS))
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="weights.pth: "):
            read_torch(path)


def test_a_pickle_with_any_byte_changed_is_read_or_refused(tmp_path):
    """No other error, and nothing that hangs."""
    program, storages = contiguous(ARRAYS)
    refused = 0
    for place in range(len(program)):
        for change in (1, 0x80):
            changed = bytearray(program)
            changed[place] ^= change
            try:
                read_torch(zipped(tmp_path / "weights.pth", bytes(changed), storages))
            except ValueError as error:
                assert "weights.pth: " in str(error)
                refused += 1
    assert refused > len(program)


def test_safetensors(tmp_path):
    data, header = b"", {"__metadata__": {"format": "pt"}}
    types = {"float32": "F32", "float16": "F16", "int64": "I64"}
    for name, array in ARRAYS.items():
        offsets = [len(data), len(data) + array.nbytes]
        shape = list(array.shape)
        header[name] = {
            "dtype": types[array.dtype.name],
            "shape": shape,
            "data_offsets": offsets,
        }
        data += array.tobytes()
    assert_same(read(safetensors(tmp_path / "w.safetensors", header, data)), ARRAYS)


@pytest.mark.parametrize(
    "header, message",
    [
        ({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}, "bytes 0 to 12 of 8"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, "bytes 4 to 12 of 8"),
        ({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}, "1 numbers can't lie"),
        ({"w": {"dtype": "F32", "shape": [-2], "data_offsets": [0, -8]}}, "integers from 0"),
        ({"w": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}, "integers from 0"),
        ({"w": {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]}}, "at most 8 axes"),
        ({"w": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}, "empty"),
        ({"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 8]}}, "type 'F8_E4M3'"),
        ({"w": {"shape": [2]}}, "damaged"),
        ({"w": 1}, "damaged"),
        ({}, "no tensor"),
        ([1, 2], "damaged"),
        (b"{nothing", "damaged"),
        (b"[" * 10_000, "damaged"),
        (b"\xff\xfe", "damaged"),
    ],
)
def test_hostile_safetensors_are_refused_in_words(header, message, tmp_path):
    path = safetensors(tmp_path / "w.safetensors", header, bytes(8))
    with pytest.raises(ValueError, match=f"w.safetensors: .*{message}"):
        read_safetensors(path)


def test_a_safetensors_header_longer_than_the_file_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    for content in (b"", b"1234", struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 3) + b"{}"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="header of .* doesn't fit"):
            read_safetensors(path)


def test_take_lists_what_is_missing():
    weights = {"a": np.ones((2, 3), np.float16), "b": np.array([np.nan])}
    taken = take(weights, {"a": (2, 3)}, "a net")
    assert taken["a"].dtype == np.float32
    with pytest.raises(ValueError, match="not the weights of a net: c, d missing"):
        take(weights, {"a": (2, 3), "c": (1,), "d": (1,)}, "a net")
    with pytest.raises(ValueError, match="h7 and 2 more missing"):
        take(weights, {f"h{i}": (1,) for i in range(10)}, "a net")
    with pytest.raises(ValueError, match=r"a must be \[3, 2\], but is \[2, 3\]"):
        take(weights, {"a": (3, 2)}, "a net")
    with pytest.raises(ValueError, match="b of a net holds NaN"):
        take(weights, {"b": (1,)}, "a net")


def test_fingerprint(tmp_path):
    path = tmp_path / "abc.pth"
    path.write_bytes(b"abc")
    # The SHA-256 of "abc", from the standard that defines it (FIPS 180).
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert fingerprint(path, "ba78") == {"file": "abc.pth", "sha256": digest, "published": True}
    assert not fingerprint(path, "ba79")["published"]


@pytest.mark.parametrize("use_zip", [True, False])
def test_what_torch_saves_is_read_bit_for_bit(use_zip, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    base = torch.randn(6, 8)
    state = net.state_dict()  # with the versions of its modules beside the tensors
    state["transposed"] = base.T
    state["part"] = base[1:4, 2::3]
    state["parameter"] = torch.nn.Parameter(base[0])
    for name in ("float64", "float16", "int32", "int16", "int8", "uint8"):
        state[name] = (50 * base.abs()).to(getattr(torch, name))
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=use_zip)
    path = tmp_path / "weights.pth"
    path.write_bytes(buffer.getvalue())
    assert_same(read(path), {name: value.detach().numpy() for name, value in state.items()})

    torch.save({"w": base.bfloat16()}, path, _use_new_zipfile_serialization=use_zip)
    np.testing.assert_array_equal(read(path)["w"], base.bfloat16().float().numpy())
    torch.save({"w": base, "z": Evil(tmp_path / "made")}, path)
    with pytest.raises(ValueError, match="asks for"):
        read(path)
    assert not (tmp_path / "made").exists()
