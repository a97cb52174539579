"""Before JAX is imported: eight CPU devices that aren't there, to test sharding anywhere."""

import functools
import gc
import os
import pathlib
import subprocess
import sys

# Tests compile more than they compute: a third of the time where the older code for fusions, which
# not every jaxlib has, goes with level 0; level 1 where it is the newer one.
OLDER = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)
NEWER = "--xla_backend_optimization_level=1"


def are_known(flags: str) -> bool:
    """Whether this jaxlib takes the flags: it ends a process that has others."""
    start = [sys.executable, "-c", "import jax; jax.devices()"]
    env = os.environ | {"XLA_FLAGS": flags}
    return subprocess.run(start, env=env, capture_output=True).returncode == 0


os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in (given := os.environ.get("XLA_FLAGS", "")):
    quick = OLDER if are_known(OLDER) else NEWER
    os.environ["XLA_FLAGS"] = f"{given} --xla_force_host_platform_device_count=8 {quick}".strip()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def programs_are_freed():
    """A program takes six memory maps or more, and Linux allows a process 65,530."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Files compile many of the same programs: once is enough.

    Each process of xdist has its own: JAX doesn't write them in one piece.
    """
    folder = str(tmp_path_factory.mktemp("xla"))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return folder


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder of real pictures: $SODA_JAX_TEST_DATA, or shared/data beside the checkout."""
    named = os.environ.get("SODA_JAX_TEST_DATA")
    folder = pathlib.Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real pictures at {folder}; $SODA_JAX_TEST_DATA names their folder")
    return folder


@pytest.fixture(scope="module")
def short_measures():
    """Where all is measured: the probe of one hidden layer in 30 steps of its 3,000, and pictures
    for Fréchet distances drawn in 2 of their 10."""
    from soda_jax import observers, probe

    with pytest.MonkeyPatch.context() as patch:
        short = functools.partial(probe.PROTOCOLS["mlp"], num_steps=30)
        patch.setitem(probe.PROTOCOLS, "mlp", short)
        patch.setattr(observers, "FRECHET_STEPS", 2)
        yield


@pytest.fixture(scope="module")
def shared_experiments():
    """Equal configs get the same parts, whose steps are traced and compiled once."""
    from soda_jax import config_schema, experiment

    build, built = experiment.build, {}

    def build_once(config, devices=None, training=True):
        key = config_schema.to_json(config), None if devices is None else tuple(devices)
        if key not in built:
            built[key] = build(config, devices, training)
        experiment.make_mesh(config, devices, training)  # it may not suit what asks for it now
        return built[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "build", build_once)
        yield
