"""What every probe takes and gives: checked features and labels, a result with its protocol."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


@dataclass(frozen=True)
class ProbeResult:
    """A probe's score, with everything that was done to get it.

    Attributes:
      accuracy: on the test set, in [0, 1].
      validation_accuracy: in [0, 1], on the part of the training set that chose the settings; None
        where nothing was chosen.
      protocol: plain values (JSON can hold them): norm, solver, settings, sizes, seed.
    """

    accuracy: float
    validation_accuracy: float | None
    protocol: dict[str, Any]


class ProbeData(NamedTuple):
    """train_x [n d], train_y [n] int32, test_x [m d], test_y [m] int32: NumPy arrays."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray

    def sizes(self) -> dict[str, int]:
        """The part of a protocol that says how much data there was."""
        return {
            "train_examples": len(self.train_x),
            "test_examples": len(self.test_x),
            "dimensions": self.train_x.shape[1],
        }


def check(train_x, train_y, test_x, test_y, num_classes: int) -> ProbeData:
    """The two splits as NumPy arrays.

    Raises:
      ValueError: shapes don't fit together, a split is empty, a label is not an integer in
        [0, num_classes), or a feature is NaN or infinite.
    """
    data = ProbeData(*(np.asarray(array) for array in (train_x, train_y, test_x, test_y)))
    for split, x, y in (("train", data.train_x, data.train_y), ("test", data.test_x, data.test_y)):
        if x.ndim != 2:
            raise ValueError(f"{split}_x must be [examples, features], but its shape is {x.shape}")
        if y.shape != (len(x),):
            raise ValueError(f"{split}_y must be [{len(x)}], as {split}_x has it, not {y.shape}")
        if len(x) == 0:
            raise ValueError(f"{split}_x holds no example")
        check_labels(y, num_classes, f"{split}_y")
        # Sums by row: a NaN or an infinity survives them, and they take no copy of x.
        with np.errstate(invalid="ignore"):
            finite = np.all(np.isfinite(x.sum(axis=1, dtype=np.float64)))
        if not finite:
            raise ValueError(f"{split}_x holds NaN or infinity")
    if data.train_x.shape[1] != data.test_x.shape[1]:
        raise ValueError(
            f"train_x has {data.train_x.shape[1]} features and test_x {data.test_x.shape[1]}: "
            "both must come from the same extractor"
        )
    return data._replace(train_y=data.train_y.astype(np.int32), test_y=data.test_y.astype(np.int32))


def check_labels(y, num_classes: int, name: str) -> np.ndarray:
    """Labels as a NumPy array [n] int32.

    Raises:
      ValueError: they are not [n] with n > 0, or one is not an integer in [0, num_classes).
    """
    y = np.asarray(y)
    if y.ndim != 1 or len(y) == 0:
        raise ValueError(f"{name} must be [n] with n > 0, but its shape is {y.shape}")
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{name} must be integers, not {y.dtype}")
    if y.min() < 0 or y.max() >= num_classes:
        raise ValueError(
            f"{name} holds labels {y.min()} to {y.max()}, "
            f"but with num_classes={num_classes} they must be 0 to {num_classes - 1}"
        )
    return y.astype(np.int32)


def check_learnable(x: np.ndarray, y: np.ndarray) -> None:
    """Refuses a training split of which any classifier would give a score that says nothing.

    Raises:
      ValueError: the labels [n] name a single class, or every feature of x [n d] is constant.
    """
    check_classes(y)
    # A column at most as uneven as the rounding of its numbers, as in standardisation.
    lowest, highest = x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64)
    if np.all(highest - lowest <= 1e-6 * np.maximum(np.abs(lowest), np.abs(highest))):
        raise ValueError(
            f"train_x: every one of its {x.shape[1]} features is the same in all {len(x)} "
            "examples, so a probe would only tell the most frequent class"
        )


def check_classes(y: np.ndarray, name: str = "train_y") -> None:
    """Raises ValueError where the labels [n] name a single class."""
    if np.all(y == y[0]):
        raise ValueError(
            f"{name} holds the class {int(y[0])} alone: a probe of a single class is always right "
            "and says nothing; at least two are needed"
        )


def l2_normalize(x: np.ndarray) -> np.ndarray:
    """Each row of [n d] divided by its length, float32; a row of zeros stays one."""
    norms = np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))
    return np.divide(x, np.maximum(norms, 1e-12)[:, None], dtype=np.float32, casting="same_kind")


def shuffled(indices: np.ndarray, *entropy: int) -> np.ndarray:
    """The indices in an order that depends on them and on the entropy (integers from 0) alone."""
    draws = np.random.default_rng(list(entropy)).random(len(indices))
    return indices[np.argsort(draws, kind="stable")]


def stratified_split(
    labels: np.ndarray, validation_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (fit, validation), each sorted, with about this share of every class in validation.

    A class gives at least one example to each part, and a class of one example gives none to
    validation.

    Raises:
      ValueError: the share is not in (0, 1), or no class has two examples.
    """
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction must be in (0, 1), but is {validation_fraction}")
    validation = []
    for label in np.unique(labels):
        members = shuffled(np.flatnonzero(labels == label), seed, int(label))
        count = round(validation_fraction * len(members))
        validation.append(members[: min(max(count, 1), len(members) - 1)])
    validation = np.sort(np.concatenate(validation))
    if len(validation) == 0:
        raise ValueError("no class has two examples, so none can be kept aside for validation")
    return np.setdiff1d(np.arange(len(labels)), validation), validation
