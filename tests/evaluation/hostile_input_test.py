"""What no metric can make a number of: each one says so in one line, and never returns a value."""

import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.evaluation import code_health, dci, disentanglement, frechet
from soda_jax.evaluation.attribute_probe import attribute_probe
from soda_jax.evaluation.few_shot import few_label_probe
from soda_jax.evaluation.fine_tune import fine_tune
from soda_jax.evaluation.knn import knn
from soda_jax.evaluation.linear_probe import adam_probe, linear_probe
from soda_jax.evaluation.mlp_probe import mlp_probe
from soda_jax.evaluation.stream_probe import stream_probe
from soda_jax.evaluation.stream_protocol import SODA_PROBE

N, D = 40, 4
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
Y = np.arange(N) % 2
FACTORS = np.stack([Y, np.arange(N) // 2 % 2], axis=1)


def streamed(train_x, train_y, test_x, test_y):
    def batches(x, y):
        if len(x):
            yield {"z": jnp.asarray(x)}, y

    return stream_probe(
        lambda epoch: batches(train_x, train_y),
        lambda: batches(test_x, test_y),
        num_classes=2,
        protocol=SODA_PROBE,
    )


def tuned(train_x, train_y, test_x, test_y):
    def apply(variables, x, train):
        return x @ variables["params"]["kernel"], {}

    return fine_tune(
        apply,
        {"params": {"kernel": jnp.ones((D, 2))}},
        lambda rows: train_x[rows],
        train_y,
        lambda rows: test_x[rows],
        test_y,
        num_classes=2,
        num_epochs=1,
        warmup_epochs=0,
    )


PROBES = {
    "linear": lambda *data: linear_probe(*data, num_classes=2),
    "adam": lambda *data: adam_probe(*data, num_classes=2),
    "knn": lambda *data: knn(*data, num_classes=2),
    "mlp": lambda *data: mlp_probe(*data, num_classes=2),
    "few labels": lambda *data: few_label_probe(*data, num_classes=2, labels_per_class=2),
    "attributes": lambda x, y, test_x, test_y: attribute_probe(
        x, y[:, None], test_x, test_y[:, None]
    ),
    "streamed": streamed,
    "fine-tuned": tuned,
}
OF_FACTORS = {
    "trees": lambda z, factors: dci.dci(z, factors, predictor="trees"),
    "lasso": lambda z, factors: dci.dci(z, factors, predictor="lasso"),
    "MIG": disentanglement.mig,
    "SAP": disentanglement.sap,
    "FactorVAE": disentanglement.factor_vae,
    "modularity": disentanglement.modularity,
    "sections": lambda z, factors: dci.section_informativeness(z, (2, 2), factors),
}
OF_SETS = {
    "Fréchet": frechet.frechet_distance,
    "kernel": lambda x, y: frechet.kid(x, y, subsets=1, subset_size=20),
}
OF_CODES = {
    "spectrum": code_health.spectrum,
    "rank": code_health.effective_rank,
    "energy": lambda z: code_health.section_energy(z, (2, 2)),
    "correlation": lambda z: code_health.section_correlation(z, (2, 2)),
    "alignment": lambda z: code_health.alignment(z, z),
    "uniformity": code_health.uniformity,
}


def spoilt(x, value):
    x = np.array(x)
    x[3, 1] = value
    return x


TRAINING = {
    "one class": (X, 0 * Y, X, Y),
    "constant features": (np.full_like(X, 0.1), Y, X, Y),
    "a NaN": (spoilt(X, np.nan), Y, X, Y),
    "an infinity in test": (X, Y, spoilt(X, np.inf), Y),
    "an empty training split": (X[:0], Y[:0], X, Y),
    "an empty test split": (X, Y, X[:0], Y[:0]),
    "a class too many": (X, Y + 1, X, Y),
    "labels that are floats": (X, Y * 0.5, X, Y),
}
CODED = {
    "one value": (X, 0 * FACTORS),
    "constant codes": (np.full_like(X, 0.1), FACTORS),
    "a NaN": (spoilt(X, np.nan), FACTORS),
    "no example": (X[:0], FACTORS[:0]),
    "other examples": (X, FACTORS[:-1]),
    "factors that are floats": (X, FACTORS * 0.5),
    "a single dimension of a vector": (X[:, 0], FACTORS),
}


def refuses(call, *arguments):
    with np.errstate(all="ignore"), pytest.raises(ValueError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert 10 < len(message) < 300 and "\n" not in message, message
    assert type(caught.value) is ValueError, "an error of our own, not one that a library let out"


@pytest.mark.parametrize("fault", TRAINING)
@pytest.mark.parametrize("probe", PROBES)
def test_no_probe_scores_what_says_nothing(probe, fault):
    if (probe, fault) == ("fine-tuned", "constant features"):
        pytest.skip("fine-tuning is given pictures, whose features aren't known beforehand")
    refuses(PROBES[probe], *TRAINING[fault])


@pytest.mark.parametrize("fault", CODED)
@pytest.mark.parametrize("metric", OF_FACTORS)
def test_no_disentanglement_of_nothing(metric, fault):
    refuses(OF_FACTORS[metric], *CODED[fault])


@pytest.mark.parametrize("metric", OF_SETS)
def test_no_distance_between_sets_that_have_none(metric):
    for x, y in (
        (spoilt(X, np.nan), X),
        (X, spoilt(X, np.inf)),
        (X[:0], X),
        (X, X[:, :2]),
        (X[:, 0], X[:, 0]),
        (X[:3], X),  # fewer samples than dimensions, and than a subset
    ):
        refuses(OF_SETS[metric], x, y)
    refuses(frechet.frechet_distance, np.full_like(X, 0.1), X)


@pytest.mark.parametrize("metric", OF_CODES)
def test_nothing_is_said_of_codes_that_say_nothing(metric):
    for z in (spoilt(X, np.nan), X[:0], X[:1], X[:, 0]):
        refuses(OF_CODES[metric], z)


@pytest.mark.parametrize("metric", ["spectrum", "rank", "correlation"])
def test_few_codes_show_no_spectrum(metric):
    refuses(OF_CODES[metric], X[:D])
    OF_CODES[metric](X[: D + 1])
