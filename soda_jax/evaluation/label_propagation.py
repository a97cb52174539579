"""Labels that spread among neighbours: the pseudo-labels of LaplaceNet, from fixed features.

A few labels and the graph of which pictures look alike label all others. LaplaceNet (Sellars et al.
2021, arXiv 2106.04527) goes on to train the network on them; here the features stay as they are, so
that the score is the representation's, and any of them can be judged.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from scipy.sparse.linalg import cg

from soda_jax.evaluation import logistic_regression, probe_data
from soda_jax.evaluation.few_shot import few_label_indices
from soda_jax.evaluation.knn import top_k

ALPHA = 0.99  # how far labels spread [R]
NEIGHBOURS = 50  # [R]
CG_STEPS, CG_TOLERANCE = 30, 1e-3  # [R]
BALANCE_STEPS, BALANCE_STEP = 100, 0.01  # [R]
L2 = 1e-2  # of the classifier that learns from pseudo-labels [D]
_ROWS = 1024  # whose neighbours are sought at a time


class PropagationResult(NamedTuple):
    """Means over the draws of labels; accuracies are in [0, 1].

    Attributes:
      pseudo_accuracy: of the pseudo-labels, on the training pictures without a label.
      accuracy: on the test set, of logistic regression on the pseudo-labels; std: between draws.
      protocol: plain values, with each draw's accuracies.
    """

    pseudo_accuracy: float
    accuracy: float
    std: float
    protocol: dict[str, Any]


def neighbour_graph(features: np.ndarray, k: int = NEIGHBOURS) -> scipy.sparse.csr_array:
    """D^-1/2 W D^-1/2 of features [n d]: W holds each one's k nearest by cosine similarity.

    Itself is none of them; W is made symmetric by the larger of its two sides, and similarities
    below 0 are none [D].
    """
    x = probe_data.l2_normalize(np.asarray(features, np.float32))
    n, k = len(x), min(k, len(x) - 1)
    everything, rows = jnp.asarray(x), min(_ROWS, n)
    values, columns = np.empty((n, k), np.float32), np.empty((n, k), np.int32)
    for start in range(0, n, rows):
        part = np.minimum(np.arange(start, start + rows), n - 1)
        found = _nearest(everything, jnp.asarray(part), k=k)
        values[part], columns[part] = (np.asarray(array) for array in found)
    positions = np.repeat(np.arange(n), k), columns.ravel()
    graph = scipy.sparse.csr_array((np.maximum(values.ravel(), 0), positions), shape=(n, n))
    graph = graph.maximum(graph.T)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    scale = scipy.sparse.diags_array(1 / np.sqrt(np.maximum(degree, 1e-12)))
    return (scale @ graph @ scale).tocsr()


def propagate(
    graph: scipy.sparse.csr_array,
    labels: np.ndarray,
    labelled: np.ndarray,
    num_classes: int,
    alpha: float = ALPHA,
) -> np.ndarray:
    """Probabilities [n c]: the solution of (1 - alpha graph) f = y for each class.

    What is below 0 becomes 0, rows add up to 1 (evenly where nothing arrived [D]), labelled rows
    are their labels.

    Args:
      labels: [n]; only those at the positions `labelled` are looked at.
    """
    n = graph.shape[0]
    given = np.zeros((n, num_classes))
    given[labelled, labels[labelled]] = 1
    system = (scipy.sparse.eye_array(n) - alpha * graph).tocsr()
    spread = np.stack(
        [cg(system, y, rtol=CG_TOLERANCE, maxiter=CG_STEPS)[0] for y in given.T], axis=1
    )
    spread = np.maximum(spread, 0) + 1e-12
    spread /= spread.sum(axis=1, keepdims=True)
    spread[labelled] = given[labelled]
    return spread


def balance(probabilities: np.ndarray, labelled: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Brings the classes of the unlabelled rows [n c] nearer to their shares among the labelled.

    In small steps: columns times the wanted share over the share of rows whose largest they are,
    within 1 percent; rows add up to 1 again [R].

    Args:
      shares: [c], that the classes should have.
    """
    probabilities = probabilities.copy()
    unlabelled = np.setdiff1d(np.arange(len(probabilities)), labelled)
    if not len(unlabelled):
        return probabilities
    for _ in range(BALANCE_STEPS):
        rows = probabilities[unlabelled]
        held = np.bincount(rows.argmax(axis=1), minlength=rows.shape[1]) / len(rows) + 1e-7
        rows = rows * np.clip(shares / held, 1 - BALANCE_STEP, 1 + BALANCE_STEP)
        probabilities[unlabelled] = rows / rows.sum(axis=1, keepdims=True)
    return probabilities


def label_propagation(
    train_x,
    train_y,
    test_x,
    test_y,
    *,
    num_classes: int,
    labels_per_class: int,
    draws: int = 5,
    seed: int = 0,
    graph: scipy.sparse.csr_array | None = None,
) -> PropagationResult:
    """Labels all training features from labels_per_class of each class; then learns from them.

    Args:
      train_x, train_y, test_x, test_y: features [n d] of any number type, labels [n] int.
      draws: draw i is `few_label_indices(train_y, labels_per_class, i, seed)`.
      graph: `neighbour_graph(train_x)`, where it has been made already.

    Raises:
      ValueError: the data don't fit together, can't be learnt from (see `probe_data.check` and
        `check_learnable`), a class has too few examples, none is left to be labelled, or there is
        no draw.
    """
    data = probe_data.check(train_x, train_y, test_x, test_y, num_classes)
    probe_data.check_learnable(data.train_x, data.train_y)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, but is {draws}")
    graph = neighbour_graph(data.train_x) if graph is None else graph
    mean, std = logistic_regression.standardization(data.train_x)
    x, test = (
        jnp.asarray(logistic_regression.standardize(part, mean, std))
        for part in (data.train_x, data.test_x)
    )
    pseudo_accuracies, accuracies = [], []
    for draw in range(draws):
        labelled = few_label_indices(data.train_y, labels_per_class, draw, seed)
        rest = np.setdiff1d(np.arange(len(data.train_y)), labelled)
        if not len(rest):
            raise ValueError(
                f"with {labels_per_class} labels a class none of {len(labelled)} examples is left "
                "to be labelled"
            )
        shares = np.bincount(data.train_y[labelled], minlength=num_classes) / len(labelled)
        spread = propagate(graph, data.train_y, labelled, num_classes)
        pseudo = balance(spread, labelled, shares).argmax(axis=1)
        pseudo_accuracies.append(float(np.mean(pseudo[rest] == data.train_y[rest])))
        fitted = logistic_regression.fit(
            x,
            jnp.asarray(pseudo, jnp.int32),
            jnp.ones(len(pseudo), jnp.float32),
            jnp.asarray([L2], jnp.float32),
            num_classes=num_classes,
            max_iterations=300,
        )
        predicted = np.asarray(logistic_regression.predict(fitted, test))[0]
        accuracies.append(float(np.mean(predicted == data.test_y)))
    protocol = {
        "probe": "logistic regression on propagated labels",
        "graph": f"{min(NEIGHBOURS, len(x) - 1)} nearest by cosine similarity, symmetric",
        "alpha": ALPHA,
        "solver": f"conjugate gradients, {CG_STEPS} steps, tolerance {CG_TOLERANCE}",
        "balanced": f"{BALANCE_STEPS} steps of {BALANCE_STEP}, to the labelled classes' shares",
        "l2": L2,
        "labels_per_class": labels_per_class,
        "draws": draws,
        "accuracies": accuracies,
        "pseudo_accuracies": pseudo_accuracies,
        "seed": seed,
        **data.sizes(),
    }
    std = float(np.std(accuracies, ddof=1)) if draws > 1 else 0.0
    means = float(np.mean(pseudo_accuracies)), float(np.mean(accuracies))
    return PropagationResult(*means, std, protocol)


@partial(jax.jit, static_argnames="k")
def _nearest(x, rows, *, k):
    similarities = jnp.dot(x[rows], x.T, precision=jax.lax.Precision.HIGHEST)
    own = jnp.arange(len(x))[None] == rows[:, None]
    return top_k(jnp.where(own, -2.0, similarities), k)
