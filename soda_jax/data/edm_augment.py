"""EDM's geometric augmentation, of which the denoiser is told, so that it doesn't learn to draw it.

Karras et al. 2022 (arXiv 2206.00364, appendix F.2), with the settings of FutureXiang/ddae [R].
"""

import jax
import jax.numpy as jnp

from soda_jax.array_types import Array

LABELS = 9
SPREAD = 0.2  # of the logarithms of scale and squeeze, base 2 [R]
MOVED = 0.125  # deviation of the move, as a share of the picture [R]
TURNED = 0.5  # how often a squeeze has an axis of its own [R]


def edm_augment(keys: Array, images: Array, prob: float) -> tuple[Array, Array]:
    """Mirrors, scales, turns, squeezes and moves pictures [b h w c], and says how: [b 9].

    Left and right change sides for half of the pictures; every other operation happens with
    `prob`, independently. Values between pixels are linear, beyond the edge the picture is mirrored
    [D]: the original filters with wavelets.

    A label holds 0 or 1 for the mirrors across x and y; the logarithm of the scale; cos - 1 and sin
    of the turn; the logarithm of the squeeze times cos and sin of its axis; the move in x and y.
    What comes from a normal distribution is in its deviations. 0 is a picture as it is.
    """
    return jax.vmap(lambda key, image: _augment(key, image, prob))(keys, images)


def _augment(key: Array, image: Array, prob: float) -> tuple[Array, Array]:
    height, width, _ = image.shape
    happens = jax.random.uniform(jax.random.fold_in(key, 0), (5,)) < prob
    halves = jnp.array([0.5, 0.5, TURNED])
    flip_x, flip_y, axis_free = jax.random.bernoulli(jax.random.fold_in(key, 1), halves)
    scale, squeeze, *move = jax.random.normal(jax.random.fold_in(key, 2), (4,))
    turn, axis = jnp.pi * jax.random.uniform(jax.random.fold_in(key, 3), (2,), minval=-1.0)

    flip_x, flip_y = 1.0 * flip_x, 1.0 * (flip_y & happens[0])
    scale, turn = scale * happens[1], turn * happens[2]
    squeeze, axis = squeeze * happens[3], axis * axis_free
    x, y = (part * happens[4] for part in move)
    label = jnp.stack(
        [flip_x, flip_y, scale, jnp.cos(turn) - 1, jnp.sin(turn)]
        + [squeeze * jnp.cos(axis), squeeze * jnp.sin(axis), x, y]
    )
    # From a place in the new picture to the one in the old; in pixels, from the middle.
    zoom, squeezed = 2 ** (-SPREAD * scale), 2 ** (-SPREAD * squeeze)
    back = (
        jnp.diag(jnp.stack([1 - 2 * flip_x, 1 - 2 * flip_y]) * zoom)
        @ _rotation(turn)
        @ (_rotation(-axis) @ jnp.diag(jnp.stack([squeezed, 1 / squeezed])) @ _rotation(axis))
    )
    middle = jnp.array([width - 1, height - 1]) / 2
    moved = MOVED * jnp.stack([x * width, y * height])
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    places = jnp.stack([columns, rows], -1) - (middle + moved)[None, None]
    places = jnp.einsum("ij,hwj->hwi", back, places, precision="highest") + middle[None, None]
    coordinates = [places[..., 1], places[..., 0]]

    def sample(channel: Array) -> Array:
        return jax.scipy.ndimage.map_coordinates(channel, coordinates, order=1, mode="mirror")

    return jax.vmap(sample, in_axes=2, out_axes=2)(image), label


def _rotation(angle: Array) -> Array:
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
