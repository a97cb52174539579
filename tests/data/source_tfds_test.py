"""TFDS without TensorFlow: a tiny set is prepared, read, and looked for in vain."""

import numpy as np
import pytest
from PIL import Image

from soda_jax import prepare
from soda_jax.data.sources import open_source

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("importlib_resources", reason="TFDS needs it to prepare, not to read")


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """Builders that yield PIL pictures are encoded without TensorFlow."""

    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(8, 8, 3)),
                "label": tfds.features.ClassLabel(names=["cat", "dog"]),
                "id": np.int64,
                "shape": tfds.features.ClassLabel(num_classes=3),
                "attributes": {"Smiling": np.bool_, "height": np.float32},
            }
        )
        return tfds.core.DatasetInfo(builder=self, description="tiny", features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(20, 0), "test": self._generate_examples(5, 20)}

    def _generate_examples(self, n, first):
        for k in range(first, first + n):
            picture = Image.fromarray(picture_of(k))
            attributes = {"Smiling": k % 5 == 0, "height": 1.0}
            shown = {"shape": k % 3, "attributes": attributes}
            yield k, {"image": picture, "label": k % 2, "id": k, **shown}


def picture_of(k):
    return np.random.RandomState(k).randint(0, 256, (8, 8, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("tfds"))
    message = prepare.prepare("tfds", "tiny_pictures", path)
    assert "train: 20 pictures" in message and "1.2.0" in message
    return path


def opened(name, split, path, **options):
    options = dict(image_size=8, channels=3, name=name, path=path) | options
    return open_source("tfds", split, **options)


def test_reads_what_was_prepared(data_dir, monkeypatch):
    test = opened("tiny_pictures", "test", data_dir)
    assert len(test) == 5 and test.class_names == ("cat", "dog")
    written = {picture_of(k).tobytes(): k for k in range(20, 25)}
    indices = np.array([3, 0, 4, 1, 2])
    found = [written.pop(x.tobytes()) for x in test.images(indices)]
    np.testing.assert_array_equal(test.labels(indices), np.array(found) % 2)
    assert not written and test.labels(indices).dtype == np.int32
    assert test.factor_names == ("Smiling", "shape")
    numbers = np.array(found)
    expected = np.stack([numbers % 5 == 0, numbers % 3], axis=1)
    np.testing.assert_array_equal(test.factors(indices), expected)
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    half = opened("tiny_pictures:1.2.0", "train[:50%]", "", image_size=4, channels=1)
    assert len(half) == 10 and half.images(np.array([9])).shape == (1, 4, 4, 1)
    assert half.fingerprint != test.fingerprint


def test_what_is_not_there_is_said_in_one_line(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/nowhere")
    with pytest.raises(FileNotFoundError) as error:
        opened("mnist", "train", "")
    message = str(error.value)
    for part in ("/nowhere/mnist", "TFDS_DATA_DIR is /nowhere", "soda_jax prepare"):
        assert part in message
    assert "\n" not in message
    with pytest.raises(FileNotFoundError, match="did you mean 'tiny_pictures'"):
        opened("tiny_picture", "train", data_dir)
    with pytest.raises(FileNotFoundError, match="no version 3.0.0.*1.2.0"):
        opened("tiny_pictures:3.0.0", "train", data_dir)
    with pytest.raises(ValueError, match="no split 'validation'; there is: test, train"):
        opened("tiny_pictures", "validation", data_dir)
    with pytest.raises(ValueError, match="config.data.name"):
        opened("", "train", data_dir)
