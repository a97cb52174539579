"""The loops on the smoke config: resumed runs to the bit, other device counts, two processes."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

import soda_jax
from soda_jax import config_schema, experiment, pretrained
from soda_jax.config_schema import ConfigError, load
from soda_jax.data.cameras import Cameras
from soda_jax.pretrain import pretrain
from soda_jax.training import sharding
from soda_jax.training.checkpoint_reader import CheckpointReader
from soda_jax.training.metrics import Writer
from soda_jax.uses.common import Studio

pytestmark = pytest.mark.usefixtures("shared_experiments", "short_measures")
ROOT = pathlib.Path(__file__).parents[1]
# The observers have tests of their own; each costs a compilation.
QUIET = ("--config.train.diagnose_every=0", "--config.train.probe_every=0")
QUIET += ("--config.train.sample_every=0", "--config.train.checkpoint_async=False")
# Small, as other processes compile it anew; batch norms and attention, which mix pictures or
# pixels, are in it.
SMALL = (
    *QUIET, "--config.data.image_size=8", "--config.views.source.size=8",
    "--config.views.target.size=8", "--config.model.z_size=9",
    "--config.model.denoiser.multipliers=(1,)", "--config.model.denoiser.attention_levels=()",
)  # fmt: skip


def smoke(*overrides):
    return load(str(ROOT / "configs" / "smoke.py"), overrides)


@pytest.fixture(scope="module")
def compilations():
    """The last step that was logged when a program was compiled, or taken from the cache."""
    logged, found, timing = [0], [], Writer.timing

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(logged[-1])

    def log(writer, step, rates):
        logged.append(step)
        timing(writer, step, rates)

    jax.monitoring.register_event_duration_secs_listener(listen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "timing", log)
        yield found


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compilations):
    """A whole run, with everything that the smoke config logs, on eight devices."""
    workdir = tmp_path_factory.mktemp("whole")
    pretrain(smoke(), str(workdir))
    compilations.append("end")
    return workdir


def test_nothing_is_compiled_after_the_first_steps_and_measures(whole, compilations):
    """Everything is measured after step 4, and again after step 8."""
    steps = compilations[: compilations.index("end")]
    assert {0, 4} <= set(steps) <= {0, 2, 4}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run of the small network on eight devices."""
    workdir = tmp_path_factory.mktemp("small")
    pretrain(smoke(*SMALL), str(workdir))
    return workdir


def saved_state(workdir, step=None, overrides=()):
    """Every array of a checkpoint, the newest where no step is named, by name."""
    template = experiment.abstract_state(experiment.build(smoke(*overrides)))
    state, _ = CheckpointReader(workdir).restore(template, step)
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def read_metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("interrupted_at", [3, 6])
def test_an_interrupted_run_ends_in_the_same_bits(tmp_path, monkeypatch, whole, interrupted_at):
    """Parameters, EMA, optimiser and log, whether or not a checkpoint was there already."""
    open_batches = experiment.open_batches

    class Interrupted:
        def __init__(self, batches):
            self.batches, self.count = batches, 0

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.batches.close()

        def __next__(self):
            self.count += 1
            if self.count == interrupted_at:
                raise KeyboardInterrupt
            return next(self.batches)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "open_batches", lambda *args: Interrupted(open_batches(*args)))
        with pytest.raises(KeyboardInterrupt):
            pretrain(smoke(), str(tmp_path))
    pretrain(smoke(), str(tmp_path))

    expected, found = saved_state(whole), saved_state(tmp_path)
    assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_training_moves_every_part_and_logs_what_z_is_worth(whole):
    start = experiment.init_state(experiment.build(smoke()))
    end = saved_state(whole)
    for name, leaf in (
        (jax.tree_util.keystr(path), np.asarray(leaf))
        for path, leaf in jax.tree_util.tree_flatten_with_path(start)[0]
        if path[0].name in ("params", "ema_params")
    ):
        assert (end[name] != leaf).any(), f"{name} was never updated"
        if name.startswith(".params"):
            assert (end[name] != end[name.replace(".params", ".ema_params")]).any()
    names = set().union(*read_metrics(whole))
    assert {
        "loss",
        "gradient_norm/encoder",
        "gradient_norm/denoiser",
        "knn/z",
        "knn/pooled",
        "linear/z",
        "relative_frechet/pooled",
    } <= names
    assert {f"loss_with_code/{code}" for code in ("z", "shuffled", "null")} <= names
    assert "effective_rank" in names
    assert not any("second" in name for name in names), "times differ from run to run"
    assert list((whole / "samples").glob("reconstructions_*8.png"))


def test_a_finished_run_started_again_changes_nothing(whole):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.name == "metrics.jsonl"}
    steps = sorted(os.listdir(whole / "checkpoints"))
    pretrain(smoke(), str(whole))
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(os.listdir(whole / "checkpoints")) == steps


def test_another_config_in_the_same_workdir_is_refused(whole):
    with pytest.raises(ConfigError, match="model.z_size.*16.*24"):
        pretrain(smoke("--config.model.z_size=24"), str(whole))


def run_worker(workdir, cache, *words, devices):
    """`pretrain` of the small network in a process of its own with so many devices; words are for
    jax.distributed."""
    environment = dict(os.environ)
    environment |= {
        "XLA_FLAGS": re.sub(r"(?<=device_count=)\d+", str(devices), os.environ["XLA_FLAGS"]),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": cache,
        "PYTHONPATH": str(ROOT),
    }
    worker = ROOT / "tests" / "pretrain_worker.py"
    command = [sys.executable, str(worker), str(workdir), ",".join(words), *SMALL]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(*processes):
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output


def losses(workdir):
    return [line["loss"] for line in read_metrics(workdir) if "loss" in line]


def assert_same_training(found, expected):
    """Another mesh rounds otherwise, and no more: every loss, and each array after four steps.

    Not each array at the end: a ReLU within rounding of zero opens on one mesh and stays shut on
    the other (seen in the seventh step), and Adam makes whole steps of what that changes.
    """
    np.testing.assert_allclose(losses(found), losses(expected), rtol=1e-5, atol=1e-5)
    states = saved_state(found, 4, SMALL), saved_state(expected, 4, SMALL)
    for name, leaf in states[1].items():
        # The learning rate is 1e-3, so that is what a parameter moves in a step.
        tolerance = min(1e-3 * np.abs(leaf).max(initial=0), 3e-6)
        np.testing.assert_allclose(states[0][name], leaf, rtol=0, atol=tolerance, err_msg=name)


def test_two_processes_compute_what_eight_devices_do(tmp_path, small, compilation_cache):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    finish(
        *(
            run_worker(tmp_path, compilation_cache, address, "2", str(process), devices=4)
            for process in range(2)
        )
    )
    assert_same_training(tmp_path, small)


def test_eight_devices_then_one(tmp_path, small, compilation_cache):
    """One device computes what eight do, and goes on from their checkpoint."""
    alone, resumed = tmp_path / "alone", tmp_path / "resumed"
    pretrain(smoke(*SMALL, "--config.train.num_steps=4"), str(resumed))
    finish(run_worker(alone, compilation_cache, devices=1))
    finish(run_worker(resumed, compilation_cache, devices=1))
    assert_same_training(alone, small)
    assert_same_training(resumed, small)


def test_parameters_split_over_fsdp_train_as_whole_ones_do(tmp_path, monkeypatch, small):
    monkeypatch.setattr(sharding, "SMALLEST_SHARDED_LEAF", 64)
    config = smoke(*SMALL, "--config.mesh.fsdp=2")
    template = experiment.abstract_state(experiment.build(config))
    split = [leaf for leaf in jax.tree.leaves(template.params) if "fsdp" in leaf.sharding.spec]
    assert len(split) > 30
    pretrain(config, str(tmp_path))
    np.testing.assert_allclose(losses(tmp_path), losses(small), rtol=1e-5, atol=1e-5)


def test_three_lines_load_encode_and_reconstruct(whole):
    model = soda_jax.load(str(whole))
    images = experiment.open_data(model.parts, "test").images(np.arange(11))
    z = model.encode(images)
    assert z.shape == (11, 16) and z.std() > 0
    pictures = model.reconstruct(images, seed=3)
    assert pictures.shape == (11, 16, 16, 3) and pictures.dtype == np.uint8
    # A picture doesn't depend on the batch that it is in, nor on what was encoded beside it.
    alone = model.decode(z[9:10], seed=3, noise=[9])
    np.testing.assert_allclose(alone[0].astype(int), pictures[9].astype(int), atol=1)
    assert (model.decode(z[9:10], seed=4, noise=[9]) != alone).any()
    with pytest.raises(ValueError, match=r"\[n h w 3\]"):
        model.encode(images[..., :1])
    # Inversion finds the noise that a picture was drawn from, and so the picture.
    x_T = model.invert(pictures[:3], z[:3], num_steps=20)
    again = model.decode(z[:3], x_T=x_T, num_steps=20)
    error = np.square(again.astype(float) - pictures[:3]).mean()
    assert 10 * np.log10(255**2 / error) > 35
    mask = np.zeros((11, 5), bool)
    mask[:, 2] = True
    np.testing.assert_array_equal(model.decode(z, sections=mask), model.decode(z, sections=[2]))
    with pytest.raises(ValueError, match=r"\[n 16\]"):
        model.decode(z[:, :3])
    with pytest.raises(ValueError, match="sections are 0 to 4; there is no 5"):
        model.decode(z, sections=(0, 5))
    with pytest.raises(ValueError, match="'num_step' is no option.*nearest: num_steps"):
        model.decode(z, num_step=3)
    with pytest.raises(ValueError, match=r"or a mask: a bool array of shape \[11 5\]"):
        model.decode(z, sections=[False, False, True, False, False])
    with pytest.raises(ValueError, match="codes must be finite"):
        model.decode(z + np.where(np.arange(11) == 3, np.nan, 0)[:, None])
    somewhere = Cameras(np.tile(np.eye(4), (11, 1, 1)), np.full((11, 4), 0.5))
    with pytest.raises(ValueError, match="seen: this model was trained without cameras"):
        model.decode(z, seen=somewhere)
    with pytest.raises(ValueError, match="noise must be 11 integers"):
        model.decode(z, noise=np.arange(11) + 0.5)
    # Of a picture that isn't square its middle is taken, as of a file.
    wide = np.concatenate([images[:, :, :4] * 0, images, images[:, :, :6] * 0], axis=2)
    wide = wide[:, :, 1:-1]  # 16 of 24 columns, one off the middle
    np.testing.assert_array_equal(model.encode(wide), model.encode(wide[:, :, 4:20]))


def test_a_model_is_loaded_on_any_number_of_devices(whole, monkeypatch):
    """Three can't split the batches that it was trained by, nor be a mesh of two."""
    model, three = soda_jax.load(str(whole)), jax.devices()[:3]
    images = experiment.open_data(model.parts, "test").images(np.arange(5))
    monkeypatch.setattr(jax, "devices", lambda *_: three)
    config = config_schema.recall(str(whole), ["--config.mesh.data=2"])
    with pytest.raises(ConfigError, match="data 2 x fsdp 1 must be the number of devices, 3"):
        experiment.build(config)
    moved = pretrained.restore(config, str(whole))
    assert moved.parts.mesh.size == 3
    np.testing.assert_allclose(moved.encode(images), model.encode(images), rtol=1e-3, atol=1e-4)


def test_the_size_that_probes_see_changes_nothing_that_is_drawn(whole, tmp_path):
    trained = soda_jax.load(str(whole))
    config = config_schema.recall(str(whole), ["--config.views.source.whole_size=24"])
    model = pretrained.restore(config, str(whole))
    train, test = (experiment.open_data(model.parts, split) for split in ("train", "test"))
    studio = Studio(model, train, test, tmp_path)
    z = trained.encode(studio.sources)
    np.testing.assert_array_equal(model.encode(studio.sources), z)
    np.testing.assert_array_equal(studio.z, z)
    read = model.features_of(test, studio.shown)["z"]
    np.testing.assert_array_equal(model.encode(studio.sources, to_draw=False), read)
    assert np.abs(read - z).max() > 0.01 * z.std()
    pictures = model.reconstruct(studio.sources, num_steps=2)
    np.testing.assert_array_equal(pictures, trained.reconstruct(studio.sources, num_steps=2))


def test_probe_sample_and_report_leave_their_numbers_and_one_page(whole):
    from soda_jax.probe import probe
    from soda_jax.report import report
    from soda_jax.sample import sample

    rows = probe(smoke("--config.probe.protocols=('lbfgs','knn')"), str(whole))
    names = {row["representation"] for row in rows}
    assert names == {"z", "pooled", "untrained z", "untrained pooled", "raw pixels"}
    assert all(0 <= row["accuracy"] <= 1 and row["protocol"] for row in rows)
    pixels = [
        row for row in rows if (row["representation"], row["probe"]) == ("raw pixels", "lbfgs")
    ]
    assert pixels[0]["accuracy"] > 0.7  # 200 digits teach a linear classifier of pixels that much
    scores = sample(smoke(), str(whole))
    assert scores["psnr"] > 0 and (whole / "samples" / "reconstructions.png").exists()
    page = pathlib.Path(report(str(whole))).read_text()
    assert "raw pixels" in page and page.count("data:image/png;base64,") >= 2


def test_evaluate_runs_every_suite_and_shows_them_on_one_page(whole):
    """But for what other tests here run; the baselines are those of `probe`."""
    from soda_jax.evaluate import evaluate

    few = smoke("--config.probe.baselines=false", "--config.probe.features=('z',)")
    names = ("probes", "layers", "attributes", "code", "pictures")
    path = pathlib.Path(evaluate(few, str(whole), names))
    found = {name: json.loads((path.parent / f"{name}.json").read_text()) for name in names}

    assert {"lbfgs", "adam", "knn", "mlp"} <= {row["probe"] for row in found["probes"]["rows"]}
    layers = found["layers"]
    heads = {"stem", "pooled", "z", "section0", "mid_block0@t=0.5", "no z: mid_block0@t=0.5"}
    assert heads <= set(layers["heads"]) and layers["best"] in layers["heads"]
    assert layers["heads"][layers["best"]]["validation_accuracy"] == max(
        head["validation_accuracy"] for head in layers["heads"].values()
    )
    # All of z can't know less than a part of it, but for the noise of a short training.
    assert layers["heads"]["z"]["accuracy"] > layers["heads"]["section0"]["accuracy"] - 0.1
    assert found["attributes"]["names"] == [f"class = {digit}" for digit in range(10)]

    code = found["code"]
    assert sum(code["section_sizes"]) == 16 and 0 < code["effective_rank"] <= 16
    np.testing.assert_allclose(np.diag(code["section_correlation"]), 1, atol=1e-4)
    metrics = {row["metric"]: row for row in found["pictures"]["rows"]}
    assert {"PSNR", "SSIM"} <= set(metrics)
    assert not any("FID" in name for name in metrics)  # its network wasn't given
    assert all("sampler" in row["protocol"] for row in metrics.values())
    page = path.read_text()
    for text in ("lbfgs", "mid_block0", "MS-SSIM", "another picture", "own pooled features"):
        assert text in page


@pytest.mark.slow
def test_published_probes_and_fine_tuning_run_on_a_checkpoint(whole):
    from soda_jax.evaluate import evaluate

    few = smoke("--config.evaluate.fine_tune_epochs=2", "--config.evaluate.streamed=('soda','mae')")
    path = pathlib.Path(evaluate(few, str(whole), ("streamed", "fine_tune")))
    streamed, tuned = (
        json.loads((path.parent / f"{name}.json").read_text())["rows"]
        for name in ("streamed", "fine_tune")
    )
    assert {row["representation"] for row in streamed} == {"z", "pooled"} and len(streamed) == 4
    assert streamed[1]["protocol"]["epochs"] == 15 and streamed[2]["protocol"]["epochs"] == 90
    assert [row["protocol"]["weights"] for row in tuned] == ["ema", "initial"]
    assert "from scratch" in path.read_text()


def test_z_is_put_to_its_uses(whole):
    from soda_jax import apply
    from soda_jax.page import embed

    path = pathlib.Path(apply.apply(smoke(), str(whole)))
    uses = [name for name in apply.USES if name != "zoom"]  # its denoiser isn't told of places
    found = {name: json.loads((path.parent / f"{name}.json").read_text()) for name in uses}
    scores = found["reconstruct"]
    assert scores["from the inverted x_T"]["PSNR"] > scores["from noise"]["PSNR"] + 3
    assert np.shape(list(found["mix"]["roles"].values())) == (5, len(found["mix"]["attributes"]))
    changes = found["directions"]["changes"]
    assert set(changes) == {"principal", "closed form", "random"} and len(changes["random"]) == 2
    assert set(found["directions"]["read"]) == {str(digit) for digit in range(10)}
    assert (path.parent / "latent_prior.npz").exists()
    page = path.read_text()
    for picture in [*path.parent.glob("*.png"), *path.parent.glob("*.gif")]:
        assert embed(picture) in page, picture


def test_disentanglement_needs_factors_and_ranks_codes_by_them(tmp_path, monkeypatch):
    from soda_jax import evaluate, pretrained
    from soda_jax.suites import attributes, disentanglement

    random = np.random.default_rng(0)
    factors = random.integers(0, 4, (3000, 2))
    images = np.zeros((3000, 16, 16, 3), np.uint8)
    for image, (place, shade) in zip(images, factors, strict=True):
        image[4 * place : 4 * place + 4] = 60 * (shade + 1)
    for name, images_of in (("with", {"factors": factors}), ("without", {})):
        np.savez(tmp_path / f"{name}.npz", images=images, **images_of)

    def splits(name):
        config = smoke("--config.data.source=arrays", f"--config.data.path={tmp_path / name}.npz")
        model = pretrained.untrained(experiment.build(config))
        return model, *(experiment.open_data(model.parts, split) for split in ("train", "test"))

    with pytest.raises(ValueError, match="no factors of variation"):
        disentanglement.run(*splits("without"))
    values = disentanglement.run(*splits("with"))
    scores = {(row["representation"], row["metric"]): row["value"] for row in values["rows"]}
    assert scores["PCA of raw pixels", "informativeness (trees)"] > 0.9
    assert values["factors"] == ["factor0", "factor1"]
    assert np.shape(values["sections"]["accuracy"]) == (5, 2)
    assert "section 4" in "".join(disentanglement.show(values, tmp_path))
    probes = {name: np.array(found["accuracy"][0]) for name, found in values["probes"].items()}
    assert probes.keys() == {"z", "untrained z", "PCA of raw pixels"}
    assert (probes["PCA of raw pixels"] > np.array(values["sections"]["chance"]) + 0.2).all()

    monkeypatch.setattr(pretrained, "load", lambda workdir, weights: model)
    model, train, test = splits("with")
    allowed = ["attributes", "disentanglement", "code", "pictures"]
    assert evaluate.allowed_by(model, train, test) == allowed
    few = range(model.parts.z_size)  # pictures whose codes can't show all of z's directions
    assert evaluate.allowed_by(model, train, few) == [x for x in allowed if x != "code"]
    model.parts.config.unlock()
    model.parts.config.evaluate.compare = ("runs/twin",)
    codes = disentanglement.codes_of(model, train, test, np.arange(100))
    np.testing.assert_array_equal(codes["z of runs/twin"], codes["z"])
    names, train_y, test_y = attributes.attributes(train, np.arange(len(train)), test)
    assert names == [f"factor{k} = {value}" for k in range(2) for value in range(4)]
    np.testing.assert_array_equal(train_y.reshape(-1, 2, 4).sum(2), 1)
    np.testing.assert_array_equal(test_y[:, 6], test.factors(np.arange(len(test)))[:, 1] == 2)


def test_a_dry_run_tells_and_leaves_nothing(tmp_path, capsys):
    pretrain(smoke(), str(tmp_path / "none"), dry_run=True)
    told = capsys.readouterr().out
    assert "GFLOP a picture" in told and "MiB a device" in told and "sections of z" in told
    assert not (tmp_path / "none").exists()
