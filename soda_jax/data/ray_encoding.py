"""Rays as channels: what tells a network which way each pixel looks."""

import jax.numpy as jnp

from soda_jax.array_types import Array
from soda_jax.data import cameras
from soda_jax.data.cameras import Cameras

KINDS = ("ray", "plucker", "sphere")
VALUES = 6  # of a ray, in each of the kinds
LOWEST_FREQUENCY = 0.25 * jnp.pi  # radians a unit of length: half a turn in four units [D]


def encode_rays(seen: Cameras, size: int, *, kind: str, channels: int, max_octave: float) -> Array:
    """Encoded rays of the pixels of square pictures: [... size size channels] float32.

    Six values for each ray, then their sines and cosines at frequencies in a geometric sequence
    [P: sinusoids, 512 channels; D: the frequencies, and which six values]:

      "ray": origin and direction, concatenated [D].
      "plucker": direction and moment, origin x direction: the same for every point of the ray.
      "sphere": where the ray enters and leaves the unit sphere; where it misses, the two points
        that lie as far before and behind its nearest point to the centre as make it continuous [D].

    Channels that are left over hold zeros.

    Args:
      seen: cameras [...], in the coordinates that the networks are to think in.
      channels: at least 6.
      max_octave: the highest frequency is 2^max_octave times the lowest.
    """
    if channels < VALUES:
        raise ValueError(f"rays have {VALUES} values, so channels must be more, not {channels}")
    origins, directions = cameras.rays(seen, size, size)
    origins = jnp.broadcast_to(origins[..., None, None, :], directions.shape)
    match kind:
        case "ray":
            values = jnp.concatenate([origins, directions], axis=-1)
        case "plucker":
            values = jnp.concatenate([directions, jnp.cross(origins, directions)], axis=-1)
        case "sphere":
            values = _crossings(origins, directions)
        case _:
            raise ValueError(f"no ray encoding {kind!r}; there is: {', '.join(KINDS)}")
    count = (channels - VALUES) // (2 * VALUES)
    octaves = jnp.arange(count, dtype=jnp.float32) * (max_octave / max(count - 1, 1))
    angles = values[..., None] * (LOWEST_FREQUENCY * 2**octaves).reshape((1,) * values.ndim + (-1,))
    angles = angles.reshape(*values.shape[:-1], VALUES * count)
    encoded = jnp.concatenate([values, jnp.sin(angles), jnp.cos(angles)], axis=-1)
    left_over = [(0, 0)] * (encoded.ndim - 1) + [(0, channels - encoded.shape[-1])]
    return jnp.pad(encoded, left_over)


def _crossings(origins: Array, directions: Array) -> Array:
    """Entry into and exit from the unit sphere, or what stands for them, [... 6].

    They lie sqrt|1 - d^2| from the point nearest to the centre, at distance d: the nearest point
    alone would say nothing of where a ray that misses goes.
    """
    along = -(origins * directions).sum(-1, keepdims=True)
    nearest = origins + along * directions
    half = jnp.sqrt(jnp.abs(1 - (nearest * nearest).sum(-1, keepdims=True)))
    return jnp.concatenate([nearest - half * directions, nearest + half * directions], axis=-1)
