import numpy as np
import pytest

from soda_jax.applications.directions import (
    label_direction,
    modulation_directions,
    principal_directions,
    random_directions,
)

RNG = np.random.default_rng(0)
BASIS = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
SCALES = np.array([5.0, 3, 1, 0.5, 0.2, 0.1])
Z = (RNG.normal(size=(4000, 6)) * SCALES) @ BASIS.T + 7


def test_principal_directions_are_where_codes_vary_most():
    found = principal_directions(Z, 3)
    np.testing.assert_allclose(np.abs(found.vectors @ BASIS[:, :3]), np.eye(3), atol=0.05)
    np.testing.assert_allclose(found.deviations, SCALES[:3], rtol=0.05)
    np.testing.assert_allclose(np.sqrt(found.strengths), SCALES[:3], rtol=0.05)
    again = principal_directions(Z[::-1], 3)
    np.testing.assert_allclose(again.vectors, found.vectors, atol=1e-5)


def test_directions_of_a_section_stay_inside_it():
    found = principal_directions(Z, 2, section=1, section_sizes=(2, 3, 1))
    assert not found.vectors[:, [0, 1, 5]].any()
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-5)
    inner = principal_directions(Z[:, 2:5], 2)
    np.testing.assert_allclose(found.vectors[:, 2:5], inner.vectors, atol=1e-5)


def test_modulation_directions_are_the_singular_vectors_of_the_weights():
    """Two sections of three: the second dimension of the first moves block a the most."""
    kernel_a = np.zeros((3, 4))
    kernel_a[1, 2] = 6.0
    kernel_a[0, 0] = 1.0
    kernel_b = np.zeros((3, 4))
    kernel_b[2, 1] = 3.0
    params = {
        name: {"modulation": {"code": {"kernel": kernel}}}
        for name, kernel in (("a", kernel_a), ("b", kernel_b))
    }
    z = RNG.normal(size=(50, 6))
    z = (z - z.mean(axis=0)) / z.std(axis=0)  # of deviation 1: the weights alone decide
    found = modulation_directions(z, params, {"a": 0, "b": 1}, (3, 3), 3)
    np.testing.assert_allclose(found.vectors, np.eye(6)[[1, 5, 0]], atol=1e-6)
    np.testing.assert_allclose(found.strengths, [6, 3, 1], rtol=1e-6)
    with pytest.raises(ValueError, match="no block 'c'"):
        modulation_directions(z, params, {"c": 0}, (3, 3), 3)
    # A dimension that varies more moves more.
    wide = modulation_directions(z * [1, 1, 1, 1, 1, 10], params, {"a": 0, "b": 1}, (3, 3), 1)
    np.testing.assert_allclose(wide.vectors, np.eye(6)[[5]], atol=1e-6)


def test_a_label_is_found_where_noise_is_small_not_where_the_means_are_far():
    labels = RNG.integers(0, 2, 500)
    z = RNG.normal(size=(500, 2)) * [10, 0.1]
    z[:, 1] += labels
    z[:, 0] += labels
    found = label_direction(z, labels)
    assert found.vectors[0, 1] > 0.99  # from 0 to 1, not the other way round
    few = np.concatenate([np.flatnonzero(labels == value)[:5] for value in (0, 1)])
    assert label_direction(z[few], labels[few]).vectors[0, 1] > 0.9
    flipped = label_direction(z, 1 - labels)
    np.testing.assert_allclose(flipped.vectors, -found.vectors, atol=1e-6)


def test_random_directions_are_seeded_and_of_length_one():
    found = random_directions(Z, 4, seed=3)
    np.testing.assert_array_equal(found.vectors, random_directions(Z, 4, seed=3).vectors)
    assert (found.vectors != random_directions(Z, 4, seed=4).vectors).any()
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: principal_directions(Z, 7), "there are 6 directions"),
        (lambda: principal_directions(Z * 0 + 0.1, 1), "all codes are equal"),
        (lambda: principal_directions(Z[0], 1), "two codes or more"),
        (lambda: principal_directions(Z, 1, section=3, section_sizes=(2, 3, 1)), "there is no 3"),
        (lambda: label_direction(Z, np.ones(4000, int)), "both must occur"),
        (lambda: label_direction(Z, np.arange(4000)), "must be 0 and 1"),
        (lambda: label_direction(Z, np.arange(4000) % 2, ridge=0), "ridge must be above 0"),
    ],
)
def test_what_has_no_answer_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
