"""Where a view lies in another view of its picture: cameras for crops and mirrors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from soda_jax import rngs
from soda_jax.array_types import Array
from soda_jax.data import augment


class Frames(NamedTuple):
    """Where views lie in their pictures, whose sides run from -1 to 1.

    Attributes:
      centre: [b 2], down and right.
      half: [b 2], half the height and half the width; the width is negative where it is mirrored.
    """

    centre: Array
    half: Array


def frames(
    keys: Array,
    shape: tuple[int, int],
    *,
    crop_scale: tuple[float, float],
    crop_ratio: tuple[float, float],
    crop_prob: float,
    flip_prob: float,
) -> Frames:
    """Frames of the views that `views.labelled_views` draws with these keys [b] of pictures of that
    height and width, if it does nothing but crop and mirror."""

    def named(name: str) -> Array:
        return jax.vmap(lambda key: rngs.stream(key, name))(keys)

    whole = jnp.array([shape], jnp.float32)
    corner, box = jax.vmap(
        lambda key: augment.random_box(key, shape, crop_scale, crop_ratio, crop_prob)
    )(named("crop"))
    half = box / whole
    mirrored = augment.chosen(named("flip"), flip_prob)
    return Frames(
        2 * corner / whole + half - 1,
        jnp.stack([half[:, 0], jnp.where(mirrored, -half[:, 1], half[:, 1])], axis=-1),
    )


def frames_of(boxes: Array) -> Frames:
    """Frames of boxes [b 4]: top, left, bottom and right, of a picture whose sides run from 0 to 1.
    Mirrored where right is less than left."""
    return Frames(boxes[:, :2] + boxes[:, 2:] - 1, boxes[:, 2:] - boxes[:, :2])


def places_in(source: Frames, target: Frames, size: int) -> Array:
    """Where the centres of a target's size x size squares lie in its source: [b size size 2], down
    and right, from -1 to 1 inside the source and beyond that outside of it."""
    centres = ((2 * jnp.arange(size, dtype=jnp.float32) + 1) / size - 1)[None]

    def along(axis: int) -> Array:
        centre, half, other, width = (values[:, axis, None] for values in (*target, *source))
        return (centre + half * centres - other) / width

    square = (len(target.half), size, size)
    down = jnp.broadcast_to(along(0)[:, :, None], square)
    right = jnp.broadcast_to(along(1)[:, None, :], square)
    return jnp.stack([down, right], axis=-1)
