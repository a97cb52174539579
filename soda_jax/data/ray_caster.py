"""A small ray caster: a room with up to three solids on its floor, seen by any camera.

Every solid is convex and stands upright: where a ray is inside it is one interval, the
intersection of the intervals inside its parts (slabs, and a quadric around the upright axis).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from soda_jax.array_types import Array
from soda_jax.data import cameras
from soda_jax.data.cameras import Cameras

SHAPES = ("none", "sphere", "box", "cylinder", "cone")
ROOM = 3.0  # half the width of the floor; y points up, the floor is y = 0
WALL_HEIGHT = 2.2
SKY = (0.80, 0.87, 0.95)
AMBIENT = 0.45
FAR = 1e6

# Unit solids: x^2 + z^2 <= a + b y + c y^2 and 0 <= y <= height; a box has slabs alone.
QUADRICS = {
    "none": (0.0, 0.0, 0.0, 0.0),
    "sphere": (0.0, 2.0, -1.0, 2.0),
    "box": (0.0, 0.0, 0.0, 1.8),
    "cylinder": (1.0, 0.0, 0.0, 2.0),
    "cone": (1.0, -2 / 2.4, 1 / 2.4**2, 2.4),
}
BOX = 0.9  # half its width


class Room(NamedTuple):
    """What is drawn; each with any leading shape.

    Attributes:
      floor, walls: [... 3] colours in [0, 1].
      light: [... 3] unit direction towards the light.
      shape: [... l] int, of SHAPES; 0 for a solid that isn't there.
      place: [... l 2] of the foot, x and z.
      size: [... l] radius.
      turn: [... l] about the upright axis, radians.
      colour: [... l 3] in [0, 1].
    """

    floor: Array
    walls: Array
    light: Array
    shape: Array
    place: Array
    size: Array
    turn: Array
    colour: Array


def draw(room: Room, seen: Cameras, size: int) -> Array:
    """Pictures of rooms [b ...] by cameras [b ...]: [b size size 3] float32 in [0, 1].

    Diffuse shading under one far light, with hard shadows; one ray a pixel.
    """
    return jax.vmap(lambda room, camera: _draw(room, camera, size))(room, seen)


class _Vectors(NamedTuple):
    """Vectors by component, [n] each: arrays whose last axis is 3 are slow on a CPU."""

    x: Array
    y: Array
    z: Array

    def dot(self, other: "_Vectors") -> Array:
        return self.x * other.x + self.y * other.y + self.z * other.z

    def moved(self, direction: "_Vectors", distance: Array | float) -> "_Vectors":
        return _Vectors(*(a + distance * b for a, b in zip(self, direction, strict=True)))


def _where(condition: Array, yes, no) -> _Vectors:
    return _Vectors(*(jnp.where(condition, a, b) for a, b in zip(yes, no, strict=True)))


def _draw(room: Room, camera: Cameras, size: int) -> Array:
    place, directions = cameras.rays(camera, size, size)
    directions = _Vectors(*jnp.moveaxis(directions.reshape(-1, 3), -1, 0))
    origins = _Vectors(*place)
    light = _Vectors(*room.light)

    distance, normal, colour = _background(room, origins, directions)
    is_sky = (normal.x == 0) & (normal.y == 0) & (normal.z == 0)
    for index in range(room.shape.shape[0]):
        enter, leave, side = _solid(room, index, origins, directions)
        hit = (enter < leave) & (enter > 0) & (enter < distance)
        distance = jnp.where(hit, enter, distance)
        normal = _where(hit, side, normal)
        colour = _where(hit, room.colour[index], colour)
        is_sky &= ~hit

    points = origins.moved(directions, distance).moved(normal, 1e-3)
    lit = normal.dot(light) > 0
    for index in range(room.shape.shape[0]):
        enter, leave, _ = _solid(room, index, points, light)
        lit &= (enter >= leave) | (leave <= 0)
    diffuse = jnp.where(lit, normal.dot(light), 0)
    shade = jnp.where(is_sky, 1.0, AMBIENT + (1 - AMBIENT) * diffuse)
    return jnp.stack([part * shade for part in colour], axis=-1).reshape(size, size, 3)


def _background(room: Room, origins: _Vectors, directions: _Vectors):
    """Distance [n], inward normal [n] (0 for the sky) and colour [n] of floor, wall or sky."""
    sign = _Vectors(*map(_sign, directions))
    exits = _Vectors(
        (ROOM * sign.x - origins.x) / _nonzero(directions.x),
        jnp.where(directions.y < 0, -origins.y / _nonzero(directions.y), FAR),
        (ROOM * sign.z - origins.z) / _nonzero(directions.z),
    )
    distance = jnp.minimum(jnp.minimum(exits.x, exits.y), exits.z)
    is_floor, is_x = exits.y == distance, exits.x == distance
    is_sky = origins.y + distance * directions.y > WALL_HEIGHT
    zero = jnp.zeros_like(distance)
    normal = _where(is_x, (-sign.x, zero, zero), (zero, zero, -sign.z))
    normal = _where(is_floor, (zero, zero + 1, zero), normal)
    # Neighbouring walls differ a little, so that corners can be seen.
    colour = _where(is_x, 0.88 * room.walls, room.walls)
    colour = _where(is_floor, room.floor, colour)
    return distance, _where(is_sky, (zero, zero, zero), normal), _where(is_sky, SKY, colour)


def _solid(room: Room, index: int, origins: _Vectors, directions: _Vectors):
    """Where rays [n] enter and leave a solid, [n] each, and its normal at the entry, [n]."""
    size, (x_foot, z_foot) = room.size[index], room.place[index]
    cos, sin = jnp.cos(room.turn[index]), jnp.sin(room.turn[index])
    is_box = room.shape[index] == SHAPES.index("box")
    a, b, c, height = jnp.array(list(QUADRICS.values()))[room.shape[index]]

    def turned(v: _Vectors, sin: Array) -> _Vectors:
        return _Vectors(cos * v.x + sin * v.z, v.y, cos * v.z - sin * v.x)

    def into(v: _Vectors) -> _Vectors:
        return _Vectors(*(part / size for part in turned(v, sin)))

    o = into(_Vectors(origins.x - x_foot, origins.y, origins.z - z_foot))
    d = into(directions)

    # The slab 0 <= y <= height; only its top can be seen from above.
    bottom, top = -o.y / _nonzero(d.y), (height - o.y) / _nonzero(d.y)
    enter_y, leave_y = jnp.minimum(bottom, top), jnp.maximum(bottom, top)

    # The quadric x^2 + z^2 - (a + b y + c y^2) <= 0 along the ray: k2 t^2 + 2 k1 t + k0 <= 0.
    k2 = d.x * d.x + d.z * d.z - c * d.y * d.y
    k1 = o.x * d.x + o.z * d.z - (b / 2 + c * o.y) * d.y
    k0 = o.x * o.x + o.z * o.z - (a + b * o.y + c * o.y * o.y)
    inside = k1 * k1 - k2 * k0
    root = jnp.sqrt(jnp.maximum(inside, 0))
    first, second = (-k1 - root) / _nonzero(k2), (-k1 + root) / _nonzero(k2)
    low, high = jnp.minimum(first, second), jnp.maximum(first, second)
    # A ray steeper than a cone (k2 < 0) lies outside between the roots, and in the lower half of
    # the double cone before or behind them.
    steep, down = k2 < 0, d.y < 0
    enter_q = jnp.where(steep, jnp.where(down, high, -FAR), low)
    leave_q = jnp.where(steep, jnp.where(down, FAR, low), high)
    enter_q = jnp.where((inside <= 0) & ~steep, FAR, enter_q)

    near_x, far_x = _slab(o.x, d.x)
    near_z, far_z = _slab(o.z, d.z)
    enter_side = jnp.where(is_box, jnp.maximum(near_x, near_z), enter_q)
    leave_side = jnp.where(is_box, jnp.minimum(far_x, far_z), leave_q)
    enter = jnp.maximum(enter_side, enter_y)
    leave = jnp.where(room.shape[index] == 0, -FAR, jnp.minimum(leave_side, leave_y))

    at = o.moved(d, enter)
    slope = -(b / 2 + c * at.y)
    length = jax.lax.rsqrt(jnp.maximum(at.x * at.x + slope * slope + at.z * at.z, 1e-12))
    round_side = _Vectors(at.x * length, slope * length, at.z * length)
    zero, is_x = jnp.zeros_like(enter), near_x >= near_z
    box_side = _where(is_x, (-jnp.sign(d.x), zero, zero), (zero, zero, -jnp.sign(d.z)))
    normal = _where(is_box, box_side, round_side)
    normal = _where(enter_y >= enter_side, (zero, -jnp.sign(d.y) + zero, zero), normal)
    return enter, leave, turned(normal, -sin)


def _slab(o: Array, d: Array) -> tuple[Array, Array]:
    """Where rays enter and leave |x| <= BOX."""
    reach = BOX * _sign(d)
    return (-reach - o) / _nonzero(d), (reach - o) / _nonzero(d)


def _sign(x: Array) -> Array:
    return jnp.where(x < 0, -1.0, 1.0)


def _nonzero(x: Array) -> Array:
    """x, away from 0: a ray that is parallel to a side meets it far away."""
    return jnp.where(jnp.abs(x) < 1e-9, 1e-9, x)
