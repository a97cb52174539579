"""A trained model in three lines: load a workdir, encode pictures, reconstruct them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from soda_jax import config_schema, experiment, inference
from soda_jax.array_types import PyTree
from soda_jax.evaluation.features import extract
from soda_jax.experiment import Experiment
from soda_jax.training.checkpoint import Checkpointer
from soda_jax.training.sharding import split_batch

# What DDIM inversion inverts, and so what is sampled from its x_T. In equal steps of log-SNR: the
# inverted schedule's first step in t alone would multiply an error in epsilon by 20.
INVERTIBLE = {"sampler": "ddim", "spacing": "log_snr", "eta": 0.0, "guidance_scale": 0.0}


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
        self._encode = inference.encode_step(self.parts)
        self._steps: dict[tuple, Callable] = {}

    def features(
        self, images_fn: Callable[[np.ndarray], np.ndarray], num_examples: int
    ) -> dict[str, np.ndarray]:
        """{"z": [n z], "pooled": [n d]} of the uint8 pictures that images_fn(indices) gives."""
        return extract(
            lambda images: self._encode(self.variables, images),
            images_fn,
            num_examples,
            **self.in_batches(),
        )

    def in_batches(self, most: int | None = None) -> dict[str, Any]:
        """How `extract` goes through pictures with this model: batch_size (up to most), shard."""
        size = self.parts.config.probe.batch_size
        return {"batch_size": self._batch(min(size, most or size)), "shard": self._split}

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
        sections: Sequence[int] | np.ndarray = (),
        noise: Sequence[int] | None = None,
        x_T: np.ndarray | None = None,
        **options: Any,
    ) -> np.ndarray:
        """Pictures uint8 [n h w c], sampled under the codes z [n z].

        Args:
          seed: of the initial noise; noise: its number for each picture, 0, 1, 2, ... where None.
            A picture depends on its number, not on its batch; equal numbers give equal noise.
          sections: condition on these sections of z alone; () for all; or a mask [n l] of bool, for
            each picture its own.
          x_T: [n h w c], what to start from in place of that noise: see `invert`. The sampler is
            DDIM without noise and guidance then.
          options: fields of config.sample in place of the config's own: num_steps, sampler,
            spacing, eta, guidance_scale.

        Raises:
          ValueError: codes of another size, a section that isn't there, an unknown option, an x_T
            of another shape.
        """
        z = np.asarray(z, np.float32)
        z_size = self.parts.config.model.z_size
        if z.ndim != 2 or z.shape[1] != z_size or not len(z):
            raise ValueError(f"codes must be [n {z_size}] with n > 0, not {list(z.shape)}")
        mask = self._section_mask(sections, len(z))
        numbers = np.arange(len(z)) if noise is None else np.asarray(noise, np.int32)
        if numbers.shape != (len(z),):
            raise ValueError(f"noise must be {len(z)} numbers, one for each code, not {noise}")
        if x_T is not None:
            options = INVERTIBLE | options
            x_T = np.asarray(x_T, np.float32)
            if x_T.shape != (len(z), *self.parts.target_shape):
                raise ValueError(
                    f"x_T must be {[len(z), *self.parts.target_shape]}, not {list(x_T.shape)}"
                )
        decode = self._step(inference.decode_step, **options)

        def decode_rows(rows):
            start = None if x_T is None else self._split(x_T[rows])
            codes = self._split(z[rows])
            return decode(self.variables, codes, seed, numbers[rows], mask[rows], start)

        return self._in_batches(decode_rows, len(z))

    def invert(self, images: np.ndarray, z: np.ndarray, *, num_steps: int = 100) -> np.ndarray:
        """x_T [n h w c]: `decode(z, x_T=x_T, num_steps=num_steps)` gives the pictures back.

        Nearly so: at the denoiser's size. x_T holds the detail that z [n z] doesn't; under another
        code, `decode` changes what that code says and keeps what x_T says.

        Raises:
          ValueError: not pictures of this model's number of channels, or not a code for each.
        """
        images, z = self._check(images), np.asarray(z, np.float32)
        if z.shape != (len(images), self.parts.config.model.z_size):
            raise ValueError(
                f"codes must be [{len(images)} {self.parts.config.model.z_size}], one for each "
                f"picture, not {list(z.shape)}"
            )
        invert = self._step(
            inference.invert_step, num_steps=num_steps, spacing=INVERTIBLE["spacing"]
        )
        return self._in_batches(
            lambda rows: invert(self.variables, self._split(z[rows]), self._split(images[rows])),
            len(z),
        )

    def reconstruct(self, images: np.ndarray, **options: Any) -> np.ndarray:
        """Pictures uint8 [n h w c] at the denoiser's size, from the codes of images; see decode."""
        return self.decode(self.encode(images), **options)

    def _step(self, make_step: Callable[..., Callable], **options: Any) -> Callable:
        """The jitted step with these options, compiled once."""
        key = (make_step, *sorted(options.items()))
        if key not in self._steps:
            self._steps[key] = make_step(self.parts, **options)
        return self._steps[key]

    def _section_mask(self, sections: Sequence[int] | np.ndarray, count: int) -> np.ndarray:
        num_sections = self.parts.num_sections
        if isinstance(sections, np.ndarray) and sections.dtype == bool:
            if sections.shape != (count, num_sections):
                raise ValueError(
                    f"a mask of sections must be [{count} {num_sections}], not "
                    f"{list(sections.shape)}"
                )
            return sections
        chosen = {int(section) for section in sections}
        if unknown := chosen - set(range(num_sections)):
            raise ValueError(f"sections are 0 to {num_sections - 1}; there is no {min(unknown)}")
        row = np.isin(np.arange(num_sections), list(chosen or range(num_sections)))
        return np.tile(row, (count, 1))

    def _in_batches(self, step: Callable[[np.ndarray], Any], count: int) -> np.ndarray:
        """step(rows [b]) -> [b ...], for rows 0 to count - 1."""
        # A power of two: few sizes, so few compilations.
        size = min(self.parts.config.sample.batch_size, 1 << (count - 1).bit_length())
        size = self._batch(size)
        parts = []
        for start in range(0, count, size):
            # The last batch repeats its end, so that there is one compilation.
            parts.append(np.asarray(step(np.minimum(np.arange(start, start + size), count - 1))))
        return np.concatenate(parts)[:count]

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
    return Pretrained(parts, inference.eval_variables(experiment.init_state(parts)), 0)
