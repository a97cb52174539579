"""Chapter "novel_views": objects from other cameras than those that took their pictures."""

import numpy as np
from PIL import Image

from soda_jax import inference, page
from soda_jax.applications.orbit import orbit
from soda_jax.applications.pictures import grid, save_gif
from soda_jax.data import pipeline
from soda_jax.data.cameras import Cameras, axis_angle, meeting_point
from soda_jax.data.records import PosedSource
from soda_jax.evaluation.view_references import mean_of_nearest, nearest_source
from soda_jax.pretrained import Pretrained
from soda_jax.suites.pictures import Measure, pairwise

ANGLES = (0, 30, 60, 90, 120, 150, 180)  # degrees
PAIRS = 256  # of pictures that are compared at a time
POSE_VIEWS = 4096  # training views among which those of a like camera are looked for
LEGIBLE_SIZE = 96


class Views:
    """Test objects: k sources and n targets of each.

    Attributes:
      sources, targets: uint8 [b k h w c] and [b n h w c], the targets at the denoiser's size.
      source_cameras, target_cameras: [b k] and [b n].
    """

    def __init__(self, model: Pretrained, test: PosedSource):
        config = model.parts.config
        self.model, n = model, config.novel_views.targets
        self.k = config.novel_views.sources or config.cameras.max_sources
        count = min(config.novel_views.num_objects, len(test.starts) - 1)
        indices = pipeline.view_indices(config.seed, 0, count, test.starts, self.k + n)
        pictures = test.images(indices.reshape(-1)).reshape(*indices.shape, *test.image_shape)
        seen = test.cameras(indices)
        self.sources = pictures[:, : self.k]
        self.source_cameras = Cameras(*(part[:, : self.k] for part in seen))
        self.target_cameras = Cameras(*(part[:, self.k :] for part in seen))
        flat = pictures[:, self.k :].reshape(-1, *test.image_shape)
        targets = inference.target_pictures(model.parts, flat)
        self.targets = targets.reshape(count, n, *targets.shape[1:])

    def draw(
        self,
        model: Pretrained,
        count: int,
        seen: Cameras | None = None,
        null: bool = False,
        **options,
    ) -> np.ndarray:
        """The targets as a model draws them from `count` sources, or from none where `null`."""
        seen = self.target_cameras if seen is None else seen
        used = np.broadcast_to(np.arange(self.k)[None] < count, self.sources.shape[:2])
        options = {"seed": self.model.parts.config.sample.seed} | options
        return model.novel_views(
            self.sources, self.source_cameras, seen, used, null=null, **options
        )

    def draw_mean(self, count: int, samples: int) -> np.ndarray:
        """The mean of so many pictures of each target, from noise of seeds 0, 1, 2, ..."""
        total = sum(self.draw(self.model, count, seed=i).astype(float) for i in range(samples))
        return np.rint(total / samples).astype(np.uint8)


def run(views: Views, train: PosedSource, others: dict[str, Pretrained], folder) -> dict:
    """PSNR and its like: by number of sources, by angle, with wrong poses; references beside."""
    config, metrics = views.model.parts.config, pairwise(views.model)

    def judged(drawn: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
        return {name: scores(metrics, views.targets, x) for name, x in drawn.items()}

    counts = range(1, views.k + 1)
    given = {count: judged(draw_from(views, others, count)) for count in counts}
    without = judged(
        {
            "mean picture of the pose": mean_pictures(views, train),
            "no z": views.draw(views.model, 1, null=True),
        }
    )
    rows = {name: means(x) for found in (*given.values(), without) for name, x in found.items()}
    # Which camera is told: another target's in place of its own; and the source's own.
    wrong = Cameras(*(np.roll(part, 1, axis=1) for part in views.target_cameras))
    own = Cameras(*(part[:, :1] for part in views.source_cameras))
    of_sources = inference.target_pictures(views.model.parts, views.sources[:, 0])[:, None]
    poses = {"the target's camera": rows["from 1"]}
    if views.targets.shape[1] > 1:
        drawn = views.draw(views.model, 1, wrong)
        poses["another target's camera"] = means(scores(metrics, views.targets, drawn))
    drawn = views.draw(views.model, 1, own)
    poses["the source's own camera, and picture"] = means(scores(metrics, of_sources, drawn))
    return {
        "rows": rows,
        "poses": poses,
        "angles": by_angle(views, given[1] | without),
        "objects": len(views.sources),
        "targets": views.targets.shape[1],
        "size": views.targets.shape[2],
        "step": views.model.step,
        **{name: config.sample[name] for name in inference.SAMPLER_OPTIONS},
        "weights": config.sample.weights,
        "picture": show_views(views, folder),
        "orbits": draw_orbits(views, folder),
    }


def draw_from(views: Views, others: dict[str, Pretrained], count: int) -> dict[str, np.ndarray]:
    """The targets [b n h w c] from so many sources: the model's, and what stands beside them."""
    drawn = {f"from {count}": views.draw(views.model, count)}
    # What the model expects to see: its x_0 at t = 1, the mean of all that it might draw.
    expected = views.draw(views.model, count, num_steps=1, sampler="ddim")
    drawn[f"from {count}, expected"] = expected
    if (samples := views.model.parts.config.novel_views.averaged) > 1:
        drawn[f"from {count}, mean of {samples}"] = views.draw_mean(count, samples)
    for name, other in others.items():
        drawn[f"{name}, from {count}"] = views.draw(other, count)
    nearest = nearest_source(
        views.sources, views.source_cameras.pose, views.target_cameras.pose, count
    )
    flat = nearest.reshape(-1, *nearest.shape[2:])
    nearest = inference.target_pictures(views.model.parts, flat).reshape(views.targets.shape)
    return drawn | {f"nearest of {count} sources": nearest}


def mean_pictures(views: Views, train: PosedSource) -> np.ndarray:
    """[b n h w c]: the mean training picture of the cameras most like each target's."""
    count = min(POSE_VIEWS, len(train))
    some = np.sort(np.random.RandomState(0).permutation(len(train))[:count])
    pictures = inference.target_pictures(views.model.parts, train.images(some))
    return mean_of_nearest(pictures, train.cameras(some).pose, views.target_cameras.pose)


def scores(
    metrics: dict[str, Measure], truth: np.ndarray, drawn: np.ndarray
) -> dict[str, np.ndarray]:
    """Of each of the pictures [b n h w c], by each metric: [b n]."""
    flat = [x.reshape(-1, *x.shape[2:]) for x in (truth, drawn)]
    parts = [slice(start, start + PAIRS) for start in range(0, len(flat[0]), PAIRS)]
    return {
        name: np.concatenate(
            [np.asarray(metric.function(*(x[part] for x in flat))) for part in parts]
        ).reshape(truth.shape[:2])
        for name, metric in metrics.items()
    }


def means(found: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in found.items()}


def by_angle(views: Views, found: dict[str, dict[str, np.ndarray]]) -> list[dict]:
    """Means of scores, by the angle between the first source's optical axis and the target's."""
    angles = axis_angle(views.source_cameras.pose[:, :1], views.target_cameras.pose)
    rows = []
    for low, high in zip(ANGLES[:-1], ANGLES[1:], strict=True):
        inside = (angles >= low) & (angles <= high if high == 180 else angles < high)
        if inside.any():
            part = {
                name: means({metric: x[inside] for metric, x in values.items()})
                for name, values in found.items()
            }
            rows.append({"from": low, "to": high, "views": int(inside.sum()), "scores": part})
    return rows


def show_views(views: Views, folder) -> str:
    """views.png: of each object its sources, then each target and its pictures from 1, 2, ..."""
    shown = min(views.model.parts.config.novel_views.num_shown, len(views.sources))
    sources = views.sources[:shown]
    columns = [sources[:, i] for i in range(views.k)]
    drawn = [views.draw(views.model, count) for count in range(1, views.k + 1)]
    for n in range(min(2, views.targets.shape[1])):
        columns += [views.targets[:shown, n], *(x[:shown, n] for x in drawn)]
    size = max(column.shape[2] for column in columns)
    rows = [np.stack([larger(column[i], size) for column in columns]) for i in range(shown)]
    Image.fromarray(grid(rows, max(1, LEGIBLE_SIZE // size))).save(folder / "views.png")
    return "views.png"


def larger(picture: np.ndarray, size: int) -> np.ndarray:
    """A square picture [h w c] at another size, by its nearest pixels."""
    nearest = np.arange(size) * len(picture) // size
    return picture[nearest][:, nearest]


def draw_orbits(views: Views, folder) -> str | None:
    """orbit.gif: all objects that are shown, from a camera that goes around them.

    Those are left out whose cameras look in parallel; None where nothing is left.
    """
    config = views.model.parts.config.novel_views
    shown = min(config.num_shown, len(views.sources))
    every = np.concatenate([views.source_cameras.pose, views.target_cameras.pose], axis=1)
    around = [i for i in range(shown) if meeting_point(every[i].astype(np.float64)) is not None]
    if not around:
        return None
    paths = np.stack([orbit(every[i], config.orbit_frames) for i in around])
    some = Cameras(*(part[around] for part in views.source_cameras))
    lens = np.broadcast_to(some.intrinsics[:, :1], (*paths.shape[:2], 4))
    seed = views.model.parts.config.sample.seed
    drawn = views.model.novel_views(views.sources[around], some, Cameras(paths, lens), seed=seed)
    scale = max(1, LEGIBLE_SIZE // drawn.shape[2])
    save_gif(folder / "orbit.gif", [grid([frame], scale) for frame in np.swapaxes(drawn, 0, 1)])
    return "orbit.gif"


def show(values: dict, folder) -> list[str]:
    columns = list(values["rows"]["from 1"])
    table = {name: [f"{row[c]:.3f}" for c in columns] for name, row in values["rows"].items()}
    poses = {name: [f"{row[c]:.3f}" for c in columns] for name, row in values["poses"].items()}
    angles = {
        f"{row['from']} to {row['to']}": [
            *(f"{found[columns[0]]:.3f}" for found in row["scores"].values()),
            str(row["views"]),
        ]
        for row in values["angles"]
    }
    beside = list(values["angles"][0]["scores"])
    around = ["<p>No orbit: the cameras of these objects look in parallel.</p>"]
    if values["orbits"]:
        around = [
            "<p>Around the same objects, from all their sources:</p>",
            page.embed(folder / values["orbits"]),
        ]
    k = sum(name.startswith("from ") and "," not in name for name in values["rows"])
    return [
        "<h2>Other views</h2>",
        f"<p>In a row: an object's sources ({k}); then, twice, a target, and what the model draws "
        f"from its camera given 1{' to ' + str(k) if k > 1 else ''} of them.</p>",
        page.embed(folder / values["picture"]),
        *around,
        page.table("views", columns, table),
        f'<p class="note">{values["objects"]} test objects, {values["targets"]} targets each, at '
        f"{values['size']} pixels; {values['sampler']}, {values['num_steps']} steps, eta "
        f"{values['eta']}, guidance {values['guidance_scale']}, {values['weights']} weights, step "
        f"{values['step']:,}. Expected: one evaluation, from noise: the mean of all that the model "
        "might draw. Mean: of so many pictures that it drew. PSNR favours means. References: the "
        "source whose camera is nearest; the mean of training pictures from like cameras; the "
        "model without z.</p>",
        "<h2>Is the camera used?</h2>",
        page.table("told, from 1 source", columns, poses),
        f"<h2>{columns[0]} by the angle from the source</h2>",
        page.table("degrees", [*beside, "views"], angles),
    ]
