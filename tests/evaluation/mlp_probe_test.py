import dataclasses
import json

import jax
import numpy as np
import pytest

from soda_jax import rngs
from soda_jax.evaluation import mlp_probe as module
from soda_jax.evaluation.linear_probe import linear_probe
from soda_jax.evaluation.mlp_probe import mlp_probe

RNG = np.random.default_rng(0)
X = RNG.normal(size=(500, 3)).astype(np.float32) * [1, 5, 1] + [0, 100, 0]
# Exclusive or: no plane tells the classes apart.
Y = ((X[:, 0] > 0) ^ (X[:, 1] > 100)).astype(int)
DATA = (X[:300], Y[:300], X[300:], Y[300:])
SETTINGS = dict(num_classes=2, hidden=32, learning_rate=0.02, batch_size=64, num_steps=400)


def test_what_is_not_linear_is_read():
    linear = linear_probe(*DATA, num_classes=2, l2_values=[1e-2])
    result = mlp_probe(*DATA, **SETTINGS, weight_decays=[1e-3, 1e-2])
    assert linear.accuracy < 0.65
    assert result.accuracy > 0.9
    protocol = result.protocol
    assert json.loads(json.dumps(protocol)) == protocol
    assert protocol["epochs"] == 100 and protocol["iterations"] == 400  # 4 batches of 64 in 300
    assert protocol["fit_examples"] + protocol["validation_examples"] == 300


def test_the_test_set_chooses_nothing():
    choice = dict(SETTINGS, weight_decays=[1e-3, 50.0])
    result = mlp_probe(*DATA, **choice)
    other = mlp_probe(*DATA[:3], 1 - DATA[3], **choice)
    assert other.accuracy == pytest.approx(1 - result.accuracy)
    assert dataclasses.replace(other, accuracy=result.accuracy) == result
    # A decay that leaves nothing of the kernels loses on the held-out part.
    scores = result.protocol["validation_accuracies"]
    assert scores[0] > scores[1] + 0.2
    assert result.protocol["weight_decay"] == 1e-3
    assert result.validation_accuracy == max(scores)
    # The chosen one was fitted again on all 300, as if it had been the only one.
    alone = mlp_probe(*DATA, **dict(choice, weight_decays=[1e-3]))
    assert alone.accuracy == result.accuracy
    assert alone.validation_accuracy is None


def test_of_equally_good_weight_decays_the_strongest_is_taken():
    x = np.repeat([[-1.0], [1.0]], 50, axis=0)
    y = np.repeat([0, 1], 50)
    result = mlp_probe(x, y, x, y, **SETTINGS, weight_decays=[1e-3, 1e-2, 1e-4])
    assert result.protocol["validation_accuracies"] == [1.0, 1.0, 1.0]
    assert result.protocol["weight_decay"] == 1e-2


def reference(x, y, decay, *, hidden, learning_rate, batch_size, num_epochs, seed):
    """AdamW in float64 with the same draws: kernel0, bias0, kernel1, bias1."""
    root, (n, d) = rngs.root(seed), x.shape
    init = jax.nn.initializers.he_normal()
    params = [
        init(rngs.stream(root, "mlp_probe.kernel0"), (d, hidden)),
        np.zeros(hidden),
        init(rngs.stream(root, "mlp_probe.kernel1"), (hidden, 2)),
        np.zeros(2),
    ]
    params = [np.asarray(leaf, float) for leaf in params]
    first, second, step = [0.0] * 4, [0.0] * 4, 0
    batches = n // batch_size
    for epoch in range(num_epochs):
        order = np.asarray(jax.random.permutation(rngs.stream(root, "mlp_probe.order", epoch), n))
        for index in order[: batches * batch_size].reshape(batches, batch_size):
            h = x[index] @ params[0] + params[1][None]
            active = np.maximum(h, 0)
            logits = active @ params[2] + params[3][None]
            error = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(2)[y[index]]
            error /= batch_size
            back = (error @ params[2].T) * (h > 0)
            rate = learning_rate * (1 + np.cos(np.pi * step / (num_epochs * batches))) / 2
            step += 1
            gradients = (x[index].T @ back, back.sum(0), active.T @ error, error.sum(0))
            for i, gradient in enumerate(gradients):
                first[i] = 0.9 * first[i] + 0.1 * gradient
                second[i] = 0.999 * second[i] + 0.001 * gradient**2
                scale = np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8
                shrink = decay * params[i] if i in (0, 2) else 0.0
                params[i] = params[i] - rate * (first[i] / (1 - 0.9**step) / scale + shrink)
    return params


def test_training_is_adamw_with_the_decay_on_kernels_alone():
    """23 examples in batches of 8: the 7 that are left over differ from epoch to epoch."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(23, 3)), rng.integers(0, 2, 23)
    settings = dict(hidden=5, learning_rate=0.01, batch_size=8, seed=4)
    networks, plan = module.fit(x, y, [0.0, 2.0], num_classes=2, num_steps=5, **settings)
    assert plan == {"batch_size": 8, "epochs": 3, "iterations": 6}
    for i, decay in enumerate([0.0, 2.0]):
        expected = reference(x, y, decay, num_epochs=3, **settings)
        for leaf, by_hand in zip(networks, expected, strict=True):
            np.testing.assert_allclose(leaf[i], by_hand, rtol=1e-3, atol=1e-4)


def test_hostile_input_is_refused_in_words():
    x, y, test_x, test_y = DATA
    with pytest.raises(ValueError, match="train_y holds the class 1 alone"):
        mlp_probe(x, np.ones_like(y), test_x, test_y, num_classes=2)
    with pytest.raises(ValueError, match="every one of its 3 features is the same in all 300"):
        mlp_probe(np.full_like(x, 0.1), y, test_x, test_y, num_classes=2)
    with pytest.raises(ValueError, match="test_x holds NaN"):
        mlp_probe(x, y, test_x * np.nan, test_y, num_classes=2)
    with pytest.raises(ValueError, match="none below 0"):
        mlp_probe(*DATA, num_classes=2, weight_decays=[])
    with pytest.raises(ValueError, match="hidden must be at least 1, but is 0"):
        mlp_probe(*DATA, num_classes=2, hidden=0)
    with pytest.raises(ValueError, match="learning_rate must be above 0, but is 0"):
        mlp_probe(*DATA, num_classes=2, learning_rate=0)
    with pytest.raises(ValueError, match="the network diverged: learning_rate=1e\\+30"):
        mlp_probe(*DATA, **dict(SETTINGS, learning_rate=1e30), weight_decays=[1.0])
