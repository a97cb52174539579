import json

import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.evaluation import attribute_probe as module
from soda_jax.evaluation.attribute_probe import attribute_probe, binary_scores

D = 12
NAMES = ["half", "rare", "noise"]


def draw(count, seed):
    """One attribute of even odds, one that a tenth have, and one that is a coin."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, D))
    directions = np.random.default_rng(9).normal(size=(D, 2)) / np.sqrt(D)
    y = x @ directions + 0.3 * rng.normal(size=(count, 2)) > np.array([[0, 1.4]])
    coin = rng.integers(0, 2, (count, 1))
    x = 100 + x * np.geomspace(0.01, 10, D)[None]  # the scale means nothing
    return x.astype(np.float32), np.concatenate([y, coin], axis=1).astype(int)


TRAIN_X, TRAIN_Y = draw(600, 1)
TEST_X, TEST_Y = draw(301, 2)
DATA = (TRAIN_X, TRAIN_Y, TEST_X, TEST_Y)


@pytest.fixture(scope="module")
def result():
    return attribute_probe(*DATA, names=NAMES)


def test_scores_of_a_few_examples_worked_out_by_hand():
    # Ranked: 1 1 0 1 0. Precisions at the ones: 1, 1, 3/4. At 0: said 1 1 0, then 1 0 not.
    scores = binary_scores([3, 2, 1, -1, -2], [1, 1, 0, 1, 0])
    assert scores["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert scores["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert scores["accuracy"] == pytest.approx(3 / 5)
    assert scores["base_rate"] == pytest.approx(3 / 5)
    # A logit of 0 says 1; equal logits are one step: 1/2 of them right.
    tied = binary_scores([0, 0], [0, 1])
    assert tied == {
        "f1": pytest.approx(2 / 3),
        "average_precision": 0.5,
        "accuracy": 0.5,
        "base_rate": 0.5,
    }
    nothing_said = binary_scores([-1, -2, -3], [0, 1, 0])
    assert nothing_said["f1"] == 0 and nothing_said["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_scores_are_scikit_learns(decimals):
    """Rounding makes many logits equal."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(decimals)
    truth = rng.integers(0, 4, 200) == 0
    logits = np.round(rng.normal(size=200) + truth, decimals)
    scores = binary_scores(logits, truth)
    said = logits >= 0
    assert scores["average_precision"] == pytest.approx(
        metrics.average_precision_score(truth, logits), abs=1e-12
    )
    assert scores["f1"] == pytest.approx(metrics.f1_score(truth, said), abs=1e-12)
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(truth, said), abs=1e-12)


@pytest.mark.parametrize("l2_values", [[1e-3, 1e-2, 1.0], [1e-1, 1e-4, 1e-2]])
def test_each_fit_is_scikit_learns_although_all_are_fitted_together(l2_values):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x = ((TRAIN_X - TRAIN_X.mean(0)) / TRAIN_X.std(0)).astype(np.float32)
    fitted = module._fit(
        jnp.asarray(x), jnp.asarray(TRAIN_Y, jnp.float32), jnp.asarray([l2_values]), 300, 1e-4
    )
    assert fitted.num_iterations[0] < 300
    for a, l2 in enumerate(l2_values):
        oracle = linear_model.LogisticRegression(C=1 / (len(x) * l2), solver="newton-cg", tol=1e-8)
        oracle.fit(x, TRAIN_Y[:, a])
        np.testing.assert_allclose(fitted.kernel[0, a], oracle.coef_[0], atol=0.02)
        assert fitted.bias[0, a] == pytest.approx(oracle.intercept_[0], abs=0.02)


def test_what_can_be_learnt_is_learnt(result):
    half, rare, noise = (result.attributes[name] for name in NAMES)
    assert half["average_precision"] > 0.95 and half["f1"] > 0.85
    assert rare["average_precision"] > 0.7 and rare["base_rate"] < 0.2
    assert abs(noise["average_precision"] - noise["base_rate"]) < 0.12
    for k, name in enumerate(NAMES):
        assert result.attributes[name]["base_rate"] == pytest.approx(TEST_Y[:, k].mean())


def test_means_and_protocol(result):
    for kind, mean in result.mean.items():
        assert mean == pytest.approx(np.mean([s[kind] for s in result.attributes.values()]))
    assert set(result.mean) == {"f1", "average_precision", "accuracy", "base_rate"}
    assert json.loads(json.dumps(result._asdict())) == result._asdict()
    assert result.protocol["fit_examples"] == 540
    assert result.protocol["validation_examples"] == 60
    assert result.protocol["converged"]
    assert set(result.protocol["l2"]) == set(NAMES)
    assert set(result.protocol["l2"].values()) <= set(result.protocol["l2_values"])


def test_attributes_know_nothing_of_each_other(result):
    """In another order, and beside another third one."""
    coins = [np.random.default_rng(5).integers(0, 2, (len(y), 1)) for y in (TRAIN_Y, TEST_Y)]
    train_y, test_y = (
        np.concatenate([y[:, [1]], coin, y[:, [0]]], axis=1)
        for y, coin in zip((TRAIN_Y, TEST_Y), coins, strict=True)
    )
    others = attribute_probe(TRAIN_X, train_y, TEST_X, test_y, names=["rare", "coin", "half"])
    for name in ("half", "rare"):
        assert others.protocol["l2"][name] == result.protocol["l2"][name]
        for kind, value in result.attributes[name].items():
            assert others.attributes[name][kind] == pytest.approx(value, abs=0.02)


def test_the_test_set_chooses_nothing(result):
    flipped = attribute_probe(TRAIN_X, TRAIN_Y, TEST_X, 1 - TEST_Y, names=NAMES)
    assert flipped.protocol == result.protocol
    for name in NAMES:
        expected = 1 - result.attributes[name]["accuracy"]
        assert flipped.attributes[name]["accuracy"] == pytest.approx(expected)


def test_the_l2_is_chosen_on_examples_that_were_not_fitted():
    """More features than examples: anything can be fitted, and a coin can't be foretold."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 80))
    y = np.stack([x[:, 0] > 0, rng.integers(0, 2, 60) == 1], axis=1)
    result = attribute_probe(x, y, x, y, l2_values=[1e-4, 10.0], validation_fraction=0.3)
    assert result.protocol["l2"]["attribute1"] == 10.0
    known = attribute_probe(x, y, x, y, l2_values=[1e-4])
    assert known.mean["accuracy"] == 1


def test_hostile_input_is_refused_in_words():
    one = TRAIN_Y.copy()
    one[:, 1] = 0
    one_in_test = TEST_Y.copy()
    one_in_test[:, [0, 2]] = 1
    cases = {
        "^train_y has a single value of rare: ": (TRAIN_X, one, TEST_X, TEST_Y),
        "^test_y has a single value of half, noise: ": (TRAIN_X, TRAIN_Y, TEST_X, one_in_test),
        "train_x holds NaN": (np.where(TRAIN_X > 120, np.nan, TRAIN_X), *DATA[1:]),
        "every one of its 12 features is the same": (np.full_like(TRAIN_X, 0.1), *DATA[1:]),
        "holds -1 to 1.*y \\+ 1": (TRAIN_X, 2 * TRAIN_Y - 1, TEST_X, TEST_Y),
        "not float64": (TRAIN_X, TRAIN_Y.astype(float), TEST_X, TEST_Y),
        r"must be \[examples, attributes\], but its shape is \(600,\)": (
            TRAIN_X,
            TRAIN_Y[:, 0],
            TEST_X,
            TEST_Y,
        ),
        "train_y must be \\[600\\]": (TRAIN_X, TRAIN_Y[1:], TEST_X, TEST_Y),
        "3 attributes and test_y 2": (TRAIN_X, TRAIN_Y, TEST_X, TEST_Y[:, :2]),
        r"shape is \(0, 3\)": (TRAIN_X[:0], TRAIN_Y[:0], TEST_X, TEST_Y),
        "same extractor": (TRAIN_X, TRAIN_Y, TEST_X[:, 1:], TEST_Y),
    }
    for message, data in cases.items():
        with pytest.raises(ValueError, match=message) as error:
            attribute_probe(*data, names=NAMES[: data[3].shape[1]] if len(data[3].shape) else None)
        assert "\n" not in str(error.value)


def test_settings_out_of_range_are_refused():
    for names in (["a", "b"], ["a", "b", "a"]):
        with pytest.raises(ValueError, match="names must be 3 different names"):
            attribute_probe(*DATA, names=names)
    with pytest.raises(ValueError, match="l2_values must hold"):
        attribute_probe(*DATA, l2_values=[0.0])
    with pytest.raises(ValueError, match=r"validation_fraction must be in \(0, 1\), but is 1"):
        attribute_probe(*DATA, validation_fraction=1)
    rare = np.zeros((600, 1), int)
    rare[0] = 1
    # All but one example choose the L2, and none of the ones is left to fit on.
    with pytest.raises(ValueError, match="the part of train_y that chooses the L2 has a single"):
        attribute_probe(TRAIN_X, rare, TEST_X, TEST_Y[:, :1], validation_fraction=0.999)
    with pytest.raises(ValueError, match="truth is 1 in all 2 examples"):
        binary_scores([1, 2], [1, 1])
    with pytest.raises(ValueError, match="logits holds NaN"):
        binary_scores([1, np.nan], [1, 0])
    with pytest.raises(ValueError, match="must both be"):
        binary_scores([1, 2, 3], [1, 0])
