"""Groups, decay, clipping and the moving average, on arrays small enough to work out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from soda_jax.training import optimizer


def make(
    encoder_rate=0.0,
    denoiser_rate=0.1,
    weight_decay=0.0,
    clip_norm=0.0,
    method="adamw",
    head_share=1.0,
):
    return optimizer.make_optimizer(
        optax.constant_schedule(encoder_rate),
        optax.constant_schedule(denoiser_rate),
        b1=0.9,
        b2=0.95,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        method=method,
        head_share=head_share,
    )


PARAMS = {
    "encoder": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    "denoiser": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
}


def test_each_group_has_its_own_rate():
    tx = make(encoder_rate=0.02, denoiser_rate=0.1)
    gradient = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = tx.update(gradient, tx.init(PARAMS), PARAMS)
    # Adam's first step has the size of the rate, whatever the gradient's.
    np.testing.assert_allclose(updates["encoder"]["kernel"], -0.02, rtol=1e-5)
    np.testing.assert_allclose(updates["denoiser"]["kernel"], -0.1, rtol=1e-5)


def test_decay_acts_on_kernels_alone():
    tx = make(encoder_rate=0.1, denoiser_rate=0.1, weight_decay=0.5)
    gradient = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = tx.update(gradient, tx.init(PARAMS), PARAMS)
    for group in PARAMS:
        np.testing.assert_allclose(updates[group]["kernel"], -0.1 * 0.5, rtol=1e-6)
        np.testing.assert_array_equal(updates[group]["bias"], 0.0)


def test_the_norm_of_both_groups_together_is_clipped():
    gradient = {name: {"w": jnp.full((2,), 3.0)} for name in PARAMS}
    params = jax.tree.map(jnp.zeros_like, gradient)
    tx = make(1.0, 1.0, clip_norm=1.5)
    _, state = tx.update(gradient, tx.init(params), params)
    first_moment = optax.tree_utils.tree_get(state[1].inner_states["encoder"], "mu")["encoder"]["w"]
    # |gradient| = 6, so each entry is clipped to 3 / 4; the first moment holds a tenth of it.
    np.testing.assert_allclose(first_moment, 0.1 * 0.75, rtol=1e-5)
    # A norm that is given is believed: twice 6 clips to half of that, one below 1.5 to nothing.
    for norm, entry in ((6.0, 0.75), (12.0, 0.375), (1.4, 3.0)):
        _, state = tx.update(gradient, tx.init(params), params, norm=jnp.asarray(norm))
        moment = optax.tree_utils.tree_get(state[1].inner_states["encoder"], "mu")["encoder"]["w"]
        np.testing.assert_allclose(moment, 0.1 * entry, rtol=1e-5)


def test_learning_rates_at_their_corners():
    constant = optimizer.learning_rate(2.0, 10, "constant", 100)
    assert [float(constant(step)) for step in (0, 5, 10, 99)] == [0.0, 1.0, 2.0, 2.0]
    cosine = optimizer.learning_rate(2.0, 10, "cosine", 110)
    np.testing.assert_allclose([cosine(step) for step in (0, 10, 60, 110)], [0, 2, 1, 0], atol=1e-6)
    assert float(optimizer.learning_rate(2.0, 0, "constant", 10)(0)) == 2.0


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (8, 0.5), (100_000, 0.99)])
def test_the_average_follows_early_and_slows_down(step, decay):
    step = jnp.asarray(step)
    np.testing.assert_allclose(optimizer.average_decay(step, 0.99, True), decay, rtol=1e-6)
    assert optimizer.average_decay(step, 0.99, False) == 0.99


def test_the_average_is_decay_times_old_plus_the_rest_of_new():
    average = optimizer.update_average({"w": jnp.full((2,), 4.0)}, {"w": jnp.zeros(2)}, 0.75)
    np.testing.assert_allclose(average["w"], 3.0)


def test_muon_steps_kernels_along_the_orthogonal_part_of_the_gradient():
    """Every singular value counts alike; the kernel of a convolution is one matrix."""
    params = {
        "encoder": {"bias": jnp.ones(3)},
        "denoiser": {"kernel": jnp.zeros((2, 2, 2, 3)), "bias": jnp.ones(3)},
    }
    gradient = jax.tree.map(
        lambda leaf: jax.random.normal(jax.random.key(0), leaf.shape) * 1e-3, params
    )
    tx = make(encoder_rate=0.1, denoiser_rate=0.1, method="muon")
    updates, _ = tx.update(gradient, tx.init(params), params)
    u, _, v = np.linalg.svd(gradient["denoiser"]["kernel"].reshape(8, 3), full_matrices=False)
    step = -updates["denoiser"]["kernel"].reshape(8, 3) / 0.1
    # The iteration leaves singular values between .7 and 1.2 of one; .2 sqrt(8) is their scale.
    along = np.diag(u.T @ step @ v.T) / (0.2 * np.sqrt(8))
    assert along.min() > 0.65 and along.max() < 1.25
    np.testing.assert_allclose(u @ (u.T @ step), step, atol=1e-4)
    adam = optax.adam(0.1, b1=0.9, b2=0.95, nesterov=True)
    expected, _ = adam.update(gradient, adam.init(params))
    for group in params:
        np.testing.assert_allclose(updates[group]["bias"], expected[group]["bias"], rtol=1e-5)


def test_the_head_has_its_own_rate_and_nothing_else_has():
    params = {
        "encoder": {name: {"kernel": jnp.ones((2, 2))} for name in ("head", "trunk")},
        "denoiser": {"head": {"kernel": jnp.ones((2, 2))}},
    }
    tx = make(encoder_rate=0.08, denoiser_rate=0.1, weight_decay=0.5, head_share=0.25)
    gradient = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(gradient, tx.init(params), params)
    # Adam's first step of one rate, and the decay of half of it.
    for group, name, rate in (
        ("encoder", "head", 0.02),
        ("encoder", "trunk", 0.08),
        ("denoiser", "head", 0.1),
    ):
        np.testing.assert_allclose(updates[group][name]["kernel"], -1.5 * rate, rtol=1e-5)
