"""Codes beside the factors of variation that made the pictures: what every disentanglement metric
takes, checked, and the pieces that several of them share."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_CONSTANT = 1e-6  # a deviation below this share of the mean is float32 rounding


class FactorData(NamedTuple):
    """Codes and factors of the same examples.

    Attributes:
      codes: [n d] float64.
      factors: [n k] int64; the values of each factor are numbered 0, 1, ... in their order.
      num_values: [k] how many values each factor takes, two or more.
      varies: [d] bool, False for a dimension that is the same in every example.
    """

    codes: np.ndarray
    factors: np.ndarray
    num_values: list[int]
    varies: np.ndarray

    def sizes(self) -> dict[str, object]:
        """The part of a protocol that says how much data there was."""
        return {
            "examples": len(self.codes),
            "dimensions": self.codes.shape[1],
            "constant_dimensions": int(np.sum(~self.varies)),
            "factors": self.factors.shape[1],
            "factor_values": self.num_values,
        }


def varying_factors(factors) -> np.ndarray:
    """The columns of factors [n k] that take more than one value: what the metrics can be given.

    Raises:
      ValueError: factors are not integers [n k], or there are none.
    """
    factors = _check_factors(factors)
    return np.flatnonzero(np.any(factors != factors[:1], axis=0))


def check(codes, factors, *, min_dimensions: int = 1, min_factors: int = 1) -> FactorData:
    """Codes [n d] and factors [n k] as arrays.

    Raises:
      ValueError: shapes don't fit together, there is no example, a code is NaN or infinite, all
        dimensions are constant, a factor is not an integer or takes one value only, or there are
        fewer dimensions or factors than the metric compares.
    """
    codes, factors = np.asarray(codes), _check_factors(factors)
    if codes.ndim != 2 or 0 in codes.shape:
        raise ValueError(f"codes must be [examples, dimensions], but their shape is {codes.shape}")
    if len(codes) != len(factors):
        raise ValueError(
            f"codes has {len(codes)} examples and factors has {len(factors)}: they must be the same"
        )
    if not (np.issubdtype(codes.dtype, np.floating) or np.issubdtype(codes.dtype, np.integer)):
        raise ValueError(f"codes must be real numbers, not {codes.dtype}")
    codes = codes.astype(np.float64)
    if not np.all(np.isfinite(codes)):
        raise ValueError("codes holds NaN or infinity")
    if codes.shape[1] < min_dimensions:
        raise ValueError(
            f"codes has {codes.shape[1]} dimensions, but this metric compares {min_dimensions} "
            "or more"
        )
    if factors.shape[1] < min_factors:
        raise ValueError(
            f"factors has {factors.shape[1]} columns, but this metric compares {min_factors} "
            "or more"
        )
    numbered, num_values = np.empty(factors.shape, np.int64), []
    for k, column in enumerate(factors.T):
        values, numbered[:, k] = np.unique(column, return_inverse=True)
        if len(values) < 2:
            raise ValueError(
                f"factor {k} is {values[0]} in every example, so nothing can be said of it: leave "
                "it out (varying_factors finds the others)"
            )
        num_values.append(len(values))
    varies = codes.std(axis=0) > _CONSTANT * np.abs(codes.mean(axis=0))
    if not varies.any():
        raise ValueError("codes is the same in every example: each of its dimensions is constant")
    return FactorData(codes, numbered, num_values, varies)


def split(
    data: FactorData, test_fraction: float, max_examples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (train, test) of at most max_examples examples, drawn at random by the seed.

    Raises:
      ValueError: a part would be empty, or a factor takes a value in the test part that the
        training part doesn't show at all.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must be in (0, 1), but is {test_fraction}")
    count = min(len(data.codes), max_examples)
    num_test = round(test_fraction * count)
    if not 0 < num_test < count:
        raise ValueError(
            f"test_fraction={test_fraction} of {count} examples leaves a part without any"
        )
    drawn = np.random.default_rng([seed, 0]).permutation(len(data.codes))[:count]
    test, train = np.sort(drawn[:num_test]), np.sort(drawn[num_test:])
    for k, column in enumerate(data.factors.T):
        shown = len(np.unique(column[train]))
        if np.isin(column[test], column[train]).all() and shown > 1:
            continue
        raise ValueError(
            f"factor {k} takes {data.num_values[k]} values, and the {len(train)} examples to fit "
            f"on show {shown} of them: give more examples, or a factor with fewer values"
        )
    return train, test


def standardized(data: FactorData, fit_on: np.ndarray) -> np.ndarray:
    """The codes [n d], by mean and deviation over the rows fit_on; constant dimensions become 0."""
    rows = data.codes[fit_on]
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    varies = std > _CONSTANT * np.abs(mean)
    return (data.codes - mean[None]) * (varies / np.where(varies, std, 1.0))[None]


def majority_share(train_y: np.ndarray, test_y: np.ndarray) -> float:
    """The accuracy on test_y of always answering the most frequent value of train_y."""
    return float(np.mean(test_y == np.bincount(train_y).argmax()))


def section_slices(section_sizes: Sequence[int], dimensions: int) -> list[slice]:
    """The columns of each section, in order.

    Raises:
      ValueError: a size is below 1, or they don't sum to the dimensions.
    """
    sizes = [int(size) for size in section_sizes]
    if not sizes or min(sizes) < 1 or sum(sizes) != dimensions:
        raise ValueError(
            f"the section sizes {sizes} must all be above 0 and sum to the {dimensions} dimensions "
            "of the codes"
        )
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def mutual_information(data: FactorData, bins: int) -> np.ndarray:
    """Mutual information [d k] in nats of each binned dimension with each factor.

    Each dimension's range is cut into bins of equal width, as Locatello et al. 2019 (arXiv
    1811.12359, appendix) do; counts are taken for probabilities, so independence gives a little
    more than 0: about (bins - 1) (values - 1) / (2 n).

    Raises:
      ValueError: fewer than two bins, or fewer examples than bins.
    """
    n, d = data.codes.shape
    if bins < 2:
        raise ValueError(f"bins must be at least 2, but is {bins}")
    if n < bins:
        raise ValueError(f"{bins} bins need as many examples or more, but there are {n}")
    least, largest = data.codes.min(axis=0), data.codes.max(axis=0)
    width = np.where(data.varies, largest - least, np.inf)
    binned = np.floor((data.codes - least[None]) / width[None] * bins).astype(np.int64)
    binned = np.minimum(binned, bins - 1)
    information = np.zeros((d, len(data.num_values)))
    for j, num_values in enumerate(data.num_values):
        for i in np.flatnonzero(data.varies):
            cells = np.bincount(binned[:, i] * num_values + data.factors[:, j])
            cells = np.pad(cells, (0, bins * num_values - len(cells))).reshape(bins, num_values)
            of_bin, of_value = cells.sum(axis=1), cells.sum(axis=0)
            information[i, j] = entropy(of_bin) + entropy(of_value) - entropy(cells.ravel())
    # What rounding leaves of an exact independence.
    return np.where(information > 1e-12, information, 0.0)


def entropy(counts: np.ndarray) -> float:
    """Of counts [cells], in nats."""
    shares = counts[counts > 0] / counts.sum()
    return float(-np.sum(shares * np.log(shares)))


def _check_factors(factors) -> np.ndarray:
    factors = np.asarray(factors)
    if factors.ndim != 2 or 0 in factors.shape:
        raise ValueError(f"factors must be [examples, factors], but their shape is {factors.shape}")
    if not np.issubdtype(factors.dtype, np.integer):
        raise ValueError(f"factors must be integers, not {factors.dtype}")
    return factors
