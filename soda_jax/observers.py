"""What is measured while a run trains: is z used, what is it worth, what comes back from it."""

from collections.abc import Callable

import numpy as np

from soda_jax import inference
from soda_jax.applications.pictures import grid
from soda_jax.data.sources import Source, num_classes
from soda_jax.evaluation.code_health import effective_rank
from soda_jax.evaluation.features import extract
from soda_jax.evaluation.frechet import frechet_distance
from soda_jax.evaluation.knn import knn
from soda_jax.evaluation.linear_probe import linear_probe
from soda_jax.evaluation.probe_data import shuffled
from soda_jax.experiment import Experiment
from soda_jax.training.metrics import Writer
from soda_jax.training.sharding import split_batch
from soda_jax.training.state import TrainState

DIAGNOSED_IMAGES = 256
SAMPLED_IMAGES = 12
LINEAR_L2 = 1e-3  # of the online linear probe, which chooses nothing [D]
FRECHET_STEPS = 10  # of DDIM: enough to compare the checkpoints of one run [D]


def make_observers(
    parts: Experiment, writer: Writer, train_source: Source, test_source: Source
) -> list[tuple[int, Callable[[int, TrainState], None]]]:
    """Pairs (every so many steps, observe(step, state)); labels are those of the training split.

    The test split's pictures serve the losses and the grid; its labels are for the final probe.
    """
    config = parts.config.train
    encode = inference.encode_step(parts)
    code_losses = inference.code_step(parts)
    decode = inference.decode_step(parts)
    draw = inference.decode_step(parts, sampler="ddim", eta=0.0, num_steps=FRECHET_STEPS)
    devices = parts.mesh.size

    def held_out(count: int):
        count = min(count, len(test_source)) // devices * devices
        return split_batch(parts.mesh, test_source.images(np.arange(count)))

    # Not the first ones: a folder's pictures come class by class.
    probed = shuffled(np.arange(len(train_source)), parts.config.seed)[: config.probe_examples]
    classes = num_classes(train_source)
    diagnosed, sampled = held_out(DIAGNOSED_IMAGES), held_out(max(SAMPLED_IMAGES, devices))

    def features(encode_fn: Callable, images_fn: Callable, count: int) -> dict[str, np.ndarray]:
        return extract(
            encode_fn,
            images_fn,
            count,
            parts.config.probe.batch_size,
            shard=lambda images: split_batch(parts.mesh, images),
        )

    def diagnose(step: int, state: TrainState) -> None:
        losses, z = code_losses(inference.eval_variables(state), diagnosed)
        losses = {f"loss_with_code/{name}": float(loss) for name, loss in losses.items()}
        writer.scalars(step, losses | {"effective_rank": effective_rank(np.asarray(z))})

    def probe(step: int, state: TrainState) -> None:
        variables = inference.eval_variables(state)
        codes = features(
            lambda images: encode(variables, images),
            lambda indices: train_source.images(probed[indices]),
            len(probed),
        )
        labels, cut = train_source.labels(probed), len(probed) * 9 // 10
        for name, x in codes.items():
            data = (x[:cut], labels[:cut], x[cut:], labels[cut:])
            linear = linear_probe(*data, num_classes=classes, l2_values=(LINEAR_L2,))
            nearest = knn(*data, num_classes=classes)
            accuracies = {f"linear/{name}": linear.accuracy, f"knn/{name}": nearest.accuracy}
            writer.scalars(step, accuracies)

    def compare(step: int, state: TrainState) -> None:
        variables = inference.eval_variables(state)
        count = min(config.frechet_images, len(test_source))

        def drawn_features(images):
            z = encode(variables, images)["z"]
            pictures = draw(variables, z, parts.config.sample.seed, np.arange(len(z)))
            return {"pooled": encode(variables, pictures)["pooled"]}

        def real_images(indices: np.ndarray) -> np.ndarray:
            return inference.target_pictures(parts, test_source.images(indices))

        drawn = features(drawn_features, test_source.images, count)["pooled"]
        real = features(lambda images: encode(variables, images), real_images, count)["pooled"]
        distance = frechet_distance(drawn, real, allow_few=True)
        writer.scalars(step, {"frechet/pooled": distance.value})

    def sample(step: int, state: TrainState) -> None:
        variables = inference.eval_variables(state)
        z = encode(variables, sampled)["z"]
        pictures = decode(variables, z, parts.config.sample.seed, np.arange(len(z)))
        writer.images(
            step, "reconstructions", grid([np.asarray(sampled), np.asarray(pictures)], scale=2)
        )

    return [
        (config.diagnose_every, diagnose),
        (config.probe_every if classes > 1 else 0, probe),
        (config.probe_every if config.frechet_images else 0, compare),
        (config.sample_every, sample),
    ]
