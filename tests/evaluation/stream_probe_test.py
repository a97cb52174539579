import dataclasses
import json

import jax
import numpy as np
import pytest

from soda_jax import rngs
from soda_jax.evaluation.stream_probe import best_head, stream_probe, train_heads
from soda_jax.evaluation.stream_protocol import DDAE_PROBE, MAE_PROBE, SODA_PROBE, StreamProtocol

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 120)
CENTRES = RNG.normal(size=(3, 6)) * 3
GOOD = (CENTRES[LABELS] + RNG.normal(size=(120, 6)) + 5).astype(np.float32)
FEATURES = {
    "good": GOOD,
    "short": GOOD[:, :4] * 0.1,
    "noise": RNG.normal(size=(120, 6)).astype(np.float32),
}
TRAIN, VALIDATION, TEST = range(0, 56), range(56, 80), range(80, 120)


def stream(rows, size=16, names=tuple(FEATURES), labels=LABELS, shuffle=True):
    """epoch -> batches; 56 rows are three of 16 and one of 8."""

    def batches_fn(epoch=None):
        order = np.array(rows)
        if epoch is not None and shuffle:
            order = np.random.default_rng(epoch).permutation(order)
        for start in range(0, len(order), size):
            index = order[start : start + size]
            yield {name: FEATURES[name][index] for name in names}, labels[index]

    return batches_fn


FAST = StreamProtocol("fast", "batch", learning_rate=0.03, num_epochs=12)


def probe(protocol=FAST, test_labels=LABELS, **options):
    return stream_probe(
        stream(TRAIN),
        stream(TEST, labels=test_labels),
        num_classes=3,
        protocol=protocol,
        validation_batches_fn=stream(VALIDATION),
        **options,
    )


@pytest.mark.parametrize("name", FEATURES)
def test_a_head_among_others_is_bit_by_bit_the_head_alone(name):
    protocol = dataclasses.replace(SODA_PROBE, num_epochs=2)
    together, _, _ = train_heads(stream(TRAIN), num_classes=3, protocol=protocol)
    alone, size, examples = train_heads(
        stream(TRAIN, names=(name,)), num_classes=3, protocol=protocol
    )
    assert (size, examples) == (16, 56)
    jax.tree.map(np.testing.assert_array_equal, together[name], alone[name])


def reference(name, protocol, seed):
    """The protocol in float64 from its definition: kernel, bias, running mean and variance."""
    d = FEATURES[name].shape[1]
    key = rngs.stream(rngs.root(seed), "stream_probe.init")
    if protocol.init == "uniform":
        draw = np.asarray(jax.random.uniform(key, (d + 1, 3), minval=-(d**-0.5), maxval=d**-0.5))
        params = [draw[:-1].astype(float), draw[-1].astype(float)]
    else:
        params = [0.01 * np.asarray(jax.random.normal(key, (d, 3)), float), np.zeros(3)]
    mean, variance = np.zeros(d), np.ones(d)
    first, second, step = [0.0, 0.0], [0.0, 0.0], 0
    warm, epochs = protocol.warmup_epochs, protocol.num_epochs
    peak = protocol.learning_rate
    if protocol.learning_rate_batch:
        peak *= 16 / protocol.learning_rate_batch
    for epoch in range(epochs):
        for index, (features, labels) in enumerate(stream(TRAIN)(epoch)):
            x = features[name].astype(float)
            if protocol.norm == "l2_batch":
                x = x / np.linalg.norm(x, axis=1, keepdims=True)
            if protocol.norm != "none":
                mean = 0.9 * mean + 0.1 * x.mean(0)
                variance = 0.9 * variance + 0.1 * x.var(0, ddof=1)
                x = (x - x.mean(0)[None]) / np.sqrt(x.var(0) + 1e-6)[None]
            progress = epoch + (index / 4 if protocol.schedule == "step" else 0)
            rate = peak * progress / max(warm, 1)
            if progress >= warm:
                rate = peak * (1 + np.cos(np.pi * (progress - warm) / (epochs - warm))) / 2
            logits = x @ params[0] + params[1][None]
            error = np.exp(logits - logits.max(1, keepdims=True))
            error = error / error.sum(1, keepdims=True) - np.eye(3)[labels]
            step += 1
            gradients = [x.T @ error / len(x), error.mean(0)]
            gradients[0] = gradients[0] + protocol.weight_decay * params[0]
            for i, gradient in enumerate(gradients):
                if protocol.optimizer == "adam":
                    first[i] = 0.9 * first[i] + 0.1 * gradient
                    second[i] = 0.999 * second[i] + 0.001 * gradient**2
                    scale = np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8
                    params[i] = params[i] - rate * first[i] / (1 - 0.9**step) / scale
                    continue
                if protocol.optimizer == "lars" and i == 0:
                    norms = np.linalg.norm(params[0]), np.linalg.norm(gradient)
                    gradient = 0.001 * norms[0] / norms[1] * gradient
                first[i] = protocol.momentum * first[i] + gradient
                params[i] = params[i] - rate * first[i]
    return *params, mean, variance


@pytest.mark.parametrize(
    "protocol",
    [
        dataclasses.replace(DDAE_PROBE, num_epochs=3),
        dataclasses.replace(SODA_PROBE, num_epochs=3),
        dataclasses.replace(MAE_PROBE, num_epochs=3, warmup_epochs=1, learning_rate=10.0),
        StreamProtocol("sgd", "batch", "sgd", 0.05, num_epochs=2, weight_decay=0.1),
    ],
    ids=lambda protocol: protocol.name,
)
def test_training_is_the_published_protocol(protocol):
    """Norm, running statistics, schedule, solver, the smaller last batch: all in float64."""
    heads, _, _ = train_heads(
        stream(TRAIN), num_classes=3, protocol=protocol, steps_per_epoch=4, seed=3
    )
    for name, head in heads.items():
        kernel, bias, mean, variance = reference(name, protocol, seed=3)
        np.testing.assert_allclose(head.kernel, kernel, rtol=2e-3, atol=2e-4)
        np.testing.assert_allclose(head.bias, bias, rtol=2e-3, atol=2e-4)
        if protocol.norm != "none":
            np.testing.assert_allclose(head.mean, mean, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(head.variance, variance, rtol=1e-4, atol=1e-6)


def test_running_statistics_are_those_worked_out_by_hand():
    """Batches (0, 2) and (4, 8): means 1 and 6, unbiased variances 2 and 8, momentum .1."""

    def batches_fn(epoch):
        yield {"x": np.array([[0.0], [2.0]], np.float32)}, np.array([0, 1])
        yield {"x": np.array([[4.0], [8.0]], np.float32)}, np.array([0, 1])

    protocol = StreamProtocol("one epoch", "batch", num_epochs=1)
    heads, _, _ = train_heads(batches_fn, num_classes=2, protocol=protocol)
    np.testing.assert_allclose(heads["x"].mean, [0.9 * 0.1 + 0.6], rtol=1e-6)
    np.testing.assert_allclose(heads["x"].variance, [0.9 * (0.9 + 0.2) + 0.8], rtol=1e-6)


@pytest.mark.parametrize("norm", ["none", "batch", "l2_batch"])
def test_at_test_an_example_does_not_depend_on_its_batch(norm):
    """BatchNorm by the batch itself would make zeros of a batch of one."""
    protocol = dataclasses.replace(FAST, norm=norm)
    by_sixteen = stream_probe(stream(TRAIN), stream(TEST), num_classes=3, protocol=protocol)
    one_by_one = stream_probe(stream(TRAIN), stream(TEST, size=1), num_classes=3, protocol=protocol)
    assert by_sixteen == one_by_one
    assert by_sixteen["good"].accuracy > 0.8
    assert by_sixteen["noise"].accuracy < 0.6


def test_the_presets_hold_the_published_learning_rates():
    assert MAE_PROBE.peak(16384) == pytest.approx(6.4)
    rates = [MAE_PROBE.learning_rate_at(epoch, 16384) for epoch in (0, 5, 10, 50, 90)]
    np.testing.assert_allclose(rates, [0, 3.2, 6.4, 3.2, 0], atol=1e-12)
    # A GPU more: twice the batch, twice the rate.
    assert DDAE_PROBE.peak(256) == pytest.approx(2e-3)
    rates = [DDAE_PROBE.learning_rate_at(epoch, 128) for epoch in (0, 5, 10)]
    np.testing.assert_allclose(rates, [1e-3, 0.75e-3, 0.25e-3])
    assert SODA_PROBE.peak(256) == pytest.approx(1e-3)
    norms = [protocol.norm for protocol in (DDAE_PROBE, SODA_PROBE, MAE_PROBE)]
    assert norms == ["none", "l2_batch", "batch"]


def test_the_head_is_chosen_without_the_test_set():
    results = probe()
    other = probe(test_labels=np.random.default_rng(1).permutation(LABELS))
    assert best_head(results) == best_head(other) != "noise"
    for name, result in results.items():
        assert result.protocol == other[name].protocol
        assert result.validation_accuracy == other[name].validation_accuracy
        assert json.loads(json.dumps(result.protocol)) == result.protocol
    assert results["good"].accuracy > other["good"].accuracy
    assert results["good"].protocol["train_examples"] == 56
    assert results["good"].protocol["test_examples"] == 40
    assert results["good"].protocol["validation_examples"] == 24

    blind = stream_probe(stream(TRAIN), stream(TEST), num_classes=3, protocol=FAST)
    assert blind["good"].accuracy == results["good"].accuracy
    with pytest.raises(ValueError, match="'good' has no validation accuracy"):
        best_head(blind)


def test_the_seed_is_the_only_chance():
    assert probe(seed=1) == probe(seed=1)
    heads = [
        train_heads(stream(TRAIN), num_classes=3, protocol=FAST, seed=seed)[0] for seed in (0, 1)
    ]
    assert not np.array_equal(heads[0]["good"].kernel, heads[1]["good"].kernel)


def spoiled(spoil, at=1):
    """The training stream with one batch changed."""

    def batches_fn(epoch):
        for index, (features, labels) in enumerate(stream(TRAIN)(epoch)):
            yield spoil(features, labels) if index == at else (features, labels)

    return batches_fn


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f, y: (f | {"good": f["good"] * np.nan}, y), "'good' holds NaN or infinity in ep"),
        (lambda f, y: ({"good": f["good"]}, y), r"has the features \['good'\], but the first"),
        (
            lambda f, y: (f | {"good": f["short"]}, y),
            r"'good' of a training batch must be \[16 6\]",
        ),
        (lambda f, y: (f, y + 1), "with num_classes=3 they must be 0 to 2"),
        (lambda f, y: (f, y.astype(float)), "must be integers, not float64"),
        (
            lambda f, y: ({n: np.tile(x, (2, 1)) for n, x in f.items()}, np.tile(y, 2)),
            "has 32 examples, but the first training batch, which must be the largest, has 16",
        ),
    ],
)
def test_a_bad_batch_is_refused_in_words(spoil, message):
    with pytest.raises(ValueError, match=message):
        stream_probe(spoiled(spoil), stream(TEST), num_classes=3, protocol=FAST)


def test_a_bad_stream_is_refused_in_words():
    def run(train=None, test=None, protocol=FAST, **options):
        return stream_probe(
            train or stream(TRAIN),
            test or stream(TEST),
            num_classes=3,
            protocol=protocol,
            **options,
        )

    def constant(epoch):
        for features, labels in stream(TRAIN)(epoch):
            yield features | {"short": np.full_like(features["short"], 0.1)}, labels

    with pytest.raises(ValueError, match="the training stream holds the class 2 alone"):
        run(stream(TRAIN, labels=np.full(120, 2)))
    with pytest.raises(ValueError, match="'short' is the same in every example"):
        run(constant)
    with pytest.raises(ValueError, match="the training stream of epoch 0 holds no batch"):
        run(stream([]))
    with pytest.raises(ValueError, match="the test stream holds no batch"):
        run(test=stream([]))
    with pytest.raises(ValueError, match="epoch 0 has 4 batches, but steps_per_epoch is 5"):
        run(steps_per_epoch=5)
    with pytest.raises(ValueError, match="MAE linear probe: its learning rate changes by step"):
        run(protocol=MAE_PROBE)
    with pytest.raises(ValueError, match="names no feature"):
        run(stream(TRAIN, names=()))
    with pytest.raises(ValueError, match="norm must be one of none, batch, l2_batch, not 'layer'"):
        dataclasses.replace(FAST, norm="layer")
    with pytest.raises(ValueError, match="warmup_epochs needs schedule='step'"):
        dataclasses.replace(FAST, warmup_epochs=2)
