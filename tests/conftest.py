"""Before JAX is imported: eight CPU devices that aren't there, to test sharding anywhere."""

import functools
import gc
import mmap
import os
import pathlib

import jaxlib


def known(*flags: str) -> list[str]:
    """Those of XLA's flags that this jaxlib has: one that it hasn't ends the process."""
    found = []
    for library in pathlib.Path(jaxlib.__file__).parent.glob("libjax_common.*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as text:
            found += [flag for flag in flags if text.find(flag.partition("=")[0].encode()) >= 0]
    return [f"--{flag}" for flag in found]


os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    flags = [
        os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8",
        # Tests compile more than they compute. Each is but a switch, and none is promised to stay.
        *known("xla_backend_optimization_level=0", "xla_cpu_use_fusion_emitters=false",
               "xla_cpu_parallel_codegen_split_count=1"),
    ]  # fmt: skip
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()
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
