import json
import math
import struct

import jax
import numpy as np
import pytest

from soda_jax.evaluation import inception


def narrowed(kernels, by):
    """The same layers with a part of the channels."""
    return {
        name: (outputs // by, inputs // by if inputs > 3 else 3, height, width)
        for name, (outputs, inputs, height, width) in kernels.items()
    }


def random_weights(kernels, seed=0):
    """By PyTorch's names; of a size that keeps the activations alive through all layers."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in kernels.items():
        scale = math.sqrt(2 / math.prod(shape[1:]))
        weights[f"{name}.conv.weight"] = rng.standard_normal(shape, np.float32) * np.float32(scale)
        width = shape[0]
        for part, low, high in (
            ("weight", 0.7, 1.4), ("bias", -0.2, 0.2), ("running_mean", -0.2, 0.2),
            ("running_var", 0.5, 1.5),
        ):  # fmt: skip
            weights[f"{name}.bn.{part}"] = rng.uniform(low, high, width).astype(np.float32)
        weights[f"{name}.bn.num_batches_tracked"] = np.array(0)
    weights["fc.weight"] = np.zeros((1008, 4), np.float32)
    weights["fc.bias"] = np.zeros(1008, np.float32)
    return weights


def write(path, weights):
    """A .safetensors file."""
    header, data = {}, []
    start = 0
    for name, array in weights.items():
        header[name] = {
            "dtype": "F32" if array.dtype == np.float32 else "I64",
            "shape": list(array.shape),
            "data_offsets": [start, start + array.nbytes],
        }
        data.append(array.tobytes())
        start += array.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))
    return path


@pytest.fixture(scope="module")
def narrow():
    """A sixteenth of the channels: kernels and weights."""
    kernels = narrowed(inception.KERNELS, 16)
    return kernels, random_weights(kernels)


@pytest.fixture
def narrow_kernels(narrow, monkeypatch):
    monkeypatch.setattr(inception, "KERNELS", narrow[0])


def pictures(b, height, width, c=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (b, height, width, c), np.uint8)


features = jax.jit(inception.features)


def torch_features(torch, weights, images):
    """The network once more, as PyTorch's functions define it: [b d]."""
    F = torch.nn.functional
    weights = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}

    def conv(name, x, stride=1, padding=0):
        x = F.conv2d(x, weights[f"{name}.conv.weight"], None, stride, padding)
        parts = (f"{name}.bn.{part}" for part in ("running_mean", "running_var", "weight", "bias"))
        return F.relu(F.batch_norm(x, *(weights[part] for part in parts), False, 0.1, 1e-3))

    def mean(x):
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def block_a(name, x):
        five = conv(f"{name}.branch5x5_2", conv(f"{name}.branch5x5_1", x), padding=2)
        three = conv(f"{name}.branch3x3dbl_2", conv(f"{name}.branch3x3dbl_1", x), padding=1)
        three = conv(f"{name}.branch3x3dbl_3", three, padding=1)
        pooled = conv(f"{name}.branch_pool", mean(x))
        return torch.cat([conv(f"{name}.branch1x1", x), five, three, pooled], 1)

    def block_c(name, x):
        seven = conv(f"{name}.branch7x7_2", conv(f"{name}.branch7x7_1", x), padding=(0, 3))
        seven = conv(f"{name}.branch7x7_3", seven, padding=(3, 0))
        double = conv(f"{name}.branch7x7dbl_1", x)
        for i, padding in enumerate([(3, 0), (0, 3), (3, 0), (0, 3)]):
            double = conv(f"{name}.branch7x7dbl_{i + 2}", double, padding=padding)
        pooled = conv(f"{name}.branch_pool", mean(x))
        return torch.cat([conv(f"{name}.branch1x1", x), seven, double, pooled], 1)

    def block_e(name, x, pooled):
        three = conv(f"{name}.branch3x3_1", x)
        double = conv(f"{name}.branch3x3dbl_2", conv(f"{name}.branch3x3dbl_1", x), padding=1)
        branches = [
            conv(f"{name}.branch1x1", x),
            conv(f"{name}.branch3x3_2a", three, padding=(0, 1)),
            conv(f"{name}.branch3x3_2b", three, padding=(1, 0)),
            conv(f"{name}.branch3x3dbl_3a", double, padding=(0, 1)),
            conv(f"{name}.branch3x3dbl_3b", double, padding=(1, 0)),
            conv(f"{name}.branch_pool", pooled),
        ]
        return torch.cat(branches, 1)

    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    x = 2 * F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False) - 1
    x = conv("Conv2d_2a_3x3", conv("Conv2d_1a_3x3", x, 2))
    x = F.max_pool2d(conv("Conv2d_2b_3x3", x, padding=1), 3, 2)
    x = F.max_pool2d(conv("Conv2d_4a_3x3", conv("Conv2d_3b_1x1", x)), 3, 2)
    assert x.shape[2:] == (35, 35)
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = block_a(name, x)
    three = conv("Mixed_6a.branch3x3dbl_2", conv("Mixed_6a.branch3x3dbl_1", x), padding=1)
    three = conv("Mixed_6a.branch3x3dbl_3", three, 2)
    x = torch.cat([conv("Mixed_6a.branch3x3", x, 2), three, F.max_pool2d(x, 3, 2)], 1)
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = block_c(name, x)
    three = conv("Mixed_7a.branch3x3_2", conv("Mixed_7a.branch3x3_1", x), 2)
    seven = conv("Mixed_7a.branch7x7x3_2", conv("Mixed_7a.branch7x7x3_1", x), padding=(0, 3))
    seven = conv("Mixed_7a.branch7x7x3_4", conv("Mixed_7a.branch7x7x3_3", seven, padding=(3, 0)), 2)
    x = torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)
    x = block_e("Mixed_7b", x, mean(x))
    x = block_e("Mixed_7c", x, F.max_pool2d(x, 3, 1, 1))
    assert x.shape[2:] == (8, 8)
    return x.mean((2, 3)).numpy()


def assert_parity(torch, path, weights, images):
    torch.save({name: torch.from_numpy(np.array(w)) for name, w in weights.items()}, path)
    with torch.no_grad():
        expected = torch_features(torch, weights, images)
    actual = np.asarray(features(inception.load(path).params, images))
    # Features that differ between pictures, so that agreement says something.
    assert expected.std() > 0.05 and np.abs(expected[0] - expected[1]).max() > 0.02
    print("largest difference", np.abs(actual - expected).max(), "of", np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())


def test_a_narrow_network_is_pytorchs(narrow, narrow_kernels, tmp_path):
    torch = pytest.importorskip("torch")
    assert_parity(torch, tmp_path / "weights.pth", narrow[1], pictures(2, 32, 40))


@pytest.mark.parametrize("side", [32, 320])
def test_the_whole_network_is_pytorchs(side, tmp_path):
    torch = pytest.importorskip("torch")
    weights = random_weights(inception.KERNELS)
    weights["fc.weight"] = np.zeros((1008, 2048), np.float32)
    assert_parity(torch, tmp_path / "weights.pth", weights, pictures(2, side, side))


def test_the_parameters_are_as_many_as_published():
    """torchvision's Inception-v3 has 21 785 568 parameters without its two classifiers."""
    kernels = inception.KERNELS.values()
    assert len(kernels) == 94
    assert sum(math.prod(shape) + 2 * shape[0] for shape in kernels) == 21_785_568
    last = [shape for name, shape in inception.KERNELS.items() if name.startswith("Mixed_7c")]
    ends = [0, 2, 3, 6, 7, 8]  # of the branches
    assert sum(last[i][0] for i in ends) == 2048


def test_what_the_network_sees(narrow, narrow_kernels, tmp_path):
    """Each picture by itself; a grey one as three equal channels; a plain one at any size."""
    loaded = inception.load(write(tmp_path / "weights.safetensors", narrow[1]))
    images = pictures(2, 20, 20)
    images[1] = images[1][..., :1]
    both = np.asarray(features(loaded.params, images))
    assert both.shape == (2, 128) and both.dtype == np.float32 and both.std() > 0.05
    swapped = features(loaded.params, images[::-1].copy())
    np.testing.assert_allclose(swapped, both[::-1], atol=1e-4)
    grey = features(loaded.params, images[..., :1])
    np.testing.assert_allclose(grey[1], both[1], atol=1e-4)

    plain = np.full((2, 20, 20, 1), 77, np.uint8)
    large = np.full((2, 31, 9, 1), 77, np.uint8)
    expected = features(loaded.params, plain)
    np.testing.assert_allclose(features(loaded.params, large), expected, atol=1e-4)

    protocol = loaded.protocol
    assert json.loads(json.dumps(protocol)) == protocol
    assert protocol["weights"]["file"] == "weights.safetensors"
    assert not protocol["weights"]["published"]


def test_batch_normalisation_is_folded():
    """One number by hand: (w x - mean) / sqrt(var + 0.001) scale + shift."""
    weights = random_weights(inception.KERNELS)
    name = "Conv2d_3b_1x1"
    params = inception.fold(weights)[name]
    w, scale, shift, mean, variance = (
        float(weights[f"{name}.{part}"].ravel()[0])
        for part in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    )
    expected = (w * 3 - mean) / math.sqrt(variance + 0.001) * scale + shift
    actual = float(params["kernel"][0, 0, 0, 0]) * 3 + float(params["bias"][0])
    assert actual == pytest.approx(expected, abs=1e-6)
    weights[f"{name}.bn.running_var"] = -weights[f"{name}.bn.running_var"]
    with pytest.raises(ValueError, match="Conv2d_3b_1x1.bn.running_var .* below 0"):
        inception.fold(weights)


def test_means_leave_the_padding_out_and_maxima_too():
    x = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1) - 10
    mean = np.asarray(inception._mean_pool(x))[0, :, :, 0] + 10
    np.testing.assert_allclose(mean, [[2, 2.5, 3], [3.5, 4, 4.5], [5, 5.5, 6]], rtol=1e-6)
    maximum = np.asarray(inception._max_pool(x))[0, :, :, 0] + 10
    np.testing.assert_array_equal(maximum, [[4, 5, 5], [7, 8, 8], [7, 8, 8]])


def test_other_files_are_refused_in_words(narrow, narrow_kernels, tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(FileNotFoundError, match="6726825d.pth .*GitHub .*mseitzer/pytorch-fid"):
        inception.load(path)
    weights = narrow[1]

    def refused(changed, message):
        with pytest.raises(ValueError, match=message):
            inception.load(write(path, changed))

    less = {name: w for name, w in weights.items() if not name.startswith("Mixed_7c.branch_pool")}
    refused(less, r"not the weights of .*: Mixed_7c.branch_pool.conv.weight, .* missing")
    extra = {**weights, "AuxLogits.fc.bias": np.zeros(3, np.float32)}
    refused(extra, "not the Inception-v3 of FID: it has AuxLogits.fc.bias")
    imagenet = {**weights, "fc.bias": np.zeros(1000, np.float32)}
    refused(imagenet, "it knows 1000 classes")
    turned = {**weights, "Mixed_5b.branch5x5_2.conv.weight": np.zeros((4, 3, 1, 5), np.float32)}
    refused(turned, r"must be \[4, 3, 5, 5\], but is \[4, 3, 1, 5\]")
    refused({**weights, "Conv2d_1a_3x3.bn.bias": np.full(2, np.nan, np.float32)}, "holds NaN")
    refused({"features.0.weight": np.zeros(3, np.float32)}, "it has features.0.weight")


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((2, 9, 9, 3), np.float32), "uint8, not float32"),
        (np.zeros((2, 9, 9, 4), np.uint8), r"\[b h w 3\] or \[b h w 1\]"),
        (np.zeros((9, 9, 3), np.uint8), r"\[b h w 3\] or \[b h w 1\]"),
        (np.zeros((0, 9, 9, 3), np.uint8), r"\[b h w 3\] or \[b h w 1\]"),
    ],
)
def test_other_pictures_are_refused_in_words(images, message):
    with pytest.raises(ValueError, match=message):
        inception.features({}, images)
