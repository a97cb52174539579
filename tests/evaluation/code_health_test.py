import numpy as np
import pytest

from soda_jax.evaluation.code_health import (
    alignment,
    dimension_std,
    effective_rank,
    section_correlation,
    section_energy,
    spectrum,
    uniformity,
)

RANDOM = np.random.default_rng(0)


def orthonormal(rows, columns, seed=0):
    """Columns that are orthonormal and of mean zero."""
    draws = np.random.default_rng(seed).normal(size=(rows, columns))
    return np.linalg.qr(draws - draws.mean(axis=0)[None])[0]


@pytest.mark.parametrize("rank", [1, 3, 16])
def test_k_equal_directions_have_rank_k(rank):
    rotation = orthonormal(32, rank, seed=1).T
    z = 5 + orthonormal(500, rank) @ rotation  # the mean is no direction
    assert effective_rank(z) == pytest.approx(rank, rel=1e-6)


def test_isotropic_codes_nearly_fill_the_space():
    z = np.random.default_rng(0).normal(size=(20_000, 16)).astype(np.float32)
    assert 15.9 < effective_rank(z) <= 16


def test_unequal_directions_follow_the_entropy():
    z = orthonormal(100, 2) * np.array([[3.0, 1.0]])
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert effective_rank(z) == pytest.approx(expected, rel=1e-9)


def test_a_constant_code_has_rank_zero():
    assert effective_rank(np.full((50, 8), 0.1, np.float32)) == 0
    assert dimension_std(np.full((50, 8), 0.5))["dead"] == 1


def test_dimension_std():
    z = orthonormal(100, 4) * np.array([[10.0, 20.0, 30.0, 0.1]])
    summary = dimension_std(z)
    assert summary["min"] == pytest.approx(0.01)
    assert summary["median"] == pytest.approx(1.5)
    assert summary["max"] == pytest.approx(3.0)
    assert summary["dead"] == 0.25


def test_bad_codes_are_refused_in_words():
    with pytest.raises(ValueError, match=r"\[n z\] with two codes"):
        effective_rank(np.zeros((1, 8)))
    with pytest.raises(ValueError, match="NaN"):
        dimension_std(np.full((4, 4), np.nan))


def test_spectrum_of_known_variances():
    z = np.array([[3, 0, 0], [-3, 0, 0], [0, 1, 0], [0, -1, 0]]) + 5.0
    found = spectrum(z)
    np.testing.assert_allclose(found["shares"], [0.9, 0.1, 0.0], atol=1e-12)
    assert found["dimensions"] == {"50 %": 1, "90 %": 1, "99 %": 2}
    np.testing.assert_allclose(section_energy(z, (1, 2)), [0.9, 0.1])


def test_sections_are_alike_whatever_their_rotation_and_scale():
    x = RANDOM.normal(size=(4000, 3))
    turned = 7 * x @ np.linalg.qr(RANDOM.normal(size=(3, 3)))[0] + 1
    other = RANDOM.normal(size=(4000, 2))
    found = section_correlation(np.concatenate([x, turned, other], axis=1), (3, 3, 2))
    np.testing.assert_allclose(found, [[1, 1, 0], [1, 1, 0], [0, 0, 1]], atol=0.01)
    by_hand = section_correlation([[1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], (1, 1))
    np.testing.assert_allclose(by_hand[0][1], 0.25)  # a squared correlation of .5
    constant = section_correlation(np.concatenate([x, np.ones((4000, 1))], axis=1), (3, 1))
    assert constant[0][1] == constant[1][1] == 0


def test_alignment_by_hand():
    x = np.array([[2.0, 0], [0, 3]])
    assert alignment(x, x) == 0
    np.testing.assert_allclose(alignment(x, [[-1.0, 0], [0, 1]]), 2.0)  # (4 + 0) / 2
    np.testing.assert_allclose(alignment(x, [[-1.0, 0], [0, 1]], alpha=1), 1.0)


def test_uniformity_is_that_of_all_pairs():
    x = RANDOM.normal(size=(1500, 4))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    squares = np.square(unit[:, None] - unit[None]).sum(-1)
    pairs = np.exp(-2 * squares)[np.triu_indices(len(x), 1)]
    np.testing.assert_allclose(uniformity(x), np.log(pairs.mean()), rtol=1e-9)
    np.testing.assert_allclose(uniformity([[1.0, 0], [-3.0, 0]]), -8.0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: spectrum(np.ones((5, 2))), "all codes are equal"),
        (lambda: spectrum(np.ones((1, 2))), "two codes or more"),
        (lambda: spectrum([[np.nan], [0.0]]), "NaN or infinity"),
        (lambda: section_energy(np.full((5, 2), 0.1), (1, 1)), "all codes are equal"),
        (lambda: spectrum(np.eye(3)), "more codes than dimensions, but it has 3 codes of 3"),
        (lambda: section_correlation(np.eye(3), (1, 2)), "more codes than dimensions"),
        (lambda: section_energy(np.eye(3), (1, 1)), "sum to 3"),
        (lambda: alignment(np.eye(3), np.eye(2)), "one shape"),
        (lambda: uniformity(np.zeros((3, 2))), "a code of zeros"),
    ],
)
def test_what_is_not_defined_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
