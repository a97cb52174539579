"""What each side of a pair sees: uint8 pictures in, networks' inputs out."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from soda_jax import rngs
from soda_jax.array_types import Array, Batch, Poses
from soda_jax.data import augment, cameras
from soda_jax.data.cameras import Cameras
from soda_jax.data.edm_augment import edm_augment
from soda_jax.data.places import Frames, frames, places_in
from soda_jax.data.rand_augment import rand_augment
from soda_jax.data.ray_encoding import encode_rays


@dataclasses.dataclass(frozen=True)
class View:
    """The augmentation of one side; configs/base.py says what each field means and whence it is.

    Hashable, so it can be a static argument of jit.
    """

    size: int = 32
    whole_size: int = 0
    crop_prob: float = 0.95
    crop_scale: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    shift: int = 0
    flip_prob: float = 0.5
    edm_prob: float = 0.0
    randaugment_prob: float = 0.0
    randaugment_ops: int = 2
    randaugment_magnitude: float = 9.0
    jitter_prob: float = 0.0
    jitter_strength: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    grayscale_prob: float = 0.0
    noise: float = 0.0
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self):
        for name in ("crop_scale", "crop_ratio", "jitter_strength", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in (
            "crop_prob",
            "flip_prob",
            "edm_prob",
            "randaugment_prob",
            "jitter_prob",
            "grayscale_prob",
        ):
            if not 0 <= (prob := getattr(self, name)) <= 1:
                raise ValueError(f"{name} is a probability, from 0 to 1, not {prob}")
        if self.shift < 0:
            raise ValueError(f"shift is a number of pixels from 0 up, not {self.shift}")
        if self.size < 1:
            raise ValueError(f"size must be at least 1, not {self.size}")
        if self.whole_size < 0:
            raise ValueError(f"whole_size is a number of pixels from 0 up, not {self.whole_size}")
        if not (len(self.crop_scale) == 2 and 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1):
            raise ValueError(f"crop_scale must be 0 < low <= high <= 1, not {self.crop_scale}")
        if not (len(self.crop_ratio) == 2 and 0 < self.crop_ratio[0] <= self.crop_ratio[1]):
            raise ValueError(f"crop_ratio must be 0 < low <= high, not {self.crop_ratio}")
        if len(self.jitter_strength) != 4 or min(self.jitter_strength) < 0:
            raise ValueError(
                "jitter_strength must be four numbers from 0 up (brightness, contrast, "
                f"saturation, hue), not {self.jitter_strength}"
            )
        if self.randaugment_ops < 1 or not 0 <= self.randaugment_magnitude <= 10:
            raise ValueError(
                "randaugment_ops must be at least 1 and randaugment_magnitude from 0 to 10, "
                f"not {self.randaugment_ops} and {self.randaugment_magnitude}"
            )
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3) or min(self.std) <= 0:
            raise ValueError(
                "mean and std must be one or three numbers each, std above 0, "
                f"not {self.mean} and {self.std}"
            )
        if self.noise < 0:
            raise ValueError(f"noise must not be negative, it is {self.noise}")


@dataclasses.dataclass(frozen=True)
class CameraOptions:
    """How networks are told of cameras; configs/base.py says what each field means.

    Attributes:
      patch: of the denoiser: it is given a ray for each of its patches.
    """

    encoding: str = "ray"
    channels: int = 54
    max_octave: float = 4.0
    frame: str = "source"
    up: str = "y"
    max_sources: int = 3
    targets: int = 1
    fusion: str = "codes"
    mirror_prob: float = 0.0
    patch: int = 1


class Posed(NamedTuple):
    """Views of objects: images uint8 [b v h w c], and their cameras [b v]."""

    images: Array
    seen: Cameras


def augmented(keys: Array, images: Array, view: View) -> Array:
    """Random views of pictures; see `labelled_views`."""
    return labelled_views(keys, images, view)[0]


def labelled_views(keys: Array, images: Array, view: View) -> tuple[Array, Array | None]:
    """Random views of pictures, one key for each, and what is told of them.

    Shift, crop, flip, EDM's operations, RandAugment, jitter, grayscale, then (x - mean) / std, then
    noise. What has the probability 0 is left out of the graph.

    Args:
      keys: [b]; a picture's view depends on its own key alone.
      images: [b h w c] uint8.

    Returns:
      [b s s c] float32; and [b 9], where edm_prob is above 0: see `edm_augment`.
    """
    label = None

    def named(name: str) -> Array:
        return jax.vmap(lambda key: rngs.stream(key, name))(keys)

    x = from_uint8(images)
    if view.shift:
        x = augment.random_shift(named("shift"), x, view.shift)
    if view.crop_prob:
        scale, ratio = view.crop_scale, view.crop_ratio
        x = augment.random_resized_crop(named("crop"), x, view.size, scale, ratio, view.crop_prob)
    else:
        x = augment.resize(x, view.size)
    if view.flip_prob:
        x = augment.random_flip(named("flip"), x, view.flip_prob)
    if view.edm_prob:
        x, label = edm_augment(named("edm"), x, view.edm_prob)
    if view.randaugment_prob:
        ops, magnitude = view.randaugment_ops, view.randaugment_magnitude
        x = rand_augment(named("randaugment"), x, ops, magnitude, view.randaugment_prob)
    if view.jitter_prob:
        x = augment.color_jitter(named("jitter"), x, view.jitter_strength, view.jitter_prob)
    if view.grayscale_prob:
        x = augment.random_grayscale(named("grayscale"), x, view.grayscale_prob)
    x = scaled(x, view)
    if view.noise:
        x = augment.gaussian_noise(named("noise"), x, view.noise)
    return x, label


def plain(images: Array, view: View) -> Array:
    """Pictures [b h w c] uint8 resized to view.size and scaled only: [b s s c]."""
    return scaled(augment.resize(from_uint8(images), view.size), view)


def whole(images: Array, view: View) -> Array:
    """The same as probes see them: at view.whole_size, or view.size if that is 0."""
    return plain(images, dataclasses.replace(view, size=view.whole_size or view.size))


def pair(
    key: Array,
    images: Array | Posed,
    source_view: View,
    target_view: View,
    options: CameraOptions | None = None,
    shared: bool = False,
    targets: int = 1,
    pairs: int = 1,
    located: int = 0,
) -> Batch:
    """Source and target of each picture, drawn independently of each other.

    Args:
      pairs: of each picture, one after another, as if it were several pictures: b is their number
        times pairs below. Not for views of objects.
      targets: of each source, one after another: the batch has [b s s c] sources and
        [b*targets s s c] targets. Views of objects have options.targets instead.
      located: the batch says where each of located x located squares of the target lies in its
        source, as poses without cameras: their target_rays are `places_in`. 0: it doesn't. Not for
        views of objects, and nothing but crop and mirror may move what is seen.
      shared: draw once: where both sides are augmented alike, source and target are one picture,
        or views of one object that all are changed alike.
      key: of this step; a picture's draws depend on it and on the place in the batch.
      images: [b h w c] uint8; or views of objects: the last options.targets are targets, the
        others sources, of which the first 1, 2, ... are used, each number as often.
    """
    if isinstance(images, Posed):
        return _posed_pair(key, images, source_view, target_view, options, shared)
    images = jnp.repeat(images, pairs, axis=0)
    places = jnp.arange(images.shape[0])
    source_keys = rngs.per_example(rngs.stream(key, "source"), places)
    if shared:
        target_keys = jnp.repeat(source_keys, targets)
    else:
        places = jnp.arange(images.shape[0] * targets)
        target_keys = rngs.per_example(rngs.stream(key, "target"), places)
    source = augmented(source_keys, images, source_view)
    target, label = labelled_views(target_keys, jnp.repeat(images, targets, 0), target_view)
    poses = None
    if located:
        sides = (jnp.repeat(source_keys, targets), source_view), (target_keys, target_view)
        of_source, of_target = (_frames(keys, images.shape[1:3], view) for keys, view in sides)
        poses = Poses(None, places_in(of_source, of_target, located), None)
    return Batch(source, target, poses=poses, augmentation=label)


def _frames(keys: Array, shape: tuple[int, int], view: View) -> Frames:
    names = ("crop_scale", "crop_ratio", "crop_prob", "flip_prob")
    return frames(keys, shape, **{name: getattr(view, name) for name in names})


def _posed_pair(
    key: Array,
    posed: Posed,
    source_view: View,
    target_view: View,
    options: CameraOptions,
    shared: bool,
) -> Batch:
    if options.mirror_prob:
        posed = _mirrored(rngs.stream(key, "mirror"), posed, options.mirror_prob)
    b, v = posed.images.shape[:2]
    k, n = v - options.targets, options.targets
    sources = posed.images[:, :k].reshape(b * k, *posed.images.shape[2:])
    targets = posed.images[:, k:].reshape(b * n, *posed.images.shape[2:])
    if shared:
        object_keys = rngs.per_example(rngs.stream(key, "source"), jnp.arange(b))
        source_keys, target_keys = jnp.repeat(object_keys, k), jnp.repeat(object_keys, n)
    else:
        source_keys = rngs.per_example(rngs.stream(key, "source"), jnp.arange(b * k))
        target_keys = rngs.per_example(rngs.stream(key, "target"), jnp.arange(b * n))
    source = augmented(source_keys, sources, source_view)
    number = jax.random.randint(rngs.stream(key, "number"), (b, 1), 1, k + 1)
    return Batch(
        source=source.reshape(b, k, *source.shape[1:]),
        target=augmented(target_keys, targets, target_view),
        poses=poses_of(
            Cameras(*(part[:, :k] for part in posed.seen)),
            Cameras(*(part[:, k:] for part in posed.seen)),
            jnp.arange(k)[None] < number,
            source_view.size,
            target_view.size // options.patch,
            options,
        ),
    )


def _mirrored(key: Array, posed: Posed, prob: float) -> Posed:
    """With `prob` each object is mirrored: all its views, and their cameras."""
    chosen = jax.random.bernoulli(key, prob, posed.images.shape[:1])
    mirror = Posed(posed.images[..., ::-1, :], cameras.mirrored(posed.seen))
    return jax.tree.map(
        lambda new, old: jnp.where(chosen.reshape(-1, *[1] * (old.ndim - 1)), new, old),
        mirror,
        posed,
    )


def poses_of(
    sources: Cameras,
    targets: Cameras,
    source_mask: Array,
    source_size: int,
    target_size: int,
    options: CameraOptions,
) -> Poses:
    """What networks are told of cameras [b k] and [b n]; see `in_frame`."""
    targets = in_frame(targets, sources.pose[:, :1], options)
    sources = in_frame(sources, sources.pose[:, :1], options)
    target_rays = ray_channels(targets, target_size, options)
    return Poses(
        ray_channels(sources, source_size, options),
        target_rays.reshape(-1, *target_rays.shape[2:]),
        source_mask,
    )


def in_frame(seen: Cameras, first: Array, options: CameraOptions) -> Cameras:
    """Cameras [...] in the coordinates that networks think in, which `first` [... 4 4] may fix."""
    if options.frame == "world":
        return seen
    if options.frame == "upright":
        return Cameras(cameras.upright(seen.pose, first, options.up), seen.intrinsics)
    return Cameras(cameras.relative(seen.pose, first), seen.intrinsics)


def ray_channels(seen: Cameras, size: int, options: CameraOptions) -> Array:
    """[... size size r]: the encoded rays of cameras [...]."""
    return encode_rays(
        seen, size, kind=options.encoding, channels=options.channels, max_octave=options.max_octave
    )


def from_uint8(images: Array) -> Array:
    """uint8 as float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255


def scaled(x: Array, view: View) -> Array:
    """(x - mean) / std for each channel; pictures of one channel take the first entries."""
    c = x.shape[-1]
    mean, std = (
        jnp.broadcast_to(jnp.array(values[:c], x.dtype), (c,)).reshape(1, 1, 1, c)
        for values in (view.mean, view.std)
    )
    return (x - mean) / std
