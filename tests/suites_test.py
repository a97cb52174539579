"""What suites hand to their measures."""

import json
import types

import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax import evaluate, experiment, report, rngs
from soda_jax.config_schema import ConfigError, load
from soda_jax.suites import streamed


def test_published_views_are_mirrored_as_often_as_there_and_as_large_as_whole_pictures(monkeypatch):
    """FutureXiang/soda crops .65 of the pictures, and mirrors half of those."""
    config = load("configs/smoke.py", ("--config.views.source.size=8",
                                       "--config.views.source.whole_size=12"))  # fmt: skip
    parts = experiment.build(config)
    seen = {}

    def layers(model, variables, source, names):
        seen["shape"] = source.shape
        return {"z": source.mean(-1).reshape(len(source), -1)}

    monkeypatch.setattr(streamed, "encoder_layers", layers)
    model = types.SimpleNamespace(parts=parts, alone=None)
    _, view, read = streamed.PROTOCOLS["soda"]
    # Left is dark and right is bright, so any view tells whether it is mirrored.
    ramp = np.broadcast_to(np.linspace(0, 255, 12)[None, None, :, None], (2000, 12, 12, 3))
    pictures = ramp.astype(np.uint8)  # and no two alike: their draws go with what they show
    pictures[:, 5, 5, 0], pictures[:, 5, 5, 1] = np.arange(2000) // 256, np.arange(2000) % 256
    views = streamed.reader(model, read, view)(None, jnp.asarray(pictures), rngs.root(0))["z"]
    views = np.asarray(views).reshape(2000, 12, 12)
    mirrored = views[:, :, 0].mean(1) > views[:, :, -1].mean(1)
    assert seen["shape"] == (2000, 12, 12, 3)
    assert abs(mirrored.mean() - 0.325) < 0.04


def test_published_views_whose_code_the_denoiser_is_given_are_as_large_as_in_training(monkeypatch):
    config = load("configs/smoke.py", ("--config.views.source.size=8",
                                       "--config.views.source.whole_size=12"))  # fmt: skip
    parts, seen = experiment.build(config), {}

    def encode(variables, source, t, method):
        seen["shape"] = source.shape
        return source.mean((1, 2))

    def layers(model, process, variables, x_0, z, t, keys, names):
        return {names[0]: x_0.mean((1, 2))}

    monkeypatch.setattr(streamed, "denoiser_layers", layers)
    model = types.SimpleNamespace(parts=parts, alone=types.SimpleNamespace(apply=encode))
    pictures = jnp.zeros((3, 12, 12, 3), jnp.uint8)
    streamed.reader(model, "block", streamed.PROTOCOLS["ddae"][1])(None, pictures, rngs.root(0))
    assert seen["shape"] == (3, 8, 8, 3)


def test_published_probes_of_several_kinds_stand_in_one_table():
    """Those of DDAE read a block, where those of SODA read z."""
    rows = [
        {"representation": name, "probe": probe, "accuracy": accuracy, "dimensions": 8,
         "protocol": {}}
        for name, probe, accuracy in (("z", "soda", 0.5), ("pooled", "soda", 0.6),
                                      ("block", "ddae", 0.7))
    ]  # fmt: skip
    shown = "".join(streamed.show({"rows": rows}, None))
    for accuracy in ("50.00", "<b>60.00</b>", "<b>70.00</b>"):
        assert accuracy in shown


def test_where_no_suite_is_possible_none_is_said_to_have_run(tmp_path, monkeypatch):
    parts = experiment.build(load("configs/smoke.py", []))
    monkeypatch.setattr(evaluate, "allowed_by", lambda *_: [])
    model = types.SimpleNamespace(parts=parts, step=1)
    with pytest.raises(ConfigError, match="no suite is possible"):
        evaluate.evaluate_model(model, str(tmp_path))


def test_the_report_shows_the_newest_probes_of_averaged_weights_before_raw_ones(tmp_path):
    def left(name, accuracy):
        row = {"representation": "z", "probe": "lbfgs", "accuracy": accuracy, "dimensions": 8,
               "protocol": {}}  # fmt: skip
        (tmp_path / "probe").mkdir(exist_ok=True)
        (tmp_path / "probe" / name).write_text(json.dumps([row]))
        return "".join(report.probe_table(tmp_path))

    assert report.probe_table(tmp_path) == []
    assert "10.00" in left("00000001.json", 0.1)
    assert "20.00" in left("00000002_raw.json", 0.2)
    assert "30.00" in left("00000002.json", 0.3)
    assert "30.00" in left("00000001_raw.json", 0.4)
