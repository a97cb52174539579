"""Pictures of objects from cameras that nobody held there: `python -m soda_jax novel_views`."""

import ml_collections

from soda_jax import experiment, pretrained
from soda_jax.chapters import ChaptersFailed, folder_of, run_chapters, write_page
from soda_jax.config_schema import ConfigError
from soda_jax.uses import novel_views as chapter


def novel_views(config: ml_collections.ConfigDict, workdir: str) -> str:
    """Draws views of test objects from 1, 2, ... others, measures them; returns the page's path.

    workdir/novel_views/<step>/ gets novel_views.json, views.png, orbit.gif and page.html.

    Raises:
      ConfigError: the model, or one to compare with, knows of no cameras.
      ValueError: an object has too few views.
      ChaptersFailed: the views can't be drawn or measured.
    """
    model = pretrained.restore(config, workdir, weights=config.sample.weights)
    if model.parts.cameras is None:
        raise ConfigError(
            "config.cameras.encoding = 'none': this model knows of no cameras; novel views need "
            "one that was trained with them, such as configs/scenes.py"
        )
    others = {
        other: pretrained.load(other, weights=config.sample.weights)
        for other in config.novel_views.compare
    }
    for name, other in others.items():
        if other.parts.cameras is None or other.parts.target_shape != model.parts.target_shape:
            raise ConfigError(
                f"config.novel_views.compare: {name} has no model of views at "
                f"{model.parts.target_shape}"
            )
    train, test = (experiment.open_data(model.parts, split) for split in ("train", "test"))
    folder = folder_of(workdir, "novel_views", model.step, config.sample.weights)
    views = chapter.Views(model, test)
    chapters = {"novel_views": chapter}
    problems = run_chapters(chapters, lambda one: one.run(views, train, others, folder), folder)
    facts = f"Step {model.step:,}, {config.sample.weights} weights, seed {config.seed}."
    path = write_page(folder, f"{config.name}, other views", facts, chapters)
    if problems:
        raise ChaptersFailed(problems)
    return path
