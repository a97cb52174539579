"""What is measured while a run trains: is z used, what is it worth, what comes back from it."""

import itertools
import sys
from collections.abc import Callable

import jax
import numpy as np

from soda_jax import experiment, inference
from soda_jax.applications.pictures import grid
from soda_jax.data import pipeline
from soda_jax.data.sources import Source, num_classes
from soda_jax.evaluation.code_health import effective_rank
from soda_jax.evaluation.features import extract
from soda_jax.evaluation.frechet import frechet_distance
from soda_jax.evaluation.knn import knn
from soda_jax.evaluation.linear_probe import linear_probe
from soda_jax.evaluation.probe_data import shuffled
from soda_jax.exit_codes import exit_code
from soda_jax.experiment import Experiment
from soda_jax.training.metrics import Writer
from soda_jax.training.sharding import split_batch
from soda_jax.training.state import TrainState

DIAGNOSED_IMAGES = 256
CODES_PER_DIMENSION = 4  # pictures whose codes the rank is read from, for each dimension of z [D]
SAMPLED_IMAGES = 12
LINEAR_L2 = 1e-3  # of the online linear probe, which chooses nothing [D]
FRECHET_STEPS = 10  # of DDIM: enough to compare the checkpoints of one run [D]


def make_observers(
    parts: Experiment, writer: Writer, train_source: Source, test_source: Source
) -> list[tuple[int, Callable[[int, TrainState], None]]]:
    """Pairs (every so many steps, observe(step, state)); labels are those of the training split.

    The test split's pictures serve the losses and the grid; its labels are for the final probe.
    What can't be measured (a code that has collapsed, a class alone) is told on stderr, and the
    training goes on.
    """
    config = parts.config.train
    encode, encode_to_draw = parts.step(inference.encode_step), inference.to_draw_step(parts)
    code_losses = parts.step(inference.code_step)
    decode = parts.step(inference.decode_step)
    draw = parts.step(inference.decode_step, sampler="ddim", eta=0.0, num_steps=FRECHET_STEPS)
    devices, denoiser = parts.mesh.size, parts.config.model.denoiser
    features_used = parts.config.probe.features
    own = "pooled" if parts.z_size else "block"  # features on which Fréchet distances are measured
    # Not the first ones: a folder's pictures come class by class.
    probed = shuffled(np.arange(len(train_source)), parts.config.seed)[: config.probe_examples]
    held_out = shuffled(np.arange(len(test_source)), parts.config.seed)
    classes = num_classes(train_source)

    def rounded(count: int) -> int:
        # A small split comes more than once: every device needs a share.
        return -(-min(count, len(held_out)) // devices) * devices

    count = rounded(DIAGNOSED_IMAGES)
    if parts.cameras is None:
        indices = np.resize(held_out, count)
    else:
        indices = experiment.batch_order(parts, test_source, count)(0)
    diagnosed = jax.tree.map(
        lambda array: split_batch(parts.mesh, array), pipeline.read_batch(test_source, indices)
    )
    sampled = split_batch(
        parts.mesh, test_source.images(np.resize(held_out, rounded(SAMPLED_IMAGES)))
    )

    def features(encode_fn: Callable, images_fn: Callable, count: int) -> dict[str, np.ndarray]:
        return extract(
            encode_fn,
            images_fn,
            count,
            -(-parts.config.probe.batch_size // devices) * devices,
            shard=lambda images: split_batch(parts.mesh, images),
        )

    def diagnose(step: int, state: TrainState) -> None:
        variables = inference.eval_variables(state)
        losses, _ = code_losses(variables, diagnosed)
        writer.scalars(step, {f"loss_with_code/{name}": float(x) for name, x in losses.items()})
        dimensions = parts.z_size or denoiser.width * max(denoiser.multipliers)
        count = min(CODES_PER_DIMENSION * dimensions, len(held_out))
        codes = features(
            lambda images: encode(variables, images),
            lambda indices: inference.as_seen(parts, test_source, held_out[indices]),
            count,
        )
        writer.scalars(step, {"effective_rank": effective_rank(codes[features_used[0]])})

    def probe(step: int, state: TrainState) -> None:
        variables = inference.eval_variables(state)
        codes = features(
            lambda images: encode(variables, images),
            lambda indices: inference.as_seen(parts, train_source, probed[indices]),
            len(probed),
        )
        labels, cut = train_source.labels(probed), len(probed) * 9 // 10
        for name in features_used:
            x = codes[name]
            data = (x[:cut], labels[:cut], x[cut:], labels[cut:])
            linear = linear_probe(*data, num_classes=classes, l2_values=(LINEAR_L2,))
            nearest = knn(*data, num_classes=classes)
            accuracies = {f"linear/{name}": linear.accuracy, f"knn/{name}": nearest.accuracy}
            writer.scalars(step, accuracies)

    def compare(step: int, state: TrainState) -> None:
        variables = inference.eval_variables(state)
        chosen = held_out[: config.frechet_images]
        numbers = itertools.count()

        def drawn_features(images):
            z = encode_to_draw(variables, images)["z"]
            noise = np.array(list(itertools.islice(numbers, len(z))))
            pictures = draw(variables, z, parts.config.sample.seed, noise, images=images)
            return {own: encode(variables, pictures)[own]}

        def real_images(positions: np.ndarray) -> np.ndarray:
            return inference.target_pictures(parts, test_source.images(chosen[positions]))

        drawn = features(
            drawn_features, lambda positions: test_source.images(chosen[positions]), len(chosen)
        )[own]
        real = features(lambda images: encode(variables, images), real_images, len(chosen))[own]
        # The features change from step to step: in units of their variance distances compare.
        try:
            distance = frechet_distance(drawn, real).value / real.var(axis=0, ddof=1).sum()
        except ValueError as error:
            raise ValueError(
                f"no Fréchet distance of {len(chosen)} pictures (config.train.frechet_images, of "
                f"those that are held out; 0 asks for none): {error}"
            ) from error
        writer.scalars(step, {f"relative_frechet/{own}": distance})

    def sample(step: int, state: TrainState) -> None:
        variables = inference.eval_variables(state)
        z = encode_to_draw(variables, sampled)["z"]
        numbers = np.arange(len(z))
        pictures = np.asarray(
            decode(variables, z, parts.config.sample.seed, numbers, images=sampled)
        )
        rows = [np.asarray(sampled), pictures] if parts.z_size else [pictures]
        writer.images(step, "reconstructions", grid(rows, scale=2))

    return [
        (config.diagnose_every, goes_on(diagnose)),
        (config.probe_every if classes > 1 else 0, goes_on(probe)),
        (config.probe_every if config.frechet_images else 0, goes_on(compare)),
        (config.sample_every, sample),
    ]


def goes_on(observe: Callable[[int, TrainState], None]) -> Callable[[int, TrainState], None]:
    """The same, but what has no answer is told and doesn't end the run."""

    def told(step: int, state: TrainState) -> None:
        try:
            observe(step, state)
        except ValueError as error:
            if exit_code(error) is None:
                raise
            if not jax.process_index():
                print(f"step {step}: {observe.__name__}: {error}", file=sys.stderr)

    return told
