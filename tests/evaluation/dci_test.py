import json

import numpy as np
import pytest

from soda_jax.evaluation.dci import dci, dci_scores, section_informativeness

# Every combination of three factors with three values, twenty times.
FACTORS = np.tile(np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3), (20, 1))
RNG = np.random.default_rng(0)
PERFECT = FACTORS + 0.01 * RNG.normal(size=FACTORS.shape)
ROTATED = PERFECT @ (np.eye(3) - 2 / 3)  # orthogonal; each dimension mixes all factors
NOISE = RNG.normal(size=FACTORS.shape)


def test_scores_of_matrices_worked_out_by_hand():
    perfect = dci_scores(np.eye(2))
    assert (perfect.disentanglement, perfect.completeness) == (1, 1)
    nothing = dci_scores(np.full((3, 2), 0.5))
    assert nothing.disentanglement == pytest.approx(0, abs=1e-12)
    assert nothing.completeness == pytest.approx(0, abs=1e-12)
    # H_2(3/4, 1/4) = .811278 in each row and each column.
    symmetric = dci_scores([[3, 1], [1, 3]])
    np.testing.assert_allclose(symmetric.row_disentanglement, 0.188722, atol=1e-6)
    np.testing.assert_allclose(symmetric.factor_completeness, 0.188722, atol=1e-6)

    scores = dci_scores([[0.6, 0], [0.3, 0.2], [0.1, 0.8]])
    # Rows: H_2(1, 0) = 0, H_2(3/5, 2/5) = .970951, H_2(1/9, 8/9) = .503258; they weigh .6, .5, .9.
    np.testing.assert_allclose(scores.row_disentanglement, [1, 0.029049, 0.496742], atol=1e-6)
    assert scores.disentanglement == pytest.approx(0.3 + 0.25 * 0.029049 + 0.45 * 0.496742, 1e-5)
    # Columns: H_3(.6, .3, .1) = .817346, H_3(0, .2, .8) = .455486.
    np.testing.assert_allclose(scores.factor_completeness, [0.182654, 0.544514], atol=1e-5)
    assert scores.completeness == pytest.approx((0.182654 + 0.544514) / 2, abs=1e-5)


def test_what_matters_for_nothing_weighs_nothing():
    scores = dci_scores([[1, 0, 0], [0, 0, 1], [0, 0, 0]])
    assert (scores.disentanglement, scores.completeness) == (1, 1)
    assert scores.row_disentanglement == [1, 1, None]
    assert scores.factor_completeness == [1, None, 1]
    with pytest.raises(ValueError, match="not defined"):
        dci_scores(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="finite numbers from 0"):
        dci_scores([[1, -1], [0, 1]])
    with pytest.raises(ValueError, match="finite numbers from 0"):
        dci_scores([[1, np.nan], [0, 1]])
    with pytest.raises(ValueError, match=r"two or more of each, but its shape is \(1, 3\)"):
        dci_scores([[1, 2, 3]])


@pytest.mark.parametrize("predictor", ["trees", "lasso"])
def test_perfect_and_rotated_codes(predictor):
    perfect = dci(PERFECT, FACTORS, predictor=predictor)
    assert perfect.disentanglement > 0.97
    assert perfect.completeness > 0.97
    assert perfect.informativeness > 0.99
    np.testing.assert_array_equal(np.argmax(perfect.dimensions.importance, axis=0), [0, 1, 2])
    np.testing.assert_allclose(np.sum(perfect.dimensions.importance, axis=0), 1)

    rotated = dci(ROTATED, FACTORS, predictor=predictor)
    assert rotated.disentanglement < 0.3
    assert rotated.completeness < 0.3
    # A linear predictor turns the rotation back; trees need more steps for it.
    assert rotated.informativeness > (0.97 if predictor == "lasso" else 0.8)


def test_noise_is_at_chance_on_held_out_examples():
    """Trees learn 400 examples of noise by heart: only held-out ones can tell."""
    result = dci(NOISE, FACTORS, num_trees=40)
    assert result.disentanglement < 0.1 and result.completeness < 0.1
    assert result.informativeness < 0.45
    np.testing.assert_allclose(result.chance, 1 / 3, atol=0.08)


def test_an_l1_that_leaves_nothing_is_said_and_not_scored():
    with pytest.raises(ValueError, match="no part of the code matters for any factor"):
        dci(PERFECT, FACTORS, predictor="lasso", l1_values=[10.0])


def test_the_l1_is_chosen_where_it_predicts():
    result = dci(PERFECT, FACTORS, predictor="lasso", l1_values=[10.0, 1e-3])
    assert result.protocol["l1"] == [1e-3] * 3
    assert result.informativeness > 0.99


@pytest.mark.parametrize("predictor", ["trees", "lasso"])
def test_scale_and_order_mean_nothing(predictor):
    codes = FACTORS + 0.5 * NOISE
    options = dict(predictor=predictor, l1_values=[1e-2])
    expected = dci(codes, FACTORS, **options)
    order = [2, 0, 1]
    moved = dci((1e6 + 1e3 * codes * np.array([[1, 50, 0.02]]))[:, order], FACTORS, **options)
    assert moved.disentanglement == pytest.approx(expected.disentanglement, abs=0.02)
    assert moved.completeness == pytest.approx(expected.completeness, abs=0.02)
    np.testing.assert_allclose(
        moved.dimensions.importance, np.array(expected.dimensions.importance)[order], atol=0.02
    )


def two_dimensions_a_factor():
    """Three sections: the factor plus and minus a nuisance of its own."""
    nuisance = RNG.normal(size=FACTORS.shape)
    return np.stack([FACTORS + nuisance, FACTORS - nuisance], axis=2).reshape(len(FACTORS), 6)


def test_sections_can_be_disentangled_where_dimensions_are_not():
    codes = two_dimensions_a_factor()
    result = dci(codes, FACTORS, predictor="lasso", sections=(2, 2, 2))
    assert result.completeness < 0.7  # two dimensions a factor: 1 - log 2 / log 6
    assert result.sections.disentanglement > 0.95 and result.sections.completeness > 0.95
    summed = np.array(result.dimensions.importance).reshape(3, 2, 3).sum(axis=1)
    np.testing.assert_allclose(result.sections.importance, summed)
    assert result.protocol["section_sizes"] == [2, 2, 2]
    uneven = dci(codes, FACTORS, predictor="lasso", sections=(5, 1))
    expected = np.array(uneven.dimensions.importance)
    np.testing.assert_allclose(uneven.sections.importance, [expected[:5].sum(0), expected[5]])
    for sizes in ((3, 2), (6, 0), ()):
        with pytest.raises(ValueError, match="sum to the 6 dimensions"):
            dci(codes, FACTORS, sections=sizes)


def test_each_section_tells_its_factor():
    codes = np.concatenate([two_dimensions_a_factor(), np.full((len(FACTORS), 2), 0.1)], axis=1)
    accuracy, chance, protocol = section_informativeness(codes, (2, 2, 2, 2), FACTORS)
    np.testing.assert_allclose(chance, 1 / 3, atol=0.08)
    assert np.min(np.diag(accuracy)) > 0.97
    others = np.array(accuracy[:3])[~np.eye(3, dtype=bool)]
    assert np.max(others) < 0.48 and np.mean(others) < 0.4
    assert accuracy[3] == chance and protocol["constant_sections"] == [3]
    assert json.loads(json.dumps(protocol)) == protocol
    with pytest.raises(ValueError, match="sum to the 8 dimensions"):
        section_informativeness(codes, (2, 2), FACTORS)


def test_results_are_json_and_depend_on_the_seed_alone():
    result = dci(ROTATED, FACTORS, num_trees=2, sections=(2, 1))
    assert json.loads(json.dumps(result.protocol)) == result.protocol
    assert json.loads(json.dumps(result))[3][-1] == result.dimensions.importance
    assert dci(ROTATED, FACTORS, num_trees=2, sections=(2, 1)) == result
    assert dci(ROTATED, FACTORS, num_trees=2, sections=(2, 1), seed=1) != result
    assert result.protocol["train_examples"] == 405 and result.protocol["test_examples"] == 135
    few = dci(ROTATED, FACTORS, num_trees=2, max_examples=100)
    assert (few.protocol["train_examples"], few.protocol["examples"]) == (75, 540)


def test_hostile_input_is_refused_in_words():
    cases = {
        "holds NaN": (np.where(FACTORS == 0, np.nan, PERFECT), FACTORS, {}),
        "each of its dimensions is constant": (np.full((540, 3), 0.3), FACTORS, {}),
        "factor 0 is 0 in every example": (PERFECT, FACTORS * np.array([[0, 1, 1]]), {}),
        "540 examples and factors has 539": (PERFECT, FACTORS[1:], {}),
        r"shape is \(0, 3\)": (PERFECT[:0], FACTORS[:0], {}),
        "factor 0 takes 540 values": (PERFECT, np.arange(1080).reshape(540, 2), {}),
        "1 dimensions, but": (PERFECT[:, :1], FACTORS, {}),
        "1 columns, but": (PERFECT, FACTORS[:, :1], {}),
        'must be "trees" or "lasso", not "forest"': (PERFECT, FACTORS, {"predictor": "forest"}),
        "num_trees must be at least 1": (PERFECT, FACTORS, {"num_trees": 0}),
        "l1_values must hold numbers": (
            PERFECT,
            FACTORS,
            {"predictor": "lasso", "l1_values": [0.0]},
        ),
    }
    for message, (codes, factors, options) in cases.items():
        with pytest.raises(ValueError, match=message.replace('"forest"', "'forest'")) as error:
            dci(codes, factors, **options)
        assert "\n" not in str(error.value)
