"""Suite "pictures": how near reconstructions are to their pictures, and to pictures as a set."""

import functools
import html
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from soda_jax import inference, page
from soda_jax.data.sources import Source
from soda_jax.evaluation import image_metrics, inception, lpips
from soda_jax.evaluation.features import extract
from soda_jax.evaluation.frechet import frechet_distance, kid
from soda_jax.evaluation.probe_data import shuffled
from soda_jax.pretrained import Pretrained

SSIM_WINDOW = 11  # pixels
INCEPTION_BATCH = 32
PAIRS_AT_A_TIME = 256
OWN = "this model's own pooled features"


class Measure(NamedTuple):
    """A function, and what its file and settings are: plain values for the protocol."""

    function: Callable
    protocol: dict[str, Any]


def run(model: Pretrained, train: Source, test: Source) -> dict:
    """Every measure of reconstructions of test pictures, each beside a reference.

    For pairs the reference is a reconstruction of another picture; for distances between sets, as
    many real training pictures: what a perfect generator would get.
    """
    model.needs_z("pictures")
    config = model.parts.config
    metrics, networks = pairwise(model), extractors(model)  # first: a wrong file shows at once
    count = min(config.evaluate.num_images, len(test), len(train))
    # Not in the split's order: a folder's neighbours are of one class.
    chosen, others = (
        shuffled(np.arange(len(source)), config.seed)[:count] for source in (test, train)
    )
    sources = test.images(chosen)
    targets = inference.target_pictures(model.parts, sources)
    real = inference.target_pictures(model.parts, train.images(others))
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
    for name, metric in metrics.items():
        value, reference = (
            _mean(metric.function, targets, x) for x in (drawn, np.roll(drawn, 1, axis=0))
        )
        rows.append(_row(name, value, reference, "another picture's", protocol | metric.protocol))
    for name, network in networks.items():
        of_drawn, of_targets, of_real = (network.function(x) for x in (drawn, targets, real))
        about = protocol | {"extractor": name} | network.protocol
        value, floor = (
            frechet_distance(x, of_targets, allow_few=True) for x in (of_drawn, of_real)
        )
        few = " (rank-deficient: fewer pictures than features)" if value.protocol["few"] else ""
        metric = f"Fréchet distance on {name}" if name == OWN else "FID"
        if not network.protocol.get("published", True):
            metric += " (not with the published file)"
        rows.append(
            _row(
                metric + few, value.value, floor.value, "training pictures", about | value.protocol
            )
        )
        if name != OWN:
            size = min(1000, count)
            value, floor = (kid(x, of_targets, subset_size=size) for x in (of_drawn, of_real))
            about |= value.protocol | {"std": value.std}
            rows.append(_row("KID", value.value, floor.value, "training pictures", about))
    return {"rows": rows}


def _mean(metric: Callable, x: np.ndarray, y: np.ndarray) -> float:
    starts = range(0, len(x), PAIRS_AT_A_TIME)
    parts = [metric(x[i : i + PAIRS_AT_A_TIME], y[i : i + PAIRS_AT_A_TIME]) for i in starts]
    return float(np.mean(np.concatenate([np.asarray(part) for part in parts])))


def _row(metric: str, value: float, reference: float, reference_of: str, protocol: dict) -> dict:
    return {
        "metric": metric,
        "value": float(value),
        "reference": float(reference),
        "reference_of": reference_of,
        "protocol": protocol,
    }


def pairwise(model: Pretrained) -> dict[str, Measure]:
    """name -> (pictures, pictures) -> [b], for the measures that pictures of this size allow."""
    config, size = model.parts.config.evaluate, model.parts.target_view.size
    metrics = {"PSNR": Measure(functools.partial(image_metrics.psnr, data_range=255), {})}
    if size >= SSIM_WINDOW:
        scales = min(5, (size // SSIM_WINDOW).bit_length())
        ms_ssim = functools.partial(image_metrics.ms_ssim, data_range=255, scales=scales)
        metrics["SSIM"] = Measure(functools.partial(image_metrics.ssim, data_range=255), {})
        metrics[f"MS-SSIM ({scales} of 5 scales)"] = Measure(ms_ssim, {"scales": scales})
    if config.lpips_path:
        network = lpips.load(
            config.lpips_path, config.lpips_heads_path, network=config.lpips_network
        )
        if size >= lpips.NETWORKS[config.lpips_network].min_size:
            apply = jax.jit(functools.partial(lpips.lpips, network=config.lpips_network))
            name = f"LPIPS ({config.lpips_network})"
            metrics[name] = Measure(functools.partial(apply, network.params), network.protocol)
    return metrics


def extractors(model: Pretrained) -> dict[str, Measure]:
    """name -> pictures uint8 [n h w c] -> features [n d]; Inception where its file is given."""
    path = model.parts.config.evaluate.inception_path
    if not path:
        return {OWN: Measure(model.pooled, {})}
    network, apply = inception.load(path), jax.jit(inception.features)

    def published(images: np.ndarray) -> np.ndarray:
        return extract(
            lambda batch: {"features": apply(network.params, batch)},
            lambda indices: images[indices],
            len(images),
            INCEPTION_BATCH,
        )["features"]

    weights = network.protocol["weights"]
    protocol = network.protocol | {"published": weights["published"]}
    return {OWN: Measure(model.pooled, {}), "Inception-v3": Measure(published, protocol)}


def show(values: dict, folder) -> list[str]:
    rows = {
        row["metric"]: [
            f"{row['value']:.4g}",
            f"{row['reference']:.4g}",
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
        "A Fréchet distance on a model's own features is no FID: it is in the units of these "
        "features, and compares the two columns, not models or checkpoints.</p>",
    ]
