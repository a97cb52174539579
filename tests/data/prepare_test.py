"""`prepare` tells what is there, or in one sentence what is missing."""

import pathlib
import sys

import numpy as np
import pytest

from soda_jax import config_schema
from soda_jax.config_schema import ConfigError
from soda_jax.prepare import prepare

ROOT = pathlib.Path(__file__).parents[2]


def test_digits_need_nothing():
    assert "nothing to prepare" in prepare("digits")


def test_arrays_are_opened_and_described(tmp_path):
    x = np.zeros((12, 5, 5), np.uint8)
    np.savez(tmp_path / "x.npz", x_train=x, y_train=np.arange(12))
    train, test = prepare("arrays", path=str(tmp_path / "x.npz")).split("\n")
    assert "train: 12 pictures, labelled" in train
    assert test.startswith("test: ") and "no split 'test'" in test
    with pytest.raises(FileNotFoundError):
        prepare("folder", path=str(tmp_path / "nothing"))


def test_posed_sets_say_where_they_are_to_be_had(tmp_path):
    with pytest.raises(ConfigError, match=r"needs the path.*NMR_Dataset\.zip"):
        config_schema.load(str(ROOT / "configs" / "nmr.py"), ["--config.data.path="])
    with pytest.raises(ValueError, match=r"no objects there.*pixel-nerf links.*intrinsics\.txt"):
        prepare("srn", path=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="Google Scanned Objects"):
        prepare("transforms", path=str(tmp_path / "nothing"))
    pictures = np.zeros((10, 3, 8, 8, 3), np.uint8)
    turned = np.tile(np.eye(4), (10, 3, 1, 1))
    np.savez(tmp_path / "x.npz", images=pictures, cam2world=turned, K=np.diag([9.0, 9.0, 1.0]))
    assert "21 pictures of 7 objects" in prepare("posed_arrays", path=str(tmp_path / "x.npz"))


def test_without_tensorflow_the_extra_is_named(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Builder:
        def download_and_prepare(self):
            import tensorflow  # noqa: F401

    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setattr(tfds, "builder", lambda *args, **kwargs: Builder())
    with pytest.raises(ModuleNotFoundError, match='pip install "soda_jax\\[tf\\]"'):
        prepare("tfds", "cifar10", str(tmp_path))
