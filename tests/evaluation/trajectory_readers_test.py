"""Readers of curves: what no single time tells, and what the order of times tells."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.evaluation.trajectory_readers import Recurrent, Transformer, positions, read_curve

OPTIONS = {"num_classes": 2, "num_epochs": 30, "rates": (1e-3,), "batch_size": 64}


def parity(count, seed):
    """The label is whether two times have the same sign: neither alone says anything."""
    random = np.random.RandomState(seed)
    signs = random.choice([-1.0, 1.0], size=(count, 2))
    x = np.stack([signs, random.normal(size=(count, 2))], axis=-1)
    return x.astype(np.float32), (signs.prod(1) > 0).astype(np.int32)


@pytest.mark.parametrize("reader", ["recurrent", "transformer"])
def test_the_whole_curve_tells_what_no_time_alone_does(reader):
    train, test = parity(800, 0), parity(400, 1)
    whole = read_curve(*train, *test, reader=reader, **OPTIONS)
    alone = read_curve(
        train[0][:, :1], train[1], test[0][:, :1], test[1], reader="one time", **OPTIONS
    )
    assert whole.accuracy > 0.95
    assert alone.accuracy < 0.62
    assert 1 <= whole.protocol["epoch"] <= 30


def test_the_transformer_applies_one_block_twice():
    """It has the parameters of one block, by the published sizes, and calls each part two times."""
    init = partial(Transformer(10).init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 5, 128)))
    found = sum(leaf.size for leaf in jax.tree.leaves(params))
    embed, head, token = 128 * 256 + 256, 256 * 10 + 10, 256
    block = 4 * (256 * 256 + 256) + 2 * 512 + (256 * 512 + 512) + (512 * 256 + 256)
    assert found == embed + head + token + block
    x = jnp.ones((1, 3, 8))
    reader = Transformer(2)
    variables = jax.jit(reader.init, static_argnums=2)(jax.random.key(0), x, False)
    _, seen = reader.apply(variables, x, False, capture_intermediates=True)
    for part in ("attention", "norm0", "norm1", "wide", "narrow"):
        assert len(seen["intermediates"][part]["__call__"]) == 2, part


def test_readers_know_the_order():
    x = jax.random.normal(jax.random.key(0), (3, 4, 6))
    for reader in (Recurrent(2), Transformer(2)):
        variables = jax.jit(reader.init, static_argnums=2)(jax.random.key(1), x, False)
        one, other = (reader.apply(variables, y, False) for y in (x, x[:, ::-1]))
        assert np.abs(one - other).max() > 1e-3
    by_hand = [np.sin(2), np.cos(2), np.sin(0.02), np.cos(0.02)]
    np.testing.assert_allclose(positions(3, 4)[2], by_hand, rtol=1e-5)


def test_what_can_t_be_read_is_named():
    x, y = parity(40, 0)
    with pytest.raises(ValueError, match="no reader 'lstm'"):
        read_curve(x, y, x, y, reader="lstm", num_classes=2)
    with pytest.raises(ValueError, match="reads one code, not 2"):
        read_curve(x, y, x, y, reader="one time", num_classes=2)
