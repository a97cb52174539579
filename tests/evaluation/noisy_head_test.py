"""A head for all t: it learns where there is something to learn, and t tells it where that is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.evaluation.noisy_head import noisy_classifier


def test_it_learns_at_low_noise_and_uses_t():
    """The feature's sign is the class, but above t = .5 its opposite is; at 1 there is none."""
    random = np.random.RandomState(0)
    labels, test_labels = random.randint(0, 2, 2000), random.randint(0, 2, 500)

    @jax.jit
    def features(images, t, key):
        sign = 2.0 * images[:, 0, 0, 0] - 1
        told = jnp.where(t < 0.5, sign, -sign) * (t < 0.9)
        noise = 0.1 * jax.random.normal(key, (len(t), 8))
        return noise.at[:, 0].add(told)

    def images_of(y):
        return lambda rows: np.asarray(y[rows], np.uint8)[:, None, None, None]

    found = noisy_classifier(
        features, images_of(labels), labels, images_of(test_labels), test_labels,
        num_classes=2, t_min=0.01, ts=(0.1, 0.7, 0.95), num_epochs=40, learning_rate=1e-2,
    )  # fmt: skip
    low, high, none = found["accuracies"]
    assert low > 0.95 and high > 0.95 and none < 0.6
    assert found["protocol"]["dimensions"] == 8


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="class"):
        noisy_classifier(
            lambda images, t, key: jnp.zeros((len(t), 2)), lambda rows: np.zeros((len(rows), 1)),
            np.zeros(10, int), lambda rows: np.zeros((len(rows), 1)), np.zeros(4, int),
            num_classes=2, t_min=0.01, ts=(0.5,),
        )  # fmt: skip
