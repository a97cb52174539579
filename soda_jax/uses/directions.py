"""Use "directions": where pictures change along z, found without labels and with a few."""

import numpy as np

from soda_jax import page
from soda_jax.applications.codes import traverse
from soda_jax.applications.directions import (
    Directions,
    label_direction,
    modulation_directions,
    principal_directions,
    random_directions,
)
from soda_jax.data.sources import num_classes
from soda_jax.uses.common import Studio

AMOUNTS = np.linspace(-3, 3, 7)  # deviations, of the pictures
REACH = 2.0  # deviations each way, of the measurements
MEASURED = 32  # test pictures that are moved
LABELS = 10  # pictures with and without a class, from which its direction is found


def run(studio: Studio) -> dict:
    """Principal, closed-form and random directions: traversals, and what changes along each."""
    found = unsupervised(studio)
    test = studio.test.images(studio.some_of(studio.test, MEASURED))
    z = studio.model.encode(test)
    deviations = {
        name: x.std() for name, x in studio.attributes(studio.draw(z, noise=range(len(z)))).items()
    }
    changes, pictures = {}, {}
    for method, directions in found.items():
        changes[method] = [
            change(studio, z, directions, index, deviations)
            for index in range(len(directions.vectors))
        ]
        if method != "random":
            rows = [
                line(studio, studio.typical, directions, i) for i in range(len(directions.vectors))
            ]
            pictures[method] = studio.save(f"directions_{method}", rows)
    rows = [line(studio, studio.typical, inside, 0) for inside in of_sections(studio).values()]
    pictures["sections"] = studio.save("directions_sections", rows)
    first = found["principal"]
    steps = np.linspace(-3, 3, 15)
    moved = np.stack(
        [traverse(z, first.vectors[0], steps * first.deviations[0]) for z in studio.z], axis=1
    )
    frames = studio.draw(moved, noise=np.tile(np.arange(len(studio.z)), len(steps)))
    return {
        "pictures": pictures,
        "animation": studio.save_gif("directions_first", frames),
        "attributes": list(deviations),
        "changes": changes,
        "strengths": {name: x.strengths.tolist() for name, x in found.items()},
        "reach": REACH,
        "measured": len(z),
        **labelled(studio),
    }


def of_sections(studio: Studio) -> dict[str, Directions]:
    """ "section 0", ... -> the principal directions of that section alone."""
    count, sizes = studio.config.apply.directions, studio.sizes
    return {
        f"section {i}": principal_directions(
            studio.codes, min(count, size), section=i, section_sizes=sizes
        )
        for i, size in enumerate(sizes)
    }


def unsupervised(studio: Studio) -> dict[str, Directions]:
    """method -> the first directions of z that it finds."""
    parts = studio.model.parts
    count = min(studio.config.apply.directions, studio.config.model.z_size)
    found = {"principal": principal_directions(studio.codes, count)}
    if parts.config.model.denoiser.variant == "unet":  # its code modulates; it has a closed form
        params = studio.model.variables["params"]["denoiser"]
        found["closed form"] = modulation_directions(
            studio.codes, params, parts.blocks, studio.sizes, count
        )
    return found | {"random": random_directions(studio.codes, count, studio.config.seed)}


def line(studio: Studio, z: np.ndarray, directions: Directions, index: int) -> np.ndarray:
    """The pictures along one direction through z, from one noise."""
    codes = traverse(z, directions.vectors[index], AMOUNTS * directions.deviations[index])
    return studio.draw(codes, noise=np.zeros(len(codes), int))


def change(
    studio: Studio,
    z: np.ndarray,
    directions: Directions,
    index: int,
    deviations: dict[str, float],
) -> list[float]:
    """How much each attribute moves from -REACH to REACH, in deviations among plain pictures."""
    step = REACH * directions.deviations[index] * directions.vectors[index]
    ends = [
        studio.attributes(studio.draw(z + sign * step[None], noise=range(len(z))))
        for sign in (1, -1)
    ]
    return [
        float((ends[0][name] - ends[1][name]).mean() / max(deviation, 1e-6))
        for name, deviation in deviations.items()
    ]


def labelled(studio: Studio) -> dict:
    """Of each class: its direction, from 10 pictures with it and 10 without, and what it does."""
    classes = min(num_classes(studio.train), 10)
    if classes < 2:
        return {}
    chosen = studio.some_of(studio.train, 5000)
    labels = studio.train.labels(chosen)
    z = studio.typical
    rows, read = [], {}
    for label in range(classes):
        if min(np.sum(labels == label), np.sum(labels != label)) < LABELS:
            continue
        few = np.concatenate([np.flatnonzero((labels == label) == v)[:LABELS] for v in (0, 1)])
        codes = studio.model.encode(studio.train.images(chosen[few]))
        found = label_direction(codes, (labels[few] == label).astype(int), ridge=1.0)
        deviation = np.std(studio.codes @ found.vectors[0])
        steps = traverse(z, found.vectors[0], AMOUNTS * deviation)
        drawn = studio.draw(steps, noise=np.zeros(len(steps), int))
        rows.append(drawn)
        moved = studio.z + 3 * deviation * found.vectors[0][None]
        noise = range(len(studio.z))
        before, after = (
            studio.attributes(studio.draw(x, noise=noise))[f"class {studio.class_name(label)}"]
            for x in (studio.z, moved)
        )
        read[studio.class_name(label)] = [float(before.mean()), float(after.mean())]
    return {"labelled": studio.save("directions_labelled", rows), "read": read} if rows else {}


def show(values: dict, folder) -> list[str]:
    parts = [
        "<h2>Directions found without labels</h2>",
        "<p>Each row moves one picture along one direction, from -3 to 3 deviations. Principal "
        "directions are where codes vary most; those of the closed form change the denoiser's "
        "scales and shifts most.</p>",
    ]
    titles = {"sections": "the first principal direction of each section alone, finest first"}
    for method, picture in values["pictures"].items():
        parts += [f"<p>{titles.get(method, method)}:</p>", page.embed(folder / picture)]
    parts += [
        "<p>The first principal direction, there and back:</p>",
        page.embed(folder / values["animation"]),
        f"<p>What changes from -{values['reach']:g} to {values['reach']:g} deviations, in the "
        f"attribute's deviations among {values['measured']} pictures:</p>",
    ]
    sizes = {
        method: np.abs(rows).mean(axis=0).tolist() + [float(np.abs(rows).mean())]
        for method, rows in values["changes"].items()
    }
    columns = [*values["attributes"], "all"]
    parts += [page.heatmap("mean size", columns, sizes, low=0.0, high=2.0)]
    for method, rows in values["changes"].items():
        named = {f"{method} {index}": row for index, row in enumerate(rows)}
        options = {"low": 0.0, "high": 2.0, "form": "+.1f", "sign": False}
        parts.append(page.heatmap("", values["attributes"], named, **options))
    if "labelled" in values:
        rows = {name: [f"{x:.2f}" for x in pair] for name, pair in values["read"].items()}
        parts += [
            f"<h2>Directions from {LABELS} labels</h2>",
            "<p>A row a class: the same picture, moved towards it from left to right.</p>",
            page.embed(folder / values["labelled"]),
            "<p>The mean probability of the class, as a probe reads it off the pictures drawn, "
            "before and after a step of three deviations:</p>",
            page.table("class", ["before", "after"], rows),
        ]
    return parts
