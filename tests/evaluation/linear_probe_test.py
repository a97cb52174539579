import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax import rngs
from soda_jax.evaluation import logistic_regression, probe_data
from soda_jax.evaluation.linear_probe import adam_probe, linear_probe, strongest_best


@pytest.fixture(scope="module")
def digits():
    """Real handwritten digits: train_x, train_y, test_x, test_y; 1200 and 597 of them."""
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].astype(np.float32), y[order]
    return x[:1200], y[:1200], x[1200:], y[1200:]


def oracle(x, y, l2):
    """scikit-learn's optimum; on one thread, as its small products only get in each other's way."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    threadpoolctl = pytest.importorskip("threadpoolctl")
    model = linear_model.LogisticRegression(C=1 / (len(x) * l2), solver="newton-cg", tol=1e-6)
    with threadpoolctl.threadpool_limits(1):
        return model.fit(x, y)


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_the_optimum_is_scikit_learns(digits, l2):
    train_x, train_y, test_x, test_y = digits
    result = linear_probe(*digits, num_classes=10, l2_values=[l2])

    mean, std = train_x.mean(0)[None], train_x.std(0)[None]
    std = np.where(std > 0, std, 1)
    model = oracle((train_x - mean) / std, train_y, l2)
    expected = model.score((test_x - mean) / std, test_y)
    assert abs(result.accuracy - expected) <= 0.005
    assert result.protocol["converged"]
    assert result.validation_accuracy is None

    fitted = logistic_regression.fit(
        jnp.asarray((train_x - mean) / std, jnp.float32),
        jnp.asarray(train_y, jnp.int32),
        jnp.ones((len(train_x),)),
        jnp.asarray([l2]),
        num_classes=10,
        tolerance=1e-4,
    )
    gap = np.linalg.norm(fitted.kernel[0] - model.coef_) / np.linalg.norm(model.coef_)
    assert gap < 0.02


def test_fewer_examples_than_features_give_scikit_learns_optimum(digits):
    """The other branch: the fit runs in the span of the examples."""
    x = np.random.default_rng(0).normal(size=(40, 100)).astype(np.float32)
    y = digits[1][:40]
    x[:, :10] += 2 * np.eye(10, dtype=np.float32)[y]
    weights = np.arange(40) % 4 > 0
    fitted = logistic_regression.fit(
        jnp.asarray(x),
        jnp.asarray(y, jnp.int32),
        jnp.asarray(weights, jnp.float32),
        jnp.asarray([1e-2]),
        num_classes=10,
        tolerance=1e-4,
    )
    model = oracle(x[weights], y[weights], 1e-2)
    assert set(model.classes_) == set(range(10))
    np.testing.assert_allclose(fitted.kernel[0], model.coef_, atol=0.01)


def test_the_test_set_chooses_nothing(digits):
    train_x, train_y, test_x, test_y = digits
    result = linear_probe(*digits, num_classes=10)
    shuffled = np.random.default_rng(0).permutation(test_y)
    other = linear_probe(train_x, train_y, test_x, shuffled, num_classes=10)
    assert other.accuracy < 0.2 < 0.9 < result.accuracy
    assert dataclasses.replace(other, accuracy=result.accuracy) == result

    protocol = result.protocol
    assert json.loads(json.dumps(protocol)) == protocol
    assert protocol["l2"] in protocol["l2_values"]
    assert protocol["fit_examples"] + protocol["validation_examples"] == 1200
    assert result.validation_accuracy == max(protocol["validation_accuracies"])


def test_the_l2_is_the_best_on_the_held_out_part_and_fitted_again_on_all(digits):
    """Every step done by hand, with a seed of its own."""
    x, y, test_x, test_y = digits
    result = linear_probe(*digits, num_classes=10, seed=3)
    fit_on, validate_on = probe_data.stratified_split(y, 0.1, seed=3)
    held_out = (x[fit_on], y[fit_on], x[validate_on], y[validate_on])
    l2_values = result.protocol["l2_values"]
    by_hand = [linear_probe(*held_out, num_classes=10, l2_values=[l2]).accuracy for l2 in l2_values]
    scores = result.protocol["validation_accuracies"]
    # Seven fits in one program or each in its own round differently: one example may turn.
    np.testing.assert_allclose(scores, by_hand, atol=1.01 / len(validate_on))
    assert max(by_hand) > min(by_hand) + 0.05
    best = max(l2 for l2, score in zip(l2_values, scores, strict=True) if score == max(scores))
    assert result.protocol["l2"] == best
    assert result.validation_accuracy == max(scores)
    refitted = linear_probe(*digits, num_classes=10, l2_values=[best])
    assert result.accuracy == refitted.accuracy


def test_of_equally_good_l2_values_the_strongest_is_taken():
    assert strongest_best(np.array([0.5, 0.9, 0.9, 0.8]), [1e-3, 1e-2, 1e-1, 1.0]) == 2
    assert strongest_best(np.array([0.9, 0.9, 0.5]), [1.0, 1e-2, 1e-3]) == 0


def test_random_labels_give_chance(digits):
    train_x, train_y, test_x, _ = digits
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 10, len(train_y)), rng.integers(0, 10, len(test_x))
    result = linear_probe(train_x, labels[0], test_x, labels[1], num_classes=10)
    error = np.sqrt(0.1 * 0.9 / len(test_x))
    assert abs(result.accuracy - 0.1) < 3.5 * error


def test_the_split_is_stratified_and_depends_on_the_seed():
    labels = np.repeat([0, 1, 2, 5], [100, 50, 3, 1])
    fit_on, validate_on = probe_data.stratified_split(labels, 0.1, seed=0)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([fit_on, validate_on])), np.arange(len(labels))
    )
    assert [int(np.sum(labels[validate_on] == label)) for label in (0, 1, 2, 5)] == [10, 5, 1, 0]
    again = probe_data.stratified_split(labels, 0.1, seed=0)[1]
    np.testing.assert_array_equal(validate_on, again)
    assert not np.array_equal(validate_on, probe_data.stratified_split(labels, 0.1, seed=1)[1])


def test_features_are_standardised_by_the_fitted_part_alone(digits):
    """Scale, shift and constant features are nothing to the probe."""
    train_x, train_y, test_x, test_y = digits
    moved = [np.concatenate([7 * x + 300, np.full_like(x[:, :1], 0.1)], 1) for x in digits[::2]]
    plain = linear_probe(*digits, num_classes=10, l2_values=[1e-2])
    other = linear_probe(moved[0], train_y, moved[1], test_y, num_classes=10, l2_values=[1e-2])
    assert abs(plain.accuracy - other.accuracy) <= 1 / len(test_y)
    assert 0 in train_x.std(0)


def reference_adam_probe(train_x, train_y, test_x, test_y, num_epochs):
    """The protocol in plain float64, with the same draws: where it is right on the test set."""
    n, d = train_x.shape
    root = rngs.root(0)
    train_x = train_x / np.linalg.norm(train_x, axis=1, keepdims=True).astype(float)
    test_x = test_x / np.linalg.norm(test_x, axis=1, keepdims=True).astype(float)
    draw = [
        jax.random.uniform(rngs.stream(root, f"adam_probe.{name}"), shape, minval=-1, maxval=1)
        for name, shape in (("kernel", (d, 10)), ("bias", (10,)))
    ]
    params = [np.asarray(value, float) / np.sqrt(d) for value in draw]
    first, second = [0.0, 0.0], [0.0, 0.0]
    running_mean, running_variance, step = np.zeros(d), np.ones(d), 0
    for epoch in range(num_epochs):
        rate = 1e-3 * (1 + np.cos(np.pi * epoch / num_epochs)) / 2
        order = jax.random.permutation(rngs.stream(root, "adam_probe.order", epoch), n)
        for indices in np.split(np.asarray(order), range(128, n, 128)):
            x, labels, step = train_x[indices], train_y[indices], step + 1
            running_mean = 0.9 * running_mean + 0.1 * x.mean(0)
            running_variance = 0.9 * running_variance + 0.1 * x.var(0, ddof=1)
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-6)
            logits = x @ params[0] + params[1]
            error = np.exp(logits - logits.max(1, keepdims=True))
            error = error / error.sum(1, keepdims=True) - np.eye(10)[labels]
            for i, gradient in enumerate((x.T @ error / len(x), error.mean(0))):
                first[i] = 0.9 * first[i] + 0.1 * gradient
                second[i] = 0.999 * second[i] + 0.001 * gradient**2
                root_mean_square = np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8
                params[i] = params[i] - rate * first[i] / (1 - 0.9**step) / root_mean_square
    x = (test_x - running_mean) / np.sqrt(running_variance + 1e-6)
    return np.argmax(x @ params[0] + params[1], axis=1) == test_y


@pytest.mark.parametrize("num_epochs", [4, 15])
def test_adam_probe_is_the_published_protocol(digits, num_epochs):
    """Far from converged, so every constant of the protocol shows in the accuracy."""
    result = adam_probe(*digits, num_classes=10, num_epochs=num_epochs)
    expected = reference_adam_probe(*digits, num_epochs=num_epochs).mean()
    assert abs(result.accuracy - expected) <= 1.5 / len(digits[3])
    assert result.protocol["iterations"] == num_epochs * 10  # 1200 = 9 * 128 + 48


def test_adam_probe_reads_digits_and_repeats_bitwise(digits):
    result = adam_probe(*digits, num_classes=10, num_epochs=60)
    assert result.accuracy > 0.9
    assert result == adam_probe(*digits, num_classes=10, num_epochs=60)
    assert result.validation_accuracy is None
    assert json.loads(json.dumps(result.protocol)) == result.protocol
    assert adam_probe(*digits, num_classes=10, seed=1) != adam_probe(*digits, num_classes=10)


def test_adam_probe_sees_directions_only(digits):
    train_x, train_y, test_x, test_y = digits
    scales = np.random.default_rng(0).uniform(0.1, 10, len(train_x)).astype(np.float32)
    scaled = adam_probe(scales[:, None] * train_x, train_y, test_x, test_y, num_classes=10)
    plain = adam_probe(*digits, num_classes=10)
    assert abs(scaled.accuracy - plain.accuracy) <= 2 / len(test_y)


def test_padding_of_the_last_batch_counts_nothing(digits):
    """One batch of 100 alone, or with 28 empty places: the same classifier."""
    train_x, train_y, test_x, test_y = digits
    few = (train_x[:100], train_y[:100], test_x, test_y)
    settings = {"num_classes": 10, "num_epochs": 40, "learning_rate": 0.02}
    exact = adam_probe(*few, batch_size=100, **settings)
    padded = adam_probe(*few, batch_size=128, **settings)
    assert abs(exact.accuracy - padded.accuracy) <= 1 / len(test_y)
    assert exact.accuracy > 0.5


def test_bad_data_is_refused_in_words(digits):
    train_x, train_y, test_x, test_y = digits
    with pytest.raises(ValueError, match="num_classes=9 they must be 0 to 8"):
        linear_probe(*digits, num_classes=9)
    with pytest.raises(ValueError, match="train_x has 64 features and test_x 63"):
        linear_probe(train_x, train_y, test_x[:, 1:], test_y, num_classes=10)
    with pytest.raises(ValueError, match=r"train_y must be \[1200\]"):
        linear_probe(train_x, train_y[1:], test_x, test_y, num_classes=10)
    with pytest.raises(ValueError, match="test_x holds NaN"):
        linear_probe(train_x, train_y, test_x * np.nan, test_y, num_classes=10)
    with pytest.raises(ValueError, match="all above 0"):
        linear_probe(*digits, num_classes=10, l2_values=[0.0, 1.0])
    for probe in (linear_probe, adam_probe):
        with pytest.raises(ValueError, match="train_y holds the class 7 alone"):
            probe(train_x, np.full_like(train_y, 7), test_x, test_y, num_classes=10)
        with pytest.raises(ValueError, match="every one of its 64 features is the same in all"):
            probe(np.full_like(train_x, 0.1), train_y, test_x, test_y, num_classes=10)
