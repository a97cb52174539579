"""A denoiser without an encoder: trained, probed and drawn by the same loops as all others."""

import json
import pathlib

import jax
import numpy as np
import pytest

import soda_jax
from soda_jax import evaluate, experiment
from soda_jax.apply import apply
from soda_jax.chapters import ChaptersFailed
from soda_jax.config_schema import ConfigError, load
from soda_jax.pretrain import pretrain
from soda_jax.probe import probe
from soda_jax.report import report
from soda_jax.sample import sample

pytestmark = pytest.mark.usefixtures("shared_experiments", "short_measures")
CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
ALONE = (
    "--config.model.encoder.variant=none", "--config.probe.features=('block',)",
    "--config.sample.guidance_scale=0.0", "--config.sample.num_steps=3",
    "--config.train.num_steps=2", "--config.train.log_every=1", "--config.train.probe_every=2",
    "--config.train.diagnose_every=2", "--config.train.sample_every=2",
    "--config.train.frechet_images=60", "--config.train.probe_examples=100",
    "--config.evaluate.layer_ts=(0.1,)", "--config.evaluate.layer_examples=200",
    "--config.probe.max_examples=200", "--config.probe.protocols=('knn',)",
    "--config.probe.labels_per_class=()",
    # EDM's noise, for pictures over their deviation.
    "--config.diffusion.schedule=edm", "--config.diffusion.prediction=v",
    "--config.diffusion.t_min=1.45e-5", "--config.views.target.std=(0.25,0.25,0.25)",
    "--config.sample.sampler=heun", "--config.sample.spacing=rho",
)  # fmt: skip


def alone(*overrides):
    return load(str(CONFIGS / "smoke.py"), [*ALONE, *overrides])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("ddae")
    pretrain(alone(), str(workdir))
    return workdir


@pytest.mark.parametrize(
    "preset", ["ddpm", "ddpmpp", "edm_ddpm", "edm_ddpmpp", "edm_ddpmpp_aug", "cpu"]
)
def test_every_preset_is_a_denoiser_alone_that_has_the_block(preset):
    config = load(str(CONFIGS / f"ddae.py:{preset}"))
    parts = experiment.build(config)  # raises where the block isn't one
    assert parts.model.encoder is None and parts.z_size == 0
    sizes = {"ddpm": 35_746_307, "ddpmpp": 56_524_291, "ddpmpp_aug": 56_525_443}
    if size := sizes.get(preset.removeprefix("edm_")):
        params = experiment.abstract_state(parts).params
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == size


def test_it_is_trained_and_judged_by_its_block(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    logged = set().union(*lines)
    assert {"loss_with_code/null", "linear/block", "relative_frechet/block"} <= logged
    assert not {"loss_with_code/z", "linear/z", "gradient_norm/encoder"} & logged
    model = soda_jax.load(str(workdir))
    assert set(model.variables["params"]) == {"denoiser"}
    assert model.encode(np.zeros((3, 16, 16, 3), np.uint8)).shape == (3, 0)


def test_the_loops_take_it(workdir):
    config = alone()
    rows = probe(config, str(workdir))
    assert {row["representation"] for row in rows} == {"block", "untrained block", "raw pixels"}
    scores = sample(config, str(workdir))
    assert "psnr" not in scores and scores["seeds"] == 3
    page = pathlib.Path(report(str(workdir))).read_text()
    assert "From noise alone" in page


def test_the_suites_take_it(workdir):
    config = alone(
        "--config.evaluate.streamed=('ddae',)", "--config.evaluate.fine_tune_epochs=1",
        "--config.evaluate.noisy_epochs=1",
    )  # fmt: skip
    suites = ("layers", "streamed", "fine_tune", "noisy")
    evaluate.evaluate(config, str(workdir), suites)
    (folder,) = (workdir / "evaluation").iterdir()
    layers, streamed, tuned, noisy = (
        json.loads((folder / f"{name}.json").read_text()) for name in suites
    )
    assert all(name.startswith("no z: ") for name in layers["heads"])
    head = layers["heads"]["no z: mid_block1@t=0.1"]
    assert 0 < head["alignment"] <= 4 and head["uniformity"] < 0
    (row,) = streamed["rows"]
    assert row["representation"] == "block" and row["protocol"]["norm"] == "none"
    assert {row["start"] for row in tuned["rows"]} == {"pretrained", "from scratch"}
    assert len(noisy["heads"]["trained"]["accuracies"]) == 20
    with pytest.raises(ChaptersFailed, match="'soda' reads the encoder.*nearest: 'ddae'"):
        evaluate.evaluate(alone(), str(workdir), ["streamed"])


def test_a_picture_draws_its_own_noise_in_any_batch(workdir):
    """The features of a picture depend on it alone: not on the batch, not on its place there."""
    model = soda_jax.load(str(workdir))
    test = experiment.open_data(model.parts, "test")
    forwards = model.features_of(test, np.arange(40))["block"]
    backwards = model.features_of(test, np.arange(40)[::-1])["block"]
    np.testing.assert_allclose(forwards, backwards[::-1], atol=1e-4)


def test_edms_pictures_stay_in_their_range(workdir):
    model = soda_jax.load(str(workdir))
    assert model.parts.farthest == 2.0
    images = experiment.open_data(model.parts, "test").images(np.arange(4))
    targets = soda_jax.inference.target_pictures(model.parts, images)
    np.testing.assert_array_equal(targets, images)


def test_what_is_about_z_is_refused_in_words(workdir):
    with pytest.raises(ConfigError, match="'none': apply is about z"):
        apply(alone(), str(workdir))
    with pytest.raises(ChaptersFailed, match="code is about z"):
        evaluate.evaluate(alone(), str(workdir), ["code"])
    with pytest.raises(ConfigError, match=r"probe.features.*\('block',\) where there is no enc"):
        alone("--config.probe.features=('z',)")
    with pytest.raises(ConfigError, match="nearest: mid_block1"):
        experiment.build(alone("--config.probe.block=mid_block2"))
