import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.applications.reconstruct import under_code

X_T = jnp.arange(8.0).reshape(2, 2, 2, 1)
T = jnp.array([0.2, 0.7])
Z = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
MASK = jnp.array([[True, False, True], [True, True, False]])


class Linear:
    """Predicts x_t + t + the sum of the kept code + the sum of the rays, and keeps its batches."""

    def __init__(self):
        self.batches = []

    def apply(self, variables, x_t, t, code, mask, *, target_rays, method):
        self.batches.append(len(x_t))
        assert method == "denoise" and len(x_t) == len(t) == len(code)
        code = code if mask is None else jnp.where(mask, code, 0)
        rays = 0 if target_rays is None else target_rays.sum(-1, keepdims=True)
        return x_t + (t + code.sum(-1))[:, None, None, None] + rays


def added(*values):
    return X_T + jnp.asarray(values).reshape(-1, 1, 1, 1) + T.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("mask, sums", [(None, (6.0, 15.0)), (MASK, (4.0, 9.0))])
def test_guidance_is_one_pass_with_the_code_and_without(mask, sums):
    model = Linear()
    guided = under_code(model, {}, Z, mask, guidance_scale=0.5)(X_T, T)
    np.testing.assert_allclose(guided, added(*(1.5 * total for total in sums)), rtol=1e-6)
    assert model.batches == [4]


def test_outside_the_interval_the_null_code_is_not_asked():
    # Half of the calls are then of half the size: the branches see 4 pictures and 2.
    model = Linear()
    denoise_fn = under_code(model, {}, Z, guidance_scale=0.5, guidance_interval=(0.5, 1.0))
    t = jnp.full(2, 0.2)
    plain = X_T + t.reshape(-1, 1, 1, 1) + jnp.array([6.0, 15.0]).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(denoise_fn(X_T, t), plain, rtol=1e-6)
    assert model.batches == [4, 2]


def test_without_guidance_the_null_code_is_not_asked():
    model = Linear()
    np.testing.assert_allclose(under_code(model, {}, Z)(X_T, T), added(6.0, 15.0), rtol=1e-6)
    assert model.batches == [2]


def test_the_camera_stays_in_the_unconditional_pass():
    rays = jnp.ones((2, 2, 2, 3))
    null = under_code(Linear(), {}, Z, guidance_scale=-1.0, target_rays=rays)(X_T, T)
    np.testing.assert_allclose(null, added(3.0, 3.0), rtol=1e-6)


def test_the_predictions_of_several_codes_are_averaged_before_they_are_guided():
    model = Linear()
    codes = jnp.stack([Z, 2 * Z], axis=1)
    rays = jnp.stack([jnp.ones((2, 2, 2, 1)), jnp.zeros((2, 2, 2, 1))], axis=1)
    shares = jnp.array([[0.75, 0.25], [0.0, 1.0]])
    guided = under_code(model, {}, codes, guidance_scale=1.0, target_rays=rays, shares=shares)(
        X_T, T
    )
    # Twice the mean of both codes; and the rays as they are.
    np.testing.assert_allclose(guided, added(2 * 7.5 + 0.75, 2 * 30.0 + 0.0), rtol=1e-6)
    assert model.batches == [8]
