"""Codes whose scores are known: perfect, rotated, noise; and tables small enough for paper."""

import json

import numpy as np
import pytest

from soda_jax.evaluation import disentanglement, factor_checks
from soda_jax.evaluation.disentanglement import (
    dimension_modularity,
    factor_vae,
    mig,
    modularity,
    sap,
)
from soda_jax.suites.disentanglement import shown_often

# Every combination of three factors with four values, ten times.
FACTORS = np.tile(np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 3), (10, 1))
PERFECT = FACTORS.astype(np.float64)
NOISE = np.random.default_rng(0).normal(size=PERFECT.shape)
# A reflection: orthogonal, and each of its dimensions mixes all three factors. A little noise, or
# the remainder of a division by 2/3 would still tell the factors apart.
ROTATION = np.eye(3) - 2 / 3
ROTATED = (PERFECT + 0.3 * NOISE) @ ROTATION
METRICS = {
    "mig": mig,
    "modularity": modularity,
    "sap": sap,
    "factor_vae": lambda codes, factors: factor_vae(codes, factors, num_train=600, num_eval=300),
}
metrics = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())


def test_a_dimension_for_each_factor_is_perfect():
    assert mig(PERFECT, FACTORS).score == pytest.approx(1, abs=1e-9)
    assert modularity(PERFECT, FACTORS).score == pytest.approx(1, abs=1e-9)
    result = METRICS["factor_vae"](PERFECT, FACTORS)
    assert result.score == 1 and result.parts == [1, 1, 1]
    assert np.all((np.array(result.matrix) > 0) == np.eye(3, dtype=bool))


def test_a_rotation_is_punished():
    assert mig(ROTATED, FACTORS).score < 0.2
    assert modularity(ROTATED, FACTORS).score < 0.7
    # With factor j fixed, the two dimensions that hold most of it vary equally little: a coin.
    assert 0.4 < METRICS["factor_vae"](ROTATED, FACTORS).score < 0.7


def test_noise_scores_near_nothing():
    assert mig(NOISE, FACTORS).score < 0.03
    # Its 20 x 4 counts show a little of each factor, by chance more of one than of another.
    wide = np.random.default_rng(1).normal(size=(len(FACTORS), 30))
    assert modularity(wide, FACTORS).score < 0.5
    assert METRICS["factor_vae"](NOISE, FACTORS).score < 0.45  # a guess has 1/3


def test_sap_of_two_valued_factors_goes_from_nothing_to_a_half():
    """The best dimension has accuracy 1, the next one knows nothing: 1/2."""
    halves = FACTORS // 2
    perfect = sap(halves.astype(float), halves)
    assert perfect.score == pytest.approx(0.5, abs=0.1)
    np.testing.assert_array_equal(np.diag(perfect.matrix), 1)
    assert sap(halves @ ROTATION, halves).score < 0.2
    assert sap(NOISE, halves).score < 0.1


def test_sap_balances_unequal_values():
    """Nine in ten are 0: to say 0 always is right half the time, not nine times in ten."""
    rng = np.random.default_rng(1)
    factor = (np.arange(1000) % 10 == 0).astype(int)[:, None]
    codes = np.stack([factor[:, 0] + 0.1 * rng.normal(size=1000), np.zeros(1000)], axis=1)
    result = sap(codes, factor)
    assert result.matrix[0][0] > 0.99 and result.matrix[1][0] == 0.5
    assert result.score == pytest.approx(0.5, abs=0.01)
    always_nought = np.zeros(len(factor), int)
    assert disentanglement._balanced_accuracy(always_nought, factor[:, 0]) == 0.5


def test_mig_of_a_table_worked_out_by_hand():
    """One dimension is the factor; the other differs in one of four examples."""
    factors = np.array([[0], [0], [1], [1]])
    codes = np.array([[0.0, 0], [0, 0], [1, 0], [1, 1]])
    result = mig(codes, factors, bins=2)
    # H(dimension 1) = .562335, of the pair 1.039721: I = .562335 + .693147 - 1.039721.
    np.testing.assert_allclose(result.matrix, [[0.693147], [0.215762]], atol=1e-6)
    assert result.score == pytest.approx((0.693147 - 0.215762) / 0.693147, abs=1e-6)


def test_mutual_information_is_scikit_learns():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    codes = np.concatenate([NOISE, FACTORS + NOISE], axis=1)
    ours = factor_checks.mutual_information(factor_checks.check(codes, FACTORS), 20)
    for i, row in enumerate(ours):
        # NumPy's own edges; the largest value falls into the last bin.
        edges = np.histogram_bin_edges(codes[:, i], 20)[1:-1]
        for k, value in enumerate(row):
            binned = np.digitize(codes[:, i], edges)
            assert value == pytest.approx(
                sklearn_metrics.mutual_info_score(binned, FACTORS[:, k]), abs=1e-9
            )


def test_modularity_of_a_matrix_worked_out_by_hand():
    information = [[2, 0, 0], [3, 3, 3], [0, 0, 0], [1, 2, 0], [1e-200, 0, 0]]
    parts = dimension_modularity(information)
    assert parts[:3] == [1, 0, None]
    assert parts[3] == pytest.approx(1 - 1 / (4 * 2))
    assert parts[4] == 1  # its square would be 0


def test_modularity_leaves_a_dead_dimension_out():
    codes = np.concatenate([PERFECT, np.full((len(PERFECT), 2), 0.1)], axis=1)
    result = modularity(codes, FACTORS)
    assert result.parts[3:] == [None, None] and result.score == pytest.approx(1)
    assert result.protocol["dimensions_left_out"] == 2


def test_factor_vae_drops_dead_dimensions_and_normalises_the_others():
    """Unnormalised, the small dimension of noise would vary least whatever is fixed."""
    dead = np.full((len(FACTORS), 1), 0.1, np.float32)
    codes = np.concatenate([dead, 1e-3 * NOISE[:, :1], PERFECT], axis=1)
    result = METRICS["factor_vae"](codes, FACTORS)
    assert result.score == 1
    assert not np.any(result.matrix[:2])
    assert np.sum(result.matrix) == 600


@metrics
def test_order_scale_and_the_names_of_values_mean_nothing(metric):
    codes = FACTORS + 0.5 * NOISE
    expected = metric(codes, FACTORS)
    order = [2, 0, 1]
    # Powers of two, so that the bins' edges move without rounding.
    scaled = metric((codes * np.array([[4.0, 1 / 8, 2.0]]))[:, order], FACTORS)
    assert scaled.score == pytest.approx(expected.score, abs=1e-9)
    np.testing.assert_allclose(scaled.matrix, np.array(expected.matrix)[order], atol=1e-9)
    # Another order of the values, and gaps between them.
    renamed = metric(codes, np.array([70, -5, 9, 8])[FACTORS])
    assert renamed.score == pytest.approx(expected.score, abs=1e-9)


@metrics
def test_results_are_json_and_depend_on_the_seed_alone(metric):
    result = metric(ROTATED, FACTORS)
    assert json.loads(json.dumps(result._asdict())) == result._asdict()
    assert metric(ROTATED, FACTORS) == result
    assert result.protocol["examples"] == 640 and result.protocol["factor_values"] == [4, 4, 4]


def test_other_seeds_are_other_draws():
    small = dict(num_train=100, num_eval=100)
    a, b = (factor_vae(NOISE, FACTORS, seed=seed, **small) for seed in (0, 1))
    assert a.matrix != b.matrix
    assert sap(NOISE, FACTORS // 2).matrix != sap(NOISE, FACTORS // 2, seed=1).matrix


HOSTILE = {
    "holds NaN": (np.where(PERFECT == 0, np.nan, PERFECT), FACTORS),
    "holds NaN or infinity": (np.where(PERFECT == 0, np.inf, PERFECT), FACTORS),
    "same in every example": (np.full((640, 3), 0.1, np.float32), FACTORS),
    "640 examples and factors has 639": (PERFECT, FACTORS[1:]),
    r"shape is \(0, 3\)": (PERFECT[:0], FACTORS[:0]),
    r"codes must be \[examples, dim.*\(640,\)": (PERFECT[:, 0], FACTORS),
    r"factors must be \[examples, fac.*\(640,\)": (PERFECT, FACTORS[:, 0]),
    "integers, not float64": (PERFECT, PERFECT),
    "real numbers, not complex": (PERFECT * 1j, FACTORS),
    "factor 1 is 7 in every example": (PERFECT, np.where([[False, True, False]], 7, FACTORS)),
}


@metrics
@pytest.mark.parametrize(("message", "data"), HOSTILE.items(), ids=range(len(HOSTILE)))
def test_hostile_input_is_refused_in_words(metric, message, data):
    with pytest.raises(ValueError, match=message) as error:
        metric(*data)
    assert "\n" not in str(error.value)


def test_what_cannot_be_compared_is_refused():
    for metric in (mig, sap):
        with pytest.raises(ValueError, match="1 dimensions, but this metric compares 2"):
            metric(PERFECT[:, :1], FACTORS)
    for metric in (modularity, factor_vae):
        with pytest.raises(ValueError, match="1 columns, but this metric compares 2"):
            metric(PERFECT, FACTORS[:, :1])
    with pytest.raises(ValueError, match="20 bins need as many examples or more, but there are 12"):
        mig(PERFECT[::54], FACTORS[::54])
    with pytest.raises(ValueError, match="bins must be at least 2"):
        mig(PERFECT, FACTORS, bins=1)
    with pytest.raises(ValueError, match="tells of any factor"):
        modularity(
            np.arange(16)[:, None] // 8, np.indices((2, 4, 2)).reshape(3, -1).T[:, 1:], bins=2
        )
    with pytest.raises(ValueError, match="finite numbers from 0"):
        dimension_modularity([[1, np.nan]])
    with pytest.raises(ValueError, match="two factors or more"):
        dimension_modularity([[1], [2]])


def test_fewer_examples_than_values_are_refused():
    """Each example has its own value: what is held out was never shown."""
    factors = np.stack([np.arange(640), FACTORS[:, 0]], axis=1)
    with pytest.raises(ValueError, match="factor 0 takes 640 values, and the 480 examples"):
        sap(PERFECT, factors)
    with pytest.raises(ValueError, match="factor 0 has a value that one example shows alone"):
        factor_vae(PERFECT, factors)
    with pytest.raises(ValueError, match="leaves a part without any"):
        sap(PERFECT[:8], FACTORS[:8, [0, 2]] % 2, test_fraction=0.01)
    for fraction in (0, 1, np.nan):
        with pytest.raises(ValueError, match=r"test_fraction must be in \(0, 1\)"):
            sap(PERFECT, FACTORS, test_fraction=fraction)
    with pytest.raises(ValueError, match="c must be above 0"):
        sap(PERFECT, FACTORS, c=0)
    with pytest.raises(ValueError, match="batch_size must be at least 2, but is 1"):
        factor_vae(PERFECT, FACTORS, batch_size=1)
    with pytest.raises(ValueError, match="num_eval must be at least 1"):
        factor_vae(PERFECT, FACTORS, num_eval=0)


def test_varying_factors_are_those_with_two_values():
    factors = np.concatenate([np.zeros((640, 1), int), FACTORS, np.full((640, 1), 3)], axis=1)
    np.testing.assert_array_equal(factor_checks.varying_factors(factors), [1, 2, 3])
    with pytest.raises(ValueError, match="must be integers"):
        factor_checks.varying_factors(factors / 2)


def test_split_is_disjoint_and_of_the_size_that_was_asked():
    data = factor_checks.check(PERFECT, FACTORS)
    train, test = factor_checks.split(data, 0.25, 200, seed=0)
    assert (len(train), len(test)) == (150, 50) and not set(train) & set(test)
    assert max(test) > 400 and max(train) > 400  # drawn from all of them
    again = factor_checks.split(data, 0.25, 200, seed=0)
    other = factor_checks.split(data, 0.25, 200, seed=1)
    np.testing.assert_array_equal(test, again[1])
    assert set(test) != set(other[1])


def test_pictures_with_a_rare_value_are_left_out_unless_many_would_be():
    factors = np.stack([np.arange(500) % 5, np.arange(500) % 2], axis=1)
    assert shown_often(factors).all()
    factors[3, 0] = 9
    often = shown_often(factors)
    assert not often[3] and often.sum() == 499
    assert shown_often(np.arange(500)[:, None]).all()  # a factor that never repeats says so itself
