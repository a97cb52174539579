"""Which part of a code [n d] predicts which of the factors [n k]? DCI, and a probe a section."""

import inspect
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from soda_jax.evaluation import factor_checks, probe_data
from soda_jax.evaluation.linear_probe import linear_probe, strongest_best

_MAX_ITERATIONS = 200  # of the L1 solver, in passes over the data


class ImportanceScores(NamedTuple):
    """What an importance matrix [r k] says, r rows (dimensions or sections) and k factors.

    Attributes:
      disentanglement: in [0, 1]: is a row of importance for one factor alone?
      completeness: in [0, 1]: is one row alone of importance for a factor?
      row_disentanglement: [r]; None for a row without importance.
      factor_completeness: [k]; None for a factor for which no row is of importance.
      importance: [r k] lists.
    """

    disentanglement: float
    completeness: float
    row_disentanglement: list[float | None]
    factor_completeness: list[float | None]
    importance: list[list[float]]


class DciResult(NamedTuple):
    """DCI of a code.

    Attributes:
      disentanglement, completeness: of its dimensions, as in `dimensions`.
      informativeness: the mean over the factors of the held-out accuracy.
      dimensions: scores and importance matrix [d k].
      sections: the same of the matrix summed over each section [l k]; None where none were given.
      factor_informativeness: [k] held-out accuracies.
      chance: [k] held-out accuracy of the most frequent value.
      protocol: plain values (JSON can hold them): predictor, settings, sizes, seed.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    dimensions: ImportanceScores
    sections: ImportanceScores | None
    factor_informativeness: list[float]
    chance: list[float]
    protocol: dict[str, Any]


class SectionInformativeness(NamedTuple):
    """Which factor each section holds.

    Attributes:
      accuracy: [l k] lists, held out.
      chance: [k] held-out accuracy of the most frequent value.
      protocol: plain values (JSON can hold them): settings, sizes, seed.
    """

    accuracy: list[list[float]]
    chance: list[float]
    protocol: dict[str, Any]


def dci(
    codes,
    factors,
    *,
    predictor: str = "trees",
    sections: Sequence[int] | None = None,
    test_fraction: float = 0.25,
    max_examples: int = 2000,
    num_trees: int = 20,
    l1_values: Sequence[float] = (1e-3, 1e-2, 1e-1),
    seed: int = 0,
) -> DciResult:
    """Disentanglement, completeness and informativeness (Eastwood and Williams 2018, ICLR).

    Each factor is predicted from the whole code, and the predictor says how much each dimension
    mattered: a column of the importance matrix, made to sum to 1. `dci_scores` of that are D and C.
    I is the accuracy, since the factors are classes [R]; in the paper it is a regression's error.

    The time grows with examples * dimensions * trees * values: hence the small defaults [D], where
    disentanglement_lib [R] takes 10,000 examples and 100 trees.

    Args:
      predictor: "trees", scikit-learn's gradient boosting (importance: the impurity that its
        splits on a dimension remove); or "lasso", multinomial logistic regression with L1
        (importance: absolute coefficients, summed over the values).
      sections: sizes of the sections, which sum to d: scores the matrix by sections too.
      test_fraction: share of the examples that informativeness is measured on.
      max_examples: a random part of this size is used.
      num_trees: boosting rounds; each fits a tree for every value of the factor.
      l1_values: weights of |kernel|_1 beside the mean cross-entropy; for each factor the one with
        the best accuracy on a fifth of the training part is taken (the strongest of equals).
      seed: of the splits and the predictor.

    Raises:
      ValueError: see `factor_checks.check`, `split` and `section_slices`; fewer than two dimensions
        or factors; an unknown predictor; no dimension mattered for any factor.
    """
    data = factor_checks.check(codes, factors, min_dimensions=2, min_factors=2)
    d = data.codes.shape[1]
    slices = None if sections is None else factor_checks.section_slices(sections, d)
    train, test = factor_checks.split(data, test_fraction, max_examples, seed)
    protocol = {
        "score": "DCI",
        "predictor": predictor,
        "norm": "standardised, by the mean and deviation of the fitted part",
        "test_fraction": test_fraction,
        "max_examples": max_examples,
        "train_examples": len(train),
        "test_examples": len(test),
        "seed": seed,
        **data.sizes(),
    }
    if predictor == "trees":
        if num_trees < 1:
            raise ValueError(f"num_trees must be at least 1, but is {num_trees}")
        protocol |= {"solver": "gradient boosting", "num_trees": num_trees}
    elif predictor == "lasso":
        l1_values = [float(value) for value in l1_values]
        if not l1_values or not min(l1_values) > 0:
            raise ValueError(f"l1_values must hold numbers, all above 0, not {l1_values}")
        protocol |= {"solver": "SAGA", "max_iterations": _MAX_ITERATIONS, "l1_values": l1_values}
        protocol |= {"l1": [], "converged": []}
    else:
        raise ValueError(f'predictor must be "trees" or "lasso", not {predictor!r}')
    x = factor_checks.standardized(data, train)
    columns, accuracies, chance = [], [], []
    for y in data.factors.T:
        if predictor == "trees":
            model = _fit_trees(x[train], y[train], num_trees, seed)
            importance = np.maximum(model.feature_importances_, 0)  # rounding leaves -1e-17
        else:
            model, l1 = _choose_l1(x[train], y[train], l1_values, seed)
            importance = np.abs(model.coef_).sum(axis=0)
            protocol["l1"].append(l1)
            protocol["converged"].append(bool(np.max(model.n_iter_) < _MAX_ITERATIONS))
        columns.append(importance / (importance.sum() or 1.0))
        accuracies.append(float(np.mean(model.predict(x[test]) == y[test])))
        chance.append(factor_checks.majority_share(y[train], y[test]))
    importance = np.stack(columns, axis=1)
    scores, section_scores = dci_scores(importance), None
    if slices is not None:
        section_scores = dci_scores(np.stack([importance[part].sum(axis=0) for part in slices]))
        protocol["section_sizes"] = [int(size) for size in sections]
    return DciResult(
        scores.disentanglement,
        scores.completeness,
        float(np.mean(accuracies)),
        scores,
        section_scores,
        accuracies,
        chance,
        protocol,
    )


def dci_scores(importance) -> ImportanceScores:
    """D and C of an importance matrix [r k] (Eastwood and Williams 2018, section 2).

    A row's disentanglement is 1 - H_k(row / its sum), with the entropy to base k; D weighs each row
    by its share of the whole matrix. A factor's completeness is 1 - H_r(column / its sum), with the
    entropy to base r; C is the mean over the factors (that matter at all).

    Raises:
      ValueError: importance has fewer than two rows or columns, or a number is negative or not
        finite, or all are 0: nothing matters for any factor, so the scores are not defined.
    """
    importance = np.asarray(importance, np.float64)
    if importance.ndim != 2 or min(importance.shape) < 2:
        raise ValueError(
            "importance must be [rows, factors] with two or more of each, but its shape is "
            f"{importance.shape}"
        )
    if not np.all(np.isfinite(importance) & (importance >= 0)):
        raise ValueError("importance must hold finite numbers from 0, but one is not")
    total = importance.sum()
    if total == 0:
        raise ValueError(
            "no part of the code matters for any factor, so disentanglement and completeness are "
            "not defined"
        )
    rows = [_concentration(row) for row in importance]
    columns = [_concentration(column) for column in importance.T]
    shares = importance.sum(axis=1) / total
    weighted = sum(w * row for w, row in zip(shares, rows, strict=True) if row is not None)
    complete = np.mean([column for column in columns if column is not None])
    return ImportanceScores(float(weighted), float(complete), rows, columns, importance.tolist())


def section_informativeness(
    codes,
    section_sizes: Sequence[int],
    factors,
    *,
    test_fraction: float = 0.25,
    max_examples: int = 10_000,
    l2_values: Sequence[float] = (1e-3,),
    seed: int = 0,
) -> SectionInformativeness:
    """Which factor does each section hold? The accuracy of a linear probe on the section alone.

    `linear_probe` on every pair of a section and a factor, with one L2 [D]; where several are
    given, each pair chooses its own, on a part of the training examples. A section that is the same
    in all training examples is at chance; the protocol names it.

    Args:
      section_sizes: they sum to d. (d,) gives the whole code as one section.
      test_fraction: share of the examples that scores.
      max_examples: a random part of this size is used.

    Raises:
      ValueError: see `factor_checks.check`, `split` and `section_slices`.
    """
    data = factor_checks.check(codes, factors)
    slices = factor_checks.section_slices(section_sizes, data.codes.shape[1])
    train, test = factor_checks.split(data, test_fraction, max_examples, seed)
    x = factor_checks.standardized(data, train).astype(np.float32)
    chance = [factor_checks.majority_share(y[train], y[test]) for y in data.factors.T]
    constant = [row for row, part in enumerate(slices) if not x[train, part].any()]
    accuracy = np.tile(chance, (len(slices), 1))
    for k, y in enumerate(data.factors.T):
        for row, part in enumerate(slices):
            if row in constant:
                continue
            result = linear_probe(
                x[train, part],
                y[train],
                x[test, part],
                y[test],
                num_classes=data.num_values[k],
                l2_values=l2_values,
                seed=seed,
            )
            accuracy[row, k] = result.accuracy
    protocol = {
        "score": "informativeness of sections",
        "probe": "logistic regression",
        "norm": "standardised, by the mean and deviation of the fitted part",
        "l2_values": [float(value) for value in l2_values],
        "section_sizes": [int(size) for size in section_sizes],
        "constant_sections": constant,
        "test_fraction": test_fraction,
        "max_examples": max_examples,
        "train_examples": len(train),
        "test_examples": len(test),
        "seed": seed,
        **data.sizes(),
    }
    return SectionInformativeness(accuracy.tolist(), chance, protocol)


def _concentration(importance: np.ndarray) -> float | None:
    """1 - entropy of the shares, to the base of their number: 1 where all lies in one."""
    if importance.sum() == 0:
        return None
    return 1 - factor_checks.entropy(importance) / float(np.log(len(importance)))


def _fit_trees(x: np.ndarray, y: np.ndarray, num_trees: int, seed: int):
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(n_estimators=num_trees, random_state=seed).fit(x, y)


def _choose_l1(x: np.ndarray, y: np.ndarray, l1_values: list[float], seed: int):
    """The classifier with the best L1, fitted on everything, and that L1."""
    if len(l1_values) == 1:
        return _fit_l1(x, y, l1_values[0], seed), l1_values[0]
    fit_on, validate_on = probe_data.stratified_split(y, 0.2, seed)
    fitted = (_fit_l1(x[fit_on], y[fit_on], l1, seed) for l1 in l1_values)
    scores = [np.mean(model.predict(x[validate_on]) == y[validate_on]) for model in fitted]
    l1 = l1_values[strongest_best(np.array(scores), l1_values)]
    return _fit_l1(x, y, l1, seed), l1


def _fit_l1(x: np.ndarray, y: np.ndarray, l1: float, seed: int):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # scikit-learn 1.8 made l1_ratio the way to say it, and gave it a default.
    default = inspect.signature(LogisticRegression).parameters["l1_ratio"].default
    model = LogisticRegression(
        **({"penalty": "l1"} if default is None else {"l1_ratio": 1.0}),
        C=1 / (len(x) * l1),
        solver="saga",
        tol=1e-3,
        max_iter=_MAX_ITERATIONS,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the protocol says so instead
        return model.fit(x, y)
