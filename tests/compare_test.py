"""Methods side by side: from their own runs, which must be of the same pictures."""

import dataclasses
import json
import pathlib

import pytest

from soda_jax.compare import check_alike, compare, differing, has, learned, open_run, show
from soda_jax.config_schema import ConfigError, load
from soda_jax.pretrain import pretrain

pytestmark = pytest.mark.usefixtures("shared_experiments", "short_measures")
CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
FEW = (
    "--config.train.num_steps=1", "--config.train.probe_every=0", "--config.train.diagnose_every=0",
    "--config.train.sample_every=0", "--config.train.frechet_images=0",
    "--config.evaluate.graph_examples=200", "--config.evaluate.labels_per_class=(10,)",
    "--config.probe.draws=1", "--config.evaluate.layer_ts=(0.1,)",
    "--config.probe.protocols=('lbfgs', 'knn')",
    # One level: each run here compiles its own step and all that measures it.
    "--config.model.denoiser.multipliers=(1,)", "--config.model.denoiser.attention_levels=()",
)  # fmt: skip
ALONE = (
    "--config.model.encoder.variant=none", "--config.probe.features=('block',)",
    "--config.sample.guidance_scale=0.0", "--config.name=alone",
)  # fmt: skip


def smoke(*overrides):
    return load(str(CONFIGS / "smoke.py"), [*FEW, *overrides])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    pretrain(smoke(), str(folder / "soda"))
    pretrain(smoke(*ALONE), str(folder / "alone"))
    return folder


def test_each_has_a_row_and_so_have_pixels_and_an_untrained_encoder(runs):
    page = pathlib.Path(compare([str(runs / "soda"), str(runs / "alone")], str(runs / "both")))
    found = json.loads((runs / "both" / "comparison.json").read_text())
    assert list(found["rows"]) == ["smoke", "alone", "untrained z", "raw pixels"]
    soda, alone = found["rows"]["smoke"], found["rows"]["alone"]
    assert soda["linear, z"] and not alone["linear, z"]  # it has no z
    for column in ("linear, best block", "kNN", "10 labels a class", "10, spread", "Fréchet"):
        assert soda[column] and alone[column], column
    assert soda["PSNR"] and "PSNR" not in alone
    assert found["judge"] == "smoke" and "raw pixels" in page.read_text()
    # What is measured is there already: nothing is computed again.
    (folder,) = (runs / "alone" / "evaluation").iterdir()
    before = (folder / "probes.json").stat().st_mtime_ns
    compare([str(runs / "alone"), str(runs / "soda")], str(runs / "again"))
    assert (folder / "probes.json").stat().st_mtime_ns == before


def test_what_does_not_compare_is_refused_before_anything_is_measured(runs, tmp_path):
    def configs(*overrides):
        return {"runs/a": smoke(), "runs/b": smoke(*overrides)}

    with pytest.raises(ConfigError, match="two runs or more"):
        compare([str(runs / "soda"), str(runs / "soda")], str(tmp_path))
    with pytest.raises(ConfigError, match="runs/b and runs/a.*other pictures.*data.image_size"):
        check_alike(configs("--config.data.image_size=8"))
    with pytest.raises(ConfigError, match="runs/b: config.probe.features must have 'z'"):
        check_alike(configs("--config.probe.features=('pooled',)"))
    with pytest.raises(ConfigError, match="none of these runs has an encoder"):
        check_alike({"runs/a": smoke(*ALONE), "runs/b": smoke(*ALONE)})
    with pytest.raises(ConfigError, match="config.probe.protocols 'lbfgs' and 'knn'"):
        check_alike(configs("--config.probe.protocols=('lbfgs',)"))
    check_alike(configs("--config.probe.draws=3"))


def test_what_a_run_learned_on_the_way_is_drawn_over_the_pictures_it_saw(runs, tmp_path):
    lines = [{"step": 1, "loss": 0.5}]
    lines += [{"step": n, "linear/z": n / 10, "linear/pooled": 1, "knn/z": 0.2} for n in (2, 4)]
    written = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(written + '{"step": 5, "linear/')  # killed as it wrote
    run = dataclasses.replace(open_run(str(runs / "soda")), workdir=str(tmp_path))
    batch_size = run.config.train.batch_size
    assert learned(run) == {
        "linear": [(2 * batch_size, 0.2), (4 * batch_size, 0.4)],
        "knn": [(2 * batch_size, 0.2), (4 * batch_size, 0.2)],
    }
    found = {
        "rows": {},
        "judge": "smoke",
        "differing": [],
        "runs": {
            name: {"pictures_seen": 1, "parameters": {}, "seed": 0, "curves": curves}
            for name, curves in (("one", learned(run)), ("other", {}))
        },
    }
    (charts,) = (part for part in show(found) if "<svg" in part)
    assert charts.count("<svg") == 2 and f"best 0.4 at {4 * batch_size}" in charts
    found["runs"]["one"]["curves"] = {}
    assert not any("<svg" in part for part in show(found))


def test_runs_of_one_name_are_told_apart_and_other_measures_are_told(runs):
    one, other = open_run(str(runs / "soda")), open_run(str(runs / "soda"))
    other.config = smoke("--config.probe.draws=3", "--config.model.z_size=20")
    (line,) = differing([one, other])
    assert line.startswith("smoke: probe.draws")
    # What an earlier evaluation left may have been made otherwise, whatever the config says.
    other.config = one.config
    for row in other.suites["probes"]["rows"]:
        row["protocol"] = row["protocol"] | {"train_examples": 7}
    (pictures,) = (x for x in other.suites["pictures"]["rows"] if x["metric"] == "PSNR")
    pictures["protocol"]["num_steps"] = 77
    other.suites["layers"]["ts"] = [0.7]
    lines = differing([one, other])
    for told in ("lbfgs, train_examples", "PSNR, num_steps: 2 -> 77", "layers, ts"):
        assert any(told in line for line in lines), told


def test_what_an_evaluation_left_out_is_measured(runs):
    run = open_run(str(runs / "soda"))
    assert all(has(run, suite) for suite in run.suites) and not has(run, "disentanglement")
    run.suites["probes"]["rows"] = [
        row for row in run.suites["probes"]["rows"] if row["representation"] != "z"
    ]
    run.suites["layers"]["heads"] = {"pooled": {}}
    assert [name for name in run.suites if not has(run, name)] == ["probes", "layers"]
