"""SODA and its relatives: representation learning with diffusion models, in JAX.

`soda_jax.load(workdir)` gives a trained model. Importing this package imports no JAX.
"""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load":
        from soda_jax.pretrained import load

        return load
    raise AttributeError(f"module 'soda_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "load"]
