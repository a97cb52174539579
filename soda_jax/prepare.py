"""The loop behind `python -m soda_jax prepare`: makes a data set ready, or says what is there."""

from collections.abc import Sequence

from soda_jax.config_rules import WHERE
from soda_jax.data import source_tfds, sources
from soda_jax.data.records import PosedSource


def prepare(
    source: str,
    name: str = "",
    path: str = "",
    splits: Sequence[str] = ("train", "test"),
    image_size: int = 32,
    channels: int = 3,
) -> str:
    """Prepares a TFDS data set as ArrayRecord files, or opens any other one and looks at it.

    Args:
      source, name, path, splits, image_size, channels: as in config.data.

    Returns:
      What was found, a line for each split, to be printed.

    Raises:
      FileNotFoundError, ValueError: there is nothing that can be read, and where to get it.
      ModuleNotFoundError: the preparation needs a package that is not installed.
    """
    if source == "digits":
        return "digits: nothing to prepare, they come with scikit-learn"
    if source == "tfds":
        return _prepare_tfds(name, path)
    lines, missing = [], None
    for split in splits:
        try:
            opened = sources.open_source(
                source, split, image_size=image_size, channels=channels, path=path
            )
        except (FileNotFoundError, ValueError) as error:
            if split == splits[0] and source in WHERE:
                error.args = (f"{error}. {WHERE[source]}",)
            if split == splits[0]:
                raise
            # Training needs no test split; who has none should still hear of it.
            missing = f"{split}: {error}"
        else:
            lines.append(_describe(opened))
    return "\n".join(lines + ([missing] if missing else []))


def _describe(opened: sources.Source) -> str:
    names = opened.class_names or ()
    seen = f" of {len(opened.starts) - 1} objects" if isinstance(opened, PosedSource) else ""
    try:
        opened.labels([0])
        few = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        known = f"{len(names)} classes ({few})" if names else "labelled"
    except ValueError:
        known = "no labels"
    h, w, c = opened.image_shape
    return (
        f"{opened.name} {opened.split}: {len(opened)} pictures{seen}, {known}, "
        f"read as {h} x {w} x {c}, fingerprint {opened.fingerprint}"
    )


def _prepare_tfds(name: str, data_dir: str) -> str:
    if not name:
        raise ValueError("give the TFDS data set's name: --config.data.name=cifar10")
    tfds = source_tfds.import_tfds()
    builder = tfds.builder(name, data_dir=data_dir or None, file_format="array_record")
    try:
        builder.download_and_prepare()
    except ModuleNotFoundError as error:
        # TFDS encodes with TensorFlow, and needs importlib_resources without declaring it.
        missing = (error.name or "").split(".")[0]
        package = '"soda_jax[tf]"' if missing == "tensorflow" else missing
        raise ModuleNotFoundError(
            f"preparing {name} needs {missing}, and this step alone does: pip install {package}"
        ) from error
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    found = ", ".join(f"{split}: {count} pictures" for split, count in counts.items())
    return f"{name} is ready in {builder.data_path}: {found}"
