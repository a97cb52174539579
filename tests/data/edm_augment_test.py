"""EDM's augmentation: the label says what was done, and 0 says that nothing was."""

import jax
import jax.numpy as jnp
import numpy as np

from soda_jax.data.edm_augment import LABELS, edm_augment


def pictures(n, size=9):
    return jax.random.uniform(jax.random.key(1), (n, size, size, 3))


def augmented(images, prob, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(images))
    x, labels = jax.jit(edm_augment, static_argnums=2)(keys, images, prob)
    return np.asarray(x), np.asarray(labels)


def test_without_the_others_half_are_mirrored_and_the_label_says_which():
    images = pictures(400)
    x, labels = augmented(images, 0.0)
    assert labels.shape == (400, LABELS) and not labels[:, 1:].any()
    mirrored = labels[:, 0] == 1
    assert 0.4 < mirrored.mean() < 0.6
    np.testing.assert_allclose(x[~mirrored], images[~mirrored], atol=1e-5)
    np.testing.assert_allclose(x[mirrored], images[mirrored, :, ::-1], atol=1e-5)


def test_each_operation_happens_as_often_as_it_should_and_as_it_should():
    _, labels = augmented(pictures(20_000, size=2), 0.3)
    happened = labels != 0
    rates = [0.5, 0.15, 0.3, 0.3, 0.3, 0.3, 0.15, 0.3, 0.3]  # half of the squeezes have no axis
    np.testing.assert_allclose(happened.mean(0), rates, atol=0.015)
    for column in (2, 7, 8):
        np.testing.assert_allclose(labels[happened[:, column], column].std(), 1.0, atol=0.03)
    cos, sin = labels[happened[:, 4], 3] + 1, labels[happened[:, 4], 4]
    np.testing.assert_allclose(cos**2 + sin**2, 1.0, atol=1e-5)
    assert abs(cos.mean()) < 0.03 and abs(sin.mean()) < 0.03


def test_pictures_are_changed_as_the_label_says():
    """A bright spot is where the label's map takes it."""
    size, middle = 33, 16
    image = np.zeros((size, size, 1), np.float32)
    image[middle - 4, middle + 6] = 1.0  # 6 right of the middle, 4 above it
    image = np.asarray(jax.scipy.signal.convolve(image[..., 0], jnp.ones((3, 3)), mode="same"))
    x, labels = augmented(jnp.asarray(np.tile(image[None, ..., None], (300, 1, 1, 1))), 0.5)
    rows, columns = np.mgrid[:size, :size] - middle
    checked = 0
    for one, label in zip(x[..., 0], labels, strict=True):
        flip_x, flip_y, scale, cos, sin, squeeze_cos, squeeze_sin, move_x, move_y = label
        spot = np.array([6.0 * (1 - 2 * flip_x), -4.0 * (1 - 2 * flip_y)]) * 2 ** (0.2 * scale)
        spot = np.array([[cos + 1, sin], [-sin, cos + 1]]) @ spot
        squeeze, axis = np.hypot(squeeze_cos, squeeze_sin), np.arctan2(squeeze_sin, squeeze_cos)
        turn = np.array([[np.cos(axis), -np.sin(axis)], [np.sin(axis), np.cos(axis)]])
        move = 0.125 * size * np.array([move_x, move_y])
        # EDM's label doesn't tell a squeeze along an axis from a stretch along its other end.
        stretches = (turn.T @ np.diag([2 ** (0.2 * s), 2 ** (-0.2 * s)]) @ turn
                     for s in (squeeze, -squeeze))  # fmt: skip
        spots = [stretch @ spot + move for stretch in stretches]
        if np.abs(spots).max() < 12:
            # Near it alone: beyond the edge there is the mirror's spot.
            near = [one * (np.hypot(columns - x, rows - y) < 4) for x, y in spots]
            found = [np.array([(w * columns).sum(), (w * rows).sum()]) / w.sum() for w in near]
            apart = [np.abs(f - expected).max() for f, expected in zip(found, spots, strict=True)]
            assert np.nanmin(apart) < 0.3
            checked += 1
    assert checked > 150
