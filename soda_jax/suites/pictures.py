"""Suite "pictures": how near reconstructions are to their pictures, and to pictures as a set."""

import functools
import html

import jax
import numpy as np

from soda_jax import inference, page
from soda_jax.data.sources import Source
from soda_jax.evaluation import image_metrics, inception, lpips
from soda_jax.evaluation.features import extract
from soda_jax.evaluation.frechet import frechet_distance, kid
from soda_jax.pretrained import Pretrained

SSIM_WINDOW = 11  # pixels
INCEPTION_BATCH = 32


def run(model: Pretrained, train: Source, test: Source) -> dict:
    """Every measure of reconstructions of test pictures, each beside a reference.

    For pairs the reference is a reconstruction of another picture; for distances between sets, as
    many real training pictures: what a perfect generator would get.
    """
    config = model.parts.config
    count = min(config.evaluate.num_images, len(test), len(train))
    sources = test.images(np.arange(count))
    targets = inference.target_pictures(model.parts, sources)
    real = inference.target_pictures(model.parts, train.images(np.arange(count)))
    drawn = model.reconstruct(sources, seed=config.sample.seed)
    protocol = {
        **{name: config.sample[name] for name in inference.SAMPLER_OPTIONS},
        "weights": config.probe.weights,
        "step": model.step,
        "images": count,
        "size": model.parts.target_view.size,
        "seed": config.sample.seed,
    }
    rows = []
    for name, metric in pairwise(model).items():
        value, reference = (np.mean(metric(targets, x)) for x in (drawn, np.roll(drawn, 1, axis=0)))
        rows.append(_row(name, value, reference, "another picture's", protocol))
    for name, features_fn in extractors(model).items():
        of_drawn, of_targets, of_real = (features_fn(x) for x in (drawn, targets, real))
        value, floor = (
            frechet_distance(x, of_targets, allow_few=True) for x in (of_drawn, of_real)
        )
        official = name == "Inception-v3"
        metric = "FID" if official else f"Fréchet distance on {name}"
        details = protocol | {"extractor": name} | value.protocol
        rows.append(_row(metric, value.value, floor.value, "training pictures", details))
        if official:
            size = min(1000, count)
            value, floor = (kid(x, of_targets, subset_size=size) for x in (of_drawn, of_real))
            details = protocol | {"extractor": name} | value.protocol
            rows.append(_row("KID", value.value, floor.value, "training pictures", details))
    return {"rows": rows}


def _row(metric: str, value: float, reference: float, reference_of: str, protocol: dict) -> dict:
    return {
        "metric": metric,
        "value": float(value),
        "reference": float(reference),
        "reference_of": reference_of,
        "protocol": protocol,
    }


def pairwise(model: Pretrained) -> dict:
    """name -> (pictures, pictures) -> [b], for the measures that pictures of this size allow."""
    config, size = model.parts.config.evaluate, model.parts.target_view.size
    metrics = {"PSNR": functools.partial(image_metrics.psnr, data_range=255)}
    if size >= SSIM_WINDOW:
        metrics["SSIM"] = functools.partial(image_metrics.ssim, data_range=255)
        scales = min(5, (size // SSIM_WINDOW).bit_length())
        metrics[f"MS-SSIM ({scales} of 5 scales)"] = functools.partial(
            image_metrics.ms_ssim, data_range=255, scales=scales
        )
    if config.lpips_path:
        network = lpips.load(config.lpips_path, config.lpips_heads_path)
        metrics["LPIPS (AlexNet)"] = functools.partial(jax.jit(lpips.lpips), network.params)
    return metrics


def extractors(model: Pretrained) -> dict:
    """name -> pictures uint8 [n h w c] -> features [n d]; Inception where its file is given."""

    def own(images: np.ndarray) -> np.ndarray:
        return model.features(lambda indices: images[indices], len(images))["pooled"]

    path = model.parts.config.evaluate.inception_path
    if not path:
        return {"this model's own pooled features": own}
    network, apply = inception.load(path), jax.jit(inception.features)

    def published(images: np.ndarray) -> np.ndarray:
        return extract(
            lambda batch: {"features": apply(network.params, batch)},
            lambda indices: images[indices],
            len(images),
            INCEPTION_BATCH,
        )["features"]

    return {"this model's own pooled features": own, "Inception-v3": published}


def show(values: dict) -> list[str]:
    rows = {
        row["metric"]: [
            f"{row['value']:.3f}",
            f"{row['reference']:.3f}",
            html.escape(row["reference_of"]),
        ]
        for row in values["rows"]
    }
    protocol = values["rows"][0]["protocol"]
    return [
        "<h2>Pictures from their codes</h2>",
        page.table("measure", ["reconstructions", "reference", "the reference is of"], rows),
        f'<p class="note">{protocol["images"]} test pictures at {protocol["size"]} pixels; '
        f"{protocol['sampler']}, {protocol['num_steps']} steps, eta {protocol['eta']}, guidance "
        f"{protocol['guidance_scale']}, {protocol['weights']} weights, seed {protocol['seed']}. "
        "A Fréchet distance on a model's own features is no FID: it compares checkpoints of one "
        "model, not models.</p>",
    ]
