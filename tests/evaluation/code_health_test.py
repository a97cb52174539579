import numpy as np
import pytest

from soda_jax.evaluation.code_health import dimension_std, effective_rank


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
