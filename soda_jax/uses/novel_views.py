"""Chapter "novel_views": objects from other cameras than those that took their pictures."""

import numpy as np
from PIL import Image

from soda_jax import inference, page
from soda_jax.applications.orbit import orbit
from soda_jax.applications.pictures import grid, save_gif
from soda_jax.data import pipeline
from soda_jax.data.cameras import Cameras, axis_angle
from soda_jax.data.records import PosedSource
from soda_jax.evaluation.view_references import mean_of_nearest, nearest_source
from soda_jax.pretrained import Pretrained
from soda_jax.suites.pictures import Measure, pairwise

ANGLES = (0, 30, 60, 90, 120, 150, 180)  # degrees
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
    rows = {}
    for count in range(1, views.k + 1):
        drawn = views.draw(views.model, count)
        rows[f"from {count}"] = score(metrics, views.targets, drawn)
        if count == 1:
            from_one = drawn
        # What the model expects to see: its x_0 at t = 1, the mean of all that it might draw.
        expected = views.draw(views.model, count, num_steps=1, sampler="ddim")
        rows[f"from {count}, expected"] = score(metrics, views.targets, expected)
        if (samples := config.novel_views.averaged) > 1:
            mean = views.draw_mean(count, samples)
            rows[f"from {count}, mean of {samples}"] = score(metrics, views.targets, mean)
        for name, other in others.items():
            rows[f"{name}, from {count}"] = score(metrics, views.targets, views.draw(other, count))
        nearest = nearest_source(
            views.sources, views.source_cameras.pose, views.target_cameras.pose, count
        )
        nearest = inference.target_pictures(
            views.model.parts, nearest.reshape(-1, *nearest.shape[2:])
        ).reshape(views.targets.shape)
        rows[f"nearest of {count} sources"] = score(metrics, views.targets, nearest)
    rows["mean picture of the pose"] = score(metrics, views.targets, mean_pictures(views, train))
    rows["no z"] = score(metrics, views.targets, views.draw(views.model, 1, null=True))
    # Which camera is told: another target's in place of its own; and the source's own.
    wrong = Cameras(*(np.roll(part, 1, axis=1) for part in views.target_cameras))
    own = Cameras(*(part[:, :1] for part in views.source_cameras))
    of_sources = inference.target_pictures(views.model.parts, views.sources[:, 0])[:, None]
    poses = {"the target's camera": rows["from 1"]}
    if views.targets.shape[1] > 1:
        drawn = views.draw(views.model, 1, wrong)
        poses["another target's camera"] = score(metrics, views.targets, drawn)
    poses |= {
        "the source's own camera, and picture": score(
            metrics, of_sources, views.draw(views.model, 1, own)
        ),
    }
    return {
        "rows": rows,
        "poses": poses,
        "angles": by_angle(metrics, views, from_one),
        "objects": len(views.sources),
        "targets": views.targets.shape[1],
        "size": views.targets.shape[2],
        "step": views.model.step,
        **{name: config.sample[name] for name in inference.SAMPLER_OPTIONS},
        "weights": config.sample.weights,
        "picture": show_views(views, folder),
        "orbits": draw_orbits(views, folder),
    }


def mean_pictures(views: Views, train: PosedSource) -> np.ndarray:
    """[b n h w c]: the mean training picture of the cameras most like each target's."""
    count = min(POSE_VIEWS, len(train))
    some = np.sort(np.random.RandomState(0).permutation(len(train))[:count])
    pictures = inference.target_pictures(views.model.parts, train.images(some))
    return mean_of_nearest(pictures, train.cameras(some).pose, views.target_cameras.pose)


def score(metrics: dict[str, Measure], truth: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
    truth, drawn = (x.reshape(-1, *x.shape[2:]) for x in (truth, drawn))
    return {
        name: float(np.mean(np.asarray(metric.function(truth, drawn))))
        for name, metric in metrics.items()
    }


def by_angle(metrics: dict[str, Measure], views: Views, drawn: np.ndarray) -> list[dict]:
    """Scores from one source, by the angle between its camera's axis and the target's."""
    angles = axis_angle(views.source_cameras.pose[:, :1], views.target_cameras.pose)
    flat = [x.reshape(-1, *x.shape[2:]) for x in (views.targets, drawn)]
    found = {
        name: np.asarray(metric.function(*flat)).reshape(angles.shape)
        for name, metric in metrics.items()
    }
    rows = []
    for low, high in zip(ANGLES[:-1], ANGLES[1:], strict=True):
        inside = (angles >= low) & (angles <= high if high == 180 else angles < high)
        if inside.any():
            scores = {name: float(values[inside].mean()) for name, values in found.items()}
            rows.append({"from": low, "to": high, "views": int(inside.sum()), "scores": scores})
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


def draw_orbits(views: Views, folder) -> str:
    """orbit.gif: all objects that are shown, from a camera that goes around them."""
    config = views.model.parts.config.novel_views
    shown = min(config.num_shown, len(views.sources))
    every = np.concatenate([views.source_cameras.pose, views.target_cameras.pose], axis=1)
    paths = np.stack([orbit(every[i], config.orbit_frames) for i in range(shown)])
    lens = np.broadcast_to(views.source_cameras.intrinsics[:shown, :1], (*paths.shape[:2], 4))
    some = Cameras(*(part[:shown] for part in views.source_cameras))
    used = np.ones(views.sources[:shown].shape[:2], bool)
    drawn = views.model.novel_views(views.sources[:shown], some, Cameras(paths, lens), used)
    scale = max(1, LEGIBLE_SIZE // drawn.shape[2])
    save_gif(folder / "orbit.gif", [grid([frame], scale) for frame in np.swapaxes(drawn, 0, 1)])
    return "orbit.gif"


def show(values: dict, folder) -> list[str]:
    columns = list(values["rows"]["from 1"])
    table = {name: [f"{row[c]:.3f}" for c in columns] for name, row in values["rows"].items()}
    poses = {name: [f"{row[c]:.3f}" for c in columns] for name, row in values["poses"].items()}
    angles = {
        f"{row['from']} to {row['to']}": [
            *(f"{row['scores'][c]:.3f}" for c in columns),
            str(row["views"]),
        ]
        for row in values["angles"]
    }
    k = sum(name.startswith("from ") and "," not in name for name in values["rows"])
    return [
        "<h2>Other views</h2>",
        f"<p>In a row: an object's sources ({k}); then, twice, a target, and what the model draws "
        f"from its camera given 1{' to ' + str(k) if k > 1 else ''} of them.</p>",
        page.embed(folder / values["picture"]),
        "<p>Around the same objects, from all their sources:</p>",
        page.embed(folder / values["orbits"]),
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
        page.table("degrees from the source", [*columns, "views"], angles),
    ]
