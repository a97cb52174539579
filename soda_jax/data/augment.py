"""Jitted, batched picture operations on the device.

Every operation takes keys [b], one for each picture, and images [b h w c], float32 in [0, 1], c = 1
or 3: what a picture undergoes depends on its own key alone, never on its batch or on the sharding.
Probabilities are per picture.
"""

import jax
import jax.numpy as jnp

from soda_jax.array_types import Array

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601


def resize(images: Array, size: int) -> Array:
    """Pictures as [b s s c]: linear, antialiased; unchanged where they have that size."""
    b, h, w, c = images.shape
    if (h, w) == (size, size):
        return images
    return jnp.clip(jax.image.resize(images, (b, size, size, c), "linear", antialias=True), 0, 1)


def random_box(
    key: Array,
    shape: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    prob: float,
) -> tuple[Array, Array]:
    """With `prob` a box in a picture of that height and width, else all of it: corner and size [2].

    It has a share of the area uniform in `scale` and width over height log-uniform in `ratio`, at
    any sub-pixel place (Szegedy et al. 2015). Of ten draws the first that fits into the picture
    counts; where none does, the first is cut to fit [D].
    """
    h, w = shape
    draws = jax.random.uniform(key, (23,))
    area = h * w * (scale[0] + (scale[1] - scale[0]) * draws[:10])
    low, high = jnp.log(jnp.array(ratio, jnp.float32))
    aspect = jnp.exp(low + (high - low) * draws[10:20])
    widths, heights = jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)
    # A thousandth of slack: the whole picture fits, whatever rounding does to it.
    first = jnp.argmax((widths <= w + 1e-3) & (heights <= h + 1e-3))
    box = jnp.array([jnp.minimum(heights[first], h), jnp.minimum(widths[first], w)])
    whole = jnp.array([h, w], jnp.float32)
    corner = draws[20:22] * (whole - box)
    cropped = draws[22] < prob
    return jnp.where(cropped, corner, 0.0), jnp.where(cropped, box, whole)


def random_resized_crop(
    keys: Array,
    images: Array,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    prob: float,
) -> Array:
    """With `prob` a random box, resized to [size, size]; else the whole picture, resized.

    The box is a `random_box`. Linear, antialiased: where the box is shrunk, the filter may reach a
    little beyond its edge.
    """
    shape = images.shape[1:3]
    corners, boxes = jax.vmap(lambda key: random_box(key, shape, scale, ratio, prob))(keys)
    return cut(images, corners, boxes, size)


def cut(images: Array, corners: Array, boxes: Array, size: int) -> Array:
    """The box of each picture, resized to [size, size]: corners and boxes are [b 2], in pixels."""

    def crop(image: Array, corner: Array, box: Array) -> Array:
        zoom = size / box
        return jax.image.scale_and_translate(
            image, (size, size, image.shape[-1]), (0, 1), zoom, -corner * zoom, "linear"
        )

    return jnp.clip(jax.vmap(crop)(images, corners, boxes), 0, 1)


def random_shift(keys: Array, images: Array, pixels: int) -> Array:
    """Moves each picture by up to so many whole pixels each way; black comes in (pad and crop)."""

    def shift(key: Array, image: Array) -> Array:
        start = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
        padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
        return jax.lax.dynamic_slice(padded, (start[0], start[1], 0), image.shape)

    return jax.vmap(shift)(keys, images)


def random_flip(keys: Array, images: Array, prob: float) -> Array:
    """Mirrors left and right with `prob`."""
    return jnp.where(_per_picture(chosen(keys, prob)), images[:, :, ::-1, :], images)


def random_grayscale(keys: Array, images: Array, prob: float) -> Array:
    """Takes the colour away with `prob`; pictures of one channel stay as they are."""
    return jnp.where(_per_picture(chosen(keys, prob)), grayscale(images), images)


def gaussian_noise(keys: Array, images: Array, std: float) -> Array:
    """Adds independent Gaussian noise to every value; the result is not clipped."""
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
    return images + std * noise


def color_jitter(
    keys: Array, images: Array, strength: tuple[float, float, float, float], prob: float
) -> Array:
    """With `prob` changes brightness, contrast, saturation and hue, always in this order [D].

    Args:
      strength: (brightness, contrast, saturation, hue): the first three are multiplied by factors
        uniform in [max(0, 1 - s), 1 + s]; the hue is turned by a part of the circle uniform in
        [-s, s]. Saturation and hue mean nothing to pictures of one channel.
    """
    draws = jax.vmap(lambda key: jax.random.uniform(key, (5,)))(keys)
    low = [max(0.0, 1 - s) for s in strength[:3]]
    brightness, contrast, saturation = (
        _per_picture(low[n] + (1 + strength[n] - low[n]) * draws[:, n]) for n in range(3)
    )

    jittered = jnp.clip(images * brightness, 0, 1)
    jittered = blend(grayscale(jittered).mean((1, 2, 3), keepdims=True), jittered, contrast)
    if images.shape[-1] == 3:
        jittered = blend(grayscale(jittered), jittered, saturation)
        if strength[3]:
            jittered = turn_hue(jittered, strength[3] * (2 * draws[:, 3] - 1))
    return jnp.where(_per_picture(draws[:, 4] < prob), jittered, images)


def grayscale(images: Array) -> Array:
    """The luma of pictures, in as many channels as they have."""
    if images.shape[-1] == 1:
        return images
    luma = (images * jnp.array(LUMA, images.dtype).reshape(1, 1, 1, 3)).sum(-1, keepdims=True)
    return jnp.broadcast_to(luma, images.shape)


def blend(start: Array, images: Array, factor: Array) -> Array:
    """start + factor (images - start): factor 0 gives start, 1 the images, more goes beyond."""
    return jnp.clip(start + factor * (images - start), 0, 1)


def turn_hue(images: Array, turn: Array) -> Array:
    """Turns the hue of [b h w 3] by turn [b], in parts of the circle; HSV (Smith 1978)."""
    red, green, blue = images[..., 0], images[..., 1], images[..., 2]
    value = images.max(-1)
    chroma = value - images.min(-1)
    divisor = jnp.where(chroma > 0, chroma, 1.0)
    sector = jnp.where(
        value == red,
        (green - blue) / divisor,
        jnp.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sector = sector + 6 * turn.reshape(-1, 1, 1)

    def channel(offset: float) -> Array:
        k = offset + sector
        k = k - 6 * jnp.floor(k / 6)
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return jnp.stack([channel(5.0), channel(3.0), channel(1.0)], -1)


def chosen(keys: Array, prob: float) -> Array:
    """[b] bool, true with `prob`."""
    return jax.vmap(jax.random.uniform)(keys) < prob


def _per_picture(values: Array) -> Array:
    return values.reshape(-1, 1, 1, 1)
