import numpy as np
import pytest

from soda_jax.evaluation.silhouette import silhouette


def test_by_hand():
    """Two points of one class at 0 and 1, one of another at 3, alone: (3 - 1)/3, (2 - 1)/2, 0."""
    found = silhouette(np.array([[0.0], [1.0], [3.0]]), np.array([5, 5, 8]))
    np.testing.assert_allclose(found, (2 / 3 + 1 / 2 + 0) / 3)


def test_against_scikit_learn_in_several_blocks():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.RandomState(0)
    labels = random.randint(0, 4, 1100)
    x = random.normal(size=(1100, 3)) + labels[:, None]
    np.testing.assert_allclose(silhouette(x, labels), metrics.silhouette_score(x, labels))


def test_one_class_has_none():
    with pytest.raises(ValueError, match="in 1 classes"):
        silhouette(np.zeros((3, 2)), np.zeros(3))
