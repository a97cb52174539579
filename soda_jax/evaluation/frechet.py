"""How near two sets of features are: the Frechet distance between Gaussians, and the kernel one.

Only on the pooled features of the FID network (`inception`) are these FID and KID. On any other
features, a model's own among them, they are a Frechet distance and a kernel distance on those
features, are not comparable with published numbers, and must be named so.
"""

from typing import Any, NamedTuple

import numpy as np

_SYMMETRY = 1e-6  # of a covariance from outside, relative to its largest entry [D]


class Distance(NamedTuple):
    """A distance, with everything that was done to get it.

    Attributes:
      value: the squared Frechet distance, at least 0.
      protocol: plain values (JSON can hold them).
    """

    value: float
    protocol: dict[str, Any]


class KernelDistance(NamedTuple):
    """Scores over the subsets.

    Attributes:
      value: the mean over the subsets; unbiased, so it may be below 0.
      std: between subsets, with subsets - 1 below the line; 0 for a single one. It is not the error
        of the mean: subsets share samples.
      protocol: plain values (JSON can hold them).
    """

    value: float
    std: float
    protocol: dict[str, Any]


class Moments(NamedTuple):
    """Mean and spread of a set of features, in float64; sets that were seen apart can be merged.

    Attributes:
      count: samples.
      mean: [d].
      scatter: [d d], the sum over the samples of (x - mean)(x - mean)^T.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray


def moments(x) -> Moments:
    """The moments of features [n d], one sample or more, of any number type.

    Raises:
      ValueError: x is not [n d] with n and d above 0, or is not finite.
    """
    x = _features(x, "x")
    mean = x.mean(axis=0)
    centred = x - mean[None]
    return Moments(len(x), mean, centred.T @ centred)


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of both sets together (Chan, Golub & LeVeque 1979, eq. 2.1).

    So the features of many pictures need not be in memory at once:
    `functools.reduce(merge, map(moments, batches))`.

    Raises:
      ValueError: they are of different dimensions.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"moments of {len(a.mean)} and of {len(b.mean)} features can't be merged: "
            "both must come from the same extractor"
        )
    count = a.count + b.count
    shift = b.mean - a.mean
    mean = a.mean + shift * (b.count / count)
    between = np.outer(shift, shift) * (a.count * b.count / count)
    return Moments(count, mean, a.scatter + b.scatter + between)


def frechet_distance(x, y, *, allow_few: bool = False) -> Distance:
    """The squared Frechet distance between the Gaussians that are fitted to two sets of features.

    |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^1/2) (Dowson & Landau 1982; Heusel et al. 2017,
    eq. 6), in float64, with covariances of n - 1. The trace of the root is the sum of the singular
    values of C_x^1/2 C_y^1/2, that is, of the roots of the eigenvalues of C_x^1/2 C_y C_x^1/2:
    these are real and at least 0, however few samples there are.

    It falls with the number of samples (Chong & Forsyth 2020), so only distances of equal numbers
    compare. With d samples or fewer of d features a covariance lacks rank.

    Args:
      x, y: each one of: features [n d]; `Moments`; a pair (mean [d], covariance [d d]), as
        published statistics are.
      allow_few: takes sets of d samples or fewer; the protocol says so.

    Raises:
      ValueError: a set has fewer than two samples, no more samples than features without
        allow_few, NaN, or the same features for every sample; the two differ in dimension; a
        covariance is not symmetric, or has an eigenvalue below 0.
    """
    mean_x, covariance_x, count_x = _gaussian(x, "x", allow_few)
    mean_y, covariance_y, count_y = _gaussian(y, "y", allow_few)
    if mean_x.shape != mean_y.shape:
        raise ValueError(
            f"x has {len(mean_x)} features and y {len(mean_y)}: "
            "both must come from the same extractor"
        )
    dimensions = len(mean_x)
    root_x, root_y = _root(covariance_x, "x"), _root(covariance_y, "y")
    root_trace = np.linalg.svd(root_x.T @ root_y, compute_uv=False).sum()
    value = (
        np.sum(np.square(mean_x - mean_y))
        + np.trace(covariance_x)
        + np.trace(covariance_y)
        - 2 * root_trace
    )
    few = [count for count in (count_x, count_y) if count is not None and count <= dimensions]
    protocol = {
        "distance": "squared Frechet distance between Gaussians",
        "covariance": "of n - 1, float64",
        "x_examples": count_x,
        "y_examples": count_y,
        "dimensions": dimensions,
        "few": f"{min(few)} samples of {dimensions} features: rank-deficient" if few else None,
    }
    # Rounding can leave equal sets a little below 0.
    return Distance(max(float(value), 0.0), protocol)


def kid(x, y, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> KernelDistance:
    """Squared maximum mean discrepancy with the kernel (x . y / d + 1)^3, unbiased, over subsets.

    Binkowski et al. 2018, "Demystifying MMD GANs", section 4 and eq. 4: KID, where the features are
    those of the FID network. Each subset is drawn from x and from y without replacement.

    Args:
      x, y: features [n d] and [m d] of any number type; they are taken to float64.
      subsets: how many [P].
      subset_size: samples of each set in a subset [P].
      seed: of the draws; subset i depends on it and on i alone.

    Raises:
      ValueError: the features are not [n d] of one d, or not finite; a set has fewer samples than
        a subset; subsets is below 1, or subset_size below 2.
    """
    x, y = _features(x, "x"), _features(y, "y")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x has {x.shape[1]} features and y {y.shape[1]}: "
            "both must come from the same extractor"
        )
    if subsets < 1 or subset_size < 2:
        raise ValueError(
            "subsets must be at least 1 and subset_size at least 2, "
            f"but they are {subsets} and {subset_size}"
        )
    if subset_size > min(len(x), len(y)):
        raise ValueError(
            f"subset_size={subset_size} is too many: x has {len(x)} samples and y {len(y)}"
        )
    values = []
    for index in range(subsets):
        rng = np.random.default_rng([seed, index])
        rows_x = rng.permutation(len(x))[:subset_size]
        rows_y = rng.permutation(len(y))[:subset_size]
        values.append(_unbiased_discrepancy(x[rows_x], y[rows_y]))
    protocol = {
        "distance": "squared maximum mean discrepancy, unbiased",
        "kernel": "(x . y / d + 1)^3",
        "subsets": subsets,
        "subset_size": subset_size,
        "seed": seed,
        "x_examples": len(x),
        "y_examples": len(y),
        "dimensions": x.shape[1],
    }
    std = float(np.std(values, ddof=1)) if subsets > 1 else 0.0
    return KernelDistance(float(np.mean(values)), std, protocol)


def _unbiased_discrepancy(x, y):
    """Binkowski et al. 2018, eq. 4, for [n d] and [n d]: no sample is paired with itself."""
    n, d = x.shape

    def kernel(a, b):
        return (a @ b.T / d + 1) ** 3

    within = sum(
        (np.sum(gram) - np.trace(gram)) / (n * (n - 1)) for gram in (kernel(x, x), kernel(y, y))
    )
    return within - 2 * np.mean(kernel(x, y))


def _features(x, name):
    x = np.asarray(x).astype(np.float64)
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"{name} must be features [n d], not empty, but its shape is {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} holds NaN or infinity")
    return x


def _gaussian(x, name, allow_few):
    """(mean [d], covariance [d d], count or None) of what `frechet_distance` takes."""
    if isinstance(x, tuple) and not isinstance(x, Moments):
        return *_given_gaussian(x, name), None
    fitted = x if isinstance(x, Moments) else moments(_features(x, name))
    dimensions = len(fitted.mean)
    if fitted.count < 2:
        raise ValueError(f"{name} has one sample; a covariance needs two")
    if fitted.count <= dimensions and not allow_few:
        raise ValueError(
            f"{name} has {fitted.count} samples of {dimensions} features, but a covariance of full "
            f"rank needs {dimensions + 1}: take more samples, or say allow_few=True"
        )
    covariance = fitted.scatter / (fitted.count - 1)
    # Rounding of the mean leaves equal samples a little apart.
    if np.trace(covariance) <= 1e-14 * np.sum(np.square(fitted.mean)) or not covariance.any():
        raise ValueError(f"{name} has the same features for every sample")
    return fitted.mean, covariance, fitted.count


def _given_gaussian(pair, name):
    if len(pair) != 2:
        raise ValueError(f"{name} must be a pair (mean, covariance), but has {len(pair)} parts")
    mean, covariance = (np.asarray(part).astype(np.float64) for part in pair)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not len(mean):
        raise ValueError(
            f"{name} must be a mean [d] and a covariance [d d], "
            f"but their shapes are {mean.shape} and {covariance.shape}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError(f"{name} holds NaN or infinity")
    if np.abs(covariance - covariance.T).max() > _SYMMETRY * np.abs(covariance).max():
        raise ValueError(f"the covariance of {name} is not symmetric")
    if np.trace(covariance) <= 0:
        raise ValueError(f"the covariance of {name} holds no variance")
    return mean, (covariance + covariance.T) / 2


def _root(covariance, name):
    """A matrix R [d r] with R R^T = covariance, without the directions that hold nothing."""
    values, vectors = np.linalg.eigh(covariance)
    largest = np.abs(values).max()
    if values.min() < -_SYMMETRY * largest:
        raise ValueError(
            f"the covariance of {name} has an eigenvalue of {values.min():.3g}, but none may be "
            "below 0"
        )
    held = values > len(values) * np.finfo(np.float64).eps * largest
    return vectors[:, held] * np.sqrt(values[held])[None]
