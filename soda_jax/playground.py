"""What the page of `explore` asks of a model: pictures taken in, requests checked, drawings made.

Pictures come in through the door of `data.images`, and requests are checked field by field.
"""

import base64
import collections
import dataclasses
import io
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from soda_jax import inference
from soda_jax.applications.codes import mix
from soda_jax.applications.orbit import beside, stand
from soda_jax.data import images
from soda_jax.data.cameras import Cameras
from soda_jax.data.records import PosedSource
from soda_jax.data.views import in_frame
from soda_jax.pretrained import Pretrained
from soda_jax.uses.common import Studio
from soda_jax.uses.directions import of_sections, unsupervised

KEPT = 64  # dropped pictures that are remembered
CHUNK = 2  # steps of the sampler between two pictures of the stream
FARTHEST = 5.0  # deviations that a slider goes
MAX_SEED = 2**31 - 1
MOST_TURN, MOST_LIFT = 180.0, 60.0  # degrees that the camera goes around and over
STANDING = 8  # objects from which it is read how cameras stand


class InputError(ValueError):
    """What a browser sent can't be used; the message is shown on the page."""


@dataclasses.dataclass
class _Picture:
    image: np.ndarray  # uint8 [h w c]
    z: np.ndarray  # [z]
    seen: Cameras | None = None  # [1], in the model's frame, where it needs to know
    stand: tuple[np.ndarray, np.ndarray] | None = None  # see `orbit.stand`, where it is known
    x_T: np.ndarray | None = None  # found when it is first asked for


class Playground:
    """The model behind the page. Its methods are called from a single thread."""

    def __init__(self, model: Pretrained, studio: Studio):
        config = model.parts.config
        self._model, self._sizes = model, studio.sizes
        self._num_steps = config.apply.num_steps
        self._directions = unsupervised(studio) | of_sections(studio)
        del self._directions["random"]  # to compare with, not to play with
        self._noise = inference.noise_step(model.parts)
        self._watch = {
            guided: inference.watch_step(
                model.parts, num_steps=self._num_steps, count=CHUNK, guided=guided
            )
            for guided in (True, False)
        }
        self._name = config.name
        self._stand = None if model.parts.cameras is None else how_cameras_stand(studio.test)
        self._needs_place = model.parts.needs_place
        self._offered = {
            f"test{i}": _Picture(image, z)
            for i, (image, z) in enumerate(zip(studio.sources, studio.z, strict=True))
        }
        if self._stand is not None or self._needs_place:
            for picture, index in zip(self._offered.values(), studio.shown, strict=True):
                picture.stand = how_camera_stands(studio.test, index)
                if self._needs_place:
                    seen = studio.test.cameras(index[None])
                    picture.seen = in_frame(seen, seen.pose, model.parts.cameras)
        self._dropped: collections.OrderedDict[str, _Picture] = collections.OrderedDict()

    def setup(self) -> dict[str, Any]:
        """All that the page needs to know at first."""
        return {
            "name": self._name,
            "step": self._model.step,
            "pictures": [{"id": i, "picture": as_url(p.image)} for i, p in self._offered.items()],
            "sections": list(self._sizes),
            "directions": {name: len(x.vectors) for name, x in self._directions.items()},
            "farthest": FARTHEST,
            "turns": self._stand is not None,
        }

    def upload(self, data: bytes, name: str) -> dict[str, Any]:
        """Takes a picture file in; raises InputError where it is none."""
        if self._needs_place:
            raise InputError("this model needs each picture's camera, and a file doesn't tell it")
        data_config = self._model.parts.config.data
        try:
            image = images.decode_image(data, name, data_config.image_size, data_config.channels)
        except ValueError as error:
            raise InputError(str(error)) from error
        identity = secrets.token_urlsafe(12)
        self._dropped[identity] = _Picture(image, self._model.encode(image[None])[0])
        while len(self._dropped) > KEPT:
            self._dropped.popitem(last=False)
        return {"id": identity, "picture": as_url(image)}

    def draw(self, request: Any) -> Iterator[dict[str, Any]]:
        """Checks a request, then draws: one {"step", "of", "picture"} after every few steps."""
        first, z, seed, keeps_noise = self._read(request)
        seen = self._camera(request.get("camera"), first)
        if keeps_noise and first.x_T is None:
            first.x_T = self._model.invert(
                first.image[None], first.z[None], num_steps=self._num_steps, seen=first.seen
            )
        x_t = first.x_T if keeps_noise else self._noise(seed, np.arange(1))
        watch = self._watch[not keeps_noise]
        for step in range(0, self._num_steps, CHUNK):
            x_t, picture = watch(self._model.variables, z[None], x_t, seed, step, seen)
            done = min(step + CHUNK, self._num_steps)
            yield {"step": done, "of": self._num_steps, "picture": as_url(np.asarray(picture)[0])}

    def _read(self, request: Any) -> tuple[_Picture, np.ndarray, int, bool]:
        if not isinstance(request, dict):
            raise InputError("a request must be an object")
        known = {"a", "b", "from_b", "moves", "seed", "keep_noise", "camera"}
        if extra := set(request) - known:
            raise InputError(
                f"a request has no field {min(extra)!r}; it has {', '.join(sorted(known))}"
            )
        first = self._picture(request.get("a"))
        z = first.z
        from_b = request.get("from_b", [])
        if not isinstance(from_b, list) or not all(type(i) is int for i in from_b):
            raise InputError("from_b must be a list of sections")
        if from_b:
            try:
                z = mix(self._picture(request.get("b")).z, z, from_b, self._sizes)
            except ValueError as error:
                raise InputError(f"from_b: {error}") from error
        moves = request.get("moves", {})
        if not isinstance(moves, dict):
            raise InputError(
                "moves must be an object: a list of numbers for each kind of direction"
            )
        for name, amounts in moves.items():
            if name not in self._directions:
                raise InputError(f"moves: there are {', '.join(self._directions)}, no {name!r:.40}")
            found = self._directions[name]
            if not isinstance(amounts, list) or len(amounts) > len(found.vectors):
                raise InputError(f"moves: {name} takes up to {len(found.vectors)} numbers")
            for amount, vector, unit in zip(amounts, found.vectors, found.deviations, strict=False):
                if type(amount) not in (int, float) or not abs(amount) <= FARTHEST:
                    raise InputError(
                        f"moves: a number from {-FARTHEST:g} to {FARTHEST:g} is needed"
                    )
                z = z + amount * unit * vector
        seed, keeps_noise = request.get("seed", 0), request.get("keep_noise", False)
        if type(seed) is not int or not 0 <= seed <= MAX_SEED:
            raise InputError(f"seed must be a whole number from 0 to {MAX_SEED}")
        if type(keeps_noise) is not bool:
            raise InputError("keep_noise must be true or false")
        return first, z.astype(np.float32), seed, keeps_noise

    def _camera(self, asked: Any, first: _Picture) -> Cameras | None:
        """The camera of a request, {"turn": degrees, "lift": degrees}; None: the picture's own."""
        if asked is None:
            return first.seen
        if self._stand is None:
            raise InputError("camera: this model has none that could be turned")
        if not isinstance(asked, dict) or set(asked) != {"turn", "lift"}:
            raise InputError("camera must be an object with turn and lift")
        for name, most in (("turn", MOST_TURN), ("lift", MOST_LIFT)):
            if type(asked[name]) not in (int, float) or not abs(asked[name]) <= most:
                raise InputError(f"camera: {name} is a number from {-most:g} to {most:g} degrees")
        turn, lift = np.radians([asked["turn"], asked["lift"]])
        own = first.seen or inference.own_camera(self._model.parts, (1,))
        pose = np.asarray(own.pose) @ beside(*(first.stand or self._stand), turn, lift)
        return Cameras(pose, own.intrinsics)

    def _picture(self, identity: Any) -> _Picture:
        found = None
        if isinstance(identity, str):
            found = self._offered.get(identity) or self._dropped.get(identity)
        if found is None:
            raise InputError("that picture is not here (any more): pick or drop one again")
        return found


def how_camera_stands(source: PosedSource, index: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Where a picture's camera sees what its object's cameras look at, and upwards; or None."""
    last = np.searchsorted(source.starts, index, side="right")
    first = source.starts[last - 1]
    try:
        found = stand(source.cameras(np.arange(first, source.starts[last])).pose)
    except ValueError:
        return None
    return tuple(part[index - first] for part in found)


def how_cameras_stand(source: PosedSource) -> tuple[np.ndarray, np.ndarray] | None:
    """The same of a picture whose camera isn't known: means over a few objects of this set.

    None where cameras look at nothing in common: then the page turns none.
    """
    objects = zip(source.starts[:STANDING], source.starts[1:], strict=False)
    try:
        found = [stand(source.cameras(np.arange(*views)).pose) for views in objects]
    except ValueError:
        return None
    centre, up = (np.concatenate(part).mean(0) for part in zip(*found, strict=True))
    return centre, up / np.linalg.norm(up)


def as_url(image: np.ndarray) -> str:
    """A picture uint8 [h w c] as a data: URL, PNG."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
