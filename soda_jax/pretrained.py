"""A trained model in three lines: load a workdir, encode pictures, reconstruct them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from soda_jax import config_schema, experiment, inference, inputs
from soda_jax.array_types import PyTree
from soda_jax.config_schema import ConfigError
from soda_jax.data.cameras import Cameras
from soda_jax.data.records import Source
from soda_jax.data.views import in_frame
from soda_jax.evaluation.features import extract
from soda_jax.experiment import Experiment
from soda_jax.training.checkpoint_reader import CheckpointReader
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
      alone: its model for pictures without cameras.
    """

    parts: Experiment
    variables: PyTree
    step: int

    def __post_init__(self):
        self.alone = inference.Alone(self.parts)
        self._probed = self.parts.step(inference.encode_step)
        self._drawn = inference.to_draw_step(self.parts)

    def features(
        self,
        images_fn: Callable[[np.ndarray], PyTree],
        num_examples: int,
        *,
        to_draw: bool = False,
    ) -> dict[str, np.ndarray]:
        """{"z": [n z], "pooled": [n d]} of the uint8 pictures that images_fn(indices) gives: as
        probes read them, or z as `decode` draws from it (config.views.source.whole_size)."""
        encode = self._drawn if to_draw else self._probed
        return extract(
            lambda images: encode(self.variables, images),
            images_fn,
            num_examples,
            **self.in_batches(),
        )

    def pooled(self, images: np.ndarray) -> np.ndarray:
        """What the encoder pools [n d] of uint8 pictures [n h w c]: what Fréchet distances here
        are measured on."""
        return self.features(lambda rows: images[rows], len(images))["pooled"]

    def features_of(
        self, source: Source, indices: np.ndarray, *, to_draw: bool = False
    ) -> dict[str, np.ndarray]:
        """As `features`, of pictures of a source, with cameras if the model needs to know them."""
        return self.features(
            lambda rows: inference.as_seen(self.parts, source, indices[rows]),
            len(indices),
            to_draw=to_draw,
        )

    def needs_z(self, what: str) -> None:
        """Raises ConfigError where there is no encoder, and so no z for `what`."""
        if not self.parts.z_size:
            raise ConfigError(
                f"config.model.encoder.variant = 'none': {what} is about z, and this model has none"
            )

    def in_batches(self, most: int | None = None) -> dict[str, Any]:
        """How `extract` goes through pictures with this model: batch_size (up to most), shard."""
        size = self.parts.config.probe.batch_size
        return {"batch_size": self._batch(min(size, most or size)), "shard": self._split}

    def encode(self, images: np.ndarray, *, to_draw: bool = True) -> np.ndarray:
        """Codes z [n z] of pictures: uint8 [n h w c], or floats in [0, 1]; of any size.

        Args:
          to_draw: codes that `decode` knows, of sources as large as in training. False: as probes
            read them, where config.views.source.whole_size says that they see another size.

        Raises:
          ValueError: not pictures of this model's number of channels.
        """
        images = inputs.pictures(self.parts, images)
        return self.features(lambda indices: images[indices], len(images), to_draw=to_draw)["z"]

    def decode(
        self,
        z: np.ndarray,
        *,
        seed: int = 0,
        sections: Sequence[int] | np.ndarray = (),
        noise: Sequence[int] | None = None,
        x_T: np.ndarray | None = None,
        seen: Cameras | None = None,
        images: np.ndarray | None = None,
        shares: np.ndarray | None = None,
        boxes: np.ndarray | None = None,
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
          seen: the cameras [n] to draw from, in the coordinates of config.cameras.frame; the
            source's own where None. See `novel_views`.
          images: uint8 [n h w c], of which z are the codes: where z is a curve z(t), it is
            followed, but from an x_T, whose `invert` holds z, too. Else they aren't looked at.
          shares: [n k], where there are k codes of each picture, z [n k z], with cameras [n k]: the
            predictions under them are averaged by these shares.
          boxes: [n 4], what of each source is drawn, if the model was told of places
            (config.views.located): top, left, bottom and right, where 0 and 1 are the source's
            sides; mirrored where right is less than left. All of it where None.
          options: fields of config.sample in place of the config's own: num_steps, sampler,
            spacing, eta, guidance_scale, guidance_interval.

        Raises:
          ValueError: codes of another size, or that aren't finite, a section that isn't there, an
            unknown option, an x_T of another shape; boxes without height or width, or for a model
            that knows no places; cameras that are none, or for a model that knows of none.
        """
        z = inputs.codes(self.parts, z, shares)
        mask = inputs.section_mask(self.parts, sections, len(z))
        numbers = np.arange(len(z)) if noise is None else np.asarray(noise)
        if numbers.shape != (len(z),) or numbers.dtype.kind not in "iu":
            raise ValueError(f"noise must be {len(z)} integers, one for each code, not {noise}")
        if numbers.min() < 0 or numbers.max() > np.iinfo(np.int32).max:
            raise ValueError("noise: its numbers lie between 0 and 2147483647")
        numbers = numbers.astype(np.int32)
        if x_T is not None:
            options = INVERTIBLE | options
            x_T = np.asarray(x_T, np.float32)
            if x_T.shape != (len(z), *self.parts.target_shape):
                raise ValueError(
                    f"x_T must be {[len(z), *self.parts.target_shape]}, not {list(x_T.shape)}"
                )
        if seen is not None:
            lead = (len(z),) if shares is None else np.shape(shares)
            seen = inputs.cameras(self.parts, seen, lead, "seen", given=False)
        if boxes is not None:
            seen = inputs.frames(self.parts, boxes, len(z))
        options = {name: tuple(x) if isinstance(x, list) else x for name, x in options.items()}
        decode = self.parts.step(inference.decode_step, **options)
        images = (
            inputs.pictures(self.parts, images) if images is not None and self.parts.timed else None
        )
        if images is not None and len(images) != len(z):
            raise ValueError(f"{len(images)} pictures of {len(z)} codes; each has its own")

        def decode_rows(rows):
            codes, *rest = jax.tree.map(
                lambda x: self._split(x[rows]), (z, x_T, seen, images, shares)
            )
            return decode(self.variables, codes, seed, numbers[rows], mask[rows], *rest)

        return self._in_batches(decode_rows, len(z))

    def encode_views(
        self, images: np.ndarray, seen: Cameras, source_mask: np.ndarray | None = None
    ) -> np.ndarray:
        """Codes z [n z] of objects, each from k pictures [n k h w c] with their cameras [n k].

        Args:
          source_mask: [n k], False for pictures that are to be left out; None: all are used.

        Raises:
          ValueError: the model knows of no cameras, there is a picture without one, a pose isn't a
            rotation, conventions are mixed, or an object has no picture left, or not its first,
            in whose frame the others are seen.
        """
        images, seen, mask = inputs.views(self.parts, images, seen, source_mask)
        if not mask[:, 0].all() and self.parts.cameras.frame != "world":
            raise ValueError(
                "source_mask: an object's first source can't be left out, as all are seen in its "
                "frame (config.cameras.frame); put another first"
            )

        def encode_rows(rows):
            split = jax.tree.map(lambda x: self._split(x[rows]), (images, seen, mask))
            return self._drawn(self.variables, *split)["z"]

        return self._in_batches(encode_rows, len(images))

    def novel_views(
        self,
        images: np.ndarray,
        seen: Cameras,
        targets: Cameras,
        source_mask: np.ndarray | None = None,
        *,
        null: bool = False,
        **options: Any,
    ) -> np.ndarray:
        """Pictures uint8 [n m h w c] of objects as cameras `targets` [n m] would see them.

        Args:
          images, seen, source_mask: what is known of the objects; see `encode_views`. All cameras
            of an object are given in one world; the first source must be among the used.
          null: draw without z, from the cameras alone.
          options: of `decode`.

        Raises:
          ValueError: as `encode_views`.
        """
        if targets is None:
            raise ValueError("targets: no cameras; there must be one for each picture")
        n, m = np.shape(targets.pose)[:2]
        fuse = self.parts.cameras is not None and self.parts.cameras.fusion == "predictions"
        if fuse and not null:
            return self._fused(images, seen, targets, source_mask, **options)
        z = self.encode_views(images, seen, source_mask)
        targets = inputs.cameras(self.parts, targets, (len(z), m), "targets")
        first = np.asarray(seen.pose, np.float32)[:, :1]
        pose = np.asarray(in_frame(targets, first, self.parts.cameras).pose)
        flat = Cameras(pose.reshape(n * m, 4, 4), targets.intrinsics.reshape(n * m, 4))
        codes = np.repeat(np.zeros_like(z) if null else z, m, axis=0)
        pictures = self.decode(codes, seen=flat, **options)
        return pictures.reshape(n, m, *pictures.shape[1:])

    def _fused(
        self,
        images: np.ndarray,
        seen: Cameras,
        targets: Cameras,
        source_mask: np.ndarray | None,
        **options: Any,
    ) -> np.ndarray:
        """`novel_views` under the mean of what each source alone, in its own frame, predicts."""
        images, seen, mask = inputs.views(self.parts, images, seen, source_mask)
        n, k, m = *images.shape[:2], np.shape(targets.pose)[1]
        targets = inputs.cameras(self.parts, targets, (n, m), "targets")
        alone = Cameras(*(part.reshape(n * k, 1, *part.shape[2:]) for part in seen))
        z = self.encode_views(images.reshape(n * k, 1, *images.shape[2:]), alone)
        each = in_frame(
            Cameras(*(part[:, :, None] for part in targets)),
            seen.pose[:, None],
            self.parts.cameras,
        )
        pose = np.broadcast_to(each.pose, (n, m, k, 4, 4))
        lens = np.broadcast_to(each.intrinsics, (n, m, k, 4))
        shares = np.repeat(mask / mask.sum(1, keepdims=True), m, axis=0).astype(np.float32)
        pictures = self.decode(
            np.repeat(z.reshape(n, k, -1), m, axis=0),
            seen=Cameras(pose.reshape(n * m, k, 4, 4), lens.reshape(n * m, k, 4)),
            shares=shares,
            **options,
        )
        return pictures.reshape(n, m, *pictures.shape[1:])

    def invert(
        self,
        images: np.ndarray,
        z: np.ndarray,
        *,
        num_steps: int = 100,
        seen: Cameras | None = None,
    ) -> np.ndarray:
        """x_T [n h w c]: `decode(z, x_T=x_T, num_steps=num_steps)` gives the pictures back.

        Nearly so: at the denoiser's size. x_T holds the detail that z [n z] doesn't; under another
        code, `decode` changes what that code says and keeps what x_T says. seen: see `decode`.

        Raises:
          ValueError: not pictures of this model's number of channels, or not a code for each.
        """
        images, z = inputs.pictures(self.parts, images), np.asarray(z, np.float32)
        if z.shape != (len(images), self.parts.z_size):
            raise ValueError(
                f"codes must be [{len(images)} {self.parts.z_size}], one for each "
                f"picture, not {list(z.shape)}"
            )
        invert = self.parts.step(
            inference.invert_step, num_steps=num_steps, spacing=INVERTIBLE["spacing"]
        )

        def invert_rows(rows):
            parts = jax.tree.map(lambda x: self._split(x[rows]), (z, images, seen))
            return invert(self.variables, *parts)

        return self._in_batches(invert_rows, len(z))

    def reconstruct(self, images: np.ndarray, **options: Any) -> np.ndarray:
        """Pictures uint8 [n h w c] at the denoiser's size, from the codes of images; see decode."""
        images = inputs.pictures(self.parts, images)
        return self.decode(self.encode(images), images=images, **options)

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


def load(workdir: str, *, step: int | None = None, weights: str | None = None) -> Pretrained:
    """The model that was trained in workdir; nothing there is written.

    Args:
      step: of the checkpoint; the newest where None.
      weights: "ema" or "raw"; what config.sample says where None.

    Raises:
      FileNotFoundError: workdir holds no run, or no checkpoint.
      CheckpointMismatch: the checkpoint isn't of the workdir's config.
      CorruptCheckpoint: its bits aren't those that were saved, nor those of an older one.
    """
    return restore(config_schema.recall(workdir), workdir, step=step, weights=weights)


def restore(
    config, workdir: str, *, step: int | None = None, weights: str | None = None
) -> Pretrained:
    """`load` under a given config, which may differ in what doesn't make the model.

    Raises:
      ConfigError: it differs in what does: the checkpoint would be read as another model's.
    """
    weights = weights or config.sample.weights
    if weights not in ("ema", "raw"):
        raise ValueError(f"weights must be 'ema' or 'raw', not {weights!r}")
    saved = config_schema.recall(workdir)
    found = [
        line
        for line in config_schema.differences(saved, config)
        if line.split(":")[0] in config_schema.MODEL
    ]
    if found:
        raise ConfigError(*found, f"{workdir} has a model that was trained otherwise")
    parts = experiment.build(config, training=False)
    template = experiment.abstract_state(parts)
    average = "ema_" if weights == "ema" else ""
    names = {name: f"{average}{name}" for name in ("params", "batch_stats")}
    wanted = {name: getattr(template, name) for name in names.values()}
    part, step = CheckpointReader(workdir).restore_part(wanted, step)
    variables = {name: part[saved] for name, saved in names.items()}
    return Pretrained(parts, variables, step)


def untrained(parts: Experiment) -> Pretrained:
    """A model at its initial weights: what training is measured against.

    Given the parts of a trained one it computes by the same programs, which are compiled once.
    """
    return Pretrained(parts, inference.eval_variables(experiment.init_state(parts)), 0)
