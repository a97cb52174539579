import os
import pickle

import numpy as np
import pytest

from soda_jax.data import restricted_pickle


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def load(folder, data):
    path = folder / "batch"
    path.write_bytes(data)
    return restricted_pickle.load(str(path), "kind of file")


@pytest.mark.parametrize("protocol", range(2, 6))
def test_containers_and_arrays_come_back(tmp_path, protocol):
    array = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    tree = {"a": [1, "x", b"y"], "b": {"c": array, "d": np.asfortranarray(array)}}
    found = load(tmp_path, pickle.dumps(tree, protocol))
    assert found["a"] == tree["a"]
    for name in ("c", "d"):
        np.testing.assert_array_equal(found["b"][name], array)
        assert found["b"][name].dtype == np.float32


def attacks(trap):
    return [
        *(pickle.dumps({b"data": Trap(trap)}, protocol) for protocol in (0, 2, 5)),
        b"cos\nmkdir\n(S'" + str(trap).encode() + b"'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy._core.multiarray\nfromfile\n(S'x'\ntR.",
        b"c_codecs\nencode\n(Vx\nVzlib\ntR.",
        b"c_codecs\ndecode\n(Vx\nVlatin1\ntR.",
        b"cbuiltins\ngetattr\n.",
    ]


@pytest.mark.parametrize("number", range(9))
def test_other_code_is_refused_and_not_run(tmp_path, number):
    trap = tmp_path / "touched"
    with pytest.raises(ValueError, match="batch: refused as a kind of file: .*n") as error:
        load(tmp_path, attacks(trap)[number])
    assert "\n" not in str(error.value)
    assert not trap.exists()


def test_a_large_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(restricted_pickle, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="batch: too large for a kind of file"):
        load(tmp_path, pickle.dumps(list(range(20))))
