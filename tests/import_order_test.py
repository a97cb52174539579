"""Who may import whom (the house's plan), read from the files: nothing is executed."""

import ast
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]
FILES = sorted(
    path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "soda_jax").rglob("*.py")
)

WORDS = {"array_types", "rngs"}
CONFIG = {
    "config_schema", "config_kinds", "config_fields", "config_file", "config_rules",
    "config_model_rules",
}  # fmt: skip
LOOPS = {
    "pretrain", "observers", "probe", "sample", "evaluate", "suites", "apply", "uses", "explore",
    "playground", "compare", "distributed", "novel_views", "chapters", "report", "prepare",
    "pretrained", "doctor", "compile", "tpu_slices", "gpu_hosts",
}  # fmt: skip
# room: the rooms that it may import from, beside itself. A room is a folder or a file of soda_jax.
MAY_IMPORT = {
    "array_types": set(),
    "rngs": {"array_types"},
    **{name: CONFIG for name in CONFIG},
    "workdir": set(),
    "exit_codes": set(),
    "preemption": {"exit_codes"},
    "watchdog": {"exit_codes"},
    "page": set(),
    "hlo": set(),
    "models": WORDS,
    "diffusion": WORDS,
    "data": WORDS,
    "training": WORDS | {"models", "diffusion", "data"},
    "evaluation": WORDS | {"models", "diffusion", "data"},
    "applications": WORDS | {"models", "diffusion", "data"},
}
BELOW_LOOPS = set(MAY_IMPORT) | {"experiment", "inference", "inputs"}
MAY_IMPORT["experiment"] = set(MAY_IMPORT)
MAY_IMPORT["inference"] = set(MAY_IMPORT)
MAY_IMPORT["inputs"] = {"experiment", "data"}
MAY_IMPORT |= {loop: BELOW_LOOPS | LOOPS for loop in LOOPS}
MAY_IMPORT["__main__"] = LOOPS | CONFIG | {"workdir", "exit_codes", "preemption"}
MAY_IMPORT["__init__"] = {"pretrained"}
# Single files of a room that others may use although the room is closed to them.
DOORS = {
    "evaluation": {"training.state", "training.sharding"},
    "applications": {"training.state", "training.sharding"},
}
ONLY = {
    "orbax": {f"soda_jax/training/checkpoint{part}.py" for part in ("", "_reader", "_steps")},
    "clu": {"soda_jax/training/metrics.py"},
    "ml_collections": {
        f"soda_jax/{name}.py"
        for name in ("__main__", "experiment", "config_schema", "config_file", *LOOPS)
    },
}


def imports(file: str, top_only: bool = False) -> list[str]:
    """Dotted names that a file imports, such as "soda_jax.data.views" and "flax.linen"."""
    tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
    names = []
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}, line {node.lineno}: a relative import"
            assert node.names[0].name != "*", f"{file}, line {node.lineno}: a star import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def room_of(file: str) -> str:
    return file.split("/")[1].removesuffix(".py")


def test_every_room_is_known():
    assert {room_of(file) for file in FILES} <= set(MAY_IMPORT)


@pytest.mark.parametrize("file", FILES)
def test_a_room_imports_only_rooms_below_it(file):
    room = room_of(file)
    for name in imports(file):
        if not name.startswith("soda_jax."):
            continue
        target = name.removeprefix("soda_jax.")
        other = target.split(".")[0]
        if other == room or other in MAY_IMPORT[room]:
            continue
        is_door = any(f"{target}.".startswith(f"{door}.") for door in DOORS.get(room, ()))
        assert is_door, f"{file} imports {name}"


@pytest.mark.parametrize("file", FILES)
def test_packages_stay_in_their_rooms(file):
    packages = {name.split(".")[0] for name in imports(file)}
    assert "configs" not in packages
    if room_of(file) == "diffusion":
        assert not packages & {"flax", "ml_collections", "optax"}
    for package, files in ONLY.items():
        assert package not in packages or file in files, f"{file} imports {package}"
    assert "pickle" not in packages or file == "soda_jax/data/restricted_pickle.py"


@pytest.mark.parametrize("file", FILES)
def test_optional_and_heavy_packages_are_not_imported_at_the_top(file):
    packages = {name.split(".")[0] for name in imports(file, top_only=True)}
    optional = {"tensorflow", "tensorflow_datasets", "tensorboardX", "sklearn", "grain", "wandb"}
    assert not packages & optional


def test_importing_soda_jax_is_light():
    program = """
import sys
import soda_jax
import soda_jax.config_schema, soda_jax.workdir, soda_jax.__main__
assert soda_jax.__version__
assert "load" in dir(soda_jax)
assert not {"jax", "numpy", "flax", "tensorflow", "orbax"} & set(sys.modules), "a heavy import"
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
