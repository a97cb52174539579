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


class Poses(NamedTuple):
    """Where the pictures of a batch were taken from.

    Attributes:
      source_rays: [b k h w r], an encoding of the ray of each pixel of the k sources.
      target_rays: [b h w r], of the target's; [b*n h w r] of n targets under one code.
      source_mask: [b k], False for sources that are to be left out.

    Views of one picture have no cameras: source_rays and source_mask are None, and target_rays are
    places, [b h w 2]: where in the source each part of the target lies (see `data/places.py`).
    """

    source_rays: Array | None
    target_rays: Array
    source_mask: Array | None


class Batch(NamedTuple):
    """Pairs of views, and what is known of them.

    Attributes:
      source: [b h w c] float, what the encoder sees; [b k h w c] where there are poses.
      target: [b h w c] float in [-1, 1], what is noised and denoised; [b*n h w c] where each of b
        codes has n targets.
      label: [b] int, or None. Always None in pretraining.
      poses: cameras of sources and target, or None.
      augmentation: [b 9], how the target was augmented, where the denoiser is told; else None.
    """

    source: Array
    target: Array
    label: Array | None = None
    poses: Poses | None = None
    augmentation: Array | None = None
