import functools
import json

import numpy as np
import pytest

from soda_jax.evaluation.frechet import Moments, frechet_distance, kid, merge, moments


def white(n, d, seed=0):
    """Samples [n d] whose mean is 0 and whose covariance (n - 1) is the identity."""
    draws = np.random.default_rng(seed).normal(size=(n, d))
    return np.linalg.qr(draws - draws.mean(axis=0)[None])[0] * np.sqrt(n - 1)


def random_covariance(d, seed, rank=None):
    factor = np.random.default_rng(seed).normal(size=(d, rank or 2 * d))
    return factor @ factor.T / factor.shape[1]


def test_gaussians_of_one_dimension():
    """(m_x - m_y)^2 + (s_x - s_y)^2: 2^2 + (3 - 5)^2."""
    z = white(50, 1)
    assert frechet_distance(3 * z + 1, 5 * z[::-1] - 1).value == pytest.approx(8, rel=1e-9)


def test_a_shift_of_the_mean_counts_its_square_and_nothing_else():
    x = white(100, 4) @ random_covariance(4, seed=1)
    shift = np.array([[3.0, 0, -4, 0]])
    assert all(0 <= frechet_distance(x[i:], x[i:]).value < 1e-9 for i in range(20))
    assert frechet_distance(x, x + shift).value == pytest.approx(25, rel=1e-9)
    assert frechet_distance(x, np.random.default_rng(0).permutation(x)).value < 1e-9


def test_commuting_covariances():
    """Of one set of axes: sum of (sqrt a - sqrt b)^2, in any rotation."""
    a, b = np.array([4.0, 9, 1, 0.25]), np.array([1.0, 16, 1, 0])
    expected = (2 - 1) ** 2 + (3 - 4) ** 2 + 0 + 0.5**2
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
    mean = np.zeros(4)
    for turn in (np.eye(4), rotation):
        x, y = (mean, turn @ np.diag(a) @ turn.T), (mean, turn @ np.diag(b) @ turn.T)
        assert frechet_distance(x, y).value == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_random_covariances_against_the_root_of_the_product(seed):
    linalg = pytest.importorskip("scipy.linalg")
    x, y = random_covariance(12, seed), random_covariance(12, seed + 10)
    mean = np.random.default_rng(seed).normal(size=12)
    root = linalg.sqrtm(x @ y)
    expected = mean @ mean + np.trace(x) + np.trace(y) - 2 * np.trace(root).real
    distance = frechet_distance((mean, x), (np.zeros(12), y)).value
    assert distance == pytest.approx(expected, rel=1e-9)
    assert frechet_distance((np.zeros(12), y), (mean, x)).value == pytest.approx(distance)


def test_features_and_their_statistics_give_the_same():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)), rng.normal(size=(70, 5)) ** 3
    whole = frechet_distance(x, y)
    given = frechet_distance((x.mean(0), np.cov(x.T)), (y.mean(0), np.cov(y.T)))
    assert given.value == pytest.approx(whole.value, rel=1e-9)
    assert (whole.protocol["x_examples"], whole.protocol["y_examples"]) == (60, 70)
    assert given.protocol["x_examples"] is None
    assert json.loads(json.dumps(whole.protocol)) == whole.protocol


def test_merged_moments_are_those_of_the_whole():
    """Far from 0, where the sum of squares less the square of the sum would lose the digits."""
    x = (1e4 + np.random.default_rng(0).normal(size=(1003, 6))).astype(np.float32)
    merged = functools.reduce(merge, map(moments, np.split(x, [1, 4, 500, 900])))
    assert isinstance(merged, Moments) and merged.count == 1003
    np.testing.assert_allclose(merged.mean, x.astype(float).mean(0), rtol=1e-13)
    expected = np.cov(x.astype(float).T)
    np.testing.assert_allclose(merged.scatter / 1002, expected, rtol=1e-9, atol=1e-9)
    y = x[:400] + 1
    assert frechet_distance(merged, y).value == pytest.approx(
        frechet_distance(x, moments(y)).value, rel=1e-6
    )


def test_few_samples_are_refused_or_written_down():
    x, y = white(5, 4, seed=0), white(40, 4, seed=1)
    assert frechet_distance(x, y).protocol["few"] is None
    with pytest.raises(ValueError, match="4 samples of 4 features.* needs 5: .*allow_few=True"):
        frechet_distance(x[:4], y)
    with pytest.raises(ValueError, match="y has 4 samples"):
        frechet_distance(y, x[:4])
    few = frechet_distance(x[:4], y, allow_few=True)
    assert "4 samples of 4 features" in few.protocol["few"]
    with pytest.raises(ValueError, match="x has one sample"):
        frechet_distance(x[:1], y, allow_few=True)


def test_covariances_without_full_rank_stay_exact():
    """Three samples of 200 features against their copy, and against the orthogonal directions."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(200, 4)))[0].T
    z = white(3, 2)
    x, y = z @ basis[:2], z @ basis[2:]
    assert frechet_distance(x, x, allow_few=True).value < 1e-9
    # No direction in common: the traces, 2 each, are added.
    assert frechet_distance(x, y, allow_few=True).value == pytest.approx(4, rel=1e-9)


def test_hostile_features_are_refused_in_words():
    x = white(20, 3)
    cases = [
        (x * np.nan, "x holds NaN"),
        (x[:0], "x must be features"),
        (x[0], "x must be features"),
        (np.full((6, 3), 0.1), "x has the same features for every sample"),
        (np.zeros((20, 3)), "x has the same features for every sample"),
        (x[:, :2], "x has 2 features and y 3"),
        ((np.zeros(3), np.zeros((3, 3))), "covariance of x holds no variance"),
        ((np.zeros(3), np.eye(2)), "mean .* and a covariance"),
        ((np.zeros(3), np.eye(3), 1), "has 3 parts"),
        ((np.zeros(3), np.diag([1, 1, -1])), "eigenvalue of -1"),
        ((np.zeros(3), np.eye(3) + np.eye(3, k=1)), "not symmetric"),
        ((np.zeros(3), np.full((3, 3), np.inf)), "x holds NaN or infinity"),
    ]
    for bad, message in cases:
        with pytest.raises(ValueError, match=message):
            frechet_distance(bad, x)
    with pytest.raises(ValueError, match="moments of 3 and of 2 features"):
        merge(moments(x), moments(x[:, :2]))


def test_kid_by_hand():
    """Two samples of one feature: x is 0 and 1, y is 1 and 2; the kernel is (a b + 1)^3.

    Within x: k(0, 1) = 1, within y: k(1, 2) = 27, across: (1 + 1 + 8 + 27) / 4.
    """
    result = kid([[0.0], [1.0]], [[1.0], [2.0]], subsets=3, subset_size=2)
    assert result.value == pytest.approx(1 + 27 - 2 * 37 / 4)
    assert result.std == pytest.approx(0)
    # Twice the same features are the same numbers: the product is divided by d.
    double = kid([[0.0, 0], [1, 1]], [[1.0, 1], [2, 2]], subsets=1, subset_size=2)
    assert double.value == pytest.approx(9.5)
    assert double.std == 0


def test_kid_is_unbiased():
    """Of one distribution it is 0 on average; with samples paired with themselves it would not be.

    Independent sets, so that the standard error is known."""
    rng = np.random.default_rng(0)
    values = [
        kid(rng.normal(size=(20, 4)), rng.normal(size=(20, 4)), subsets=1, subset_size=20).value
        for _ in range(400)
    ]
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3.5 * error < 0.1
    far = kid(rng.normal(size=(50, 4)), rng.normal(size=(50, 4)) + 1, subsets=5, subset_size=40)
    assert far.value > 20 * error


def test_kid_depends_on_the_seed_alone():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(40, 3))
    result = kid(x, y, subsets=4, subset_size=10, seed=1)
    assert result == kid(x, y, subsets=4, subset_size=10, seed=1)
    assert result.value != kid(x, y, subsets=4, subset_size=10, seed=2).value
    assert result.std > 0
    assert json.loads(json.dumps(result.protocol)) == result.protocol


def test_kid_refuses_in_words():
    x = white(20, 3)
    with pytest.raises(ValueError, match="subset_size=1000 is too many: x has 20 samples and y 10"):
        kid(x, x[:10])
    with pytest.raises(ValueError, match="subset_size at least 2"):
        kid(x, x, subset_size=1)
    with pytest.raises(ValueError, match="x has 3 features and y 2"):
        kid(x, x[:, :2], subset_size=5)
    with pytest.raises(ValueError, match="y holds NaN"):
        kid(x, x * np.nan, subset_size=5)
