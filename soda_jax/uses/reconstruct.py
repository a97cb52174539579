"""Use "reconstruct": pictures drawn from their codes; from noise, or from their own x_T."""

import numpy as np

from soda_jax import page
from soda_jax.evaluation.image_metrics import psnr, ssim
from soda_jax.uses.common import Studio

SEEDS = 3
INVERSION_STEPS = 50
SSIM_WINDOW = 11


def run(studio: Studio) -> dict:
    """One z, several seeds; one z and the inverted x_T; another z with that x_T."""
    model, targets, z = studio.model, studio.targets, studio.z
    seeds = [studio.draw(z, seed=seed, images=studio.sources) for seed in range(SEEDS)]
    x_T = model.invert(studio.sources, z, num_steps=INVERSION_STEPS)
    inverted = model.decode(z, x_T=x_T, num_steps=INVERSION_STEPS)
    swapped = model.decode(np.roll(z, 1, axis=0), x_T=x_T, num_steps=INVERSION_STEPS)
    rows = [studio.sources, targets, *seeds, inverted, swapped]
    return {
        "picture": studio.save("reconstruct", rows),
        "from noise": _scores(targets, seeds),
        "from the inverted x_T": _scores(targets, [inverted]),
        "inversion_steps": INVERSION_STEPS,
        "x_T mean": float(x_T.mean()),
        "x_T std": float(x_T.std()),
    }


def _scores(targets: np.ndarray, drawn: list[np.ndarray]) -> dict[str, float]:
    scores = {"PSNR": float(np.mean([np.asarray(psnr(targets, x, 255)) for x in drawn]))}
    if targets.shape[1] >= SSIM_WINDOW:
        scores["SSIM"] = float(np.mean([np.asarray(ssim(targets, x, 255)) for x in drawn]))
    return scores


def show(values: dict, folder) -> list[str]:
    names = ("from noise", "from the inverted x_T")
    columns = list(values["from noise"])
    rows = {name: [f"{values[name][kind]:.3f}" for kind in columns] for name in names}
    return [
        "<h2>Reconstruct</h2>",
        "<p>From the top: test pictures; the same at the denoiser's size; drawn from z, from three "
        "seeds of the noise: what stays is what z holds; from z and the picture's own x_T, found "
        f"by inversion in {values['inversion_steps']} steps; from that x_T and the z of the "
        "neighbour on the left: what x_T holds.</p>",
        page.embed(folder / values["picture"]),
        page.table("", columns, rows),
    ]
