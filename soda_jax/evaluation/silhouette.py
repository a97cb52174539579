"""How far apart classes lie: silhouettes."""

import numpy as np

_ROWS = 512  # whose distances are held at a time


def silhouette(x: np.ndarray, labels: np.ndarray) -> float:
    """The mean silhouette of points [n d] in classes [n], in [-1, 1] (Rousseeuw 1987).

    A point's is (b - a) / max(a, b): a is its mean distance to the others of its class, b that to
    the nearest other class; 0 where it is alone in its class.

    Raises:
      ValueError: fewer than two classes.
    """
    x, labels = np.asarray(x, np.float64), np.asarray(labels)
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2 or len(x) != len(labels):
        raise ValueError(f"{len(x)} points in {len(classes)} classes; there must be two or more")
    members = np.eye(len(classes))[codes]
    counts = members.sum(0)
    total = 0.0
    for start in range(0, len(x), _ROWS):
        part = slice(start, start + _ROWS)
        squares = np.square(x[part]).sum(1)[:, None] + np.square(x).sum(1)[None]
        distances = np.sqrt(np.maximum(squares - 2 * x[part] @ x.T, 0))
        sums, own = distances @ members, codes[part]
        rows = np.arange(len(own))
        inside = sums[rows, own] / np.maximum(counts[own] - 1, 1)
        means = sums / counts[None]
        means[rows, own] = np.inf
        outside = means.min(1)
        larger = np.maximum(np.maximum(inside, outside), 1e-12)
        total += np.where(counts[own] > 1, (outside - inside) / larger, 0).sum()
    return float(total / len(x))
