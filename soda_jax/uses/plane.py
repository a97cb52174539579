"""Use "plane": the two directions in which codes vary most, as a map of pictures."""

import numpy as np

from soda_jax import page
from soda_jax.applications.directions import principal_directions
from soda_jax.data.sources import num_classes
from soda_jax.evaluation.silhouette import silhouette
from soda_jax.uses.common import Studio

SIDE = 13  # pictures
REACH = 2.0  # deviations each way
SCATTERED = 2000  # test pictures that are dots
CANVAS = 480  # pixels of the scatter
COLOURS = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207),
)  # fmt: skip


def run(studio: Studio) -> dict:
    """The pictures of a grid of codes; the codes of test pictures on it, by class; silhouettes."""
    if studio.config.model.z_size < 2:
        raise ValueError("config.model.z_size = 1: a plane needs two directions")
    across, up = principal_directions(studio.codes, 2).vectors
    middle = studio.codes.mean(0)
    deviations = [np.std(studio.codes @ direction) for direction in (across, up)]
    steps = np.linspace(-REACH, REACH, SIDE)
    codes = (
        middle[None, None]
        + steps[None, :, None] * deviations[0] * across[None, None]
        + steps[::-1][:, None, None] * deviations[1] * up[None, None]
    )
    drawn = studio.draw(codes, noise=np.zeros(SIDE * SIDE, int))
    found = {"grid": studio.save("plane", drawn), "reach": REACH, "scatter": None}
    if num_classes(studio.test) > 1:
        chosen = studio.some_of(studio.test, SCATTERED)
        z = studio.model.features_of(studio.test, chosen)["z"]
        labels = studio.test.labels(chosen)
        places = (z - middle[None]) @ np.stack([across / deviations[0], up / deviations[1]], 1)
        picture = scatter(places / REACH, labels)
        found |= {
            "scatter": studio.save("plane_codes", [picture[None]]),
            "silhouette": silhouette(z, labels),
            "silhouette_on_the_plane": silhouette(places, labels),
            "codes": len(z),
        }
    return found


def scatter(places: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Dots [n 2] in [-1, 1], x to the right and y up, coloured by label: uint8 [h w 3]."""
    canvas = np.full((CANVAS, CANVAS, 3), 255, np.uint8)
    pixels = np.rint((places * [1, -1] + 1) / 2 * (CANVAS - 1)).astype(int)
    for (column, row), label in zip(pixels, labels, strict=True):
        if 1 <= column < CANVAS - 1 and 1 <= row < CANVAS - 1:
            canvas[row - 1 : row + 2, column - 1 : column + 2] = COLOURS[label % len(COLOURS)]
    return canvas


def show(values: dict, folder) -> list[str]:
    parts = [
        "<h2>The plane of codes</h2>",
        f"<p>Drawn from codes on a grid, from one noise: -{values['reach']:g} to "
        f"{values['reach']:g} deviations along the two directions in which codes vary most.</p>",
        page.embed(folder / values["grid"]),
    ]
    if values["scatter"]:
        parts += [
            f"<p>The codes of {values['codes']} test pictures on the same plane, a colour a class. "
            f"Mean silhouette of the classes {values['silhouette']:.3f} in z, "
            f"{values['silhouette_on_the_plane']:.3f} on the plane (1: apart; 0: mixed).</p>",
            page.embed(folder / values["scatter"]),
        ]
    return parts
