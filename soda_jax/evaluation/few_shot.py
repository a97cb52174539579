"""Linear probes on a few labels of each class, over several draws of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from soda_jax.evaluation import logistic_regression, probe_data
from soda_jax.evaluation.linear_probe import L2_VALUES, check_l2, strongest_best

MAX_FOLDS = 5  # [D]
SINGLE_LABEL_L2 = 0.1  # with one label a class nothing can be held out to choose the L2 [D]


class FewLabelResult(NamedTuple):
    """Scores over the draws.

    Attributes:
      mean: test accuracy in [0, 1].
      std: between draws, with draws - 1 below the line; 0 for a single draw.
      protocol: plain values (JSON can hold them), with each draw's accuracy and L2.
    """

    mean: float
    std: float
    protocol: dict[str, Any]


def few_label_indices(
    labels: np.ndarray, labels_per_class: int, draw: int, seed: int = 0
) -> np.ndarray:
    """Sorted positions of as many examples of each class that occurs in labels [n].

    They depend on these arguments alone, so every representation is given the same draws; and a
    draw of fewer labels is a part of the same draw of more.

    Raises:
      ValueError: a class has fewer examples, or labels_per_class is below 1.
    """
    labels = np.asarray(labels)
    if labels_per_class < 1:
        raise ValueError(f"labels_per_class must be at least 1, but is {labels_per_class}")
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < labels_per_class:
        raise ValueError(
            f"labels_per_class={labels_per_class} is too many: "
            f"class {classes[counts.argmin()]} has {counts.min()} examples"
        )
    chosen = []
    for label in classes:
        members = np.flatnonzero(labels == label)
        order = probe_data.shuffled(members, seed, draw, int(label))
        chosen.append(order[:labels_per_class])
    return np.sort(np.concatenate(chosen))


def few_label_probe(
    train_x,
    train_y,
    test_x,
    test_y,
    *,
    num_classes: int,
    labels_per_class: int,
    draws: int = 5,
    seed: int = 0,
    l2_values: Sequence[float] = L2_VALUES,
    max_iterations: int = 300,
) -> FewLabelResult:
    """Logistic regression on labels_per_class examples a class; the rest of train is not used.

    The L2 is chosen by stratified cross-validation inside these few examples (at most 5 folds; the
    strongest of equals), and fixed where there is one label a class. Features are standardised by
    the labelled examples that are fitted, alone.

    Args:
      train_x, train_y, test_x, test_y: features [n d] of any number type, labels [n] int.
      num_classes: labels are in [0, num_classes).
      labels_per_class: n of the n-label probe.
      draws: how many subsets; draw i is `few_label_indices(train_y, labels_per_class, i, seed)`.
      seed: of the draws.
      l2_values: weights of |kernel|^2 / 2 beside the mean cross-entropy.
      max_iterations: of L-BFGS.

    Raises:
      ValueError: the data don't fit together, can't be learnt from (see `probe_data.check` and
        `check_learnable`), or a class has too few examples.
    """
    data = probe_data.check(train_x, train_y, test_x, test_y, num_classes)
    probe_data.check_learnable(data.train_x, data.train_y)
    l2_values = check_l2(l2_values)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, but is {draws}")
    folds = min(MAX_FOLDS, labels_per_class)
    cross_validate = folds > 1 and len(l2_values) > 1
    fixed = l2_values[0] if len(l2_values) == 1 else SINGLE_LABEL_L2
    accuracies, chosen_values, validation_accuracies = [], [], []
    for draw in range(draws):
        indices = few_label_indices(data.train_y, labels_per_class, draw, seed)
        x, y = data.train_x[indices], data.train_y[indices]
        chosen = fixed
        if cross_validate:
            scores = _cross_validate(x, y, folds, l2_values, num_classes, max_iterations)
            best = strongest_best(scores, l2_values)
            chosen = l2_values[best]
            validation_accuracies.append(float(scores[best]))
        everything = np.ones(len(y), bool)
        correct = _fit_and_compare(
            x, y, everything, data.test_x, data.test_y, [chosen], num_classes, max_iterations
        )
        accuracies.append(float(correct.mean()))
        chosen_values.append(chosen)
    if cross_validate:
        chosen_by = f"{folds}-fold cross-validation inside the labelled examples"
    else:
        chosen_by = "given" if len(l2_values) == 1 else "fixed: one label a class"
    protocol = {
        "probe": "logistic regression on few labels",
        "norm": "standardised, by the mean and deviation of the fitted examples",
        "solver": "L-BFGS, preconditioned",
        "max_iterations": max_iterations,
        "labels_per_class": labels_per_class,
        "draws": draws,
        "accuracies": accuracies,
        "validation_accuracies": validation_accuracies,
        "l2": chosen_values,
        "l2_values": l2_values,
        "l2_chosen_by": chosen_by,
        "labelled_examples": len(indices),
        "seed": seed,
        **data.sizes(),
    }
    std = float(np.std(accuracies, ddof=1)) if draws > 1 else 0.0
    return FewLabelResult(float(np.mean(accuracies)), std, protocol)


def _cross_validate(x, y, folds, l2_values, num_classes, max_iterations):
    """Accuracy [l] on the held-out examples of all folds together."""
    fold = np.empty(len(y), int)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        fold[members] = np.arange(len(members)) % folds
    correct = np.zeros((len(l2_values), len(y)), bool)
    for index in range(folds):
        held_out = fold == index
        compared = _fit_and_compare(x, y, ~held_out, x, y, l2_values, num_classes, max_iterations)
        correct[:, held_out] = compared[:, held_out]
    return correct.mean(axis=1)


def _fit_and_compare(x, y, fitted_rows, test_x, test_y, l2_values, num_classes, max_iterations):
    """Fits the marked rows for each L2 value; where on the test set it is right: [l m] bool.

    The other rows weigh nothing instead of being cut off: one shape, so one compilation.
    """
    mean, std = logistic_regression.standardization(x[fitted_rows])
    fitted = logistic_regression.fit(
        jnp.asarray(logistic_regression.standardize(x, mean, std)),
        jnp.asarray(y),
        jnp.asarray(fitted_rows, jnp.float32),
        jnp.asarray(l2_values, jnp.float32),
        num_classes=num_classes,
        max_iterations=max_iterations,
    )
    standardized = jnp.asarray(logistic_regression.standardize(test_x, mean, std))
    return np.asarray(logistic_regression.predict(fitted, standardized)) == test_y[None]
