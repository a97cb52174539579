"""Directions in the space of z along which pictures change: found without labels, or with a few."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from soda_jax.applications.codes import columns_of
from soda_jax.array_types import PyTree


class Directions(NamedTuple):
    """Directions, the most important one first.

    Attributes:
      vectors: [k z], of length 1.
      deviations: [k], the standard deviation of the codes along each: the natural unit of a step.
      strengths: [k], by which they are ordered: what it is, each function says.
    """

    vectors: np.ndarray
    deviations: np.ndarray
    strengths: np.ndarray


def principal_directions(
    z, count: int, *, section: int | None = None, section_sizes: Sequence[int] = ()
) -> Directions:
    """The principal directions of codes [n z]: where they vary most. Strength: the variance there.

    The paper found its directions without labels; PCA is our reading of that [D].

    Args:
      count: k.
      section: of this section of z alone, with its section_sizes: the others stay 0.

    Raises:
      ValueError: z is not finite [n z] with two codes or more, they are all equal, or there are
        fewer directions than count.
    """
    z = _checked(z)
    columns = np.ones(z.shape[1], bool)
    if section is not None:
        columns = columns_of([section], section_sizes, z.shape[1])
    inside = z[:, columns] - z[:, columns].mean(axis=0)[None]
    _, singular_values, axes = np.linalg.svd(inside, full_matrices=False)
    variances = np.square(singular_values) / (len(z) - 1)
    if variances[0] <= 1e-14 * np.mean(np.square(z)):
        raise ValueError("all codes are equal there: no direction is any more than another")
    vectors = np.zeros((len(axes), z.shape[1]))
    vectors[:, columns] = axes
    return _directions(z, _signed(vectors), variances, count)


def modulation_directions(
    z, params: PyTree, owners: Mapping[str, int], section_sizes: Sequence[int], count: int
) -> Directions:
    """The directions that change the denoiser's scales and shifts most, read off its weights.

    Closed form: in each section, the right singular vectors of the stacked weights, through which
    the section reaches the blocks that own it, with z in units of its deviations, as its dimensions
    have no common one [D]. Strength: the change of all scales and shifts, as a length, for a
    step of length one in these units. After Shen and Zhou 2021 ("Closed-form factorization of
    latent semantics in GANs", arXiv 2007.06600, eq. 5).

    Args:
      z: codes [n z] of pictures.
      params: of the denoiser: block -> {"modulation": {"code": {"kernel": [z_i 2c]}}}.
      owners: block -> section, as `models.denoiser.section_of_block` gives them.

    Raises:
      ValueError: as `principal_directions`; a block is not there.
    """
    z = _checked(z)
    scale = z.std(axis=0)
    vectors, strengths = [], []
    for section in range(len(section_sizes)):
        columns = np.flatnonzero(columns_of([section], section_sizes, z.shape[1]))
        names = [name for name, owner in owners.items() if owner == section]
        if missing := [name for name in names if name not in params]:
            raise ValueError(f"the denoiser has no block {missing[0]!r}")
        kernels = [np.asarray(params[name]["modulation"]["code"]["kernel"]) for name in names]
        stacked = np.concatenate(kernels, axis=1).astype(np.float64) * scale[columns][:, None]
        axes, lengths, _ = np.linalg.svd(stacked, full_matrices=False)
        for axis, length in zip(axes.T, lengths, strict=True):
            vector = np.zeros(z.shape[1])
            vector[columns] = axis * scale[columns]
            if length > 0:
                vectors.append(vector / np.linalg.norm(vector))
                strengths.append(length)
    order = np.argsort(strengths)[::-1]
    return _directions(z, _signed(np.array(vectors))[order], np.array(strengths)[order], count)


def random_directions(z, count: int, seed: int = 0) -> Directions:
    """Random directions, to compare with; drawn with the deviations of z. Strength: all alike."""
    z = _checked(z)
    draws = np.random.default_rng(seed).normal(size=(count, z.shape[1])) * z.std(axis=0)[None]
    vectors = draws / np.linalg.norm(draws, axis=1, keepdims=True)
    return _directions(z, vectors, np.ones(count), count)


def label_direction(z, labels, *, ridge: float = 1e-2) -> Directions:
    """The normal of a linear classifier of yes and no: from codes without to codes with it.

    Fisher's discriminant: (covariance within + ridge * its mean variance)^-1 (mean_1 - mean_0). A
    few labels are enough for a ridge that is large enough [D]. Strength: the distance of the two
    means along it, in deviations.

    Args:
      z: codes [n z].
      labels: [n] of 0 and 1.
      ridge: above 0.

    Raises:
      ValueError: z is not finite [n z], labels are anything but 0 and 1, or one of them is missing,
        ridge is not above 0, or the two means are the same.
    """
    z, labels = _checked(z), np.asarray(labels)
    if labels.shape != (len(z),) or not np.isin(labels, (0, 1)).all() or len(set(labels)) < 2:
        raise ValueError("labels must be 0 and 1, one for each code, and both must occur")
    if not ridge > 0:
        raise ValueError(f"ridge must be above 0, but is {ridge}")
    means = [z[labels == value].mean(axis=0) for value in (0, 1)]
    centred = z - np.stack(means)[labels.astype(int)]
    within = centred.T @ centred / len(z)
    size = np.trace(within) / len(within)
    apart = means[1] - means[0]
    if not apart.any():
        raise ValueError("codes with and without it have the same mean: there is no direction")
    normal = np.linalg.solve(within + ridge * max(size, 1e-12) * np.eye(len(within)), apart)
    normal /= np.linalg.norm(normal)
    deviation = max(float(np.std(z @ normal)), 1e-12)
    return _directions(z, normal[None], np.array([apart @ normal / deviation]), 1)


def _directions(z, vectors, strengths, count) -> Directions:
    if not 1 <= count <= len(vectors):
        raise ValueError(
            f"there are {len(vectors)} directions; count={count} is not among 1 to that"
        )
    vectors = vectors[:count]
    deviations = np.std(z @ vectors.T, axis=0)
    return Directions(
        vectors.astype(np.float32), deviations.astype(np.float32), np.asarray(strengths[:count])
    )


def _signed(vectors: np.ndarray) -> np.ndarray:
    """Each with its largest part above 0: an axis has no sign, so one is chosen."""
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    return vectors * np.sign(largest)


def _checked(z) -> np.ndarray:
    z = np.asarray(z, np.float64)
    if z.ndim != 2 or len(z) < 2 or not z.shape[1]:
        raise ValueError(f"z must be [n z] with two codes or more, but its shape is {z.shape}")
    if not np.isfinite(z).all():
        raise ValueError("z holds NaN or infinity")
    return z
