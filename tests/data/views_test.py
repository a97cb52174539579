"""Views: scaling, what is left out, and a source and a target that know nothing of each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax import rngs
from soda_jax.data import views
from soda_jax.data.views import View

OFF = View(size=8, crop_prob=0, flip_prob=0)


def pictures(n=4, c=3):
    return jnp.asarray(np.random.RandomState(0).randint(0, 256, (n, 8, 8, c)).astype(np.uint8))


def step_key(step=0):
    return rngs.stream(rngs.root(0), "views", step)


def test_all_off_is_plain_and_plain_is_minus_one_to_one():
    x = pictures()
    expected = np.asarray(x, np.float64) / 127.5 - 1
    batch = views.pair(step_key(), x, OFF, OFF)
    for out in (batch.source, batch.target, views.plain(x, OFF)):
        assert out.dtype == jnp.float32
        np.testing.assert_allclose(out, expected, atol=1e-6)
    assert batch.label is None and batch.poses is None


def test_probes_may_see_another_size():
    x, view = pictures(), View(size=4, crop_prob=1, whole_size=8)
    assert views.pair(step_key(), x, view, OFF).source.shape == (4, 4, 4, 3)
    np.testing.assert_array_equal(views.whole(x, view), views.plain(x, OFF))
    assert views.plain(x, view).shape == (4, 4, 4, 3)


def test_each_target_of_a_picture_is_a_view_of_its_own():
    x, view = pictures(), View(size=8, crop_prob=1, crop_scale=(0.2, 0.9))
    one, three = (views.pair(step_key(), x, view, view, targets=n) for n in (1, 3))
    np.testing.assert_array_equal(three.source, one.source)
    assert three.target.shape == (12, 8, 8, 3)
    assert len({target.tobytes() for target in np.asarray(three.target)}) == 12
    # The targets of a picture are neighbours, as the model repeats its code.
    plain = views.pair(step_key(), x, view, OFF, targets=3).target
    np.testing.assert_array_equal(plain, np.repeat(views.plain(x, OFF), 3, axis=0))
    shared = views.pair(step_key(), x, view, view, shared=True, targets=3)
    sources = np.repeat(shared.source, 3, axis=0)
    np.testing.assert_allclose(shared.target, sources, rtol=0, atol=3e-7)


def test_each_pair_of_a_picture_has_views_of_its_own():
    x, view = pictures(), View(size=8, crop_prob=1, crop_scale=(0.2, 0.9))
    batch = views.pair(step_key(), x, view, view, pairs=2)
    assert batch.source.shape == batch.target.shape == (8, 8, 8, 3)
    assert len({seen.tobytes() for side in batch[:2] for seen in np.asarray(side)}) == 16
    plain = views.pair(step_key(), x, view, OFF, pairs=2, targets=3).target
    np.testing.assert_array_equal(plain, np.repeat(views.plain(x, OFF), 6, axis=0))


def test_probability_zero_leaves_no_random_number_in_the_graph():
    def graph(view):
        return str(
            jax.make_jaxpr(lambda k, x: views.pair(k, x, view, view))(step_key(), pictures())
        )

    assert "random_bits" not in graph(OFF)
    assert "random_bits" in graph(View(size=8, crop_prob=0, flip_prob=0.5))


def test_mean_and_std():
    imagenet = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    x = pictures()
    expected = (np.asarray(x) / 255 - imagenet["mean"]) / imagenet["std"]
    np.testing.assert_allclose(views.plain(x, View(size=8, **imagenet)), expected, atol=1e-5)
    one = views.plain(pictures(c=1), View(size=8, **imagenet))
    expected = (np.asarray(pictures(c=1)) / 255 - 0.485) / 0.229
    np.testing.assert_allclose(one, expected, atol=1e-5)


def test_noise_comes_after_scaling():
    view = View(size=8, crop_prob=0, flip_prob=0, noise=0.1, std=(0.25, 0.25, 0.25))
    x = pictures(64)
    noise = views.pair(step_key(), x, view, OFF).source - views.plain(x, view)
    assert abs(float(noise.std()) - 0.1) < 0.002


def test_source_and_target_are_drawn_independently():
    x = jnp.broadcast_to(pictures(1), (2000, 8, 8, 3))
    flip = View(size=8, crop_prob=0, flip_prob=0.5)
    pair = jax.jit(lambda k, x: views.pair(k, x, flip, flip))
    batch, again, later = pair(step_key(), x), pair(step_key(), x), pair(step_key(1), x)
    upright = views.plain(x, flip)
    drawn = [
        np.asarray(jnp.isclose(v, upright, atol=1e-5).all((1, 2, 3)))
        for v in (batch.source, batch.target)
    ]
    for side in drawn:
        assert abs(side.mean() - 0.5) < 0.06
    assert abs(np.corrcoef(*drawn)[0, 1]) < 0.1
    np.testing.assert_array_equal(batch.source, again.source)
    assert not np.array_equal(batch.source, later.source)


def test_the_target_does_not_feel_the_source_view():
    x, busy = pictures(8), View(size=8, jitter_prob=0.8, grayscale_prob=0.2, noise=0.1)
    target = View(size=8)
    pair = jax.jit(views.pair, static_argnums=(2, 3))
    a, b = pair(step_key(), x, OFF, target), pair(step_key(), x, busy, target)
    np.testing.assert_allclose(a.target, b.target, atol=1e-6)


def test_everything_on_grey_pictures():
    view = View(
        size=6, randaugment_prob=0.65, jitter_prob=0.8, grayscale_prob=0.2, randaugment_ops=1
    )
    batch = jax.jit(lambda k, x: views.pair(k, x, view, OFF))(step_key(), pictures(c=1))
    assert batch.source.shape == (4, 6, 6, 1) and batch.target.shape == (4, 8, 8, 1)
    assert float(jnp.abs(batch.source).max()) <= 1


def test_wrong_fields_are_named():
    for wrong in (
        dict(flip_prob=1.5),
        dict(crop_scale=(0.0, 1.0)),
        dict(crop_ratio=(2.0, 1.0)),
        dict(jitter_strength=(0.4, 0.4)),
        dict(std=(0.5, 0.5)),
        dict(noise=-1.0),
        dict(randaugment_magnitude=11.0),
        dict(size=0),
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            View(**wrong)
