"""The Inception-v3 of FID: pictures to 2048 features, with the published weights.

FID is by definition on these weights (Heusel et al. 2017), which are neither Keras's nor
torchvision's: a 2015 network whose 3 x 3 means leave the padding out and whose last block has a
maximum in place of a mean. The layers carry torchvision's names; the departures are those of
pytorch-fid, whose numbers are the common reference [R].
"""

import os
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from soda_jax.array_types import Array, PyTree
from soda_jax.evaluation import torch_weights

FILE = "pt_inception-2015-12-05-6726825d.pth"
WHERE = (
    f"FID needs {FILE} (91 MB), which the GitHub release page of the project mseitzer/pytorch-fid "
    "has under the tag fid_weights."
)
_SHA256 = "6726825d"
_SIZE = 299
_NUM_CLASSES = 1008  # of this file's classifier; torchvision's own network has 1000
_BATCH_NORM_EPSILON = 1e-3


class Inception(NamedTuple):
    """The network, ready to use.

    Attributes:
      params: name of the layer -> {"kernel": [h w c d], "bias": [d]}, float32.
      protocol: plain values (JSON can hold them): the file and how pictures are fed.
    """

    params: PyTree
    protocol: dict[str, Any]


def load(path: str | os.PathLike) -> Inception:
    """The network with the weights of the published file, or of its copy in .safetensors.

    Each batch normalisation, of fixed statistics, is folded into its convolution in float64.

    Raises:
      FileNotFoundError: there is no file; the message says where to get it.
      ValueError: it isn't readable, or isn't this network's: every name and shape is checked.
    """
    weights = torch_weights.read(path, WHERE)
    extra = [
        name
        for name in weights
        if name.rpartition(".")[0] not in _NORMS
        and name.removesuffix(".conv.weight") not in KERNELS
        and name not in ("fc.weight", "fc.bias")
    ]
    num_classes = len(weights.get("fc.bias", range(_NUM_CLASSES)))
    if extra or num_classes != _NUM_CLASSES:
        found = f"it has {extra[0]}" if extra else f"it knows {num_classes} classes"
        raise ValueError(f"{os.fspath(path)} is not the Inception-v3 of FID: {found}. {WHERE}")
    params = fold(weights)
    protocol = {
        "extractor": "Inception-v3 of FID, 2048 pooled features",
        "weights": torch_weights.fingerprint(path, _SHA256),
        "resize": f"bilinear to {_SIZE} x {_SIZE}, half-pixel centres, no antialiasing",
        "range": [-1.0, 1.0],
    }
    return Inception(params, protocol)


def fold(weights: dict[str, np.ndarray]) -> PyTree:
    """The parameters of `features` from weights by PyTorch's names.

    Raises:
      ValueError: a name is missing, a shape is another, or a value is not finite or a variance
        below 0.
    """
    shapes = {}
    for name, shape in KERNELS.items():
        shapes[f"{name}.conv.weight"] = shape
        for statistic in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{statistic}"] = shape[:1]
    weights = torch_weights.take(weights, shapes, "the Inception-v3 of FID")
    params = {}
    for name in KERNELS:
        kernel, scale, shift, mean, variance = (
            weights[f"{name}.{part}"].astype(np.float64)
            for part in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
        )
        if variance.min() < 0:
            raise ValueError(f"{name}.bn.running_var of the Inception-v3 of FID is below 0")
        scale = scale / np.sqrt(variance + _BATCH_NORM_EPSILON)
        kernel = kernel.transpose(2, 3, 1, 0) * scale[None, None, None]
        params[name] = {
            "kernel": jnp.asarray(kernel, jnp.float32),
            "bias": jnp.asarray(shift - mean * scale, jnp.float32),
        }
    return params


def features(params: PyTree, images: Array) -> Array:
    """The pooled features of pictures: uint8 [b h w c], c of 3 or 1, any size -> [b 2048] float32.

    Pictures are resized to 299 x 299 as pytorch-fid does, which differs from the TensorFlow code of
    2017 in the place of pixel centres; a grey picture is fed as three equal channels. Jit it with
    the parameters as an argument: as constants they make the program heavy.

    Raises:
      ValueError: images are not uint8 [b h w 3] or [b h w 1].
    """
    x = as_rgb(images) / 255.0
    x = jax.image.resize(x, (len(x), _SIZE, _SIZE, 3), "bilinear", antialias=False)
    x = 2.0 * x - 1.0

    def conv(name, x, stride=1, padding="SAME"):
        x = jax.lax.conv_general_dilated(
            x,
            params[name]["kernel"],
            (stride, stride),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
        return nn.relu(x + params[name]["bias"][None, None, None])

    x = conv("Conv2d_1a_3x3", x, 2, "VALID")
    x = conv("Conv2d_2a_3x3", x, 1, "VALID")
    x = conv("Conv2d_2b_3x3", x)
    x = nn.max_pool(x, (3, 3), (2, 2))
    x = conv("Conv2d_3b_1x1", x)
    x = conv("Conv2d_4a_3x3", x, 1, "VALID")
    x = nn.max_pool(x, (3, 3), (2, 2))
    for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = _block_a(conv, block, x)
    x = _block_b(conv, "Mixed_6a", x)
    for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = _block_c(conv, block, x)
    x = _block_d(conv, "Mixed_7a", x)
    x = _block_e(conv, "Mixed_7b", x, _mean_pool)
    x = _block_e(conv, "Mixed_7c", x, _max_pool)
    return x.mean(axis=(1, 2))


def as_rgb(images: Array) -> Array:
    """uint8 [b h w c], c of 3 or 1 -> float32 [b h w 3] in [0, 255].

    Raises:
      ValueError: it is something else.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"pictures must be [b h w 3] or [b h w 1], not {list(images.shape)}")
    if images.dtype != jnp.uint8:
        raise ValueError(f"pictures must be uint8, not {images.dtype}")
    return jnp.broadcast_to(jnp.asarray(images, jnp.float32), (*images.shape[:3], 3))


def _mean_pool(x):
    """Means of 3 x 3 in place, in which the padding counts nothing."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def _max_pool(x):
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


def _chain(conv, block, x, *names):
    for name in names:
        x = conv(f"{block}.{name}", x)
    return x


def _block_a(conv, block, x):
    branches = [
        _chain(conv, block, x, "branch1x1"),
        _chain(conv, block, x, "branch5x5_1", "branch5x5_2"),
        _chain(conv, block, x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
        _chain(conv, block, _mean_pool(x), "branch_pool"),
    ]
    return jnp.concatenate(branches, axis=-1)


def _block_b(conv, block, x):
    double = _chain(conv, block, x, "branch3x3dbl_1", "branch3x3dbl_2")
    branches = [
        conv(f"{block}.branch3x3", x, 2, "VALID"),
        conv(f"{block}.branch3x3dbl_3", double, 2, "VALID"),
        nn.max_pool(x, (3, 3), (2, 2)),
    ]
    return jnp.concatenate(branches, axis=-1)


def _block_c(conv, block, x):
    branches = [
        _chain(conv, block, x, "branch1x1"),
        _chain(conv, block, x, *(f"branch7x7_{i}" for i in range(1, 4))),
        _chain(conv, block, x, *(f"branch7x7dbl_{i}" for i in range(1, 6))),
        _chain(conv, block, _mean_pool(x), "branch_pool"),
    ]
    return jnp.concatenate(branches, axis=-1)


def _block_d(conv, block, x):
    seven = _chain(conv, block, x, *(f"branch7x7x3_{i}" for i in range(1, 4)))
    branches = [
        conv(f"{block}.branch3x3_2", conv(f"{block}.branch3x3_1", x), 2, "VALID"),
        conv(f"{block}.branch7x7x3_4", seven, 2, "VALID"),
        nn.max_pool(x, (3, 3), (2, 2)),
    ]
    return jnp.concatenate(branches, axis=-1)


def _block_e(conv, block, x, pool):
    three = _chain(conv, block, x, "branch3x3_1")
    double = _chain(conv, block, x, "branch3x3dbl_1", "branch3x3dbl_2")
    branches = [
        _chain(conv, block, x, "branch1x1"),
        *(_chain(conv, block, three, f"branch3x3_2{side}") for side in "ab"),
        *(_chain(conv, block, double, f"branch3x3dbl_3{side}") for side in "ab"),
        _chain(conv, block, pool(x), "branch_pool"),
    ]
    return jnp.concatenate(branches, axis=-1)


def _kernels() -> dict[str, tuple[int, int, int, int]]:
    """Every convolution by its name: outputs, inputs, height, width, as PyTorch orders them."""
    kernels = {
        "Conv2d_1a_3x3": (32, 3, 3, 3),
        "Conv2d_2a_3x3": (32, 32, 3, 3),
        "Conv2d_2b_3x3": (64, 32, 3, 3),
        "Conv2d_3b_1x1": (80, 64, 1, 1),
        "Conv2d_4a_3x3": (192, 80, 3, 3),
    }

    def block(name, **branches):
        kernels.update({f"{name}.{branch}": shape for branch, shape in branches.items()})

    for name, c, pooled in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        block(
            f"Mixed_{name}",
            branch1x1=(64, c, 1, 1),
            branch5x5_1=(48, c, 1, 1),
            branch5x5_2=(64, 48, 5, 5),
            branch3x3dbl_1=(64, c, 1, 1),
            branch3x3dbl_2=(96, 64, 3, 3),
            branch3x3dbl_3=(96, 96, 3, 3),
            branch_pool=(pooled, c, 1, 1),
        )
    block(
        "Mixed_6a",
        branch3x3=(384, 288, 3, 3),
        branch3x3dbl_1=(64, 288, 1, 1),
        branch3x3dbl_2=(96, 64, 3, 3),
        branch3x3dbl_3=(96, 96, 3, 3),
    )
    for name, d in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        block(
            f"Mixed_{name}",
            branch1x1=(192, 768, 1, 1),
            branch7x7_1=(d, 768, 1, 1),
            branch7x7_2=(d, d, 1, 7),
            branch7x7_3=(192, d, 7, 1),
            branch7x7dbl_1=(d, 768, 1, 1),
            branch7x7dbl_2=(d, d, 7, 1),
            branch7x7dbl_3=(d, d, 1, 7),
            branch7x7dbl_4=(d, d, 7, 1),
            branch7x7dbl_5=(192, d, 1, 7),
            branch_pool=(192, 768, 1, 1),
        )
    block(
        "Mixed_7a",
        branch3x3_1=(192, 768, 1, 1),
        branch3x3_2=(320, 192, 3, 3),
        branch7x7x3_1=(192, 768, 1, 1),
        branch7x7x3_2=(192, 192, 1, 7),
        branch7x7x3_3=(192, 192, 7, 1),
        branch7x7x3_4=(192, 192, 3, 3),
    )
    for name, c in (("7b", 1280), ("7c", 2048)):
        block(
            f"Mixed_{name}",
            branch1x1=(320, c, 1, 1),
            branch3x3_1=(384, c, 1, 1),
            branch3x3_2a=(384, 384, 1, 3),
            branch3x3_2b=(384, 384, 3, 1),
            branch3x3dbl_1=(448, c, 1, 1),
            branch3x3dbl_2=(384, 448, 3, 3),
            branch3x3dbl_3a=(384, 384, 1, 3),
            branch3x3dbl_3b=(384, 384, 3, 1),
            branch_pool=(192, c, 1, 1),
        )
    return kernels


KERNELS = _kernels()
_NORMS = {f"{name}.bn" for name in KERNELS}
