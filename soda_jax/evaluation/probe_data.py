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
        if not np.issubdtype(y.dtype, np.integer):
            raise ValueError(f"{split}_y must be integers, not {y.dtype}")
        if y.min() < 0 or y.max() >= num_classes:
            raise ValueError(
                f"{split}_y holds labels {y.min()} to {y.max()}, "
                f"but with num_classes={num_classes} they must be 0 to {num_classes - 1}"
            )
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
