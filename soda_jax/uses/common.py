"""What the uses of z share: the pictures that they show, and readers of what pictures show."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from PIL import Image

from soda_jax import inference
from soda_jax.applications.pictures import grid, save_gif
from soda_jax.data.sources import Source, num_classes
from soda_jax.evaluation import logistic_regression
from soda_jax.evaluation.picture_attributes import picture_attributes
from soda_jax.evaluation.probe_data import shuffled
from soda_jax.models.bottleneck import section_sizes
from soda_jax.pretrained import Pretrained

LEGIBLE_SIZE = 64  # pixels of a picture on the page
READER_EXAMPLES = 5000  # training pictures that the reader of classes learns from, at most
READER_L2 = 1e-2  # [D]


@dataclasses.dataclass(frozen=True)
class Studio:
    """A model with pictures to show what it does with them.

    Attributes:
      folder: where pictures are written.
    """

    model: Pretrained
    train: Source
    test: Source
    folder: pathlib.Path

    def __post_init__(self):
        if len(self.test) < 2 or len(self.train) < 20:
            raise ValueError(
                f"{self.train.name}: {len(self.train)} training and {len(self.test)} test "
                "pictures; at least 20 and 2 are needed to show what z is used for"
            )

    @property
    def config(self):
        return self.model.parts.config

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """Of the sections of z."""
        return section_sizes(self.config.model.z_size, self.model.parts.num_sections)

    @functools.cached_property
    def shown(self) -> np.ndarray:
        """Positions of the test pictures that are shown: of different classes, if possible."""
        count = self.config.apply.num_images
        candidates = self.some_of(self.test, 40 * count)
        if num_classes(self.test) > 1:
            labels = self.test.labels(candidates)
            # The first of each class, then the second of each, ...
            rank = np.array([np.sum(labels[:i] == labels[i]) for i in range(len(labels))])
            candidates = candidates[np.lexsort((labels, rank))]
        return candidates[:count]

    @functools.cached_property
    def sources(self) -> np.ndarray:
        """The test pictures that are shown, uint8 [n h w c]."""
        return self.test.images(self.shown)

    @functools.cached_property
    def targets(self) -> np.ndarray:
        """The same at the denoiser's size."""
        return inference.target_pictures(self.model.parts, self.sources)

    @functools.cached_property
    def z(self) -> np.ndarray:
        """Their codes."""
        return self.model.features_of(self.test, self.shown, to_draw=True)["z"]

    @functools.cached_property
    def codes(self) -> np.ndarray:
        """Codes of training pictures: what the distribution of z is read from."""
        chosen = self.some_of(self.train, self.config.apply.codes)
        return self.model.features_of(self.train, chosen, to_draw=True)["z"]

    @functools.cached_property
    def typical(self) -> np.ndarray:
        """The code [z] of the shown picture that is nearest to the mean of all codes."""
        apart = (self.z - self.codes.mean(0, keepdims=True)) / (
            self.codes.std(0, keepdims=True) + 1e-6
        )
        return self.z[np.square(apart).sum(1).argmin()]

    def some_of(self, source: Source, count: int) -> np.ndarray:
        """Positions of up to count pictures, at random: in a folder they lie class by class."""
        return shuffled(np.arange(len(source)), self.config.seed)[:count]

    def draw(self, z: np.ndarray, **options) -> np.ndarray:
        """Pictures of codes [... z] by the config's sampler, in config.apply.num_steps."""
        flat = z.reshape(-1, z.shape[-1])
        config = self.config
        options = {"num_steps": config.apply.num_steps, "seed": config.sample.seed} | options
        pictures = self.model.decode(flat, **options)
        return pictures.reshape(*z.shape[:-1], *pictures.shape[1:])

    def save(self, name: str, rows) -> str:
        """Writes a grid of rows of pictures as PNG; returns its name."""
        size = max(row.shape[1] for row in rows)
        picture = grid(rows, max(1, LEGIBLE_SIZE // size))
        Image.fromarray(picture).save(self.folder / f"{name}.png")
        return f"{name}.png"

    def save_gif(self, name: str, frames) -> str:
        """Writes rows of pictures [s n h w c] as one GIF of s frames, there and back."""
        size = max(1, LEGIBLE_SIZE // frames.shape[2])
        drawn = [grid([frame], size) for frame in frames]
        save_gif(self.folder / f"{name}.gif", [*drawn, *drawn[-2:0:-1]])
        return f"{name}.gif"

    def attributes(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """What pictures [n h w c] show: their attributes, and the probability of each class."""
        found = picture_attributes(pictures)
        if self._reader is not None:
            fitted, mean, std = self._reader
            x = self.model.pooled(pictures)
            x = logistic_regression.standardize(x, mean, std)
            logits = x @ np.asarray(fitted.kernel[0]).T + np.asarray(fitted.bias[0])[None]
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            for label, share in enumerate((odds / odds.sum(axis=1, keepdims=True)).T):
                found[f"class {self.class_name(label)}"] = share
        return found

    def class_name(self, label: int) -> str:
        return self.train.class_names[label] if self.train.class_names else str(label)

    @functools.cached_property
    def _reader(self):
        """A linear probe on pooled features of training pictures at the target's size, or None."""
        classes = num_classes(self.train)
        if classes < 2:
            return None
        chosen = self.some_of(self.train, READER_EXAMPLES)
        labels = self.train.labels(chosen)
        x = self.model.features(self.targets_of(self.train, chosen), len(chosen))["pooled"]
        mean, std = logistic_regression.standardization(x)
        fitted = logistic_regression.fit(
            jnp.asarray(logistic_regression.standardize(x, mean, std)),
            jnp.asarray(labels),
            jnp.ones((len(x),), jnp.float32),
            jnp.asarray([READER_L2], jnp.float32),
            num_classes=classes,
        )
        return fitted, mean, std

    def targets_of(self, source: Source, chosen: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """rows -> the chosen pictures at the denoiser's size, made when they are asked for."""
        return lambda rows: inference.target_pictures(self.model.parts, source.images(chosen[rows]))
