import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.evaluation import knn as knn_module
from soda_jax.evaluation.knn import knn

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(5, 16))


def draw(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, count)
    return (CENTRES[labels] + 1.5 * rng.normal(size=(count, 16))).astype(np.float32), labels


TRAIN_X, TRAIN_Y = draw(400, 1)
TEST_X, TEST_Y = draw(301, 2)
DATA = (TRAIN_X, TRAIN_Y, TEST_X, TEST_Y)


def reference(k, temperature):
    """Accuracy of the weighted vote, in float64."""
    train = TRAIN_X.astype(np.float64) / np.linalg.norm(TRAIN_X, axis=1, keepdims=True)
    test = TEST_X.astype(np.float64) / np.linalg.norm(TEST_X, axis=1, keepdims=True)
    correct = []
    for row, label in zip(test @ train.T, TEST_Y, strict=True):
        nearest = np.argsort(-row, kind="stable")[:k]
        votes = np.zeros(5)
        np.add.at(votes, TRAIN_Y[nearest], np.exp(row[nearest] / temperature))
        correct.append(votes.argmax() == label)
    return np.mean(correct)


@pytest.mark.parametrize("k", [1, 20])
def test_plain_vote_is_scikit_learns(k):
    neighbors = pytest.importorskip("sklearn.neighbors")
    oracle = neighbors.KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    expected = oracle.fit(TRAIN_X, TRAIN_Y).score(TEST_X, TEST_Y)
    result = knn(*DATA, num_classes=5, k=k, weighted=False)
    assert 0.4 < expected < 0.95
    assert result.accuracy == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_weighted_vote_is_the_reference(temperature):
    result = knn(*DATA, num_classes=5, k=30, temperature=temperature)
    assert result.accuracy == pytest.approx(reference(30, temperature), abs=1e-9)
    assert json.loads(json.dumps(result.protocol)) == result.protocol


def test_weights_matter_and_tiny_temperatures_are_the_nearest_neighbour():
    plain = knn(*DATA, num_classes=5, k=399, weighted=False)
    weighted = knn(*DATA, num_classes=5, k=399, temperature=0.07)
    assert weighted.accuracy > plain.accuracy + 0.1
    # exp(1 / .001) overflows float32.
    sharp = knn(*DATA, num_classes=5, k=20, temperature=0.001)
    assert sharp.accuracy == pytest.approx(
        knn(*DATA, num_classes=5, k=1).accuracy, abs=2 / len(TEST_Y)
    )


def test_chunks_change_nothing(monkeypatch):
    whole = knn(*DATA, num_classes=5)
    monkeypatch.setattr(knn_module, "_SIMILARITIES", 400 * 64)  # 301 = 4 * 64 + 45
    assert knn(*DATA, num_classes=5) == whole


@pytest.mark.parametrize(("n", "k"), [(21, 20), (100, 1), (500, 7), (47, 20), (3000, 20)])
def test_grouped_top_k_is_top_k(n, k):
    """Few distinct values: nearly every choice is a tie."""
    x = jnp.asarray(np.random.default_rng(n).geometric(0.4, (50, n)), jnp.float32)
    values, indices = knn_module.top_k(x, k)
    expected_values, expected_indices = jax.lax.top_k(x, k)
    np.testing.assert_array_equal(values, expected_values)
    np.testing.assert_array_equal(indices, expected_indices)


def test_ties_go_to_the_earlier_example_and_the_smaller_class():
    x = np.array([[1, 1], [2, 2], [1, 1], [4, 4]], np.float32)  # one direction
    labels = np.array([3, 1, 2, 0])
    assert knn(x, labels, x[:1], [3], num_classes=4, k=1).accuracy == 1
    assert knn(x, labels, x[:1], [1], num_classes=4, k=3).accuracy == 1


def test_k_is_cut_and_the_protocol_says_so():
    result = knn(TRAIN_X[:10], TRAIN_Y[:10], TEST_X, TEST_Y, num_classes=5, k=20)
    assert (result.protocol["k"], result.protocol["k_asked"]) == (9, 20)
    assert knn(TRAIN_X[:2], np.array([0, 1]), TEST_X, TEST_Y, num_classes=5).protocol["k"] == 1
    with pytest.raises(ValueError, match="k must be at least 1"):
        knn(*DATA, num_classes=5, k=0)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        knn(*DATA, num_classes=5, temperature=0)
