import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.evaluation import logistic_regression
from soda_jax.evaluation.logistic_regression import fit

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 300)
MIXING = RNG.normal(size=(8, 8))
X = ((RNG.normal(size=(300, 8)) + 0.7 * RNG.normal(size=(3, 8))[LABELS]) @ MIXING).astype(
    np.float32
)
L2_VALUES = [1e-5, 1e-3, 1e-1, 10.0]


def fitted(x, labels, l2_values, weights=None, **options):
    weights = np.ones(len(x)) if weights is None else weights
    return fit(
        jnp.asarray(x, jnp.float32),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(weights, jnp.float32),
        jnp.asarray(l2_values, jnp.float32),
        num_classes=int(max(labels)) + 1,
        **options,
    )


def objective(x, labels, l2, kernel, bias):
    """In float64, from its definition."""
    logits = np.asarray(x, float) @ np.asarray(kernel, float).T + np.asarray(bias, float)[None]
    top = logits.max(1, keepdims=True)
    normaliser = top[:, 0] + np.log(np.exp(logits - top).sum(1))
    losses = normaliser - logits[np.arange(len(labels)), labels]
    return losses.mean() + l2 / 2 * np.sum(np.square(np.asarray(kernel, float)))


def test_the_optimum_of_two_points_is_the_one_worked_out_by_hand():
    """x = 1 and -1, a class each: kernel (-k, k), no bias, where l2 * k * (1 + exp(2 k)) = 1."""
    k = np.array([0.5, 1.0, 2.0])
    result = fitted([[1.0], [-1.0]], [1, 0], 1 / (k * (1 + np.exp(2 * k))), tolerance=1e-5)
    np.testing.assert_allclose(result.kernel[:, :, 0], np.stack([-k, k], 1), rtol=1e-3)
    np.testing.assert_allclose(result.bias, 0, atol=1e-5)


def test_every_l2_reaches_the_objective_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    result = fitted(X, LABELS, L2_VALUES, tolerance=1e-4)
    assert np.all(result.gradient_norm <= 1e-4)
    for i, l2 in enumerate(L2_VALUES):
        model = linear_model.LogisticRegression(
            C=1 / (len(X) * l2), solver="newton-cholesky", tol=1e-10
        ).fit(X.astype(float), LABELS)
        best = objective(X, LABELS, l2, model.coef_, model.intercept_)
        ours = objective(X, LABELS, l2, result.kernel[i], result.bias[i])
        # What the tolerance and float32's rounding leave.
        assert -1e-9 < ours - best < 5e-7


def test_few_examples_of_many_features_are_fitted_to_the_end():
    """Told apart for certain, they leave a gradient that is small long before the optimum."""
    x = np.random.default_rng(1).normal(size=(60, 200)).astype(np.float32)
    labels = np.arange(60) % 3
    early, found, strict = (
        fitted(x, labels, [1e-5], **options)
        for options in ({"tolerance": logistic_regression.TOLERANCE}, {}, {"tolerance": 1e-6})
    )
    values = [
        objective(x, labels, 1e-5, result.kernel[0], result.bias[0])
        for result in (early, found, strict)
    ]
    assert values[1] < 1.05 * values[2] and values[0] > 1.2 * values[2]


def test_fits_side_by_side_are_the_fits_alone():
    """An easy fit waits for a hard one, and neither disturbs the other."""
    together = fitted(X, LABELS, L2_VALUES, tolerance=1e-4)
    assert len(set(np.asarray(together.num_iterations).tolist())) > 1
    for i, l2 in enumerate(L2_VALUES):
        alone = fitted(X, LABELS, [l2], tolerance=1e-4)
        np.testing.assert_allclose(together.kernel[i], alone.kernel[0], rtol=0.01, atol=1e-3)
        assert abs(int(together.num_iterations[i]) - int(alone.num_iterations[0])) <= 2


def test_a_weight_of_two_is_the_example_twice():
    weights = np.ones(300)
    weights[:100] = 2
    twice = np.concatenate([np.arange(300), np.arange(100)])
    weighted = fitted(X, LABELS, L2_VALUES, weights, tolerance=1e-4)
    doubled = fitted(X[twice], LABELS[twice], L2_VALUES, tolerance=1e-4)
    np.testing.assert_allclose(weighted.kernel, doubled.kernel, rtol=0.01, atol=2e-3)


def test_groups_that_fit_into_memory_change_nothing(monkeypatch):
    """Five values in pairs, so the last one is alone; the number of them is new to the cache."""
    together = fitted(X, LABELS, L2_VALUES, tolerance=1e-4)
    monkeypatch.setattr(logistic_regression, "_LOGITS", 2 * len(X) * 3)
    in_pairs = fitted(X, LABELS, [*L2_VALUES, 1.0], tolerance=1e-4)
    np.testing.assert_allclose(in_pairs.kernel[:4], together.kernel, rtol=0.01, atol=1e-3)
    assert np.all(in_pairs.gradient_norm <= 1e-4)


def test_a_step_that_is_too_long_is_shortened():
    """Outliers and separable classes: the unit step overshoots, yet every fit arrives."""
    x = np.array(X)
    x[:5] *= 30
    separable = np.argmax(x[:, :3], axis=1)
    result = fitted(x, separable, L2_VALUES)
    assert np.all(result.gradient_norm <= logistic_regression.TOLERANCE)
    assert np.all(result.num_iterations < 300)


def test_the_iterations_are_bounded():
    result = fitted(X, LABELS, L2_VALUES, max_iterations=2)
    assert np.asarray(result.num_iterations).tolist() == [2, 2, 2, 2]
    assert result.gradient_norm[0] > logistic_regression.TOLERANCE
