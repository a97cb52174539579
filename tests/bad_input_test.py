"""What a person may get wrong, at the command line: one clear line, a code, nothing lost."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from soda_jax import config_schema
from soda_jax.__main__ import main

ROOT = pathlib.Path(__file__).parents[1]
SMOKE = str(ROOT / "configs" / "smoke.py")


def make_folder(root, broken=False):
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(8):
                pixels = np.random.RandomState(i).randint(0, 256, (16, 16, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    if broken:
        (root / "train" / "dog" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nthis is no picture")
    return root


def run(capsys, *words):
    """(exit code, the lines on stderr that tell of an error)."""
    capsys.readouterr()
    code = main(list(words))
    told = capsys.readouterr().err.splitlines()
    assert not any("Traceback" in line for line in told), told
    return code, [line for line in told if line.startswith("soda_jax: error: ")]


def listing(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", ["no such", "nowhere"]),
        ("empty", ["no pictures"]),
        ("broken", ["dog/3.png"]),
        ("foreign", ["images"]),
    ],
)
def test_pictures_that_cannot_be_used(tmp_path, capsys, kind, words):
    source = "folder"
    path = tmp_path / "nowhere"
    if kind == "empty":
        path.mkdir()
    if kind == "broken":
        make_folder(path, broken=True)
    if kind == "foreign":
        source, path = "arrays", tmp_path / "foreign.npz"
        np.savez(path, weights=np.zeros(3))
    before = listing(tmp_path)
    code, told = run(
        capsys,
        "pretrain",
        f"--config={SMOKE}",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.source={source}",
        f"--config.data.path={path}",
    )
    assert code == 65 and len(told) == 1, told
    assert any(word in told[0].lower() for word in words), told
    after = listing(tmp_path)
    assert {name: after[name] for name in before} == before
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.parametrize("command", ["probe", "sample", "report"])
def test_a_workdir_without_a_run(tmp_path, capsys, command):
    code, told = run(capsys, command, f"--workdir={tmp_path}")
    assert code == 73 and len(told) == 1 and str(tmp_path) in told[0], told
    assert listing(tmp_path) == {}


def test_a_run_without_a_checkpoint(tmp_path, capsys):
    config_schema.remember(config_schema.load(SMOKE), str(tmp_path))
    before = listing(tmp_path)
    code, told = run(capsys, "sample", f"--workdir={tmp_path}")
    assert code == 73 and len(told) == 1 and "no finished checkpoint" in told[0], told
    assert listing(tmp_path) == before


def test_a_checkpoint_of_another_model(tmp_path, capsys):
    from soda_jax import experiment
    from soda_jax.training.checkpoint import Checkpointer

    config = config_schema.load(SMOKE)
    parts = experiment.build(config)
    config_schema.remember(config, str(tmp_path))
    with Checkpointer(tmp_path, asynchronous=False) as checkpointer:
        checkpointer.save(1, experiment.init_state(parts), {})
    before = listing(tmp_path)
    # Not even where every array has its size: it would be read as another function.
    for word, difference in (
        ("model.z_size=24", "model.z_size: saved 16, given 24"),
        ("diffusion.prediction=v", "diffusion.prediction: saved 'epsilon', given 'v'"),
        ("diffusion.schedule=linear", "diffusion.schedule: saved 'inverted_cosine', given"),
        ("views.source.mean=(0.4,0.4,0.4)", "views.source.mean: saved (0.5, 0.5, 0.5), given"),
    ):
        code, told = run(capsys, "sample", f"--workdir={tmp_path}", f"--config.{word}")
        assert code == 78 and len(told) == 2, told
        assert difference in told[0] and "trained otherwise" in told[1], told
    assert listing(tmp_path) == before
    # Nor a checkpoint that isn't the workdir's own.
    other = config_schema.load(SMOKE, ["--config.model.z_size=24"])
    (tmp_path / "config.json").write_text(config_schema.to_json(other))
    code, told = run(capsys, "sample", f"--workdir={tmp_path}")
    assert code == 78 and len(told) == 1 and "the config makes float32 [" in told[0], told


@pytest.mark.parametrize("command", ["sample", "probe"])
def test_results_that_have_no_place_are_told_of_before_they_are_worked_for(
    tmp_path, capsys, monkeypatch, command
):
    from types import SimpleNamespace

    from soda_jax import pretrained

    config_schema.remember(config_schema.load(SMOKE), str(tmp_path))
    (tmp_path / "samples").write_text("")
    (tmp_path / "probe").write_text("")
    # A model of which nothing may be asked.
    monkeypatch.setattr(pretrained, "restore", lambda *_, **__: SimpleNamespace(step=1))
    code, told = run(capsys, command, f"--workdir={tmp_path}")
    assert code == 73 and len(told) == 1 and "is a file" in told[0], told
