"""Do the dimensions of a code tell apart what made the pictures? The published scores of that.

All take codes [n d] and factors [n k], integers: the factors of variation behind the same pictures,
each with two values or more (`factor_checks.varying_factors` finds those). They are defined on one
labelled set, and what they fit, they score on held-out examples.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from soda_jax.evaluation import factor_checks


class FactorScore(NamedTuple):
    """One of the scores, with what it was put together from.

    Attributes:
      score: in [0, 1], 1 is best.
      parts: its share of each factor [k] (of each dimension [d] for modularity), None where a
        dimension says nothing of any factor.
      matrix: [d k] lists, how dimensions and factors belong together; each function says in what.
      protocol: plain values (JSON can hold them): settings, sizes, seed.
    """

    score: float
    parts: list[float | None]
    matrix: list[list[float]]
    protocol: dict[str, Any]


def mig(codes, factors, *, bins: int = 20) -> FactorScore:
    """Mutual information gap: is each factor told by one dimension alone?

    (I_1 - I_2) / H(factor), the two largest mutual informations that any dimensions have with it,
    averaged over the factors (Chen et al. 2018, arXiv 1802.04942, section 4). There I comes from
    the encoder's density; a code without one is binned, as in Locatello et al. 2019 (arXiv
    1811.12359), 20 bins of equal width [R]. matrix: I in nats.

    Raises:
      ValueError: see `factor_checks.check` and `mutual_information`; fewer than two dimensions.
    """
    data = factor_checks.check(codes, factors, min_dimensions=2)
    information = factor_checks.mutual_information(data, bins)
    entropies = [factor_checks.entropy(np.bincount(column)) for column in data.factors.T]
    ranked = np.sort(information, axis=0)
    gaps = (ranked[-1] - ranked[-2]) / np.array(entropies)
    protocol = {
        "score": "MIG",
        "bins": bins,
        "binning": "equal width, over each dimension's range",
        **data.sizes(),
    }
    return FactorScore(float(gaps.mean()), gaps.tolist(), information.tolist(), protocol)


def modularity(codes, factors, *, bins: int = 20) -> FactorScore:
    """Does each dimension tell of one factor alone?

    `dimension_modularity` of the binned mutual information (as for `mig`), averaged over the
    dimensions (Ridgeway and Mozer 2018, arXiv 1802.05312, section 3). matrix: I in nats.

    A dimension that tells nothing is left out [D], where disentanglement_lib counts it as 0. Noise
    does not score 0: what its finite counts show of each factor is small, but not equal.

    Raises:
      ValueError: see `factor_checks.check` and `mutual_information`; fewer than two factors; no
        dimension tells anything.
    """
    data = factor_checks.check(codes, factors, min_factors=2)
    information = factor_checks.mutual_information(data, bins)
    parts = dimension_modularity(information)
    told = [part for part in parts if part is not None]
    if not told:
        raise ValueError("no dimension of codes tells of any factor, so none is modular or not")
    protocol = {
        "score": "modularity",
        "bins": bins,
        "binning": "equal width, over each dimension's range",
        "dimensions_left_out": len(parts) - len(told),
        **data.sizes(),
    }
    return FactorScore(float(np.mean(told)), parts, information.tolist(), protocol)


def dimension_modularity(information) -> list[float | None]:
    """1 - (sum of squares but the largest) / (largest square * (k - 1)) of each row of [d k].

    1 for a dimension that tells of one factor, 0 for one that tells of all alike, None for one
    that tells of none.

    Raises:
      ValueError: information is not [d k] with two factors or more, or a number is negative or not
        finite.
    """
    information = np.asarray(information, np.float64)
    if information.ndim != 2 or information.shape[1] < 2:
        raise ValueError(
            "information must be [dimensions, factors] with two factors or more, but its shape is "
            f"{information.shape}"
        )
    if not np.all(np.isfinite(information) & (information >= 0)):
        raise ValueError("information must hold finite numbers from 0, but one is not")
    parts = []
    for row in information:
        if row.max() == 0:
            parts.append(None)
            continue
        squares = np.square(row / row.max())  # the largest is 1
        parts.append(float(1 - (squares.sum() - 1) / (len(row) - 1)))
    return parts


def sap(
    codes,
    factors,
    *,
    test_fraction: float = 0.25,
    max_examples: int = 4000,
    c: float = 0.01,
    seed: int = 0,
) -> FactorScore:
    """Separated attribute predictability: the lead of the best single dimension over the second.

    matrix: the held-out accuracy, balanced over the factor's values, of a linear SVM on one
    dimension; the score is the mean over the factors of the difference between the two best (Kumar
    et al. 2018, arXiv 1711.00848, section 3). c = .01 and balanced class weights are those of
    disentanglement_lib [R]; dimensions are standardised, since a code has no unit [D].

    The best possible score is less than 1: a dimension without any knowledge still has an accuracy
    of 1 / values. And one dimension and a linear classifier, one value against the rest, cannot
    tell many ordered values apart.

    Args:
      test_fraction: share of the examples that scores.
      max_examples: a random part of this size is used [D]: d * k classifiers are fitted.
      c: weight of the errors beside the SVM's margin.

    Raises:
      ValueError: see `factor_checks.check` and `split`; fewer than two dimensions; c is not above
        0.
    """
    from sklearn.svm import LinearSVC

    data = factor_checks.check(codes, factors, min_dimensions=2)
    if not c > 0:
        raise ValueError(f"c must be above 0, but is {c}")
    train, test = factor_checks.split(data, test_fraction, max_examples, seed)
    x = factor_checks.standardized(data, train)
    accuracies = np.empty((x.shape[1], data.factors.shape[1]))
    for k, y in enumerate(data.factors.T):
        for i in range(x.shape[1]):
            if not x[:, i].any():
                accuracies[i, k] = 1 / len(np.unique(y[test]))  # one answer for all
                continue
            model = LinearSVC(C=c, class_weight="balanced", dual=False, random_state=seed)
            predicted = model.fit(x[train, i : i + 1], y[train]).predict(x[test, i : i + 1])
            accuracies[i, k] = _balanced_accuracy(predicted, y[test])
    ranked = np.sort(accuracies, axis=0)
    gaps = ranked[-1] - ranked[-2]
    protocol = {
        "score": "SAP",
        "classifier": "linear SVM, squared hinge, balanced class weights",
        "accuracy": "balanced over the factor's values",
        "norm": "standardised, by the mean and deviation of the fitted part",
        "c": c,
        "test_fraction": test_fraction,
        "max_examples": max_examples,
        "train_examples": len(train),
        "test_examples": len(test),
        "seed": seed,
        **data.sizes(),
    }
    return FactorScore(float(gaps.mean()), gaps.tolist(), accuracies.tolist(), protocol)


def factor_vae(
    codes,
    factors,
    *,
    batch_size: int = 64,
    num_train: int = 10_000,
    num_eval: int = 5_000,
    seed: int = 0,
) -> FactorScore:
    """The FactorVAE score: does the dimension that varies least tell which factor was held fixed?

    A vote: a factor is chosen, and a value of it by drawing one example; among batch_size examples
    that share the value, the dimension of the least variance, each divided by its variance over all
    examples. A dimension stands for the factor that most training votes pair it with; the score is
    the share of evaluation votes that this gets right (Kim and Mnih 2018, arXiv 1802.05983, section
    4; the three numbers are disentanglement_lib's [R]). Constant dimensions take no part.

    The examples come from the given set, without repetition within a vote: all that share the value
    where they are fewer than batch_size [D]. A code of noise scores about 1 / k.

    matrix: training votes [d k]. parts: the share of each factor's evaluation votes that is right.

    Raises:
      ValueError: see `factor_checks.check`; fewer than two factors, a value of a factor that one
        example shows alone, or a setting that is too small.
    """
    data = factor_checks.check(codes, factors, min_factors=2)
    for name, value, least in (
        ("batch_size", batch_size, 2),
        ("num_train", num_train, 1),
        ("num_eval", num_eval, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, but is {value}")
    groups = []
    for k, column in enumerate(data.factors.T):
        counts = np.bincount(column)
        if counts.min() < 2:
            raise ValueError(
                f"factor {k} has a value that one example shows alone: a variance needs two or more"
            )
        order = np.argsort(column, kind="stable")
        groups.append(np.split(order, np.cumsum(counts)[:-1]))
    x = data.codes[:, data.varies]
    # First to a size near 1: the square of a very small deviation could be 0.
    x = (x - x.mean(axis=0)[None]) / x.std(axis=0)[None]
    rng = np.random.default_rng([seed, 1])
    train_votes = _votes(x, data.factors, groups, batch_size, num_train, rng)
    eval_votes = _votes(x, data.factors, groups, batch_size, num_eval, rng)
    stands_for = train_votes.argmax(axis=1)
    right = np.array([eval_votes[stands_for == k, k].sum() for k in range(len(groups))])
    asked = eval_votes.sum(axis=0)
    matrix = np.zeros((len(data.varies), len(groups)), np.int64)
    matrix[data.varies] = train_votes
    protocol = {
        "score": "FactorVAE",
        "batch_size": batch_size,
        "smallest_group": min(len(group) for of_factor in groups for group in of_factor),
        "train_votes": num_train,
        "eval_votes": num_eval,
        "chance": 1 / len(groups),
        "seed": seed,
        **data.sizes(),
    }
    parts = [float(r / a) if a else None for r, a in zip(right, asked, strict=True)]
    return FactorScore(float(right.sum() / num_eval), parts, matrix.tolist(), protocol)


def _votes(
    x: np.ndarray,
    factors: np.ndarray,
    groups: Sequence[Sequence[np.ndarray]],
    batch_size: int,
    num_votes: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """How often [d k] each dimension varied least where each factor was held fixed."""
    votes = np.zeros((x.shape[1], len(groups)), np.int64)
    chosen = rng.integers(len(groups), size=num_votes)
    examples = rng.integers(len(x), size=num_votes)
    for k, example in zip(chosen, examples, strict=True):
        members = groups[k][factors[example, k]]
        size = min(batch_size, len(members))
        rows = rng.choice(members, size, replace=False, shuffle=False)
        votes[x[rows].var(axis=0, ddof=1).argmin(), k] += 1
    return votes


def _balanced_accuracy(predicted: np.ndarray, truth: np.ndarray) -> float:
    """The mean over the values in truth of the share of their examples that is right."""
    return float(np.mean([np.mean(predicted[truth == value] == value) for value in set(truth)]))
