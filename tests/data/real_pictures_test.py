"""CIFAR-10 itself: read whole, labels beside their pictures, views of a pair alike."""

import runpy

import jax
import numpy as np
import pytest

from soda_jax.data.sources import num_classes, open_source
from soda_jax.data.views import View, pair
from soda_jax.evaluation.knn import knn


@pytest.fixture(scope="module")
def cifar10(real_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar") / "cifar-10-batches-bin"
    tool = runpy.run_path(str(real_data / "tools" / "unpack_cifar.py"))
    tool["write_bin"](str(real_data / "cifar10"), str(folder))
    return {
        split: open_source("cifar10", split, image_size=32, channels=3, path=str(folder.parent))
        for split in ("train", "test")
    }


def test_it_is_whole_and_its_classes_are_even(cifar10):
    for split, count in (("train", 5000), ("test", 1000)):
        source = cifar10[split]
        labels = source.labels(np.arange(len(source)))
        assert num_classes(source) == 10
        np.testing.assert_array_equal(np.bincount(labels), [count] * 10)


def test_labels_belong_to_their_pictures(cifar10):
    train, test = np.arange(4000), np.arange(500)

    def pixels(split, indices):
        return cifar10[split].images(indices).reshape(len(indices), -1) / 127.5 - 1

    x = (pixels("train", train), pixels("test", test))
    y = (cifar10["train"].labels(train), cifar10["test"].labels(test))
    right = knn(x[0], y[0], x[1], y[1], num_classes=10).accuracy
    wrong = knn(x[0], np.roll(y[0], 1), x[1], y[1], num_classes=10).accuracy
    assert right > 0.28 and wrong < 0.18  # guessing gives .1; all 50,000 pictures about .46


def test_two_views_of_a_picture_are_more_alike_than_two_pictures(cifar10):
    images = cifar10["train"].images(np.arange(64))
    view = View(size=16, crop_prob=1.0, crop_scale=(0.3, 1.0), flip_prob=0.5)
    batch = pair(jax.random.key(0), images, view, view)
    source, target = (np.asarray(x).mean((1, 2)) for x in (batch.source, batch.target))
    same = np.linalg.norm(source - target, axis=1).mean()
    other = np.linalg.norm(source - np.roll(target, 1, axis=0), axis=1).mean()
    assert same < 0.5 * other
