"""Use "zoom": any part of a picture drawn from its z, by a denoiser that is told of places."""

import jax.numpy as jnp
import numpy as np

from soda_jax import page
from soda_jax.config_schema import ConfigError
from soda_jax.data.augment import cut
from soda_jax.evaluation.image_metrics import psnr
from soda_jax.uses.common import Studio

# Top, left, bottom, right of the source, from 0 to 1: as small as crops of a third of its area.
SIDE = 0.6
CORNERS = {
    "upper left": (0.0, 0.0, SIDE, SIDE),
    "upper right": (0.0, 1 - SIDE, SIDE, 1.0),
    "lower left": (1 - SIDE, 0.0, 1.0, SIDE),
    "lower right": (1 - SIDE, 1 - SIDE, 1.0, 1.0),
}
WHOLE = (0.0, 0.0, 1.0, 1.0)
MIRRORED = (0.0, 1.0, 1.0, 0.0)


def run(studio: Studio) -> dict:
    """The whole picture, its mirror image and its corners, beside what is there in truth."""
    if not studio.model.parts.located:
        raise ConfigError(
            "config.views.located = False: this model was not told of places, so it can't zoom"
        )
    noise = np.arange(len(studio.z))

    def drawn(box: tuple[float, ...]) -> np.ndarray:
        boxes = np.tile(np.asarray(box, np.float32), (len(noise), 1))
        return studio.draw(studio.z, noise=noise, boxes=boxes)

    size = studio.targets.shape[1]
    real = {name: part(studio.sources, box, size) for name, box in CORNERS.items()}
    parts = {name: drawn(box) for name, box in CORNERS.items()}
    whole, mirrored = drawn(WHOLE), drawn(MIRRORED)
    beside = [row for name in CORNERS for row in (real[name], parts[name])]
    # A corner that is drawn for another corner's place: what does the place alone decide?
    pairs = [(name, other) for name in CORNERS for other in CORNERS]
    scores = {pair: _mean_psnr(real[pair[0]], parts[pair[1]]) for pair in pairs}
    own = [scores[pair] for pair in pairs if pair[0] == pair[1]]
    others = [scores[pair] for pair in pairs if pair[0] != pair[1]]
    return {
        "picture": studio.save("zoom", [studio.targets, whole, mirrored, *beside]),
        "PSNR": {
            "the whole": _mean_psnr(studio.targets, whole),
            "its mirror image": _mean_psnr(studio.targets[:, :, ::-1], mirrored),
            "the corners": float(np.mean(own)),
            "another corner": float(np.mean(others)),
        },
    }


def part(images: np.ndarray, box: tuple[float, ...], size: int) -> np.ndarray:
    """What pictures uint8 [n h w c] show in a box, uint8 [n size size c]."""
    sides = np.asarray(images.shape[1:3], np.float32)
    corner, end = np.asarray(box[:2]) * sides, np.asarray(box[2:]) * sides
    each = [jnp.tile(jnp.asarray(x, jnp.float32), (len(images), 1)) for x in (corner, end - corner)]
    cropped = cut(jnp.asarray(images, jnp.float32) / 255, *each, size)
    return np.asarray(jnp.round(255 * cropped)).astype(np.uint8)


def _mean_psnr(targets: np.ndarray, drawn: np.ndarray) -> float:
    return float(np.mean(np.asarray(psnr(targets, drawn, 255))))


def show(values: dict, folder) -> list[str]:
    return [
        "<h2>Zoom</h2>",
        "<p>The denoiser is told where in the source its picture lies. From the top: test "
        "pictures; drawn from z whole; drawn mirrored; then each corner as it is, and as it is "
        "drawn from z for that place. One noise for all.</p>",
        page.embed(folder / values["picture"]),
        page.table(
            "", ["PSNR, dB"], {name: [f"{value:.2f}"] for name, value in values["PSNR"].items()}
        ),
    ]
