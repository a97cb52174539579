"""The code and its sections."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.models import bottleneck


@pytest.mark.parametrize(("z_size", "num_sections"), [(128, 13), (7, 7), (129, 10), (31, 4)])
def test_sections_tile_z_and_differ_by_at_most_one(z_size, num_sections):
    sizes = bottleneck.section_sizes(z_size, num_sections)
    assert len(sizes) == num_sections and sum(sizes) == z_size
    assert max(sizes) - min(sizes) <= 1
    z = jnp.arange(float(z_size))[None]
    parts = bottleneck.split_sections(z, num_sections)
    assert tuple(part.shape[1] for part in parts) == sizes
    np.testing.assert_array_equal(jnp.concatenate(parts, axis=1), z)


def test_more_sections_than_dimensions_is_refused():
    with pytest.raises(ValueError, match="z_size 5 .* 6 sections"):
        bottleneck.section_sizes(5, 6)


def test_a_mask_zeroes_its_sections_and_no_other():
    z = jnp.ones((2, 11))
    mask = jnp.asarray([[True, False, True], [False, True, True]])
    masked = bottleneck.mask_sections(z, mask)
    for example in range(2):
        for part, keep in zip(bottleneck.split_sections(masked, 3), mask[example], strict=True):
            np.testing.assert_array_equal(part[example], float(keep))


def test_masks_are_drawn_per_example_and_per_section_at_their_rates():
    b, num_sections, section_rate, latent_rate = 20_000, 6, 0.2, 0.3
    mask = np.asarray(
        bottleneck.draw_section_mask(jax.random.key(0), b, num_sections, section_rate, latent_rate)
    )
    all_dropped = latent_rate + (1 - latent_rate) * section_rate**num_sections
    assert abs((~mask).all(1).mean() - all_dropped) < 0.01
    # Given that z as a whole is kept, sections fall independently at their own rate.
    kept = mask[mask.any(1)]
    np.testing.assert_allclose((~kept).mean(0), section_rate, atol=0.015)
    correlation = np.corrcoef(kept.T) - np.eye(num_sections)
    assert np.abs(correlation).max() < 0.03
    # Neighbouring examples don't share a draw.
    assert abs(np.corrcoef(mask[:-1, 0], mask[1:, 0])[0, 1]) < 0.03


def test_nothing_is_dropped_at_evaluation_or_at_rate_zero():
    z = jax.random.normal(jax.random.key(0), (64, 12))
    dropping = bottleneck.Bottleneck(4, section_drop_rate=0.9, latent_drop_rate=0.9)
    np.testing.assert_array_equal(dropping.apply({}, z), z)
    keys = {"bottleneck": jax.random.key(1)}
    assert (dropping.apply({}, z, train=True, rngs=keys) != z).any()
    keeping = bottleneck.Bottleneck(4, section_drop_rate=0.0, latent_drop_rate=0.0)
    np.testing.assert_array_equal(keeping.apply({}, z, train=True, rngs=keys), z)


def test_a_callers_mask_acts_at_evaluation_too():
    z = jnp.ones((1, 8))
    out = bottleneck.Bottleneck(2).apply({}, z, jnp.asarray([[False, True]]))
    np.testing.assert_array_equal(out, [[0, 0, 0, 0, 1, 1, 1, 1]])


def test_what_is_not_predicted_counts_in_shares_of_what_there_is_to_tell():
    z, noise = jax.random.normal(jax.random.key(3), (2, 4000, 3))
    scaled = z * jnp.array([[0.1, 1.0, 50.0]]) + 5  # no dimension is louder than another
    found = bottleneck.unpredicted(jnp.zeros_like(z), scaled)
    np.testing.assert_allclose(found, 1, atol=1e-3)
    found = bottleneck.unpredicted(z.at[:, 1].add(0.5 * noise[:, 1]), scaled)
    np.testing.assert_allclose(found, [0, 0.25, 0], atol=0.02)


def test_redundancy_counts_what_views_do_not_share_and_what_is_said_twice():
    own, change = jax.random.normal(jax.random.key(2), (2, 4000, 4))
    own = own.at[:, 3].set(own[:, 0])
    other = own + jnp.array([[0.0, 1.0, 1000.0, 0.0]]) * change
    z = jnp.stack([own, other], axis=1).reshape(8000, 4)
    found = bottleneck.redundancy(z)
    # The correlations with themselves are 1, 1 / sqrt 2, 0 and 1; the first and last are the same.
    np.testing.assert_allclose(found, [1 / 4, (1 - 0.5**0.5) ** 2, 1, 1 / 4], atol=0.08)
    np.testing.assert_allclose(bottleneck.redundancy(0.1 * z + 5), found, rtol=1e-2)
    c = np.corrcoef(own.T, other.T)[:4, 4:]
    by_hand = np.where(np.eye(4) > 0, np.square(1 - c), np.square(c) / 4).sum(1)
    np.testing.assert_allclose(found, by_hand, atol=1e-4)
