"""Use "mix": some sections of z from one picture, the rest from another; and what each moves."""

import numpy as np

from soda_jax import page
from soda_jax.applications.codes import cut_matrix, mix
from soda_jax.uses.common import Studio

PAIRS = 64  # on which the roles of the sections are measured


def run(studio: Studio) -> dict:
    """The matrix over all cut points of a pair; coarse of one and fine of another; the roles."""
    a, b = studio.z[0], studio.z[1]
    codes = cut_matrix(a, b, studio.sizes)
    matrix = studio.draw(codes, noise=np.zeros(codes.shape[0] * codes.shape[1], int))
    half = len(studio.sizes) // 2
    coarse = range(half, len(studio.sizes))
    pairs = np.stack(
        [[mix(content, style, coarse, studio.sizes) for style in studio.z] for content in studio.z]
    )
    drawn = studio.draw(pairs, noise=np.zeros(pairs.shape[0] * pairs.shape[1], int))
    corner = np.full_like(studio.targets[:1], 255)
    rows = [np.concatenate([corner, studio.targets])]
    rows += [np.concatenate([x[None], row]) for x, row in zip(studio.targets, drawn, strict=True)]
    return {
        "matrix": studio.save("mix_matrix", list(matrix)),
        "table": studio.save("mix_coarse_and_fine", rows),
        "coarse": [coarse.start, coarse.stop - 1],
        "pair": studio.save("mix_pair", [studio.targets[:2]]),
        **roles(studio),
    }


def roles(studio: Studio) -> dict:
    """Which section moves which attribute: section x attribute, how much of it comes with z_i.

    Pairs (a, b) of test pictures. An attribute of the picture drawn with section i of a, and all
    others of b, is regressed on that of the pictures drawn from all of a and all of b, from the
    same noise: the weight of a is 1 where the section alone carries the attribute, 0 where it has
    no part in it. Classes: how far the probability of a's class, as a probe reads it, goes from
    what b has to what a has.
    """
    count = min(PAIRS, len(studio.test) // 2)
    images = studio.test.images(studio.some_of(studio.test, 2 * count))
    z = studio.model.encode(images)
    a, b = z[:count], z[count:]
    noise = np.arange(count)
    of_a, of_b = (studio.attributes(studio.draw(x, noise=noise)) for x in (a, b))
    plain = [name for name in of_a if not name.startswith("class ")]
    classes = [name for name in of_a if name.startswith("class ")]
    table = {}
    for section in range(len(studio.sizes)):
        codes = np.stack([mix(*pair, [section], studio.sizes) for pair in zip(a, b, strict=True)])
        found = studio.attributes(studio.draw(codes, noise=noise))
        row = [_weight(found[name], of_a[name], of_b[name]) for name in plain]
        if classes:
            shares = [np.stack([x[name] for name in classes], axis=1) for x in (of_a, of_b, found)]
            own = shares[0].argmax(axis=1)
            start, end, at = (x[np.arange(count), own].mean() for x in (shares[1], *shares[::2]))
            row.append(float((at - start) / max(end - start, 1e-6)))
        table[f"section {section}"] = row
    return {
        "attributes": plain + (["class"] if classes else []),
        "roles": table,
        "section_sizes": list(studio.sizes),
        "pairs": count,
    }


def _weight(found: np.ndarray, of_a: np.ndarray, of_b: np.ndarray) -> float:
    """The weight of a in found ~ weight_a a + weight_b b + constant, by least squares."""
    columns = np.stack([of_a, of_b, np.ones_like(of_a)], axis=1)
    return float(np.linalg.lstsq(columns, found, rcond=None)[0][0])


def show(values: dict, folder) -> list[str]:
    low, high = values["coarse"]
    return [
        "<h2>Mix</h2>",
        f"<p>Rows: sections {low} to {high} (coarse) come from the picture on the left; the finer "
        "ones from the picture above. The diagonal is a plain reconstruction.</p>",
        page.embed(folder / values["table"]),
        "<p>All cut points of the first two: row i, column j has sections i to j - 1 of the first "
        "and the rest of the second; below the diagonal, the other way round. Top right: all of "
        "the first.</p>",
        page.embed(folder / values["pair"]),
        page.embed(folder / values["matrix"]),
        "<p>What comes with each section, measured on "
        f"{values['pairs']} pairs: 1 where the section alone decides, 0 where it has no part.</p>",
        page.heatmap("", values["attributes"], values["roles"], low=0.0, high=1.0),
    ]
