"""The built-in set "scenes": rooms with one to three solids, drawn when they are asked for.

Nothing is stored: scene and cameras are functions of their numbers alone.
"""

import functools

import jax
import numpy as np

from soda_jax.data import cameras, ray_caster, records
from soda_jax.data.cameras import Cameras

VIEWS = 16  # of each scene [D]
SCENES = {"train": (0, 100_000), "test": (2**24, 1000)}  # first number and count of each split
VERSION = 2  # of the recipe below: what a fingerprint knows it by
FIELD_OF_VIEW = 60.0  # degrees
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
HUES = (0.0, 0.09, 0.16, 0.36, 0.5, 0.61, 0.76, 0.9)
SIZES = (0.26, 0.32, 0.38)
CHUNK = 8  # pictures drawn at a time, as many as the pipeline asks a thread for
THIRDS = ("left", "middle", "right")


class Scenes:
    """A split of the rooms: see `records.PosedSource`.

    Labels are the number of solids. Factors are those of the scene, and of its largest solid as
    this view sees it, so that one picture tells them all,
    but where two solids are of the same size, in 30 % of pictures: the first drawn counts then.
    """

    name = "scenes"
    class_names = ("one solid", "two solids", "three solids")
    factor_names = (
        "number of solids", "floor colour", "wall colour", "shape", "colour", "size", "side",
        "distance",
    )  # fmt: skip

    def __init__(self, split: str, image_size: int, channels: int):
        records.check_split("scenes", split, tuple(SCENES))
        if channels != 3:
            raise ValueError(f"scenes are in colour: channels must be 3, not {channels}")
        self.split = split
        self.image_size = image_size
        self.first, self.count = SCENES[split]
        self.starts = np.arange(self.count + 1, dtype=np.int64) * VIEWS

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.image_size, self.image_size, 3

    @property
    def fingerprint(self) -> str:
        return records.digest(self, [f"version {VERSION}".encode()])

    def __len__(self) -> int:
        return self.count * VIEWS

    def images(self, indices: np.ndarray) -> np.ndarray:
        indices = np.asarray(indices)
        pictures = np.empty((len(indices), *self.image_shape), np.uint8)
        for start in range(0, len(indices), CHUNK):
            part = indices[start : start + CHUNK]
            padded = np.resize(part, CHUNK)  # one shape, one compilation
            room, _ = describe(self._scenes(padded))
            drawn = _draw(room, self.cameras(padded), self.image_size)
            pictures[start : start + len(part)] = np.asarray(drawn)[: len(part)]
        return pictures

    def cameras(self, indices: np.ndarray) -> Cameras:
        indices = np.asarray(indices)
        return camera_of(self._scenes(indices), indices % VIEWS)

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return self.factors(indices)[:, 0].astype(np.int32)

    def factors(self, indices: np.ndarray) -> np.ndarray:
        indices = np.asarray(indices)
        room, factors = describe(self._scenes(indices))
        foot = np.zeros((len(indices), 1, 3), np.float32)
        foot[:, 0, [0, 2]] = room.place[:, 0]
        seen, depth = _project(foot, self.cameras(indices))
        side = np.clip(np.asarray(seen)[:, 0, 0] * len(THIRDS), 0, len(THIRDS) - 1).astype(int)
        distance = np.digitize(np.asarray(depth)[:, 0], (2.6, 3.3))
        return np.concatenate([factors, side[:, None], distance[:, None]], axis=1).astype(np.int64)

    def _scenes(self, indices: np.ndarray) -> np.ndarray:
        return self.first + np.asarray(indices, np.int64) // VIEWS


def describe(scenes: np.ndarray) -> tuple[ray_caster.Room, np.ndarray]:
    """The rooms of these numbers [b], and their factors [b 6], the largest solid's first."""
    draw = functools.partial(_uniform, scenes)
    number = np.floor(3 * draw(0)).astype(int)
    floor, walls = (np.floor(len(COLOURS) * draw(slot)).astype(int) for slot in (1, 2))
    bearing, height = 2 * np.pi * draw(3), np.radians(50 + 20 * draw(4))
    light = np.stack(
        [np.cos(bearing) * np.cos(height), np.sin(height), np.sin(bearing) * np.cos(height)], -1
    )

    def per_solid(slot: int) -> np.ndarray:
        return np.stack([draw(10 + 10 * solid + slot) for solid in range(3)], axis=-1)

    present = np.arange(3)[None] <= number[:, None]
    shape = np.where(present, 1 + np.floor(4 * per_solid(0)).astype(int), 0)
    colour = np.floor(len(COLOURS) * per_solid(1)).astype(int)
    # Descending: the first solid is the largest, so that its factors are no matter of order.
    size = np.sort(np.floor(len(SIZES) * per_solid(2)).astype(int), axis=-1)[:, ::-1]
    turn = 0.5 * np.pi * per_solid(3)
    # Each in a cell of its own of a 3 x 3 grid; cells are taken in a random order.
    order = np.argsort(np.stack([draw(100 + cell) for cell in range(9)], -1), axis=-1)[:, :3]
    place = np.stack([order % 3 - 1.0, order // 3 - 1.0], -1)
    place = 0.9 * place + 0.12 * (np.stack([per_solid(4), per_solid(5)], -1) - 0.5)
    room = ray_caster.Room(
        floor=_rgb(floor, 0.25, 0.85),
        walls=_rgb(walls, 0.4, 0.8),
        light=light.astype(np.float32),
        shape=shape.astype(np.int32),
        place=place.astype(np.float32),
        size=np.asarray(SIZES, np.float32)[size],
        turn=turn.astype(np.float32),
        colour=_rgb(colour, 0.8, 0.95),
    )
    factors = np.stack([number, floor, walls, shape[:, 0] - 1, colour[:, 0], size[:, 0]], axis=-1)
    return room, factors


def camera_of(scenes: np.ndarray, views: np.ndarray) -> Cameras:
    """Cameras [...] on a ring inside the room: they look at its middle, a little down."""
    draw = [_uniform(scenes, 1000 + 10 * views + slot) for slot in range(4)]
    bearing = 2 * np.pi * draw[0]
    radius, height = 2.2 + 0.6 * draw[1], 1.2 + 0.8 * draw[2]
    place = np.stack([radius * np.cos(bearing), height, radius * np.sin(bearing)], axis=-1)
    target = np.array([0.0, 0.25, 0.0]) + 0.1 * (draw[3] - 0.5)[..., None]
    pose = cameras.look_at(place, target, np.array([0.0, 1.0, 0.0]))
    lens = cameras.intrinsics_of_angle(FIELD_OF_VIEW)
    return Cameras(pose, np.broadcast_to(lens, (*pose.shape[:-2], 4)))


@functools.partial(jax.jit, static_argnums=2)
def _draw(room: ray_caster.Room, seen: Cameras, size: int) -> jax.Array:
    drawn = ray_caster.draw(room, seen, size)
    return jax.numpy.rint(255 * jax.numpy.clip(drawn, 0, 1)).astype(jax.numpy.uint8)


_project = jax.jit(cameras.project)


def _rgb(hues: np.ndarray, saturation: float, value: float) -> np.ndarray:
    """Colours [... 3] in [0, 1] of the named hues [...] (HSV)."""
    hue = np.asarray(HUES)[hues][..., None] * 6
    ramp = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return (value * (1 - saturation + saturation * ramp)).astype(np.float32)


def _uniform(numbers: np.ndarray, slot: np.ndarray | int) -> np.ndarray:
    """Numbers in [0, 1), one for each pair of a scene and a slot: SplitMix64 (Steele 2014)."""
    odd = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        x = np.asarray(numbers, np.uint64) * np.uint64(1 << 16) + np.asarray(slot, np.uint64)
        x = (x + np.uint64(1)) * odd
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53
