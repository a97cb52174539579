"""`prepare` tells what is there, or in one sentence what is missing."""

import sys

import numpy as np
import pytest

from soda_jax.prepare import prepare


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


def test_without_tensorflow_the_extra_is_named(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Builder:
        def download_and_prepare(self):
            import tensorflow  # noqa: F401

    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setattr(tfds, "builder", lambda *args, **kwargs: Builder())
    with pytest.raises(ModuleNotFoundError, match='pip install "soda_jax\\[tf\\]"'):
        prepare("tfds", "cifar10", str(tmp_path))
