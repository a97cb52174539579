"""The label of a picture's nearest neighbours: a probe that fits nothing."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from soda_jax.evaluation import probe_data
from soda_jax.evaluation.probe_data import ProbeResult

_SIMILARITIES = 2**26  # that are held at a time: 256 MB


def knn(
    train_x,
    train_y,
    test_x,
    test_y,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    weighted: bool = True,
) -> ProbeResult:
    """Classifies each test example by its k nearest training examples, by cosine similarity.

    Weighted, a neighbour's vote is exp(similarity / temperature) (Wu et al. 2018, arXiv 1805.01978,
    "weighted kNN"); else each has one vote: with k = 20, that is the kNN of FutureXiang/soda [R],
    apart from the crops and flips of its training pictures. Of equally near neighbours the earlier
    example is taken, of classes with equal votes the smaller one.

    Args:
      train_x, train_y, test_x, test_y: features [n d] of any number type, labels [n] int.
      num_classes: labels are in [0, num_classes).
      k: neighbours; cut to one less than the training examples, and the protocol says so.
      temperature: of the weights, above 0.
      weighted: see above.

    Raises:
      ValueError: the data don't fit together or can't be learnt from (see `probe_data.check` and
        `check_learnable`), or k or temperature is not above 0.
    """
    data = probe_data.check(train_x, train_y, test_x, test_y, num_classes)
    probe_data.check_learnable(data.train_x, data.train_y)
    if k < 1:
        raise ValueError(f"k must be at least 1, but is {k}")
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, but is {temperature}")
    num_train, num_test = len(data.train_x), len(data.test_x)
    used_k = max(1, min(k, num_train - 1))
    train = jnp.asarray(probe_data.l2_normalize(data.train_x))
    labels = jnp.asarray(data.train_y)
    test = probe_data.l2_normalize(data.test_x)
    chunk = max(1, min(1024, num_test, _SIMILARITIES // num_train))
    correct = 0
    for start in range(0, num_test, chunk):
        rows = test[start : start + chunk]
        # Padded to one shape, so that the last chunk is not compiled anew.
        padded = np.pad(rows, ((0, chunk - len(rows)), (0, 0)))
        predicted = _vote(
            train,
            labels,
            jnp.asarray(padded),
            jnp.float32(temperature),
            num_classes=num_classes,
            k=used_k,
            weighted=weighted,
        )
        truth = data.test_y[start : start + chunk]
        correct += int(np.sum(np.asarray(predicted)[: len(rows)] == truth))
    protocol = {
        "probe": "k nearest neighbours",
        "norm": "L2-normalised (cosine similarity)",
        "solver": "exact search",
        "k": used_k,
        "k_asked": k,
        "vote": "exp(similarity / temperature)" if weighted else "one each",
        "temperature": temperature if weighted else None,
        "validation_examples": 0,
        **data.sizes(),
    }
    return ProbeResult(correct / num_test, None, protocol)


@partial(jax.jit, static_argnames=("num_classes", "k", "weighted"))
def _vote(train, labels, test, temperature, *, num_classes, k, weighted):
    similarities = jnp.dot(test, train.T, precision=jax.lax.Precision.HIGHEST)
    nearest, indices = top_k(similarities, k)
    votes = jnp.ones_like(nearest)
    if weighted:
        # Relative to the nearest one: a common factor changes no winner, and nothing overflows.
        votes = jnp.exp((nearest - nearest[:, :1]) / temperature)
    ballots = jax.nn.one_hot(labels[indices], num_classes)
    return jnp.argmax(jnp.einsum("bk,bkc->bc", votes, ballots, precision="highest"), axis=-1)


def top_k(x, k):
    """jax.lax.top_k over [b n], equal ones by position too, without sorting whole rows.

    The k largest lie in the k groups with the largest maxima; CPUs sort 20 times less that way.
    """
    b, n = x.shape
    size = math.isqrt(n // k)
    num_groups = -(-n // size)
    padding = ((0, 0), (0, num_groups * size - n))
    groups = jnp.pad(x, padding, constant_values=-jnp.inf).reshape(b, num_groups, size)
    # In their own order, so that of equal values the earlier one still comes first.
    chosen = jnp.sort(jax.lax.top_k(jnp.max(groups, axis=2), k)[1], axis=1)
    candidates = jnp.take_along_axis(groups, chosen[:, :, None], axis=1).reshape(b, k * size)
    values, positions = jax.lax.top_k(candidates, k)
    group = jnp.take_along_axis(chosen, positions // size, axis=1)
    return values, group * size + positions % size
