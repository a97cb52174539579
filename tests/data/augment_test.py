"""Augmentations: identities at the ends of their ranges, rates in between, one key a picture."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.data import augment, rand_augment

SCALE, RATIO = (0.2, 1.0), (0.75, 4 / 3)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def pictures(n, size=8, c=3, seed=0):
    return jax.random.uniform(jax.random.key(seed + 100), (n, size, size, c))


OPERATIONS = {
    "crop": lambda k, x: augment.random_resized_crop(k, x, 8, SCALE, RATIO, 0.9),
    "flip": lambda k, x: augment.random_flip(k, x, 0.5),
    "jitter": lambda k, x: augment.color_jitter(k, x, (0.4, 0.4, 0.4, 0.1), 0.8),
    "grayscale": lambda k, x: augment.random_grayscale(k, x, 0.5),
    "rand_augment": lambda k, x: rand_augment.rand_augment(k, x, 2, 9.0, 0.9),
    "noise": lambda k, x: augment.gaussian_noise(k, x, 0.1),
}


@pytest.mark.parametrize(
    ("name", "c"),
    [(name, 3) for name in OPERATIONS] + [("crop", 1), ("jitter", 1), ("rand_augment", 1)],
)
def test_a_picture_depends_on_its_own_key_alone(name, c):
    x, k = pictures(8, c=c), keys(8)
    operation = jax.jit(OPERATIONS[name])
    together = operation(k, x)
    assert together.shape == x.shape and together.dtype == jnp.float32
    # The same pictures in another order, among others: the same results.
    order = jnp.array([5, 2, 7, 2, 0, 1, 6, 3])
    np.testing.assert_allclose(operation(k[order], x[order]), together[order], atol=1e-6)
    assert not jnp.allclose(together, x)
    if name != "noise":
        assert 0 <= together.min() and together.max() <= 1


def test_probability_zero_is_the_identity():
    @jax.jit
    def never(k, x):
        exact = (
            augment.random_flip(k, x, 0.0),
            augment.random_grayscale(k, x, 0.0),
            augment.color_jitter(k, x, (0.4, 0.4, 0.4, 0.1), 0.0),
            rand_augment.rand_augment(k, x, 1, 9.0, 0.0),
            augment.resize(x, 8),
        )
        return exact, augment.random_resized_crop(k, x, 8, SCALE, RATIO, 0.0)

    x = pictures(4)
    exact, cropped = never(keys(4), x)
    for out in exact:
        np.testing.assert_array_equal(out, x)
    np.testing.assert_allclose(cropped, x, atol=1e-6)


def test_probability_one_mirrors_exactly():
    x = pictures(4)
    np.testing.assert_array_equal(augment.random_flip(keys(4), x, 1.0), x[:, :, ::-1])


def test_grayscale_keeps_luma():
    x = pictures(4)
    gray = augment.random_grayscale(keys(4), x, 1.0)
    np.testing.assert_array_equal(gray[..., 0], gray[..., 2])
    expected = np.asarray(x) @ np.array([0.299, 0.587, 0.114], np.float32)
    np.testing.assert_allclose(gray[..., 1], expected, atol=1e-6)


@pytest.mark.parametrize("size", [4, 8, 12])
def test_the_whole_picture_as_a_crop_is_a_resize(size):
    @jax.jit
    def three_ways(k, x):
        whole = augment.random_resized_crop(k, x, size, (1.0, 1.0), (1.0, 1.0), 1.0)
        left_out = augment.random_resized_crop(k, x, size, SCALE, RATIO, 0.0)
        return whole, left_out, augment.resize(x, size)

    whole, left_out, resized = three_ways(keys(4), pictures(4))
    np.testing.assert_allclose(whole, resized, atol=1e-5)
    np.testing.assert_allclose(left_out, resized, atol=1e-5)


def test_crops_have_the_asked_areas_ratios_and_places():
    n, size = 2000, 16
    ramp = (jnp.arange(size) + 0.5) / size
    x = jnp.stack(
        [
            jnp.broadcast_to(ramp.reshape(1, -1), (size, size)),
            jnp.broadcast_to(ramp.reshape(-1, 1), (size, size)),
            jnp.zeros((size, size)),
        ],
        -1,
    )
    x = jnp.broadcast_to(x.reshape(1, size, size, 3), (n, size, size, 3))
    crop = jax.jit(lambda k, x: augment.random_resized_crop(k, x, size, SCALE, RATIO, 1.0))
    out = np.asarray(crop(keys(n), x))
    # A crop of a ramp is a ramp: its slope is the box's side (away from the edges).
    inner = slice(4, 12)
    width = np.diff(out[:, 8, inner, 0], axis=1).mean(1) * size
    height = np.diff(out[:, inner, 8, 1], axis=1).mean(1) * size
    area, ratio = width * height, width / height
    assert 0.19 < area.min() < 0.23 and 0.9 < area.max() <= 1.001
    assert 0.74 < ratio.min() < 0.78 and 1.28 < ratio.max() < 1.35
    np.testing.assert_allclose(np.median(np.log(ratio)), 0, atol=0.03)
    # Few of the largest boxes fit, so the mean lies a little below the middle, .6.
    assert 0.5 < area.mean() < 0.6
    centre = out[:, 7:9, 7:9, :2].mean((1, 2))
    free = (centre - np.stack([width, height], -1) / 2) / (1 - np.stack([width, height], -1))
    small = area < 0.7
    assert np.abs(free[small].mean(0) - 0.5).max() < 0.03
    assert free[small].min() > -0.02 and free[small].max() < 1.02
    assert np.abs(np.corrcoef(free[small].T)[0, 1]) < 0.1


def test_rates_are_the_probabilities():
    n = 4000
    # Not symmetric, coloured: every operation changes it.
    x = jnp.broadcast_to(pictures(1, 2), (n, 2, 2, 3))

    @jax.jit
    def changes(k, x):
        return {
            "flip": augment.random_flip(k, x, 0.3),
            "grayscale": augment.random_grayscale(k, x, 0.3),
            "jitter": augment.color_jitter(k, x, (0.4, 0.4, 0.4, 0.1), 0.3),
            "crop": augment.random_resized_crop(k, x, 2, (0.2, 0.5), RATIO, 0.3),
        }

    for name, out in changes(keys(n), x).items():
        rate = float((jnp.abs(out - x).max((1, 2, 3)) > 1e-4).mean())
        assert abs(rate - 0.3) < 5 * (0.3 * 0.7 / n) ** 0.5, name


def test_noise_has_its_standard_deviation():
    noise = np.asarray(augment.gaussian_noise(keys(64), jnp.zeros((64, 16, 16, 3)), 0.1))
    n = noise.size
    assert abs(noise.mean()) < 5 * 0.1 / n**0.5
    assert abs(noise.std() / 0.1 - 1) < 5 / (2 * n) ** 0.5
    between = np.corrcoef(noise.reshape(64, -1))[np.triu_indices(64, 1)]
    assert abs(between.mean()) < 0.005


def test_hue_turns_as_in_colorsys():
    x, turn = pictures(3, 2), jnp.array([0.1, -0.3, 0.0])
    out = np.asarray(augment.turn_hue(x, turn))
    for n in range(3):
        for y in range(2):
            h, s, v = colorsys.rgb_to_hsv(*np.asarray(x)[n, y, 0].tolist())
            expected = colorsys.hsv_to_rgb((h + float(turn[n])) % 1, s, v)
            np.testing.assert_allclose(out[n, y, 0], expected, atol=1e-5)


def test_jitter_factors_stay_within_their_strength():
    x = jnp.full((500, 2, 2, 3), 0.5)
    out = np.asarray(augment.color_jitter(keys(500), x, (0.4, 0.0, 0.0, 0.0), 1.0))[:, 0, 0, 0]
    assert 0.3 - 1e-6 <= out.min() < 0.31 and 0.69 < out.max() <= 0.7 + 1e-6


def each_operation(x, level, sign=1.0):
    n = len(rand_augment.OPERATIONS)
    batch = jnp.broadcast_to(x.reshape(1, *x.shape), (n, *x.shape))
    apply = jax.jit(rand_augment.apply_operation, static_argnums=3)
    out = apply(batch, jnp.arange(n), jnp.full((n,), sign), level)
    return dict(zip(rand_augment.OPERATIONS, np.asarray(out), strict=True))


def test_randaugment_operations_do_what_they_are_called():
    x = 0.2 + 0.6 * pictures(1, 16)[0]
    out, numpy = each_operation(x, 0.9), np.asarray(x)
    for name, picture in out.items():
        assert picture.min() >= 0 and picture.max() <= 1
        assert np.allclose(picture, numpy) == (name == "identity"), name
    np.testing.assert_allclose(out["brightness"], np.clip(1.81 * numpy, 0, 1), atol=1e-5)
    np.testing.assert_allclose(out["solarize"], np.where(numpy >= 0.1, 1 - numpy, numpy), atol=1e-6)
    stretched = out["autocontrast"]
    np.testing.assert_allclose(stretched.min((0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(stretched.max((0, 1)), 1, atol=1e-6)
    levels = np.rint(out["posterize"] * 255).astype(int)
    assert (levels % 16 == 0).all()
    ranks = np.sort(out["equalize"][..., 0].reshape(-1))
    assert np.abs(ranks - np.linspace(0, 1, 256)).max() < 0.05
    color = each_operation(x, 10 / 9, -1.0)["color"]  # 1 + .9 * 10 / 9 * -1 = 0: all colour gone
    np.testing.assert_allclose(color[..., 0], color[..., 1], atol=1e-5)


def test_randaugment_geometry():
    x = pictures(1, 20)[0]
    moved = each_operation(x, 5 / 9)  # translate by .45 * 5 / 9 = a quarter
    np.testing.assert_allclose(moved["translate_x"][:, :15], np.asarray(x)[:, 5:], atol=1e-4)
    np.testing.assert_allclose(moved["translate_x"][:, 15:], 0.5, atol=1e-4)
    np.testing.assert_allclose(moved["translate_y"][:15], np.asarray(x)[5:], atol=1e-4)
    turned = each_operation(x, 3.0, 1.0)["rotate"]  # three times 30 degrees
    np.testing.assert_allclose(turned, np.rot90(np.asarray(x), -1), atol=1e-2)
    still = each_operation(x, 0.0)
    for name in ("rotate", "shear_x", "shear_y", "translate_x", "sharpness", "brightness"):
        np.testing.assert_allclose(still[name], x, atol=1e-6)


def test_even_pictures_survive_autocontrast_and_equalize():
    x = jnp.full((1, 4, 4, 3), 0.3)
    for operation in (rand_augment.autocontrast, rand_augment.equalize):
        np.testing.assert_array_equal(jax.jit(operation)(x), x)


def test_randaugment_rate_and_variety():
    n = 300
    x = jnp.broadcast_to(0.2 + 0.6 * pictures(1, 6), (n, 6, 6, 3))
    out = jax.jit(lambda k, x: rand_augment.rand_augment(k, x, 1, 9.0, 0.5))(keys(n), x)
    changed = jnp.abs(out - x).max((1, 2, 3)) > 1e-4
    rate = 0.5 * 13 / 14  # identity is one of the fourteen
    assert abs(float(changed.mean()) - rate) < 5 * (rate * (1 - rate) / n) ** 0.5
    kinds = np.unique(np.round(np.asarray(out).reshape(n, -1), 3), axis=0)
    assert len(kinds) > 18  # 9 operations have two signs


def test_a_shift_moves_whole_pixels_and_black_comes_in():
    images = jnp.arange(1, 17, dtype=jnp.float32).reshape(1, 4, 4, 1).repeat(200, 0) / 16
    keys = jax.random.split(jax.random.key(0), 200)
    moved = np.asarray(augment.random_shift(keys, images, 1))[..., 0]
    padded = np.pad(np.asarray(images[0, :, :, 0]), 1)
    places = [padded[y : y + 4, x : x + 4] for y in range(3) for x in range(3)]
    matches = np.array([[np.array_equal(one, place) for place in places] for one in moved])
    assert (matches.sum(1) == 1).all() and matches.any(0).all()
