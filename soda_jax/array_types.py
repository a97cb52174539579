"""Aliases and the batch that the loops pass on.

Letters in shape comments and docstrings: b batch, h w height width, c channels, d features,
z code, l layers or sections, s steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
PyTree = Any

# A network as a function: (x_t [b h w c], t [b]) -> prediction [b h w c].
DenoiseFn = Callable[[Array, Array], Array]


class Batch(NamedTuple):
    """Pairs of views, and what is known of them.

    Attributes:
      source: [b h w c] float, what the encoder sees.
      target: [b h w c] float in [-1, 1], what is noised and denoised.
      label: [b] int, or None. Always None in pretraining.
      poses: cameras of source and target, or None.
    """

    source: Array
    target: Array
    label: Array | None = None
    poses: PyTree | None = None
