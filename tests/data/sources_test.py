"""Every source reads back what was written; every wrong input gets one clear line."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image

from soda_jax.data import records, source_arrays
from soda_jax.data.sources import num_classes, open_source


def pictures(n, size=32, c=3, seed=0):
    shape = (n, size, size, c) if c else (n, size, size)
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def whole(source):
    return source.images(np.arange(len(source)))


def opened(kind, split, path, size=32, channels=3):
    return open_source(kind, split, image_size=size, channels=channels, path=str(path))


def one_line(error):
    assert "\n" not in str(error.value)


# digits


def test_digits_are_real_and_their_splits_disjoint():
    splits = [open_source("digits", s, image_size=8, channels=1) for s in ("train", "test")]
    train, test = splits
    assert len(train) + len(test) == 1797 and 0.19 < len(test) / 1797 < 0.21
    together = np.concatenate([whole(train), whole(test)])
    every = open_source("digits", "all", image_size=8, channels=1)
    # The digits hold no two equal pictures, so equal multisets mean disjoint splits.
    assert len(np.unique(together, axis=0)) == 1797
    assert {x.tobytes() for x in together} == {x.tobytes() for x in whole(every)}
    for source in splits:
        shares = np.bincount(source.labels(np.arange(len(source)))) / len(source)
        np.testing.assert_allclose(shares, 0.1, atol=0.01)
    assert whole(every).max() == 255 and whole(every).min() == 0


def test_digits_are_enlarged_smoothly():
    small = open_source("digits", "test", image_size=8, channels=1).images(np.arange(5))
    large = open_source("digits", "test", image_size=32, channels=3).images(np.arange(5))
    assert large.shape == (5, 32, 32, 3)
    np.testing.assert_array_equal(large[..., 0], large[..., 1])
    steps = np.abs(np.diff(large[..., 0].astype(int), axis=2)).max()
    assert steps < np.abs(np.diff(small[..., 0].astype(int), axis=2)).max()


# folder


def write_folder(root, split, classes, n=3):
    written = {}
    for name in classes:
        os.makedirs(root / split / name, exist_ok=True)
        for k in range(n):
            x = pictures(1, seed=len(written) + 10 * len(split))[0]
            Image.fromarray(x).save(root / split / name / f"{k}.png")
            written[split, name, k] = x
    return written


def test_folder_with_splits_and_classes(tmp_path):
    written = write_folder(tmp_path, "train", ["cat", "dog"])
    written |= write_folder(tmp_path, "test", ["dog"])
    train, test = (opened("folder", split, tmp_path) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("cat", "dog")
    assert len(train) == 6 and len(test) == 3
    np.testing.assert_array_equal(train.labels(np.arange(6)), [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(test.labels(np.arange(3)), [1, 1, 1])  # "cat" missing: no shift
    np.testing.assert_array_equal(train.images(np.array([4]))[0], written["train", "dog", 1])
    np.testing.assert_array_equal(test.images(np.array([2]))[0], written["test", "dog", 2])
    assert train.fingerprint != test.fingerprint
    with pytest.raises(ValueError, match="did you mean 'train'") as error:
        opened("folder", "trian", tmp_path)
    one_line(error)


def test_folder_without_splits_is_divided_by_name(tmp_path):
    for name in ("cat", "dog"):
        os.makedirs(tmp_path / name)
        for k in range(30):
            Image.new("L", (4, 4), k).save(tmp_path / name / f"{k}.png")
    train, test, every = (opened("folder", s, tmp_path, 4) for s in ("train", "test", "all"))
    assert set(train.files) | set(test.files) == set(every.files) and len(every) == 60
    assert not set(train.files) & set(test.files) and 0 < len(test) < 20
    before = set(test.files)
    Image.new("L", (4, 4), 0).save(tmp_path / "cat" / "zzz.png")
    moved = before ^ set(opened("folder", "test", tmp_path, 4).files)
    assert moved <= {"cat/zzz.png"}
    assert opened("folder", "all", tmp_path, 4).fingerprint != every.fingerprint


def test_flat_folder_has_no_labels(tmp_path):
    for k in range(5):
        Image.new("L", (4, 4), k).save(tmp_path / f"{k}.png")
    source = opened("folder", "all", tmp_path, 4, 1)
    np.testing.assert_array_equal(whole(source)[:, 0, 0, 0], range(5))
    with pytest.raises(ValueError, match="no labels"):
        source.labels(np.arange(2))
    assert num_classes(source) == 0
    with pytest.raises(ValueError, match="no factors of variation"):
        source.factors(np.arange(2))


def test_folder_errors_are_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of pictures"):
        opened("folder", "train", tmp_path / "nothing")
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match="no pictures.*1 x .gif") as error:
        opened("folder", "train", tmp_path)
    one_line(error)
    (tmp_path / "b.png").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="b.png"):
        opened("folder", "all", tmp_path).images(np.array([0]))
    os.makedirs(tmp_path / "cat")
    Image.new("L", (4, 4)).save(tmp_path / "cat" / "0.png")
    with pytest.raises(ValueError, match="loose beside them, such as b.png"):
        opened("folder", "all", tmp_path)


# arrays


def test_npz_with_and_without_splits(tmp_path):
    x, y = pictures(40), np.arange(40) % 7
    np.savez(tmp_path / "split.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    test = opened("arrays", "test", tmp_path / "split.npz")
    np.testing.assert_array_equal(whole(test), x[30:])
    np.testing.assert_array_equal(test.labels(np.arange(10)), y[30:])
    assert test.labels(np.arange(2)).dtype == np.int32
    assert test.class_names is None and num_classes(test) == 7
    np.savez(tmp_path / "one.npz", images=x, labels=y[:, None])
    parts = [opened("arrays", s, tmp_path / "one.npz") for s in ("train", "test")]
    both = np.concatenate([whole(part) for part in parts])
    assert len(parts[1]) > 0 and {a.tobytes() for a in both} == {a.tobytes() for a in x}
    for part in parts:
        for image, label in zip(whole(part), part.labels(np.arange(len(part))), strict=True):
            assert label == y[np.flatnonzero((x == image).all((1, 2, 3)))[0]]


def test_npy_is_mapped_and_fitted_on_demand(tmp_path):
    x = pictures(6, size=16, c=0)
    np.save(tmp_path / "test.npy", x)
    np.save(tmp_path / "test_labels.npy", np.arange(6))
    source = opened("arrays", "test", tmp_path, 16, 1)
    assert isinstance(source.pictures, np.memmap) and source.image_shape == (16, 16, 1)
    np.testing.assert_array_equal(source.images(np.array([5, 0]))[..., 0], x[[5, 0]])
    np.testing.assert_array_equal(source.labels(np.array([5, 0])), [5, 0])
    assert opened("arrays", "test", tmp_path, 8, 3).images(np.array([1])).shape == (1, 8, 8, 3)
    np.save(tmp_path / "train.npy", (x / 255).astype(np.float32))
    np.testing.assert_array_equal(whole(opened("arrays", "train", tmp_path, 16, 1))[..., 0], x)


def test_binary_npz_is_black_and_white(tmp_path):
    np.savez(tmp_path / "x.npz", imgs=np.arange(2 * 16).reshape(2, 4, 4).astype(np.uint8) % 2)
    assert set(np.unique(whole(opened("arrays", "all", tmp_path / "x.npz", 4, 1)))) == {0, 255}


def factors_of(source):
    return source.factors(np.arange(len(source)))


def test_factors_travel_with_their_pictures(tmp_path):
    """Every picture is filled with a number that its factors spell: 10 * the third + the second."""
    classes = np.stack([np.zeros(60, int), np.arange(60) % 10, np.arange(60) // 10], axis=1)
    x = np.broadcast_to((10 * classes[:, 2] + classes[:, 1])[:, None, None], (60, 4, 4))
    metadata = np.array({"latents_names": ("color", "shape", "scale")}, object)
    np.savez(
        tmp_path / "sprites.npz",
        imgs=x.astype(np.uint8),
        latents_values=classes / 9,
        latents_classes=classes,
        metadata=metadata,
    )
    parts = [opened("arrays", s, tmp_path / "sprites.npz", 4, 1) for s in ("train", "test")]
    assert sum(len(part) for part in parts) == 60 and len(parts[1]) > 0
    for part in parts:
        assert part.factor_names == ("factor0", "factor1", "factor2")  # the pickle stays shut
        assert factors_of(part).shape == (len(part), 3)
        spelled = factors_of(part) @ np.array([0, 1, 10])
        np.testing.assert_array_equal(whole(part)[:, 0, 0, 0], spelled)
        assert not factors_of(part)[:, 0].any()  # a constant factor stays
        with pytest.raises(ValueError, match="no labels"):
            part.labels(np.arange(2))
    np.testing.assert_array_equal(parts[0].factors(np.array([2])), factors_of(parts[0])[2:3])


def test_factors_with_splits_labels_and_names(tmp_path):
    x, y = pictures(6, 4), np.arange(6) % 2
    factors = np.arange(12).reshape(6, 2).astype(np.int16)
    arrays = dict(x_train=x[:4], y_train=y[:4], x_test=x[4:], y_test=y[4:])
    np.savez(
        tmp_path / "split.npz",
        **arrays,
        factors_train=factors[:4],
        factors_test=factors[4:],
        factor_names=np.array(["shape", "größe"]),
    )
    test = opened("arrays", "test", tmp_path / "split.npz", 4)
    assert test.factor_names == ("shape", "größe")
    np.testing.assert_array_equal(factors_of(test), factors[4:])
    np.testing.assert_array_equal(test.labels(np.arange(2)), y[4:])
    np.savez(tmp_path / "plain.npz", **arrays)
    plain = opened("arrays", "test", tmp_path / "plain.npz", 4)
    assert plain.factor_names == ()
    with pytest.raises(ValueError, match="plain.npz \\(test\\) has no factors of var") as error:
        factors_of(plain)
    one_line(error)


def test_pickled_factor_names_are_never_opened(tmp_path):
    trap = np.array([Trap(tmp_path / "touched"), "shape"], object)
    arrays = dict(images=pictures(20, 4), latents_classes=np.arange(40).reshape(20, 2))
    np.savez(tmp_path / "trap.npz", **arrays, factor_names=trap)
    source = opened("arrays", "all", tmp_path / "trap.npz", 4)
    assert source.factor_names == ("factor0", "factor1")
    np.savez(tmp_path / "two.npz", **arrays, factor_names=trap, latents_names=np.array(["a", "b"]))
    assert opened("arrays", "all", tmp_path / "two.npz", 4).factor_names == ("a", "b")
    assert not (tmp_path / "touched").exists()


def test_foreign_factors_are_refused_in_one_line(tmp_path):
    whole_numbers = np.arange(8).reshape(4, 2)
    cases = {
        "floats": (dict(factors=whole_numbers / 2), "type float64; expected integers"),
        "rows": (dict(factors=whole_numbers[:3]), "a row for each of 4 pictures"),
        "flat": (dict(factors=np.arange(4)), "shape \\(4,\\)"),
        "none": (dict(factors=whole_numbers[:, :0]), "shape \\(4, 0\\)"),
        "names": (
            dict(factors=whole_numbers, factor_names=np.array(["a", "b", "c"])),
            "3 factor names \\(a, b, c\\) for 2 factors",
        ),
        "twins": (dict(factors=whole_numbers, latents_names=np.array(["a", "a"])), "no two the"),
    }
    for name, (arrays, reason) in cases.items():
        np.savez(tmp_path / f"{name}.npz", images=pictures(4, 4), **arrays)
        with pytest.raises(ValueError, match=reason) as error:
            opened("arrays", "all", tmp_path / f"{name}.npz", 4)
        assert f"{name}.npz" in str(error.value)
        one_line(error)


def test_the_real_sprites_have_six_factors(real_data):
    source = opened("arrays", "test", real_data / "sprites" / "sprites_3x6x20x16x16.npz", 16, 1)
    factors = factors_of(source)
    assert source.factor_names == source_arrays.DSPRITES
    assert [len(np.unique(column)) for column in factors.T] == [1, 3, 6, 20, 16, 16]
    # posX and posY: the sprite's middle moves with them.
    lit = source.images(np.arange(300))[..., 0].astype(float)
    weights = lit / lit.sum((1, 2), keepdims=True)
    middle = (weights.sum(1) * np.arange(16)).sum(1), (weights.sum(2) * np.arange(16)).sum(1)
    assert np.corrcoef(middle[0], factors[:300, 4])[0, 1] > 0.99
    assert np.corrcoef(middle[1], factors[:300, 5])[0, 1] > 0.99


def test_array_errors_are_one_line(tmp_path):
    x = pictures(4, 4)
    cases = {
        "foreign": (dict(pixels=x), "no pictures among its arrays \\(pixels\\)"),
        "splits": (dict(x_train=x), "no split 'test'; there is: train"),
        "objects": (dict(images=np.array([{}], object)), "'images' cannot be read"),
        "flat": (dict(images=x.reshape(4, -1)), "shape \\(4, 48\\)"),
        "wide": (dict(images=x.astype(np.int64)), "int64"),
        "labels": (dict(images=x, labels=np.arange(3)), "each of 4 pictures"),
        "floats": (dict(images=x.astype(np.float32)), "floats in"),
    }
    for name, (arrays, reason) in cases.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(ValueError, match=reason) as error:
            opened("arrays", "test", tmp_path / f"{name}.npz", 4)
        assert f"{name}.npz" in str(error.value)
        one_line(error)
    (tmp_path / "broken.npz").write_bytes(b"PK not a zip")
    with pytest.raises(ValueError, match="broken.npz: cannot be read"):
        opened("arrays", "test", tmp_path / "broken.npz")
    with pytest.raises(FileNotFoundError, match="no arrays at"):
        opened("arrays", "test", tmp_path / "nothing.npz")


def test_a_pickled_npy_is_never_opened(tmp_path):
    np.save(tmp_path / "x.npy", np.array([Trap(tmp_path / "touched")], object), allow_pickle=True)
    with pytest.raises(ValueError, match="x.npy: cannot be read"):
        opened("arrays", "all", tmp_path / "x.npy")
    assert not (tmp_path / "touched").exists()


# CIFAR

CIFAR10_FILES = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]


def write_cifar10(root, n=4, binary=True):
    """A tiny CIFAR-10 in the published layout; returns pictures and labels, test at the end."""
    os.makedirs(root)
    x = pictures(n * 6)
    y = (np.arange(n * 6) % 10).astype(np.uint8)
    for k, name in enumerate(CIFAR10_FILES):
        rows = slice(k * n, (k + 1) * n)
        planes = x[rows].transpose(0, 3, 1, 2).reshape(n, 3072)
        if binary:
            np.concatenate([y[rows, None], planes], 1).tofile(root / f"{name}.bin")
        else:
            batch = {b"data": planes, b"labels": y[rows].tolist(), b"batch_label": b"x"}
            (root / name).write_bytes(pickle.dumps(batch, protocol=2 + k % 4))
    return x, y


@pytest.mark.parametrize("folder", ["cifar-10-batches-bin", "cifar-10-batches-py", "."])
@pytest.mark.parametrize("binary", [True, False])
def test_cifar10_in_both_layouts(tmp_path, folder, binary):
    x, y = write_cifar10(tmp_path / "c" / folder, binary=binary)
    train, test = (opened("cifar10", split, tmp_path / "c") for split in ("train", "test"))
    np.testing.assert_array_equal(whole(train), x[:20])
    np.testing.assert_array_equal(whole(test), x[20:])
    np.testing.assert_array_equal(train.labels(np.arange(20)), y[:20])
    assert train.class_names[3] == "cat"


def test_fingerprint_knows_the_data_and_not_its_place(tmp_path):
    write_cifar10(tmp_path / "binary")
    write_cifar10(tmp_path / "python", binary=False)
    a, b = (opened("cifar10", "train", tmp_path / place) for place in ("binary", "python"))
    assert a.fingerprint == b.fingerprint and len(a.fingerprint) == 16
    others = [
        opened("cifar10", "test", tmp_path / "binary"),
        opened("cifar10", "train", tmp_path / "binary", size=16),
        opened("cifar10", "train", tmp_path / "binary", channels=1),
        records.ArraySource("cifar10", "train", 32, 3, 255 - whole(a), a.targets),
    ]
    assert len({source.fingerprint for source in (a, *others)}) == 5


def test_cifar100_takes_the_fine_labels(tmp_path):
    x = pictures(3)
    planes = x.transpose(0, 3, 1, 2).reshape(3, 3072)
    labels = np.array([[1, 99], [2, 5], [3, 0]], np.uint8)
    os.makedirs(tmp_path / "cifar-100-binary")
    for split in ("train", "test"):
        rows = np.concatenate([labels, planes], 1)
        rows.tofile(tmp_path / "cifar-100-binary" / f"{split}.bin")
    source = opened("cifar100", "test", tmp_path)
    np.testing.assert_array_equal(source.labels(np.arange(3)), [99, 5, 0])
    np.testing.assert_array_equal(whole(source), x)
    os.makedirs(tmp_path / "py" / "cifar-100-python")
    batch = {"data": planes, "fine_labels": [99, 5, 0], "coarse_labels": [1, 2, 3]}
    for split in ("train", "test"):
        (tmp_path / "py" / "cifar-100-python" / split).write_bytes(pickle.dumps(batch))
    names = [f"class{n}" for n in range(100)]
    meta = pickle.dumps({b"fine_label_names": [name.encode() for name in names]})
    (tmp_path / "py" / "cifar-100-python" / "meta").write_bytes(meta)
    python = opened("cifar100", "test", tmp_path / "py")
    np.testing.assert_array_equal(python.labels(np.arange(3)), [99, 5, 0])
    assert python.class_names == tuple(names)


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_cifar_batch_that_asks_for_code_is_refused(tmp_path):
    write_cifar10(tmp_path / "c", binary=False)
    trap = Trap(tmp_path / "touched")
    (tmp_path / "c" / "data_batch_1").write_bytes(pickle.dumps({b"data": trap}))
    with pytest.raises(ValueError, match="data_batch_1: refused as a CIFAR batch") as error:
        opened("cifar10", "train", tmp_path / "c")
    one_line(error)
    assert not (tmp_path / "touched").exists()


def test_cifar_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no cifar10 at"):
        opened("cifar10", "train", tmp_path)
    write_cifar10(tmp_path / "c")
    with pytest.raises(ValueError, match="no split 'val'; there is: train, test"):
        opened("cifar10", "val", tmp_path / "c")
    cut = tmp_path / "c" / "data_batch_2.bin"
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(ValueError, match="data_batch_2.bin.*cut short"):
        opened("cifar10", "train", tmp_path / "c")
    cut.unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_2.bin is missing"):
        opened("cifar10", "train", tmp_path / "c")
    foreign = tmp_path / "c" / "test_batch.bin"
    foreign.write_bytes(b"\x0a" + foreign.read_bytes()[1:])
    with pytest.raises(ValueError, match="labels from .* to 10"):
        opened("cifar10", "test", tmp_path / "c")


# open_source


def test_unknown_source_and_missing_path():
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        open_source("digit", "train", image_size=8, channels=3)
    with pytest.raises(ValueError, match="needs a path"):
        open_source("folder", "train", image_size=8, channels=3)
    with pytest.raises(ValueError, match="channels must be 1 or 3"):
        open_source("digits", "train", image_size=8, channels=2)
    with pytest.raises(ValueError, match="no split 'tain'.*did you mean 'train'"):
        open_source("digits", "tain", image_size=8, channels=3)


def test_a_class_named_as_a_split_is_asked_about_and_a_test_split_needs_no_labels(tmp_path):
    for name in ("airplane", "train", "truck"):
        (tmp_path / "voc" / name).mkdir(parents=True)
        Image.fromarray(pictures(1, 8)[0]).save(tmp_path / "voc" / name / "0.png")
    with pytest.raises(ValueError, match="'train' holds pictures as 'airplane' does"):
        opened("folder", "train", tmp_path / "voc")
    for name in ("train/cat", "train/dog", "test"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.fromarray(pictures(1, 8)[0]).save(tmp_path / "pets" / name / "0.png")
    assert opened("folder", "train", tmp_path / "pets").class_names == ("cat", "dog")
    assert opened("folder", "test", tmp_path / "pets").targets is None
