"""Suite "disentanglement": how a code holds the known factors that made the pictures."""

import numpy as np

from soda_jax import page, pretrained, probe
from soda_jax.data.sources import Source
from soda_jax.evaluation.dci import dci, section_informativeness
from soda_jax.evaluation.disentanglement import factor_vae, mig, modularity, sap
from soda_jax.evaluation.factor_checks import varying_factors
from soda_jax.models.bottleneck import section_sizes
from soda_jax.pretrained import Pretrained

PICTURES = 10_000  # of the test split, at most
L2 = (1e-4, 1e-3, 1e-2)  # among which each factor's linear probe chooses [D]
SHOWN = 8  # pictures that a value needs, so that each part of a split has some [D]


def run(model: Pretrained, train: Source, test: Source) -> dict:
    """The published scores of z, of other models' z, of an untrained encoder's, of PCA of pixels.

    Raises:
      ValueError: the set has no factors of variation, none of them varies in the test split, or a
        model to compare with takes other pictures.
    """
    model.needs_z("disentanglement")
    indices = probe.some(test, PICTURES, model.parts.config.seed)
    factors = test.factors(indices)
    varying = varying_factors(factors)
    factors = factors[:, varying]
    often = shown_often(factors)
    indices, factors = indices[often], factors[often]
    rows = []

    def row(representation: str, metric: str, value: float, protocol: dict) -> None:
        named = {"representation": representation, "metric": metric}
        rows.append(named | {"value": value, "protocol": protocol})

    all_codes = codes_of(model, train, test, indices)
    for name, codes in all_codes.items():
        for predictor in ("trees", "lasso"):
            found = dci(codes, factors, predictor=predictor)
            for part in ("disentanglement", "completeness", "informativeness"):
                row(name, f"{part} ({predictor})", getattr(found, part), found.protocol)
        for metric, score_fn in (
            ("MIG", mig),
            ("SAP", sap),
            ("FactorVAE", factor_vae),
            ("modularity", modularity),
        ):
            score = score_fn(codes, factors)
            row(name, metric, score.score, score.protocol)
    config = model.parts.config
    sizes = section_sizes(config.model.z_size, model.parts.num_sections)
    sections = section_informativeness(all_codes["z"], sizes, factors)
    probes = {
        name: section_informativeness(codes, codes.shape[1:], factors, l2_values=L2)._asdict()
        for name, codes in all_codes.items()
    }
    return {
        "rows": rows,
        "factors": [test.factor_names[k] for k in varying],
        "pictures": len(indices),
        "left out": int(np.sum(~often)),  # with a value that hardly any shows
        "probes": probes,
        "sections": sections._asdict(),
    }


def shown_often(factors: np.ndarray) -> np.ndarray:
    """Which pictures show no rare value of factors [n k]: bool [n]; all, where many would go.

    No metric can fit on a value that its part of the pictures doesn't show.
    """
    often = np.ones(len(factors), bool)
    for column in factors.T:
        _, values, counts = np.unique(column, return_inverse=True, return_counts=True)
        often &= counts[values] >= SHOWN
    return often if often.mean() > 0.9 else np.ones(len(factors), bool)


def codes_of(
    model: Pretrained, train: Source, test: Source, indices: np.ndarray
) -> dict[str, np.ndarray]:
    """name -> codes [n z] of the test pictures at these indices [n]."""
    from sklearn.decomposition import PCA

    config = model.parts.config

    def encoded(one: Pretrained) -> np.ndarray:
        return one.features_of(test, indices)["z"]

    z = encoded(model)
    others = {}
    for workdir in config.evaluate.compare:
        other = pretrained.load(workdir, weights=config.probe.weights)
        asked = (other.parts.config.data.image_size, other.parts.config.data.channels)
        if asked != (config.data.image_size, config.data.channels):
            raise ValueError(
                f"config.evaluate.compare: the model in {workdir} takes pictures of {asked[0]} "
                f"pixels and {asked[1]} channels, not {config.data.image_size} and "
                f"{config.data.channels}"
            )
        if not other.parts.z_size:
            raise ValueError(f"config.evaluate.compare: the model in {workdir} has no z")
        others[f"z of {workdir}"] = encoded(other)
    untrained = encoded(pretrained.untrained(model.parts))
    pixels = probe.raw_pixels(train.images(probe.some(train, PICTURES, config.seed)))
    components = min(z.shape[1], *pixels.shape)
    pca = PCA(components, svd_solver="randomized", random_state=0).fit(pixels)
    of_pixels = pca.transform(probe.raw_pixels(test.images(indices)))
    return {"z": z, **others, "untrained z": untrained, "PCA of raw pixels": of_pixels}


def show(values: dict, folder) -> list[str]:
    names = list(dict.fromkeys(row["representation"] for row in values["rows"]))
    metrics = list(dict.fromkeys(row["metric"] for row in values["rows"]))
    found = {(row["metric"], row["representation"]): row["value"] for row in values["rows"]}
    accuracy, chance = values["sections"]["accuracy"], values["sections"]["chance"]
    sections = {f"section {i}": row for i, row in enumerate(accuracy)} | {"chance": chance}
    probes = {name: probe["accuracy"][0] for name, probe in values["probes"].items()}
    return [
        "<h2>Disentanglement</h2>",
        page.heatmap(
            "score",
            names,
            {metric: [found[metric, name] for name in names] for metric in metrics},
            low=0.0,
            high=1.0,
            form=".3f",
        ),
        "<h2>A linear probe for each factor</h2>",
        "<p>Accuracy on held-out pictures of the test split, from all of the code.</p>",
        page.heatmap("factor", values["factors"], probes | {"chance": chance}, low=0.0, high=1.0),
        "<h2>Which factor each section of z holds</h2>",
        "<p>Accuracy of a linear probe on the section alone; sections run from the finest layers "
        "of the denoiser (0) to its middle (last).</p>",
        page.heatmap("section", values["factors"], sections, low=0.0, high=1.0),
    ]
