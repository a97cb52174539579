"""A code that depends on time, drawn from a distribution or penalised: by the same loops as all."""

import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import soda_jax
from soda_jax import experiment, inference, rngs
from soda_jax.apply import apply
from soda_jax.array_types import Batch
from soda_jax.config_schema import ConfigError, load
from soda_jax.diffusion.process import Process
from soda_jax.diffusion.schedule import Linear
from soda_jax.evaluate import evaluate
from soda_jax.models.autoencoder import DiffusionAutoencoder
from soda_jax.models.bottleneck import Bottleneck, redundancy, unpredicted
from soda_jax.pretrain import pretrain
from soda_jax.sample import sample
from soda_jax.training.objective import training_loss

pytestmark = pytest.mark.usefixtures("shared_experiments")
CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
TIMED = (
    "--config.views.shared=True", "--config.views.source.noise=0.0",
    "--config.views.source.crop_prob=0.0", "--config.views.target.crop_prob=0.0",
    "--config.model.encoder.variant=wide_resnet", "--config.model.encoder.width_multiplier=0.125",
    "--config.model.bottleneck.penalty=kl", "--config.model.bottleneck.penalty_weight=1e-5",
    "--config.model.denoiser.variant=ncsnpp", "--config.model.denoiser.width=4",
    "--config.diffusion.schedule=variance_exploding", "--config.diffusion.law=uniform_sigma",
    "--config.sample.guidance_scale=0.0", "--config.train.mixup=True",
    "--config.train.num_steps=2", "--config.train.log_every=1", "--config.train.probe_every=0",
    "--config.train.diagnose_every=2", "--config.train.sample_every=0",
    "--config.train.frechet_images=0", "--config.model.bottleneck.latent_drop_rate=0.0",
    "--config.model.bottleneck.section_drop_rate=0.0",
)  # fmt: skip


def timed(*overrides):
    return load(str(CONFIGS / "smoke.py"), [*TIMED, *overrides])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("drl")
    pretrain(timed(), str(workdir))
    return workdir


@pytest.mark.parametrize(
    ("preset", "encoder"),
    [("drl", 1_532_864), ("vdrl", 1_532_864 + 33_024), ("cpu", None), ("digits_high_noise", None)],
)
def test_every_preset_builds_and_the_released_ones_have_the_published_sizes(preset, encoder):
    parts = experiment.build(
        load(str(CONFIGS / f"drl.py:{preset}"), ["--config.train.batch_size=96"])
    )
    assert parts.num_sections == 1
    if encoder:
        params = experiment.abstract_state(parts).params
        sizes = {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in params.items()}
        assert sizes == {"encoder": encoder, "denoiser": 831_571 + 107_328}


def test_diffae_sees_one_picture_on_both_sides_and_gives_each_layer_the_whole_code():
    config = load(str(CONFIGS / "diffae.py:cpu"))
    parts = experiment.build(config)
    assert parts.num_sections == 1 and config.views.shared
    denoiser = experiment.abstract_state(parts).params["denoiser"]
    codes = {
        block["modulation"]["code"]["kernel"].shape[0]
        for block in denoiser.values()
        if "modulation" in block
    }
    assert codes == {256}


def test_it_trains_and_its_code_is_a_curve(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert {"loss_with_code/z", "loss_with_code/shuffled"} <= set().union(*lines)
    model = soda_jax.load(str(workdir))
    assert model.parts.timed
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)

    def code(**at):
        return model.parts.model.apply(model.variables, x, method="encode", **at)

    np.testing.assert_array_equal(code(), code(t=jnp.full(2, 0.5)))
    assert not np.allclose(code(), code(t=jnp.full(2, 0.9)))
    assert code().shape == (2, 16)


def test_reconstructions_follow_the_curve(workdir):
    """Under a code held fixed something else is drawn than under z(t)."""
    model = soda_jax.load(str(workdir))
    # A denoiser starts by drawing nothing of z; here its weights are away from their zeros.
    random = np.random.default_rng(0)
    model.variables["params"] = jax.tree.map(
        lambda x: x + 0.1 * random.normal(size=x.shape).astype(np.float32),
        jax.device_get(model.variables["params"]),
    )
    images = experiment.open_data(model.parts, "test").images(np.arange(4))
    along = model.reconstruct(images)
    fixed = model.decode(model.encode(images))
    assert np.abs(along.astype(int) - fixed).max() > 2
    sample(timed(), str(workdir))


@pytest.mark.slow
def test_suites_and_uses_take_a_curve_and_another_denoiser(workdir):
    config = timed(
        "--config.evaluate.trajectory_points=2", "--config.evaluate.trajectory_epochs=1",
        "--config.probe.max_examples=200", "--config.probe.batch_size=128",
    )  # fmt: skip
    evaluate(config, str(workdir), ["layers", "trajectory"])
    (folder,) = (workdir / "evaluation").iterdir()
    layers, curve = (
        json.loads((folder / f"{x}.json").read_text()) for x in ("layers", "trajectory")
    )
    assert {"stem", "stage0_block0", "pooled", "z", "section0"} == set(layers["encoder"]) - {
        f"stage{i}_block{j}" for i in range(3) for j in range(4) if i + j
    }
    assert "up_16x16_block1" in layers["denoiser"]
    assert curve["times"] == [0.0, 0.5, 1.0] and len(curve["alone"]) == 3
    page = pathlib.Path(apply(config, str(workdir), ["reconstruct", "plane"])).read_text()
    assert "z is a curve z(t) here" in page and "The plane of codes" in page


def test_a_gaussian_code_is_drawn_in_training_alone():
    bottleneck = Bottleneck(num_sections=1, penalty="kl", penalty_weight=2.0)
    mean, log_variance = np.float32([[1.0, -2.0]]), np.log(np.float32([[0.25, 4.0]]))
    encoded = jnp.concatenate([mean, log_variance], axis=-1)
    np.testing.assert_array_equal(bottleneck.apply({}, encoded, method="code"), mean)

    def drawn(key):
        z, sown = bottleneck.apply(
            {}, encoded, True, method="code", rngs={"bottleneck": key}, mutable=["penalties"]
        )
        return z[0], sown["penalties"]["kl"][0]

    z, penalty = jax.vmap(drawn)(jax.random.split(jax.random.key(0), 20_000))
    np.testing.assert_allclose(z.mean(0), mean[0], atol=0.05)
    np.testing.assert_allclose(z.std(0), [0.5, 2.0], rtol=0.03)
    # -1/2 sum(1 + log v - m^2 - v), by hand.
    by_hand = -0.5 * ((1 + np.log(0.25) - 1 - 0.25) + (1 + np.log(4) - 4 - 4))
    np.testing.assert_allclose(penalty[0], 2.0 * by_hand, rtol=1e-5)


class Mean(nn.Module):
    """The colours' means as a code, and a prediction that is nothing but they."""

    timed = False

    def __call__(self, x, *_):
        return x.mean((1, 2))


class Same(nn.Module):
    def __call__(self, x_t, t, z, train, rays):
        return jnp.broadcast_to(z[:, None, None], x_t.shape)


def loss_of(mixup=False, predictor=None, **penalty):
    bottleneck = Bottleneck(1, section_drop_rate=0.0, latent_drop_rate=0.0, **penalty)
    model = DiffusionAutoencoder(Mean(), bottleneck, Same(), predictor=predictor)
    x = jax.random.normal(jax.random.key(1), (64, 4, 4, 3))
    process = Process(Linear(), prediction="x_0")
    arguments = ({}, {}, Batch(x, x, None), jax.random.key(0))
    return float(training_loss(model, process, *arguments, mixup, {})[0]), np.asarray(x)


def test_the_penalty_enters_the_loss():
    plain, x = loss_of()
    penalised, _ = loss_of(penalty="l1", penalty_weight=0.5)
    by_hand = 0.5 * np.abs(x.mean((1, 2))).sum(-1).mean()
    np.testing.assert_allclose(penalised - plain, by_hand, rtol=1e-4)
    penalised, _ = loss_of(penalty="barlow", penalty_weight=0.5)
    by_hand = 0.5 * redundancy(x.mean((1, 2))).mean()
    np.testing.assert_allclose(penalised - plain, by_hand, rtol=1e-4)
    penalised, _ = loss_of(predictor=jnp.square, penalty="bootstrap", penalty_weight=0.5)
    z = x.mean((1, 2))
    neighbours = z[np.arange(64) ^ 1]  # a picture's two pairs are told each other's codes
    by_hand = 0.5 * unpredicted(jnp.square(z), neighbours).mean()
    np.testing.assert_allclose(penalised - plain, by_hand, rtol=1e-4)


def test_mixup_mixes_sources_with_their_neighbours_and_weighs_by_their_share():
    found, x = loss_of(mixup=True)
    share = np.asarray(jax.random.uniform(rngs.stream(jax.random.key(0), "mixup"), (64,)))
    means, own = x.mean((1, 2)), share[:, None]
    mixed = own * means + (1 - own) * np.roll(means, 1, axis=0)
    errors = np.square(mixed[:, None, None] - x).mean((1, 2, 3))
    np.testing.assert_allclose(found, (2 * share * errors).mean(), rtol=1e-4)


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(ConfigError, match=r"views.source.flip_prob.*one view of both"):
        timed("--config.views.source.flip_prob=0.5")
    with pytest.raises(ConfigError, match=r"guidance_scale.*code follows t"):
        timed("--config.sample.guidance_scale=1.0")
    with pytest.raises(ConfigError, match=r"encoder.linear.*gives mean and variance"):
        timed("--config.model.encoder.linear=False", "--config.model.z_size=16")
    with pytest.raises(ConfigError, match=r"z_size.*nearest: 16"):
        timed("--config.model.encoder.linear=False", "--config.model.bottleneck.penalty=l1",
              "--config.model.z_size=20")  # fmt: skip


def test_shared_views_are_one_picture(workdir):
    parts = experiment.build(timed("--config.views.source.flip_prob=0.5",
                                   "--config.views.target.flip_prob=0.5"))  # fmt: skip
    images = experiment.open_data(parts, "train").images(np.arange(16))
    key = jax.random.key(0)
    views = (parts.source_view, parts.target_view)
    one = inference.pair(key, images, *views, shared=True)
    # Each side is computed for itself: outside jit the two may round differently.
    np.testing.assert_allclose(one.source, one.target, rtol=0, atol=3e-7)
    two = inference.pair(key, images, *views)
    assert np.abs(two.source - two.target).max() > 0.1
