"""Seconds of the probes beside scikit-learn's on the same arrays: one command, a table out.

    python benchmarks/probes.py [--parts linear knn features] [--train=50000 --test=10000]

linear    multinomial logistic regression under 10 L2 values: the ten fits of this house in one run,
          and scikit-learn's L-BFGS one after the other. Both minimise one objective, which is
          printed for both in float64: a fit that stops early is fast and shows it there.
knn       20 nearest neighbours by cosine, exact search.
features  pictures through the untrained encoder of a config, from uint8 in memory to NumPy.

The features are a seeded mixture of Gaussians, correlated as features are, whose classes overlap.
Compilation is timed apart: a first call less a second one.
"""

import os
import time
import warnings

import figures
import jax
import jax.numpy as jnp
import numpy as np

from soda_jax import experiment, pretrained
from soda_jax.config_schema import load
from soda_jax.evaluation import logistic_regression
from soda_jax.evaluation.knn import knn

NUM_CLASSES = 10
L2_VALUES = tuple(float(value) for value in np.logspace(-6, 0, 10).astype(np.float32))
TABLE = "{:>10} {:>12} {:>12} {:>10} {:>7} {:>7} {:>6} {:>6}"


def mixture(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features [n d] float32 whose variances fall as 1/rank in a random basis, and labels [n]."""
    shape, draw = np.random.default_rng(0), np.random.default_rng(seed)
    scales = np.arange(1, d + 1) ** -0.5
    basis = np.linalg.qr(shape.normal(size=(d, d)))[0]
    # Two centres a class, so that no plane is right everywhere.
    centres = 0.35 * shape.normal(size=(NUM_CLASSES, 2, d)) * scales[None, None]
    labels = draw.integers(0, NUM_CLASSES, n)
    noise = draw.normal(size=(n, d)) * scales[None]
    x = (centres[labels, draw.integers(0, 2, n)] + noise) @ basis
    return x.astype(np.float32), labels.astype(np.int32)


def timed(function):
    begin = time.perf_counter()
    result = function()
    return result, time.perf_counter() - begin


def objective(x, labels, l2, kernel, bias) -> float:
    """Mean cross-entropy + l2 / 2 |kernel|^2 in float64."""
    kernel = np.asarray(kernel, np.float64)
    logits = x.astype(np.float64) @ kernel.T + np.asarray(bias, np.float64)[None]
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(x)), labels]
    return float(losses.mean() + l2 / 2 * np.square(kernel).sum())


def linear(train, test, sklearn_tolerance: float) -> dict:
    """Ten L2 values: seconds, objectives and accuracies, ours and scikit-learn's."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    (x, y), (test_x, test_y) = train, test
    mean, std = logistic_regression.standardization(x)
    x, test_x = (logistic_regression.standardize(part, mean, std) for part in (x, test_x))

    def fit():
        return jax.block_until_ready(
            logistic_regression.fit(
                jnp.asarray(x),
                jnp.asarray(y),
                jnp.ones((len(x),), jnp.float32),
                jnp.asarray(L2_VALUES, jnp.float32),
                num_classes=NUM_CLASSES,
            )
        )

    _, first = timed(fit)
    ours, seconds = timed(fit)
    predicted = np.asarray(logistic_regression.predict(ours, jnp.asarray(test_x)))
    print(TABLE.format("L2", "objective", "sklearn's", "less by", "acc.", "theirs", "iter.", "th."))
    rows, sklearn_seconds = [], 0.0
    for i, l2 in enumerate(L2_VALUES):
        model = LogisticRegression(
            C=1 / (len(x) * l2), solver="lbfgs", tol=sklearn_tolerance, max_iter=2000
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            _, one = timed(lambda model=model: model.fit(x, y))
        sklearn_seconds += one
        row = {
            "l2": l2,
            "objective": objective(x, y, l2, ours.kernel[i], ours.bias[i]),
            "sklearn_objective": objective(x, y, l2, model.coef_, model.intercept_),
            "accuracy": float(np.mean(predicted[i] == test_y)),
            "sklearn_accuracy": float(np.mean(model.predict(test_x) == test_y)),
            "iterations": int(ours.num_iterations[i]),
            "sklearn_iterations": int(model.n_iter_[0]),
            "gradient_norm": float(ours.gradient_norm[i]),
            "sklearn_seconds": one,
        }
        rows.append(row)
        print(
            TABLE.format(
                f"{l2:.2g}",
                f"{row['objective']:.7f}",
                f"{row['sklearn_objective']:.7f}",
                f"{row['sklearn_objective'] - row['objective']:.1e}",
                f"{row['accuracy']:.4f}",
                f"{row['sklearn_accuracy']:.4f}",
                row["iterations"],
                row["sklearn_iterations"],
            )
        )
    return {
        "seconds": seconds,
        "compile_seconds": first - seconds,
        "sklearn_seconds": sklearn_seconds,
        "sklearn_tolerance": sklearn_tolerance,
        "fits": rows,
    }


def neighbours(train, test) -> dict:
    """One vote for each of 20 neighbours: seconds and accuracies, ours and scikit-learn's."""
    from sklearn.neighbors import KNeighborsClassifier

    def ours():
        return knn(*train, *test, num_classes=NUM_CLASSES, k=20, weighted=False)

    def theirs():
        model = KNeighborsClassifier(20, algorithm="brute", metric="cosine")
        return float(np.mean(model.fit(*train).predict(test[0]) == test[1]))

    _, first = timed(ours)
    result, seconds = timed(ours)
    sklearn_accuracy, sklearn_seconds = timed(theirs)
    return {
        "seconds": seconds,
        "compile_seconds": first - seconds,
        "sklearn_seconds": sklearn_seconds,
        "accuracy": result.accuracy,
        "sklearn_accuracy": sklearn_accuracy,
    }


def features(config, count: int) -> dict:
    """Pictures a second of the untrained encoder; the pictures are random bytes."""
    model = pretrained.untrained(experiment.build(config))
    size, channels = config.data.image_size, config.data.channels
    images = np.random.RandomState(0).randint(0, 256, (count, size, size, channels))
    images = images.astype(np.uint8)

    def extract(number):
        return model.features(lambda indices: images[indices], number)

    batch_size = config.probe.batch_size
    _, first = timed(lambda: extract(batch_size))
    _, second = timed(lambda: extract(batch_size))
    extracted, seconds = timed(lambda: extract(count))
    return {
        "config": config.name,
        "pictures": count,
        "seconds": seconds,
        "pictures_per_second": count / seconds,
        "compile_seconds": first - second,
        "shapes": {name: list(value.shape) for name, value in extracted.items()},
    }


def main() -> None:
    parser = figures.parser(__doc__, config="configs/cifar10.py:cpu")
    parts = ("linear", "knn", "features")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--train", type=int, default=50_000, help="training examples, and pictures")
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--sklearn_tolerance", type=float, default=1e-4, help="its default")
    arguments = parser.parse_args()
    found = {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "cpus": os.cpu_count(),
        "jax": jax.__version__,
        "train_examples": arguments.train,
        "test_examples": arguments.test,
        "dimensions": arguments.dimensions,
    }
    figures.show(found)
    train = mixture(arguments.train, arguments.dimensions, seed=1)
    test = mixture(arguments.test, arguments.dimensions, seed=2)
    runs = {
        "linear": lambda: linear(train, test, arguments.sklearn_tolerance),
        "knn": lambda: neighbours(train, test),
        "features": lambda: features(load(arguments.config, []), arguments.train),
    }
    for part in arguments.parts:
        print(f"\n{part}")
        found[part] = runs[part]()
        for name, value in found[part].items():
            if name != "fits":
                shown = f"{value:.4g}" if isinstance(value, float) else value
                print(f"  {name:<20} {shown}")
    figures.write(found, arguments.json)


if __name__ == "__main__":
    main()
