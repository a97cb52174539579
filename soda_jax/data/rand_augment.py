"""RandAugment (Cubuk et al. 2019) as array operations on a batch, one key for each picture.

The thirteen operations and identity are drawn with equal chances. Under vmap a switch would compute
every branch; so all geometric operations share one affine warp, all blends one blend, and only
the colour curves are computed side by side. Ranges as in torchvision [D].
"""

import jax
import jax.numpy as jnp

from soda_jax.array_types import Array
from soda_jax.data import augment

OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate",
    "brightness", "color", "contrast", "sharpness",
    "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
FILL = 0.5  # what a warp brings in from outside the picture


def rand_augment(keys: Array, images: Array, ops: int, magnitude: float, prob: float) -> Array:
    """With `prob`, `ops` random operations one after another; else the picture as it is.

    Args:
      keys: [b], one for each picture.
      images: [b h w c] float32 in [0, 1], c = 1 or 3.
      magnitude: from 0 to 10. At 10: rotate by 30 degrees, shear by 0.3, translate by 0.45 of the
        side, blends by 1 +- 0.9, posterize to 4 bits, solarize all; signs are random.
    """

    def draw(key: Array) -> tuple[Array, Array, Array]:
        which, sign, apply = jax.random.split(key, 3)
        return (
            jax.random.randint(which, (ops,), 0, len(OPERATIONS)),
            jax.random.rademacher(sign, (ops,), jnp.float32),
            jax.random.uniform(apply) < prob,
        )

    which, sign, apply = jax.vmap(draw)(keys)
    changed = images
    for n in range(ops):
        changed = apply_operation(changed, which[:, n], sign[:, n], magnitude / 10)
    return jnp.where(apply.reshape(-1, 1, 1, 1), changed, images)


def apply_operation(images: Array, which: Array, sign: Array, level: float) -> Array:
    """To each picture its own operation.

    Args:
      which: [b] int, an index into OPERATIONS.
      sign: [b] +1 or -1, for the operations that have two directions.
      level: from 0 to 1.
    """

    def is_op(name: str) -> Array:
        return (which == OPERATIONS.index(name)).reshape(-1, 1, 1, 1)

    def any_of(*names: str) -> Array:
        return jnp.any(jnp.stack([is_op(name) for name in names]), axis=0)

    warped = warp(images, _matrices(which, sign, level))
    gray = augment.grayscale(images)
    start = jnp.where(is_op("color"), gray, 0.0)
    start = jnp.where(is_op("contrast"), gray.mean((1, 2, 3), keepdims=True), start)
    start = jnp.where(is_op("sharpness"), smooth(images), start)
    blended = augment.blend(start, images, (1 + 0.9 * level * sign).reshape(-1, 1, 1, 1))

    geometric = any_of("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
    out = jnp.where(geometric, warped, images)
    out = jnp.where(any_of("brightness", "color", "contrast", "sharpness"), blended, out)
    out = jnp.where(is_op("posterize"), posterize(images, 8 - round(4 * level)), out)
    out = jnp.where(is_op("solarize"), jnp.where(images >= 1 - level, 1 - images, images), out)
    out = jnp.where(is_op("autocontrast"), autocontrast(images), out)
    return jnp.where(is_op("equalize"), equalize(images), out)


def _matrices(which: Array, sign: Array, level: float) -> Array:
    """[b 2 3]: where in the source, in units of the side about the centre, an output pixel lies."""
    amount = sign * level

    def only(name: str, value: Array) -> Array:
        return jnp.where(which == OPERATIONS.index(name), value, 0.0)

    angle = only("rotate", amount * (jnp.pi / 6))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x_row = [cos, sin + only("shear_x", 0.3 * amount), only("translate_x", 0.45 * amount)]
    y_row = [-sin + only("shear_y", 0.3 * amount), cos, only("translate_y", 0.45 * amount)]
    return jnp.stack([jnp.stack(x_row, -1), jnp.stack(y_row, -1)], 1)


def warp(images: Array, matrices: Array) -> Array:
    """Bilinear affine warp by [b 2 3]; outside the picture lies FILL."""
    b, h, w, c = images.shape
    y, x = jnp.mgrid[:h, :w].astype(jnp.float32)
    grid = jnp.stack([(x + 0.5) / w - 0.5, (y + 0.5) / h - 0.5, jnp.ones_like(x)]).reshape(3, -1)
    xy = jnp.einsum("bij,jp->bip", matrices, grid, precision="highest")
    # One pixel of border, so that every sample has its four neighbours.
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=FILL)
    source_x = jnp.clip((xy[:, 0] + 0.5) * w + 0.5, 0, w + 1)
    source_y = jnp.clip((xy[:, 1] + 0.5) * h + 0.5, 0, h + 1)
    # Rounding must not blur a picture that stays where it is.
    source_x, source_y = jnp.round(source_x * 4096) / 4096, jnp.round(source_y * 4096) / 4096
    left = jnp.minimum(source_x.astype(jnp.int32), w)
    top = jnp.minimum(source_y.astype(jnp.int32), h)
    right_part, low_part = (source_x - left)[..., None], (source_y - top)[..., None]
    flat = padded.reshape(b, (h + 2) * (w + 2), c)

    def at(rows: Array, columns: Array) -> Array:
        return jnp.take_along_axis(flat, (rows * (w + 2) + columns)[..., None], axis=1)

    upper = at(top, left) * (1 - right_part) + at(top, left + 1) * right_part
    lower = at(top + 1, left) * (1 - right_part) + at(top + 1, left + 1) * right_part
    return (upper * (1 - low_part) + lower * low_part).reshape(images.shape)


def smooth(images: Array) -> Array:
    """The 3x3 filter of PIL's sharpness, with weight 5 in the middle; the edge is kept."""
    h, w = images.shape[1:3]
    if h < 3 or w < 3:
        return images
    total = 4 * images[:, 1:-1, 1:-1]
    for y in range(3):
        for x in range(3):
            total = total + images[:, y : y + h - 2, x : x + w - 2]
    return images.at[:, 1:-1, 1:-1].set(total / 13)


def posterize(images: Array, bits: int) -> Array:
    """Keeps the first bits of 8."""
    step = 2 ** (8 - bits)
    return jnp.floor(jnp.round(images * 255) / step) * step / 255


def autocontrast(images: Array) -> Array:
    """Stretches each channel to the whole of [0, 1]; an even channel stays."""
    low = images.min((1, 2), keepdims=True)
    width = images.max((1, 2), keepdims=True) - low
    return jnp.where(width > 0, (images - low) / jnp.where(width > 0, width, 1.0), images)


def equalize(images: Array) -> Array:
    """Makes the 256-level histogram of each channel even; an even channel stays."""
    b, h, w, c = images.shape
    levels = jnp.round(images * 255).astype(jnp.int32).transpose(0, 3, 1, 2).reshape(b, c, h * w)
    count = jax.vmap(jax.vmap(lambda values: jnp.zeros(256, jnp.int32).at[values].add(1)))
    below = jnp.cumsum(count(levels), axis=-1)
    least = jnp.take_along_axis(below, levels.min(-1, keepdims=True), axis=-1)
    rank = jnp.take_along_axis(below, levels, axis=-1) - least
    rest = h * w - least
    even = rank.astype(jnp.float32) / jnp.maximum(rest, 1).astype(jnp.float32)
    even = even.reshape(b, c, h, w).transpose(0, 2, 3, 1)
    return jnp.where((rest > 0).reshape(b, 1, 1, c), even, images)
