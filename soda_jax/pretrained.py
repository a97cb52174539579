"""A trained model in three lines: load a workdir, encode pictures, reconstruct them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from soda_jax import config_schema, experiment
from soda_jax.array_types import PyTree
from soda_jax.evaluation.features import extract
from soda_jax.experiment import Experiment
from soda_jax.training.checkpoint import Checkpointer
from soda_jax.training.sharding import split_batch


@dataclasses.dataclass
class Pretrained:
    """A model with its weights.

    Attributes:
      parts: everything that its config chose.
      variables: what `model.apply` takes.
      step: the training step of the weights; 0 for an untrained model.
    """

    parts: Experiment
    variables: PyTree
    step: int

    def __post_init__(self):
        self._encode = experiment.encode_step(self.parts)
        self._decoders: dict[tuple, Callable] = {}

    def features(
        self, images_fn: Callable[[np.ndarray], np.ndarray], num_examples: int
    ) -> dict[str, np.ndarray]:
        """{"z": [n z], "pooled": [n d]} of the uint8 pictures that images_fn(indices) gives."""
        return extract(
            lambda images: self._encode(self.variables, images),
            images_fn,
            num_examples,
            self._batch(self.parts.config.probe.batch_size),
            shard=self._split,
        )

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Codes z [n z] of pictures: uint8 [n h w c], or floats in [0, 1]; of any size.

        Raises:
          ValueError: not pictures of this model's number of channels.
        """
        images = self._check(images)
        return self.features(lambda indices: images[indices], len(images))["z"]

    def decode(
        self,
        z: np.ndarray,
        *,
        seed: int = 0,
        sections: Sequence[int] = (),
        first: int = 0,
        **options: Any,
    ) -> np.ndarray:
        """Pictures uint8 [n h w c], sampled under the codes z [n z].

        Args:
          seed: of the initial noise; picture i starts from noise number first + i in any batch.
          sections: condition on these sections of z alone; () for all.
          options: fields of config.sample in place of the config's own: num_steps, sampler,
            spacing, eta, guidance_scale.

        Raises:
          ValueError: codes of another size, a section that isn't there, an unknown option.
        """
        z = np.asarray(z, np.float32)
        z_size, num_sections = self.parts.config.model.z_size, self.parts.num_sections
        if z.ndim != 2 or z.shape[1] != z_size or not len(z):
            raise ValueError(f"codes must be [n {z_size}] with n > 0, not {list(z.shape)}")
        if unknown := set(sections) - set(range(num_sections)):
            raise ValueError(f"sections are 0 to {num_sections - 1}; there is no {min(unknown)}")
        cache = tuple(sorted(options.items()))
        if cache not in self._decoders:
            self._decoders[cache] = experiment.decode_step(self.parts, **options)
        decode = self._decoders[cache]
        batch_size = self._batch(min(self.parts.config.sample.batch_size, len(z)))
        section_mask = np.ones((batch_size, num_sections), bool)
        if sections:
            section_mask[:] = np.isin(np.arange(num_sections), list(sections))
        pictures = []
        for start in range(0, len(z), batch_size):
            # The last batch repeats its end, so that there is one compilation.
            rows = np.minimum(np.arange(start, start + batch_size), len(z) - 1)
            codes = self._split(z[rows])
            batch = decode(self.variables, codes, seed, first + rows, section_mask)
            pictures.append(np.asarray(batch))
        return np.concatenate(pictures)[: len(z)]

    def reconstruct(self, images: np.ndarray, **options: Any) -> np.ndarray:
        """Pictures uint8 [n h w c] at the denoiser's size, from the codes of images; see decode."""
        return self.decode(self.encode(images), **options)

    def _batch(self, batch_size: int) -> int:
        devices = self.parts.mesh.size
        return -(-batch_size // devices) * devices

    def _split(self, array: np.ndarray):
        return split_batch(self.parts.mesh, array)

    def _check(self, images: np.ndarray) -> np.ndarray:
        images = np.asarray(images)
        channels = self.parts.config.data.channels
        if images.ndim != 4 or images.shape[-1] != channels or not len(images):
            raise ValueError(
                f"pictures must be [n h w {channels}] with n > 0, not {list(images.shape)}"
            )
        if images.dtype != np.uint8:
            if not np.issubdtype(images.dtype, np.floating):
                raise ValueError(f"pictures must be uint8, or floats in [0, 1], not {images.dtype}")
            if not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
                raise ValueError("pictures given as floats must be finite and in [0, 1]")
            images = np.round(images * 255).astype(np.uint8)
        return images


def load(workdir: str, *, step: int | None = None, weights: str | None = None) -> Pretrained:
    """The model that was trained in workdir; nothing there is written.

    Args:
      step: of the checkpoint; the newest where None.
      weights: "ema" or "raw"; what config.sample says where None.

    Raises:
      FileNotFoundError: workdir holds no run, or no checkpoint.
      CheckpointMismatch: the checkpoint isn't of the workdir's config.
    """
    return restore(config_schema.recall(workdir), workdir, step=step, weights=weights)


def restore(
    config, workdir: str, *, step: int | None = None, weights: str | None = None
) -> Pretrained:
    """`load` under a given config, which may differ in what doesn't make the model."""
    parts = experiment.build(config)
    template = experiment.abstract_state(parts)
    params = "ema_params" if (weights or config.sample.weights) == "ema" else "params"
    with Checkpointer(workdir, read_only=True) as checkpointer:
        step = checkpointer.latest_step() if step is None else step
        part = checkpointer.restore_part(
            {params: getattr(template, params), "batch_stats": template.batch_stats}, step
        )
    variables = {"params": part[params], "batch_stats": part["batch_stats"]}
    return Pretrained(parts, variables, step)


def untrained(config) -> Pretrained:
    """The same model at its initial weights: what training is measured against."""
    parts = experiment.build(config)
    return Pretrained(parts, experiment.eval_variables(experiment.init_state(parts)), 0)
