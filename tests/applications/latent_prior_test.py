import numpy as np
import pytest

from soda_jax.applications.latent_prior import fit_prior, load_prior

RNG = np.random.default_rng(0)
CENTRES = np.array([[6.0, 0, 1], [-6, 0, 1]])
Z = CENTRES[RNG.integers(0, 2, 2000)] + RNG.normal(size=(2000, 3)) * [1, 0.1, 3]
SETTINGS = dict(features=64, num_blocks=2, num_steps=600, batch_size=128, learning_rate=3e-3)


@pytest.fixture(scope="module")
def prior():
    return fit_prior(Z, **SETTINGS)


def test_drawn_codes_have_the_modes_and_moments_of_the_given_ones(prior):
    drawn = prior.sample(1000, num_steps=20)
    assert drawn.shape == (1000, 3)
    np.testing.assert_allclose(drawn.mean(axis=0), Z.mean(axis=0), atol=0.7)
    np.testing.assert_allclose(drawn.std(axis=0), Z.std(axis=0), rtol=0.25)
    # Two heaps and next to nothing between them: no Gaussian could do that.
    assert np.mean(np.abs(drawn[:, 0]) < 2) < 0.05
    assert 0.35 < np.mean(drawn[:, 0] > 0) < 0.65


def test_a_code_depends_on_its_seed_and_number_alone(prior):
    drawn = prior.sample(4, seed=1, num_steps=5)
    np.testing.assert_allclose(prior.sample(2, seed=1, num_steps=5), drawn[:2], atol=1e-5)
    assert (np.abs(prior.sample(4, seed=2, num_steps=5) - drawn) > 1e-3).any()


def test_it_is_saved_without_pickle_and_comes_back(prior, tmp_path):
    prior.save(tmp_path / "prior.npz")
    again = load_prior(tmp_path / "prior.npz")
    np.testing.assert_array_equal(again.sample(3, num_steps=3), prior.sample(3, num_steps=3))
    assert again.protocol == prior.protocol
    (tmp_path / "other.npz").write_bytes(b"PK\x03\x04 not one")
    with pytest.raises(ValueError, match="other.npz holds no latent prior"):
        load_prior(tmp_path / "other.npz")
    np.savez(tmp_path / "foreign.npz", meta=np.zeros(3))
    with pytest.raises(ValueError, match="foreign.npz holds no latent prior"):
        load_prior(tmp_path / "foreign.npz")


def test_a_few_codes_learnt_by_heart_show_in_the_held_out_loss(prior):
    assert prior.protocol["held_out_loss"] < 1.3 * prior.protocol["loss"]
    settings = SETTINGS | dict(num_steps=1000, batch_size=32, dropout=0.0)
    few = fit_prior(RNG.normal(size=(30, 16)), **settings)
    assert few.protocol["held_out_loss"] > 1.3 * few.protocol["loss"]


def test_codes_that_cannot_be_fitted_are_refused():
    for z in (Z[:5], Z[:, 0], np.full((30, 2), np.nan)):
        with pytest.raises(ValueError, match="finite codes"):
            fit_prior(z)
    with pytest.raises(ValueError, match="at least 1"):
        fit_prior(Z, num_steps=0)
