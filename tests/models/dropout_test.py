"""Dropout: what share is zeroed, what the rest becomes, and that no value tells of another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.models.layers import Dropout


def drop(h, rate, train=True):
    return Dropout(rate).apply({}, h, train, rngs={"dropout": jax.random.key(0)})


@pytest.mark.parametrize("channels", [1, 7, 64])
def test_the_share_that_is_asked_for_is_zeroed_and_means_stay(channels):
    h = jnp.full((40_000 // channels, channels), 3.0)
    out = np.asarray(drop(h, 0.3))
    # Four standard deviations of a share of .3 among 40,000.
    assert abs((out == 0).mean() - 0.3) < 4 * (0.21 / out.size) ** 0.5
    np.testing.assert_allclose(out[out != 0], 3 / 0.7, rtol=1e-4)


def test_channels_that_share_a_word_are_independent():
    kept = np.asarray(drop(jnp.ones((40_000, 4)), 0.5)) > 0
    correlation = np.corrcoef(kept.T)
    assert np.abs(correlation - np.eye(4)).max() < 4 / 40_000**0.5


def test_outside_of_training_and_at_rate_0_nothing_changes():
    h = jnp.ones((2, 3), jnp.bfloat16)
    assert drop(h, 0.5, train=False) is h and drop(h, 0.0) is h
    assert drop(h, 0.5).dtype == h.dtype


def test_the_gradient_passes_where_the_value_did():
    h = jnp.ones((5, 8))
    out, gradient = jax.value_and_grad(lambda h: drop(h, 0.5).sum())(h)
    np.testing.assert_array_equal(gradient, drop(h, 0.5))
