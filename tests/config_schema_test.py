import json
import os
import pathlib
import subprocess
import sys

import ml_collections
import pytest

from configs import base
from soda_jax import config_schema
from soda_jax.config_fields import FIELDS, LATER_FIELDS
from soda_jax.config_schema import ConfigError

REPOSITORY = pathlib.Path(__file__).parents[1]
BASE = str(REPOSITORY / "configs" / "base.py")
VALUES = config_schema.flatten(base.get_config())


def load(*overrides: str) -> ml_collections.ConfigDict:
    return config_schema.load(BASE, [f"--config.{word}" for word in overrides])


def problems_of(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    return caught.value.problems


def test_the_table_has_every_field_of_base_and_no_other():
    assert list(VALUES) == list(FIELDS)


def test_the_table_allows_what_the_rooms_know():
    from soda_jax.data.sources import SOURCES
    from soda_jax.diffusion.process import LAWS, LOSS_WEIGHTS, PREDICTIONS
    from soda_jax.diffusion.sampler import SAMPLERS
    from soda_jax.diffusion.schedule import SCHEDULES
    from soda_jax.evaluate import SUITES
    from soda_jax.models.encoder import RESNETS
    from soda_jax.probe import PROTOCOLS
    from soda_jax.suites.streamed import PROTOCOLS as STREAMED

    assert FIELDS["data.source"].values == SOURCES
    assert FIELDS["diffusion.loss_weight"].values == LOSS_WEIGHTS
    assert FIELDS["diffusion.law"].values == LAWS
    assert FIELDS["diffusion.prediction"].values == PREDICTIONS
    assert FIELDS["sample.sampler"].values == SAMPLERS
    assert FIELDS["diffusion.schedule"].values == tuple(SCHEDULES)
    assert FIELDS["model.encoder.variant"].values == (*RESNETS, "wide_resnet", "none")
    assert FIELDS["probe.protocols"].part.values == tuple(PROTOCOLS)
    assert FIELDS["evaluate.suites"].part.values == tuple(SUITES)
    assert FIELDS["evaluate.streamed"].part.values == tuple(STREAMED)


def test_the_number_of_sections_is_the_models():
    from soda_jax.config_model_rules import num_sections
    from soda_jax.models import denoiser

    for multipliers, num_blocks in (((1,), 1), ((1, 2), 3), ((1, 2, 2, 2), 2)):
        values = {
            "model.denoiser.multipliers": multipliers,
            "model.denoiser.num_blocks": num_blocks,
            "model.denoiser.variant": "unet",
            "model.bottleneck.sections": "layers",
        }
        assert num_sections(values) == denoiser.num_sections(multipliers, num_blocks)


FILES = sorted(path.name for path in (REPOSITORY / "configs").glob("[!_]*.py"))
PRESETS = [
    "factors.py:autoencoder",
    "scenes.py:regression",
    "views.py:regression",
    "cifar10.py:cpu",
    "diffae.py:cpu",
    "drl.py:cpu",
    "drl.py:cpu_vdrl",
    "drl.py:digits",
    "cifar10.py:full",
    "cifar10.py:full_plain",
    "cifar10.py:cpu_plain",
    "cifar100.py:cpu",
    "cifar100.py:full",
]


@pytest.mark.parametrize("name", FILES + PRESETS)
def test_every_config_is_valid_and_survives_json(name):
    config = config_schema.load(str(REPOSITORY / "configs" / name))
    saved = config_schema.to_json(config)
    again = config_schema.from_json(saved)
    assert repr(config_schema.flatten(again)) == repr(config_schema.flatten(config))
    assert config_schema.to_json(again) == saved
    assert again.is_locked


def test_json_keeps_tuples_and_the_kinds_of_numbers():
    config = load(
        "sample.sections=[0,2]",
        "optimizer.learning_rate=1",
        "views.source.crop_ratio=(1,4)",
        "name=größe",
    )
    again = config_schema.from_json(config_schema.to_json(config))
    assert again.sample.sections == (0, 2) and type(again.sample.sections) is tuple
    assert type(again.optimizer.learning_rate) is float and type(again.train.num_steps) is int
    assert [type(part) for part in again.views.source.crop_ratio] == [float, float]
    assert again.views.target.crop_ratio[1] == 4 / 3
    assert again.name == "größe"


def test_overrides_of_every_kind():
    config = load(
        "train.batch_size=1_024",
        "optimizer.learning_rate=3e-4",
        "optimizer.weight_decay=1",
        "train.remat=true",
        "model.denoiser.mid_attention=False",
        "model.denoiser.multipliers=(1,2)",
        "model.denoiser.attention_levels=()",
        "probe.features=('pooled',)",
        "diffusion.schedule=cosine",
        "data.channels=1",
        "data.source=folder",
        "data.path=/a folder/with=signs",
        "name=123",
    )
    assert config.train.batch_size == 1024
    assert config.optimizer.learning_rate == 3e-4
    assert repr(config.optimizer.weight_decay) == "1.0"
    assert config.train.remat is True and config.model.denoiser.mid_attention is False
    assert config.model.denoiser.multipliers == (1, 2)
    assert config.model.denoiser.attention_levels == ()
    assert config.probe.features == ("pooled",)
    assert config.diffusion.schedule == "cosine"
    assert config.data.channels == 1
    assert config.data.path == "/a folder/with=signs"
    assert config.name == "123"
    with pytest.raises((AttributeError, KeyError)):
        config.train.batchsize = 3


# overrides, then what the one line must say: the key and value, what is allowed, the nearest
WRONG = [
    ("train.batchsize=3", "train.batchsize: unknown key", "num_steps", "train.batch_size"),
    ("batch_size=4", "batch_size: unknown key", "", "train.batch_size"),
    ("modle.z_size=4", "modle.z_size: unknown key", "", "model.z_size"),
    ("train=3", "train = 3", "a section; it has batch_size, num_steps", ""),
    ("train.batch_size=abc", "train.batch_size = 'abc'", "a whole number from 1", ""),
    ("train.batch_size=1e4", "train.batch_size = 10000.0", "a whole number", "(nearest: 10000)"),
    ("train.batch_size=-3", "train.batch_size = -3", "from 1 up to", "(nearest: 1)"),
    ("train.batch_size=1e999", "train.batch_size = inf", "a whole number", "(nearest: 1048576)"),
    ("train.num_steps=None", "train.num_steps = None", "a whole number", ""),
    ("optimizer.learning_rate=nan", "optimizer.learning_rate = 'nan'", "a number from 0", ""),
    ("optimizer.ema_decay=1", "optimizer.ema_decay = 1.0", "and below 1", ""),
    ("seed=" + "9" * 5000, "seed = ", "a whole number from 0", ""),
    ("model.encoder.variant=resnet-18", "'resnet-18'", "one of resnet10", "'resnet18'"),
    ("data.channels=2", "data.channels = 2", "one of 1, 3", ""),
    ("train.remat=flase", "train.remat = 'flase'", "True or False", "(nearest: False)"),
    ("train.remat=1", "train.remat = 1", "True or False", "(nearest: True)"),
    ("probe.features=z", "probe.features = 'z'", "a tuple", "(nearest: ('z',))"),
    ("probe.features=('z','z')", "('z', 'z')", "different", "(nearest: ('z',))"),
    ("model.denoiser.multipliers=" + "(" * 5000, "model.denoiser.multipliers", "a tuple", ""),
    ("views.source.crop_scale=(.9,.1)", "(0.9, 0.1)", "smaller one first", "(0.1, 0.9)"),
    ("sample.guidance_interval=(1.,.5)", "(1.0, 0.5)", "smaller one first", "(0.5, 1.0)"),
    ("views.source.mean=(.5,)", "views.source.mean = (0.5,)", "3 parts", "(0.5, 0.5, 0.5)"),
    ("views.target.jitter_strength=(0,0,0,.9)", "(0.0, 0.0, 0.0, 0.9)", "at most 0.5", "0.0, 0.5)"),
    ("views.target.size=30", "views.target.size = 30", "a multiple of 8", "(nearest: 24 or 32)"),
    ("model.denoiser.attention_levels=(1,4)", "(1, 4)", "from 0 to 3", "(nearest: (1,))"),
    ("model.denoiser.head_size=48", "= 48", "divides the 256 channels", "(nearest: 32 or 64)"),
    ("model.denoiser.attention_kernel=cudnn", "'cudnn'", "model.dtype = 'float32'", "'xla'"),
    ("model.z_size=12", "model.z_size = 12", "at least 13", "(nearest: 13)"),
    ("sample.sections=(0,13)", "sample.sections = (0, 13)", "0 to 12", "(nearest: (0,))"),
    ("optimizer.accumulate=3", "optimizer.accumulate = 3", "batch_size = 256", "(nearest: 2 or 4)"),
    ("mesh.data=0", "mesh.data = 0", "-1 for all", "(nearest: -1)"),
    ("mesh.fsdp=3", "train.batch_size = 256", "a multiple of mesh.fsdp = 3", "255 or 258"),
    ("data.source=tfds", "data.name = ''", "needs a data set's name", ""),
    ("data.source=folder", "data.path = ''", "needs the path", ""),
    ("train.checkpoints_to_keep=1", "= 1", "from 2", "(nearest: 2)"),
    ("name=", "name = ''", "not empty", ""),
]


@pytest.mark.parametrize(
    "override, expected", [(row[0], row[1:]) for row in WRONG], ids=[row[0][:40] for row in WRONG]
)
def test_a_wrong_config_gives_one_clear_line(override, expected):
    (line,) = problems_of(override)
    assert "\n" not in line and len(line) < 400
    for part in expected:
        assert part in line


def test_rules_that_two_fields_break():
    (line,) = problems_of("sample.sampler=heun", "sample.eta=.5")
    assert line == "sample.eta = 0.5: 0.0 for sample.sampler = 'heun', as only ddim adds noise" + (
        " (nearest: 0.0)"
    )
    assert load("sample.sampler=ddim", "sample.eta=.5").sample.eta == 0.5
    (line,) = problems_of("mesh.data=8", "optimizer.accumulate=64")
    assert line.startswith("train.batch_size = 256: a multiple of mesh.data = 8 x mesh.fsdp = 1 x")
    (line,) = problems_of("cameras.mirror_prob=.5")
    assert line.startswith("cameras.mirror_prob = 0.5: 0.0 for cameras.encoding = 'none'")
    (line,) = problems_of("views.target.whole_size=32")
    assert line.startswith("views.target.whole_size = 32: 0: the denoiser knows")
    (line,) = problems_of("views.targets=2", "train.mixup=True")
    assert line == "views.targets = 2: 1 where train.mixup is on (nearest: 1)"
    (line,) = problems_of("model.bottleneck.penalty=barlow")
    assert line.startswith("views.pairs = 1: 2 for model.bottleneck.penalty = 'barlow'")
    (line,) = problems_of("model.bottleneck.penalty=bootstrap")
    assert line.startswith("views.pairs = 1: 2 for model.bottleneck.penalty = 'bootstrap'")
    (line,) = problems_of("views.pairs=2", "train.mixup=True")
    assert line == "views.pairs = 2: 1 where train.mixup is on (nearest: 1)"
    (line,) = problems_of("model.bottleneck.penalty=barlow", "train.mixup=True")
    assert line.startswith("model.bottleneck.penalty = 'barlow': another where train.mixup is on")
    (line,) = problems_of("model.encoder.code_norm=batch", "model.bottleneck.penalty=l1")
    assert line.startswith("model.bottleneck.penalty = 'l1': 'none' for model.encoder.code_norm")
    (line,) = problems_of("model.encoder.features=300", "model.encoder.linear=False")
    assert "300, as many as there are pooled features" in line
    stages = "model.encoder.pooling=stages"
    (line,) = problems_of(stages, "model.encoder.features=300", "model.encoder.linear=False")
    assert f"{64 + 128 + 256 + 300}, as many as there are pooled features" in line
    two = "model.encoder.moments=2"
    (line,) = problems_of(stages, two, "model.encoder.features=300", "model.encoder.linear=False")
    assert f"{2 * (64 + 128 + 256 + 300)}, as many as there are pooled features" in line
    (line,) = problems_of(stages, "model.encoder.variant=wide_resnet", "sample.guidance_scale=0.")
    assert line.startswith("model.encoder.pooling = 'stages': 'last' for model.encoder.variant")
    wide = "model.encoder.variant=wide_resnet", "sample.guidance_scale=0."
    lines = problems_of(*wide, "model.encoder.stem=patch", "model.encoder.norm=group")
    assert [line.split(" for ")[0] for line in lines] == [
        "model.encoder.stem = 'patch': 'small'", "model.encoder.norm = 'group': 'batch'",
    ]  # fmt: skip
    rate = "optimizer.head_learning_rate=1e-3"
    (line,) = problems_of(rate, "optimizer.encoder_learning_rate=0.")
    assert line.startswith("optimizer.head_learning_rate = 0.001: 0.0 where the encoder's rate is")
    (line,) = problems_of(rate, "model.encoder.linear=False", "model.z_size=512")
    assert line.startswith("optimizer.head_learning_rate = 0.001: 0.0 where no linear map makes z")
    one = "views.source.mean=(.5,)"
    (line,) = problems_of("data.channels=1", one)
    assert line.startswith("views.source.mean = (0.5,): as many parts as views.source.std")
    assert load("data.channels=1", one, "views.source.std=(1,)").views.source.std == (1.0,)


def test_a_located_target_is_moved_by_crops_and_mirrors_alone():
    assert load("views.located=True").views.located
    (line,) = problems_of("apply.uses=('zoom', 'mix')")
    assert line.startswith("apply.uses = ('zoom', 'mix'): without 'zoom' where views.located")
    assert line.endswith("(nearest: ('mix',))")
    (line,) = problems_of("views.located=True", "views.target.randaugment_prob=.5")
    assert line.startswith("views.target.randaugment_prob = 0.5: 0.0 for views.located, which")
    (line,) = problems_of("views.located=True", "views.source.shift=2")
    assert line.startswith("views.source.shift = 2: 0 for views.located")
    alone = ("model.encoder.variant=none", "probe.features=('block',)", "sample.guidance_scale=0.")
    (line,) = problems_of("views.located=True", *alone)
    assert line == "views.located = True: False where there is no source (nearest: False)"


def test_shared_views_differ_in_size_alone():
    sizes = ("views.source.size=24", "views.source.whole_size=32", "views.target.size=16")
    alike = ("views.shared=True", *sizes, "views.source.noise=.1")
    (line,) = problems_of(*alike, "views.source.flip_prob=.25")
    assert line == (
        "views.source.flip_prob = 0.25: views.target.flip_prob = 0.5 for views.shared: one view of "
        "both (nearest: 0.5)"
    )


def test_views_that_are_recoloured_alike_have_no_contrast_and_no_noise():
    def posed(*words: str) -> ml_collections.ConfigDict:
        words = ("views.shared=True", *words)
        path = str(REPOSITORY / "configs" / "views.py")
        return config_schema.load(path, [f"--config.{word}" for word in words])

    jitter = [f"views.{side}.jitter_prob=.8" for side in ("source", "target")]
    with pytest.raises(ConfigError) as caught:
        posed(*jitter, "views.target.noise=.1")
    assert [line.split(" =")[0] for line in caught.value.problems] == [
        "views.source.jitter_strength", "views.target.noise", "views.target.jitter_strength",
    ]  # fmt: skip
    assert "(0.4, 0.0, 0.4, 0.1)" in caught.value.problems[0]
    strength = [f"views.{side}.jitter_strength=(0,0,.5,.5)" for side in ("source", "target")]
    assert posed(*jitter, *strength).views.shared


def test_all_problems_are_found_at_once():
    found = problems_of("train.num_steps=0", "zzz=1", "model.dtype=float16", "sample.eta=2")
    assert [line.split(" ")[0].rstrip(":") for line in found] == [
        "zzz",
        "model.dtype",
        "train.num_steps",
        "sample.eta",
    ]


@pytest.mark.parametrize("key", FIELDS)
def test_no_field_takes_what_it_is_not(key):
    """Every key, with each kind of wrong value: one line that names the key, never a traceback."""
    kind, right = FIELDS[key], VALUES[key]
    wrong = [None, float("nan"), float("inf"), -(10**30), 10**30, {"a": 1}, object(), b"x", "\n"]
    wrong += [[], (None,), ("nowhere",), ({},), (float("nan"),)]
    wrong += [value for value in (True, 7, 0.123, "text") if type(value) is not type(right)]
    assert kind.accepts(right)
    for value in wrong:
        as_float = isinstance(right, float) and type(value) is int
        if (value == [] and kind.accepts(())) or (as_float and kind.accepts(float(value))):
            continue  # lists for tuples, and ints for floats, are welcome
        if key.endswith(".compare") and value == ("nowhere",):
            continue  # a workdir of any name
        config = ml_collections.ConfigDict(config_schema.nested(VALUES | {key: value}))
        with pytest.raises(ConfigError) as caught:
            config_schema.validate(config)
        assert all(line.startswith(key) for line in caught.value.problems), value
        nearest = kind.closest(value)
        assert nearest is None or kind.accepts(nearest), value


def test_every_misspelt_key_is_named_with_its_neighbour():
    for key in FIELDS:
        (line,) = problems_of(f"{key}x=1")
        assert line.startswith(f"{key}x: unknown key") and f"nearest: {key}" in line


def test_a_missing_file_names_the_nearest(tmp_path):
    for given, expected in [
        ("configs/cifar.py", "configs/cifar.py: no such file (nearest: configs/cifar10.py"),
        ("configs/digits", "configs/digits: no such file (nearest: configs/digits.py"),
        ("configs", "configs: a folder; a config is a Python file in it"),
        ("nowhere/x.py", f"nowhere/x.py: no such file, and no folder {tmp_path}/nowhere"),
    ]:
        (tmp_path / "configs").mkdir(exist_ok=True)
        for name in ("cifar10", "digits", "__init__"):
            (tmp_path / "configs" / f"{name}.py").touch()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            with pytest.raises(ConfigError) as caught:
                config_schema.load(given)
        assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("x = 1\n\ny = z\n", "x.py, line 3: NameError: name 'z' is not defined"),
        ("def get_config(:\n", "x.py, line 1: SyntaxError: "),
        ("from configs import nobody\n", "x.py, line 1: ImportError: "),
        ("x = 1\n", "x.py: it has no function get_config()"),
        ("def get_config():\n    return {}\n", "x.py: get_config() returns dict, not a ConfigDict"),
        ("def get_config():\n    return 1 / 0\n", "x.py, line 2: ZeroDivisionError: division"),
        ("def get_config(size):\n    return size\n", "x.py: missing a required argument: 'size'"),
    ],
)
def test_a_broken_file_says_where(tmp_path, text, expected):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "x.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        config_schema.load(str(folder / "x.py"))
    assert f"{folder}/{expected}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_argument_that_a_config_does_not_take():
    with pytest.raises(ConfigError, match="base.py:big: too many positional arguments; .* nothing"):
        config_schema.load(f"{BASE}:big")
    presets = "cifar10.py, line .* 'gpu': one of full, full_plain, cpu, cpu_plain"
    with pytest.raises(ConfigError, match=presets):
        config_schema.load(BASE.replace("base.py", "cifar10.py:gpu"))


def test_a_config_imports_its_own_neighbours_not_ours(tmp_path):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "__init__.py").touch()
    ours = (REPOSITORY / "configs" / "base.py").read_text()
    (folder / "base.py").write_text(ours.replace('config.name = "base"', 'config.name = "theirs"'))
    (folder / "x.py").write_text("from configs.base import get_config as get_config\n")
    before = sys.modules["configs.base"], list(sys.path)
    assert config_schema.load(str(folder / "x.py")).name == "theirs"
    assert (sys.modules["configs.base"], sys.path) == before
    assert config_schema.load(BASE).name == "base"


def test_differences_name_both_values():
    saved, given = load(), load("train.batch_size=512", "sample.sections=(1,)")
    assert config_schema.differences(saved, given) == [
        "train.batch_size: saved 256, given 512",
        "sample.sections: saved (), given (1,)",
    ]
    assert config_schema.differences(saved, load()) == []


def test_a_run_keeps_to_the_config_that_it_began_with(tmp_path):
    workdir = str(tmp_path)
    config_schema.remember(load("train.num_steps=10"), workdir)
    longer = load("train.num_steps=20", "sample.eta=.5", "mesh.fsdp=2")
    config_schema.remember(longer, workdir)
    assert config_schema.recall(workdir) == longer
    assert config_schema.recall(workdir, ["--config.sample.eta=0"]).sample.eta == 0
    with pytest.raises(ConfigError) as caught:
        config_schema.remember(load("model.z_size=64", "seed=1", "train.num_steps=30"), workdir)
    assert caught.value.problems[:2] == [
        "seed: saved 0, given 1",
        "model.z_size: saved 128, given 64",
    ]
    assert len(caught.value.problems) == 3 and "--workdir" in caught.value.problems[2]
    assert config_schema.recall(workdir) == longer
    assert os.listdir(workdir) == ["config.json"]


def test_a_cosine_ends_where_it_was_said_to_end(tmp_path):
    config_schema.remember(load("optimizer.decay=cosine"), str(tmp_path))
    with pytest.raises(ConfigError, match="train.num_steps: saved 100000, given 7"):
        config_schema.remember(load("optimizer.decay=cosine", "train.num_steps=7"), str(tmp_path))


def test_a_run_of_an_older_version_is_still_read(tmp_path):
    values = config_schema.flatten(load())
    assert {key: values[key] for key in LATER_FIELDS} == LATER_FIELDS  # as base.py has them
    older = {key: value for key, value in values.items() if key not in LATER_FIELDS}
    (tmp_path / "config.json").write_text(json.dumps(config_schema.nested(older)))
    assert config_schema.recall(str(tmp_path)) == load()
    config_schema.remember(load(), str(tmp_path))
    for relative, frame in ((True, "source"), (False, "world")):
        named_before = older | {"cameras.relative": relative}
        (tmp_path / "config.json").write_text(json.dumps(config_schema.nested(named_before)))
        assert config_schema.recall(str(tmp_path)).cameras.frame == frame


def test_a_saved_config_that_is_broken(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run is there"):
        config_schema.recall(str(tmp_path))
    path = tmp_path / "config.json"
    for text, expected in [
        ('{"name": ', "not a saved config"),
        ("[]", "where an object was expected"),
        (config_schema.to_json(load()).replace('"seed": 0', '"sed": 0'), "sed: unknown key"),
    ]:
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            config_schema.recall(str(tmp_path))
        assert expected in caught.value.problems[0] and str(path) in caught.value.problems[0]


def test_the_command_line_refuses_a_wrong_key_before_it_touches_anything(tmp_path):
    program = """
import sys
from soda_jax.__main__ import main
code = main(sys.argv[1:])
assert not {"jax", "numpy", "flax", "tensorflow"} & set(sys.modules), "a heavy import"
sys.exit(code)
"""
    words = ["pretrain", f"--config={BASE}", f"--workdir={tmp_path}/run", "--config.train.sed=1"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 78
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("soda_jax: error: train.sed: unknown key (nearest: ")
    assert os.listdir(tmp_path) == []


def test_what_would_be_passed_over_in_silence_is_refused():
    (line,) = problems_of("data.path=/pictures")  # of digits, which read none
    assert line.startswith("data.path = '/pictures': '' for data.source = 'digits'")
    (line,) = problems_of("data.name=cifar10")
    assert line.startswith("data.name = 'cifar10': '' for data.source = 'digits'")
    alone = ("train.batch_size=4", "optimizer.accumulate=4")  # whose code equals its own mean
    for field in ("model.encoder.code_norm=batch", "model.bottleneck.penalty=barlow"):
        assert any("2 or more pictures in each part" in line for line in problems_of(*alone, field))
    posed = (
        "data.source=scenes", "cameras.encoding=ray", "cameras.frame=upright",
        "probe.features=('z','block')",
    )  # fmt: skip
    assert any("without 'block' for cameras.frame" in line for line in problems_of(*posed))


def test_pure_noise_is_not_for_a_network_that_predicts_the_noise():
    (line,) = problems_of("diffusion.prediction=epsilon", "diffusion.pure_noise=.5")
    assert line.startswith("diffusion.pure_noise = 0.5: 0.0 for diffusion.prediction")
    load("diffusion.prediction=x_0", "diffusion.pure_noise=.5")


def test_a_config_of_ones_own_may_start_from_those_of_the_clone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.py").write_text(
        "from configs import smoke\n\n\ndef get_config():\n    config = smoke.get_config()\n"
        "    config.name = 'mine'\n    return config\n"
    )
    assert config_schema.load("mine/mine.py").name == "mine"
    assert config_schema.load("configs/smoke.py").name == "smoke"
    with pytest.raises(ConfigError, match="the configs are in the clone"):
        config_schema.load("configs/nobody.py")


def test_why_a_run_cannot_be_made_longer_is_told(tmp_path):
    config_schema.remember(load("optimizer.decay=cosine"), str(tmp_path))
    with pytest.raises(ConfigError) as told:
        config_schema.remember(load("optimizer.decay=cosine", "train.num_steps=9"), str(tmp_path))
    assert any("falls towards the last step" in problem for problem in told.value.problems)
    with pytest.raises(ConfigError) as told:  # a wrong word of the command line is not the file's
        config_schema.recall(str(tmp_path), ["--config.train.num_step=3"])
    assert str(told.value).startswith("train.num_step: unknown key")
