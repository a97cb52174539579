"""What people do with the code z, as pictures: `python -m soda_jax apply`."""

import html
import json
import pathlib
from collections.abc import Sequence

import ml_collections

from soda_jax import experiment, pretrained
from soda_jax.page import details, whole_page
from soda_jax.uses import directions, interpolate, mix, partial, prior, reconstruct
from soda_jax.uses.common import Studio

USES = {
    "reconstruct": reconstruct,
    "interpolate": interpolate,
    "mix": mix,
    "directions": directions,
    "partial": partial,
    "prior": prior,
}


def apply(config: ml_collections.ConfigDict, workdir: str, names: Sequence[str] = ()) -> str:
    """Puts z to its uses; returns the path of the page that shows them.

    workdir/applications/<step>/ gets PNGs and GIFs, <use>.json with what was measured, and
    page.html, which also shows what earlier calls left there.

    Args:
      names: of USES; config.apply.uses where there are none, and all where that is empty too.
    """
    model = pretrained.restore(config, workdir, weights=config.sample.weights)
    train, test = (experiment.open_data(model.parts, split) for split in ("train", "test"))
    folder = pathlib.Path(workdir) / "applications" / f"{model.step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    studio = Studio(model, train, test, folder)
    for name in names or config.apply.uses or USES:
        print(f"{name} ...", flush=True)
        found = USES[name].run(studio)
        (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    path = folder / "page.html"
    body = [
        f"<h1>{html.escape(config.name)}, put to use</h1>",
        f"<p>Step {model.step:,}, {config.sample.weights} weights; {config.sample.sampler}, "
        f"{config.apply.num_steps} steps, guidance {config.sample.guidance_scale}, seed "
        f"{config.seed}.</p>",
    ]
    for name, use in USES.items():
        file = folder / f"{name}.json"
        if file.exists():
            text = file.read_text()
            body += use.show(json.loads(text), folder)
            body.append(details(f"{name}: every number", text))
    path.write_text(whole_page(f"{config.name}, put to use", body))
    print(path)
    return str(path)
