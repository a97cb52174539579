"""What people do with the code z, as pictures: `python -m soda_jax apply`."""

from collections.abc import Sequence

import ml_collections

from soda_jax import experiment, pretrained
from soda_jax.chapters import ChaptersFailed, folder_of, run_chapters, write_page
from soda_jax.uses import directions, interpolate, mix, partial, plane, prior, reconstruct, zoom
from soda_jax.uses.common import Studio

USES = {
    "reconstruct": reconstruct,
    "interpolate": interpolate,
    "mix": mix,
    "directions": directions,
    "partial": partial,
    "plane": plane,
    "prior": prior,
    "zoom": zoom,
}


def apply(config: ml_collections.ConfigDict, workdir: str, names: Sequence[str] = ()) -> str:
    """Puts z to its uses; returns the path of the page that shows them.

    workdir/applications/<step>/ gets PNGs and GIFs, <use>.json with what was measured, and
    page.html, which also shows what earlier calls left there.

    Args:
      names: of USES; config.apply.uses where there are none, and where that is empty too all, but
        "zoom" where the denoiser isn't told of places.

    Raises:
      ConfigError: the model has no z.
      ValueError: there are too few pictures.
      ChaptersFailed: a use can't be shown; the others have run then, and the page is there.
    """
    model = pretrained.restore(config, workdir, weights=config.sample.weights)
    model.needs_z("apply")
    train, test = (experiment.open_data(model.parts, split) for split in ("train", "test"))
    folder = folder_of(workdir, "applications", model.step, config.sample.weights)
    studio = Studio(model, train, test, folder)
    able = [name for name in USES if name != "zoom" or model.parts.located]
    problems = run_chapters(
        {name: USES[name] for name in names or config.apply.uses or able},
        lambda use: use.run(studio),
        folder,
    )
    facts = (
        f"Step {model.step:,}, {config.sample.weights} weights; {config.sample.sampler}, "
        f"{config.apply.num_steps} steps, guidance {config.sample.guidance_scale}, seed "
        f"{config.seed}."
    )
    if model.parts.timed:
        facts += (
            f" z is a curve z(t) here: reconstructions from noise follow it, and all else is under "
            f"z({config.model.encoder.t:g}), held for all t, as it wasn't in training."
        )
    path = write_page(folder, f"{config.name}, put to use", facts, USES)
    if problems:
        raise ChaptersFailed(problems)
    return path
