import numpy as np
import pytest

from soda_jax.applications.codes import columns_of, cut_matrix, interpolate, mix, traverse

A, B = np.array([3.0, 0, 0, 1]), np.array([0, 4.0, 0, 1])
SIZES = (2, 1, 1)


def test_a_line_has_its_ends_and_equal_steps():
    line = interpolate(A, B, 5)
    np.testing.assert_array_equal(line[[0, -1]], [A, B])
    np.testing.assert_allclose(np.diff(line, axis=0), np.tile((B - A) / 4, (4, 1)), atol=1e-6)


def test_a_great_circle_turns_evenly_and_lengths_go_linearly():
    arc = interpolate([2.0, 0, 0], [0, 4.0, 0], 5, "spherical")
    lengths = np.linalg.norm(arc, axis=1)
    np.testing.assert_allclose(lengths, [2, 2.5, 3, 3.5, 4], rtol=1e-6)
    np.testing.assert_allclose(
        np.arctan2(arc[:, 1], arc[:, 0]), np.pi / 8 * np.arange(5), atol=1e-6
    )
    np.testing.assert_allclose(interpolate(A, 2 * A, 3, "spherical")[1], 1.5 * A, rtol=1e-6)


def test_a_mix_has_sections_of_both():
    np.testing.assert_array_equal(mix(A, B, [0], SIZES), [3, 0, 0, 1])
    np.testing.assert_array_equal(mix(A, B, [], SIZES), B)
    np.testing.assert_array_equal(mix(A, B, range(3), SIZES), A)
    np.testing.assert_array_equal(columns_of([0, 2], SIZES, 4), [True, True, False, True])


def test_the_matrix_of_cuts_goes_from_b_to_a():
    a, b = np.ones(4), np.zeros(4)
    codes = cut_matrix(a, b, SIZES)
    assert codes.shape == (4, 4, 4)
    np.testing.assert_array_equal(codes[range(4), range(4)], np.zeros((4, 4)))
    np.testing.assert_array_equal(codes[0, 3], a)
    np.testing.assert_array_equal(codes[3, 0], b)
    np.testing.assert_array_equal(codes[0, 1:], [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])
    np.testing.assert_array_equal(codes[1, 2], [0, 0, 1, 0])
    np.testing.assert_array_equal(codes + codes.swapaxes(0, 1) + np.eye(4)[:, :, None] > 0, True)


def test_a_traversal_passes_through_the_code():
    line = traverse(A, [0, 0, 2.0, 0], [-1, 0, 1])
    np.testing.assert_array_equal(line[:, 2], [-2, 0, 2])
    np.testing.assert_array_equal(line[1], A)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interpolate(A, B[:2], 5), "of one size"),
        (lambda: interpolate(A, B, 1), "at least 2"),
        (lambda: interpolate(A, B, 3, "round"), "allowed: linear, spherical"),
        (lambda: interpolate(A, 0 * B, 3, "spherical"), "no direction"),
        (lambda: interpolate(A, -A, 3, "spherical"), "opposite"),
        (lambda: mix(A, B, [3], SIZES), "sections are 0 to 2; there is no 3"),
        (lambda: mix(A, B, [-1], SIZES), "there is no -1"),
        (lambda: mix(A, B, [0], (2, 1)), "don't add up to a code of 4"),
        (lambda: mix(A * np.nan, B, [0], SIZES), "NaN"),
        (lambda: traverse(A, B, []), "one finite number or more"),
    ],
)
def test_what_has_no_answer_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
