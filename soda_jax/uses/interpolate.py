"""Use "interpolate": from one picture to another, with the noise held fixed."""

import numpy as np

from soda_jax import page
from soda_jax.applications.codes import interpolate
from soda_jax.uses.common import Studio

STEPS = 9
FRAMES = 17


def run(studio: Studio) -> dict:
    """Neighbours among the shown pictures, on the line and on the sphere."""
    first, second = studio.z[:-1], studio.z[1:]
    pictures = {}
    for kind in ("linear", "spherical"):
        lines = np.stack(
            [interpolate(a, b, STEPS, kind) for a, b in zip(first, second, strict=True)]
        )
        drawn = studio.draw(lines, noise=np.zeros(lines.shape[0] * STEPS, int))
        ends = zip(studio.targets[:-1], drawn, studio.targets[1:], strict=True)
        rows = [np.concatenate([a[None], line, b[None]]) for a, line, b in ends]
        pictures[kind] = studio.save(f"interpolate_{kind}", rows)
    lines = np.stack(
        [interpolate(a, b, FRAMES, "spherical") for a, b in zip(first, second, strict=True)], axis=1
    )
    frames = studio.draw(lines, noise=np.zeros(lines.shape[0] * lines.shape[1], int))
    return {"pictures": pictures, "animation": studio.save_gif("interpolate", frames)}


def show(values: dict, folder) -> list[str]:
    return [
        "<h2>Interpolate</h2>",
        "<p>Left and right: test pictures. Between them: drawn along the line from the code of one "
        "to that of the other, from the same noise.</p>",
        page.embed(folder / values["pictures"]["linear"]),
        "<p>The same on the sphere, where codes keep their length:</p>",
        page.embed(folder / values["pictures"]["spherical"]),
        page.embed(folder / values["animation"]),
    ]
