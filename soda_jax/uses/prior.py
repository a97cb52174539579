"""Use "prior": a small model of z is fitted, and pictures are drawn from nothing."""

import numpy as np

from soda_jax import inference, page
from soda_jax.applications.latent_prior import fit_prior
from soda_jax.evaluation.frechet import frechet_distance
from soda_jax.uses.common import Studio

COMPARED = 1024  # pictures of each set whose features are compared, at most
SHOWN = 32


def run(studio: Studio) -> dict:
    """Fits the prior to codes of training pictures, saves it, draws, and says how good it is."""
    model, config = studio.model, studio.config
    prior = fit_prior(studio.codes, num_steps=config.apply.prior_steps, seed=config.seed)
    prior.save(studio.folder / "latent_prior.npz")
    count = min(COMPARED, len(studio.test), len(studio.train))
    codes = prior.sample(count, seed=config.seed)
    images = studio.test.images(studio.some_of(studio.test, count))
    real = inference.target_pictures(model.parts, images)
    trained_on = studio.targets_of(studio.train, studio.some_of(studio.train, count))(slice(None))
    drawn = studio.draw(codes)
    mean, std = studio.codes.mean(axis=0), studio.codes.std(axis=0)
    gaussian = np.random.default_rng(config.seed).normal(size=codes.shape) * std[None] + mean[None]
    sets = {
        "drawn from the prior": drawn,
        "reconstructions": studio.draw(model.encode(images), images=images),
        "z of a Gaussian": studio.draw(gaussian.astype(np.float32)),
        "training pictures": trained_on,
    }

    of_real = model.pooled(real)
    distances = {
        name: frechet_distance(model.pooled(pictures), of_real, allow_few=True).value
        for name, pictures in sets.items()
    }

    def nearest(z: np.ndarray) -> float:
        """Median distance to the nearest training code, in deviations."""
        own, others = (
            (x - mean[None]) / np.where(std > 0, std, 1)[None] for x in (z, studio.codes)
        )
        squares = (others**2).sum(axis=1)[None] - 2 * own @ others.T + (own**2).sum(axis=1)[:, None]
        return float(np.median(np.sqrt(np.maximum(squares.min(axis=1), 0))))

    shown = [drawn[i : i + 8] for i in range(0, min(SHOWN, len(drawn)), 8)]
    return {
        "picture": studio.save("prior", shown),
        "real": studio.save("prior_real", [real[:8], sets["reconstructions"][:8]]),
        "count": count,
        "frechet": distances,
        "nearest": {"drawn": nearest(codes), "test": nearest(model.encode(images))},
        "protocol": prior.protocol,
    }


def show(values: dict, folder) -> list[str]:
    rows = {name: [f"{value:.3f}"] for name, value in values["frechet"].items()}
    nearest, protocol = values["nearest"], values["protocol"]
    return [
        "<h2>Pictures from nothing</h2>",
        f"<p>Codes drawn by a diffusion model of z (fitted to {protocol['codes']:,} codes of "
        f"training pictures, {protocol['steps']:,} steps), then pictures from these codes:</p>",
        page.embed(folder / values["picture"]),
        "<p>Real ones of the test split, and their reconstructions:</p>",
        page.embed(folder / values["real"]),
        f"<p>Fréchet distance to {values['count']} test pictures on this model's own pooled "
        "features (no FID; it compares the rows of this table alone):</p>",
        page.table("", ["distance"], rows),
        f'<p class="note">The prior\'s loss is {protocol["loss"]:.3f} on codes that it was fitted '
        f"to and {protocol['held_out_loss']:.3f} on others; the nearest training code is "
        f"{nearest['drawn']:.2f} away from a drawn code and {nearest['test']:.2f} from that of a "
        "test picture (medians, in deviations): much less would be learning by heart.</p>",
    ]
