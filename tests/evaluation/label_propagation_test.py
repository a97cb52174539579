"""Labels spread over a graph: against the solution by hand, and on pictures that hang together."""

import numpy as np
import pytest

from soda_jax.evaluation.label_propagation import (
    balance,
    label_propagation,
    neighbour_graph,
    propagate,
)


def circles(count, seed=0):
    """Two noisy half circles, which no line divides, on a sphere: cosines tell them apart."""
    random = np.random.RandomState(seed)
    labels = np.arange(count) % 2
    angle = np.pi * random.uniform(size=count)
    side = np.where(labels == 0, 1.0, -1.0)
    x = np.stack([np.cos(angle) + 0.5 * side, side * np.sin(angle) - 0.25 * side], -1)
    x += 0.03 * random.normal(size=x.shape)
    return np.concatenate([x, np.ones((count, 1))], -1).astype(np.float32), labels


def test_the_graph_is_symmetric_normalised_and_without_loops():
    x, _ = circles(60)
    graph = neighbour_graph(x, k=5).toarray()
    np.testing.assert_allclose(graph, graph.T, atol=1e-6)
    np.testing.assert_array_equal(np.diag(graph), 0)
    assert (np.count_nonzero(graph, axis=1) >= 5).all()
    # Its largest eigenvalue is 1, of the roots of the degrees.
    np.testing.assert_allclose(np.linalg.eigvalsh(graph).max(), 1.0, atol=1e-5)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(60)
    assert (graph[np.arange(60), cosines.argmax(1)] > 0).all()


def test_propagation_is_the_solution_of_the_linear_system():
    x, labels = circles(40)
    graph = neighbour_graph(x, k=6)
    labelled = np.array([0, 1, 2, 3])
    found = propagate(graph, labels, labelled, 3)
    given = np.zeros((40, 3))
    given[labelled, labels[labelled]] = 1
    exact = np.linalg.solve(np.eye(40) - 0.99 * graph.toarray(), given)
    exact /= exact.sum(1, keepdims=True)
    np.testing.assert_allclose(found[4:], exact[4:], atol=0.01)
    np.testing.assert_array_equal(found[:4], given[:4])


def test_balancing_moves_shares_and_leaves_the_labelled_alone():
    random = np.random.RandomState(0)
    probabilities = random.dirichlet([6.0, 1.0], size=400)
    labelled = np.arange(10)
    balanced = balance(probabilities, labelled, np.array([0.5, 0.5]))
    np.testing.assert_array_equal(balanced[:10], probabilities[:10])
    np.testing.assert_allclose(balanced.sum(1), 1.0)
    # Shares are those of the labels that come out: rows may all be nearly undecided.
    np.testing.assert_allclose(np.mean(balanced[10:].argmax(1) == 0), 0.5, atol=0.06)
    undecided = np.tile([[0.51, 0.49]], (400, 1)) + 0.005 * random.randn(400, 1) * [[1, -1]]
    assert np.mean(undecided[10:].argmax(1) == 0) > 0.9
    levelled = balance(undecided, labelled, np.array([0.5, 0.5]))
    np.testing.assert_allclose(np.mean(levelled[10:].argmax(1) == 0), 0.5, atol=0.1)
    # Within a column the order stays: it is the same factor for all rows.
    order = np.argsort(probabilities[10:, 0])
    assert (np.diff(balanced[10:, 0][order]) >= -1e-12).all()


def test_four_labels_are_enough_where_classes_hang_together():
    x, y = circles(600)
    test_x, test_y = circles(200, seed=1)
    result = label_propagation(
        x, y, test_x, test_y, num_classes=2, labels_per_class=4, draws=3, seed=0
    )
    assert result.pseudo_accuracy > 0.97
    assert result.accuracy > 0.85  # of a line
    random = np.random.RandomState(0)
    noise = label_propagation(
        random.normal(size=(600, 8)), y, random.normal(size=(200, 8)), test_y,
        num_classes=2, labels_per_class=4, draws=3, seed=0,
    )  # fmt: skip
    assert noise.pseudo_accuracy < 0.6


def test_without_a_draw_or_anything_to_label_there_is_no_score():
    x, y = np.random.RandomState(0).randn(40, 3), np.arange(40) % 2
    few = {"num_classes": 2, "labels_per_class": 2}
    with pytest.raises(ValueError, match="draws must be at least 1"):
        label_propagation(x, y, x, y, **few, draws=0)
    with pytest.raises(ValueError, match="none of 40 examples is left"):
        label_propagation(x, y, x, y, **few | {"labels_per_class": 20})


def test_too_few_of_a_class_is_named():
    x, y = circles(20)
    with pytest.raises(ValueError, match="labels_per_class=11 is too many"):
        label_propagation(x, y, x, y, num_classes=2, labels_per_class=11)
