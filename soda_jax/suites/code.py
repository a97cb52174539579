"""Suite "code": what z itself is like, and what the denoiser makes of it."""

from collections.abc import Callable

import jax
import numpy as np

from soda_jax import page, rngs
from soda_jax.array_types import Array, PyTree
from soda_jax.data.sources import Source
from soda_jax.data.views import augmented, plain
from soda_jax.evaluation.code_health import (
    alignment,
    dimension_std,
    effective_rank,
    section_correlation,
    section_energy,
    spectrum,
    uniformity,
)
from soda_jax.evaluation.features import extract
from soda_jax.evaluation.loss_over_t import loss_over_t
from soda_jax.evaluation.picture_keys import keys_of
from soda_jax.evaluation.probe_data import shuffled
from soda_jax.models.bottleneck import section_sizes
from soda_jax.pretrained import Pretrained

CODES = 10_000  # pictures of the test split that are encoded, at most
LOSS_BATCH = 64  # pictures that are denoised at a time
TIMES = tuple(i / 10 for i in range(1, 11))


def run(model: Pretrained, train: Source, test: Source) -> dict:
    """Spectrum and sections of z, alignment and uniformity, and the loss over t with parts of z."""
    model.needs_z("code")
    parts = model.parts
    # Not in the split's order, in which a folder's pictures come class by class.
    chosen = shuffled(np.arange(len(test)), parts.config.seed)[:CODES]
    count = len(chosen)

    def images_fn(rows: np.ndarray) -> np.ndarray:
        return test.images(chosen[rows])

    z = model.features(images_fn, count)["z"]
    sizes = section_sizes(parts.config.model.z_size, parts.num_sections)
    first, second = two_views(model, images_fn, count)
    denoised = min(parts.config.evaluate.loss_images, count)
    batch = min(LOSS_BATCH, denoised)
    images = [
        images_fn(np.arange(start, start + batch))
        for start in range(0, denoised - batch + 1, batch)
    ]
    return {
        "codes": count,
        "weights": parts.config.probe.weights,
        "step": model.step,
        "effective_rank": effective_rank(z),
        "deviations": dimension_std(z),
        "spectrum": spectrum(z),
        "section_sizes": list(sizes),
        "section_energy": section_energy(z, sizes),
        "section_correlation": section_correlation(z, sizes),
        "alignment": alignment(first, second),
        "uniformity": uniformity(first),
        "views": "two source views of each picture, drawn as in training",
        "loss_pictures": batch * len(images),
        "loss": loss_over_t(
            model.alone,
            parts.process,
            model.variables,
            ((plain(x, parts.source_view), plain(x, parts.target_view)) for x in images),
            TIMES,
            rngs.stream(rngs.root(parts.config.seed), "loss_over_t"),
        ),
    }


def two_views(
    model: Pretrained, images_fn: Callable[[np.ndarray], np.ndarray], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The codes of two views of each picture, drawn as the encoder's are in training: [count z]."""
    parts = model.parts
    root = rngs.stream(rngs.root(parts.config.seed), "alignment")

    @jax.jit
    def encode(variables: PyTree, images: Array) -> dict[str, Array]:
        def codes(name: str) -> Array:
            view = augmented(keys_of(rngs.stream(root, name), images), images, parts.source_view)
            return model.alone.apply(variables, view, method="encode")

        return {"first": codes("first"), "second": codes("second")}

    found = extract(
        lambda images: encode(model.variables, images), images_fn, count, **model.in_batches()
    )
    return found["first"], found["second"]


def show(values: dict, folder) -> list[str]:
    """Facts in a sentence, then curves over t, then the sections."""
    loss, held = values["loss"], values["spectrum"]["dimensions"]
    curves = {name: list(zip(loss["t"], loss[name], strict=True)) for name in ("z", "null")}
    curves["shuffled"] = list(zip(loss["t"], loss["shuffled"], strict=True))
    sections = [f"section {i}" for i in range(len(values["section_sizes"]))]

    def ratios(losses: list[list[float]]) -> dict[str, list[float]]:
        """Each loss as a share of the way from that with z (0) to that with none (1)."""
        lost = np.array(loss["null"]) - np.array(loss["z"])
        # Where z hardly matters there is nothing to share out.
        lost = np.where(lost > 0.01 * np.array(loss["z"]), lost, np.nan)
        shares = (np.array(losses) - np.array(loss["z"])[None]) / lost[None]
        return dict(zip(sections, shares.tolist(), strict=True))

    columns = [f"t = {t:g}" for t in loss["t"]]
    return [
        "<h2>The code z</h2>",
        f"<p>Effective rank {values['effective_rank']:.1f}; half of the variance lies in "
        f"{held['50 %']} directions, 90 % in {held['90 %']}, 99 % in {held['99 %']}. Two views of "
        f"a picture are {values['alignment']:.3f} apart (alignment; the smaller, the nearer), "
        f"uniformity {values['uniformity']:.2f} (the smaller, the better spread).</p>",
        "<p>Error of the prediction over t, with the picture's own z, with none, and with another "
        "picture's:</p>",
        page.chart(curves, unit="t ="),
        "<p>What the loss loses without a section, as a share of what it loses without all of z: "
        "where along t each section matters.</p>",
        page.heatmap("without", columns, ratios(loss["without"]), low=0.0, high=0.5),
        "<p>The same with one section alone: 0 is as good as all of z, 1 as bad as none.</p>",
        page.heatmap("alone", columns, ratios(loss["alone"]), low=1.0, high=0.0),
        "<p>How alike the sections are (linear CKA), and each one's share of the variance:</p>",
        page.heatmap(
            "",
            [*sections, "variance"],
            {
                name: [*row, share]
                for name, row, share in zip(
                    sections, values["section_correlation"], values["section_energy"], strict=True
                )
            },
            low=0.0,
            high=1.0,
        ),
    ]
