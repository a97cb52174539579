"""What this machine has: `python -m soda_jax doctor`. Also what to send with a bug report."""

import importlib.metadata
import os
import platform
import sys

import jax

import soda_jax

CORE = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tensorflow-datasets",
    "ml-collections",
    "clu",
    "numpy",
    "pillow",
    "scikit-learn",
)
# package: (the extra that brings it, what it is for)
OPTIONAL = {
    "tensorboardX": ("tb", "TensorBoard files"),
    "tensorflow-cpu": ("tf", "preparing data sets of TFDS"),
    "xprof": ("profile", "reading profiles"),
    "starlette": ("explore", "the page to play with"),
}
# A file that the driver makes: (the accelerator, its extra)
DRIVERS = {
    "/dev/nvidiactl": ("an NVIDIA GPU", "cuda12"),
    "/dev/accel0": ("a TPU", "tpu"),
    "/dev/vfio/0": ("a TPU", "tpu"),
}


def examine() -> int:
    """Prints versions, devices, optional packages; returns 0, or 78 where something is missing."""
    python = f"Python {platform.python_version()}"
    print(f"soda_jax {soda_jax.__version__}, {python}, {platform.platform()}")
    missing = [name for name in CORE if _version(name) is None]
    print("; ".join(f"{name} {_version(name) or 'MISSING'}" for name in CORE))
    backend = _devices()
    for file, (accelerator, extra) in DRIVERS.items():
        if backend in ("cpu", "none") and os.path.exists(file):
            advice = f"pip install 'soda_jax[{extra}]', and unset JAX_PLATFORMS"
            print(f"  {accelerator} seems to be here, but JAX doesn't use it: {advice}")
    print(f"compiled programs are kept in {jax.config.jax_compilation_cache_dir or 'no folder'}")
    for name, (extra, purpose) in OPTIONAL.items():
        found = _version(name) or f"not installed: pip install 'soda_jax[{extra}]'"
        print(f"  {name} ({purpose}): {found}")
    if missing:
        print(f"soda_jax: error: missing: {', '.join(missing)}", file=sys.stderr)
    return 78 if missing or backend == "none" else 0


def _devices() -> str:
    """Prints what JAX finds; returns its backend, "none" where it can't start one."""
    try:
        devices = jax.devices()
    except Exception as error:  # each plugin has errors of its own
        asked = os.environ.get("JAX_PLATFORMS")
        because = f" (JAX_PLATFORMS={asked})" if asked else ""
        told = " ".join(str(error).split()) or type(error).__name__
        print(f"soda_jax: error: JAX finds no devices{because}: {told}", file=sys.stderr)
        return "none"
    kinds = sorted({device.device_kind for device in devices})
    print(f"devices: {len(devices)} x {', '.join(kinds)} ({jax.default_backend()})")
    return jax.default_backend()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
