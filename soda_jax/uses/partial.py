"""Use "partial": what each section alone puts into the picture; and one z from many seeds."""

import numpy as np

from soda_jax import page
from soda_jax.uses.common import Studio

VARIATIONS = 8


def run(studio: Studio) -> dict:
    """Rows: all of z, each section alone, none; then one z from many seeds."""
    z, count = studio.z, studio.model.parts.num_sections
    noise = np.zeros(len(z), int)

    def conditioned(kept: list[int]) -> np.ndarray:
        mask = np.isin(np.arange(count), kept)
        return studio.draw(z, noise=noise, sections=np.tile(mask, (len(z), 1)))

    alone = [conditioned([section]) for section in range(count)]
    rows = [studio.targets, conditioned(list(range(count))), *alone, conditioned([])]
    codes = np.repeat(z[:, None], VARIATIONS, axis=1)
    variations = studio.draw(codes)
    beside = [np.concatenate([x[None], y]) for x, y in zip(studio.targets, variations, strict=True)]
    return {
        "sections": count,
        "picture": studio.save("partial", rows),
        "variations": studio.save("variations", beside),
        "deviation": float(variations.astype(float).std(axis=1).mean() / 255),
        "between pictures": float(variations.mean(axis=1).std(axis=0).mean() / 255),
    }


def show(values: dict, folder) -> list[str]:
    return [
        "<h2>Parts of z</h2>",
        f"<p>From the top: pictures; drawn from all of z; from sections 0 to "
        f"{values['sections'] - 1} alone, finest first; from none. One noise for all.</p>",
        page.embed(folder / values["picture"]),
        "<h2>Variations</h2>",
        f"<p>One z, {VARIATIONS} seeds: what changes is not in z. The pixels of one z deviate by "
        f"{values['deviation']:.3f} between seeds, those of different z by "
        f"{values['between pictures']:.3f} (of a range of 1).</p>",
        page.embed(folder / values["variations"]),
    ]
