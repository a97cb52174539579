"""Reconstructions of test pictures from their codes: `python -m soda_jax sample`."""

import ml_collections
import numpy as np
from PIL import Image

from soda_jax import experiment, inference, pretrained
from soda_jax.applications.pictures import grid
from soda_jax.evaluation.image_metrics import psnr, ssim
from soda_jax.workdir import results_folder, write_json

NUM_SEEDS = 3
LEGIBLE_SIZE = 64  # pixels on the page


def sample(config: ml_collections.ConfigDict, workdir: str) -> dict:
    """Writes workdir/samples/reconstructions.png and .json: sources, and pictures from their codes.

    Rows: the sources; the same at the denoiser's size; one row for each of three seeds. A model
    without an encoder draws from noise alone: three rows, and no scores.
    """
    model = pretrained.restore(config, workdir, weights=config.sample.weights)
    picture = results_folder(workdir, "samples") / "reconstructions.png"
    source = experiment.open_data(model.parts, "test")
    images = source.images(np.arange(min(config.sample.num_images, len(source))))
    targets = inference.target_pictures(model.parts, images)
    z, options = model.encode(images), {"images": images, "sections": config.sample.sections}
    pictures = [model.decode(z, seed=config.sample.seed + i, **options) for i in range(NUM_SEEDS)]
    scores = {
        "step": model.step,
        "images": len(images),
        "seeds": NUM_SEEDS,
        **{name: value for name, value in config.sample.items() if name != "num_images"},
    }
    if model.parts.z_size:
        scores["psnr"] = float(np.mean([psnr(targets, x, 255) for x in pictures]))
    if model.parts.z_size and model.parts.target_view.size >= 11:
        scores["ssim"] = float(np.mean([ssim(targets, x, 255) for x in pictures]))
    scale = max(1, LEGIBLE_SIZE // max(images.shape[1], targets.shape[1]))
    rows = [images, targets, *pictures] if model.parts.z_size else pictures
    scores_file = picture.with_suffix(".json")
    scores_file.unlink(missing_ok=True)  # no new picture beside old scores
    Image.fromarray(grid(rows, scale)).save(picture)
    write_json(scores_file, scores)
    found = f"PSNR {scores['psnr']:.2f} dB over " if "psnr" in scores else ""
    print(f"{found}{len(images)} pictures x {NUM_SEEDS} seeds; {picture}")
    return scores
