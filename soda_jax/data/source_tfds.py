"""Data sets that TFDS has prepared as ArrayRecord files: random access without TensorFlow."""

import dataclasses
import functools
import os
from typing import Any

import numpy as np

from soda_jax.data import images, records

# A prepared set is trusted more than a loose file: ImageNet has a few very large pictures.
MAX_PIXELS = 150_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsSource:
    """A TFDS data source whose pictures arrive encoded and pass through our own door."""

    name: str
    split: str
    image_size: int
    channels: int
    data_source: Any
    image_key: str
    label_key: str | None
    class_names: tuple[str, ...] | None
    factor_keys: tuple[tuple[str, ...], ...] = ()  # the path of each factor in a record

    @property
    def factor_names(self) -> tuple[str, ...]:
        return tuple(path[-1] for path in self.factor_keys)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.image_size, self.image_size, self.channels

    def __len__(self) -> int:
        return len(self.data_source)

    def images(self, indices: np.ndarray) -> np.ndarray:
        out = np.empty((len(indices), *self.image_shape), np.uint8)
        for n, index in enumerate(indices):
            where = f"record {index} of {self.name} ({self.split})"
            data = self._record(index, where)[self.image_key]
            out[n] = images.decode_image(data, where, self.image_size, self.channels, MAX_PIXELS)
        return out

    def labels(self, indices: np.ndarray) -> np.ndarray:
        if self.label_key is None:
            raise records.no_labels(self)
        where = f"{self.name} ({self.split})"
        labels = [self._record(i, f"record {i} of {where}")[self.label_key] for i in indices]
        return np.array(labels, np.int32)

    def factors(self, indices: np.ndarray) -> np.ndarray:
        if not self.factor_keys:
            raise records.no_factors(self)
        found = [self._record(i, f"record {i} of {self.name} ({self.split})") for i in indices]
        rows = [[functools.reduce(dict.get, path, x) for path in self.factor_keys] for x in found]
        return np.array(rows, np.int64)

    def _record(self, index: int, where: str) -> dict[str, Any]:
        try:
            return self.data_source[int(index)]
        except IndexError:
            raise
        except Exception as error:  # ArrayRecord raises its own kinds
            raise ValueError(f"{where}: cannot be read ({error})") from error

    @functools.cached_property
    def fingerprint(self) -> str:
        few = [self._record(i, f"record {i}") for i in records.a_few(len(self))]
        contents = [record[self.image_key] for record in few]
        if self.label_key is not None:
            labels = [record[self.label_key] for record in few]
            contents.append(np.array(labels, np.int32).tobytes())
        return records.digest(self, contents)


def open_tfds(
    name: str, split: str, image_size: int, channels: int, data_dir: str = ""
) -> TfdsSource:
    """Opens what was prepared under data_dir, else $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Args:
      name: "cifar10", "cifar10:3.0.2" or "name/config"; the newest version unless one is given.
      split: any of TFDS's, slices such as "train[:80%]" included.
    """
    if not name:
        raise ValueError("the source 'tfds' needs the data set's name: config.data.name")
    directory = find_prepared(name, data_dir)
    tfds = import_tfds()
    builder = tfds.builder_from_directory(directory)
    splits = sorted(builder.info.splits)
    try:
        builder.info.splits[split]
    except Exception as error:
        raise ValueError(
            f"{name} has no split {split!r}; {records.choices(split, splits)}"
        ) from error
    image_key, label_key = _keys(name, builder.info.features, tfds)
    if (file_format := builder.info.file_format) != tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(
            f"{directory} holds {file_format.value} files, which need TensorFlow to read; "
            f"prepare it anew in another data_dir: {prepare_command(name, 'DATA_DIR')}"
        )
    skip = {image_key: tfds.decode.SkipDecoding()}
    class_names = builder.info.features[label_key].names if label_key else None
    return TfdsSource(
        name.split(":")[0],
        split,
        image_size,
        channels,
        builder.as_data_source(split, decoders=skip),
        image_key,
        label_key,
        tuple(class_names) if class_names else None,
        _factor_keys(builder.info.features, label_key, tfds),
    )


def import_tfds() -> Any:
    try:
        import tensorflow_datasets as tfds
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the source 'tfds' needs tensorflow-datasets: pip install tensorflow-datasets"
        ) from error
    return tfds


def prepare_command(name: str, data_dir: str = "") -> str:
    place = f" --config.data.path={data_dir}" if data_dir else ""
    data = f"--config.data.source=tfds --config.data.name={name}{place}"
    return f"python -m soda_jax prepare --config=configs/base.py {data}"


def find_prepared(name: str, data_dir: str = "") -> str:
    """The folder of the newest (or the asked) version of a prepared data set."""
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = os.path.abspath(os.path.expanduser(root))
    data_set, _, version = name.partition(":")
    base = os.path.join(root, *data_set.split("/"))
    versions = _versions(base)
    if not versions and os.path.isdir(base):
        configs = [c for c in sorted(os.listdir(base)) if _versions(os.path.join(base, c))]
        if len(configs) == 1:
            base = os.path.join(base, configs[0])
            versions = _versions(base)
        elif configs:
            raise ValueError(f"{name} has several configs: give one, such as {name}/{configs[0]}")
    if version and versions and version not in versions:
        known = records.choices(version, versions)
        raise FileNotFoundError(f"no version {version} in {base}; {known}")
    if not versions:
        prepared = sorted(os.listdir(root)) if os.path.isdir(root) else []
        setting = os.environ.get("TFDS_DATA_DIR") or "not set"
        near = records.choices(data_set, [entry for entry in prepared if entry != "downloads"])
        raise FileNotFoundError(
            f"{name} is not prepared: tried {base} (TFDS_DATA_DIR is {setting}); {near}. "
            f"To prepare it: {prepare_command(name, data_dir)}"
        )
    return os.path.join(base, version or versions[-1])


def _versions(base: str) -> list[str]:
    """Versions under a data set's folder that were prepared to the end, oldest first."""
    if not os.path.isdir(base):
        return []
    numbered = [v for v in os.listdir(base) if all(part.isdigit() for part in v.split("."))]
    info = "dataset_info.json"
    done = [v for v in numbered if os.path.isfile(os.path.join(base, v, info))]
    return sorted(done, key=lambda v: [int(part) for part in v.split(".")])


def _keys(name: str, features: Any, tfds: Any) -> tuple[str, str | None]:
    """The keys of the picture and of the class label in a record."""
    if not isinstance(features, tfds.features.FeaturesDict):
        raise ValueError(f"{name}: its records are not named features, but {features}")
    pictures = [k for k, f in features.items() if type(f) is tfds.features.Image]
    labels = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    if not pictures:
        raise ValueError(f"{name} has no pictures, only {', '.join(features)}")
    image_key = "image" if "image" in pictures else pictures[0]
    label_key = "label" if "label" in labels else (labels[0] if len(labels) == 1 else None)
    if "image" not in pictures and len(pictures) > 1:
        raise ValueError(f"{name} has several pictures in a record: {', '.join(pictures)}")
    return image_key, label_key


def _factor_keys(features: Any, label_key: str | None, tfds: Any) -> tuple[tuple[str, ...], ...]:
    """Where a record tells what its picture was made from or shows: classes, yes or no.

    Beside the class label these are the factors of dSprites and its like, and, in a dictionary of
    their own, the attributes of CelebA.
    """

    def tells(feature: Any) -> bool:
        is_class = isinstance(feature, tfds.features.ClassLabel)
        return is_class or (feature.shape == () and feature.np_dtype == np.bool_)

    paths = []
    for key, feature in features.items():
        if isinstance(feature, tfds.features.FeaturesDict):
            paths += [(key, name) for name, inner in feature.items() if tells(inner)]
        elif key != label_key and tells(feature):
            paths.append((key,))
    return tuple(sorted(paths))  # TFDS keeps them in a map, whose order changes
