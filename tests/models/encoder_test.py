"""The ResNet v2 encoders against their published sizes, and their statistics."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.models.encoder import Encoder, ResNet, moments


def count(trunk, size=32):
    source = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    init = partial(trunk.init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), source)["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("variant", "parameters"),
    # torchvision's counts without the 1000-way head are 11,176,512, 21,284,672, 23,508,032 and
    # 42,500,160 (v1). In v2 the norms move: the last block's output norm becomes the final one,
    # and each projection loses its own.
    [
        ("resnet18", 11_176_512),
        ("resnet34", 21_284_672),
        ("resnet50", 23_508_032),
        ("resnet101", 42_500_160),
    ],
)
def test_parameter_counts_are_those_of_the_published_family(variant, parameters):
    expansion = 4 if variant in ("resnet50", "resnet101") else 1
    stages = [64 * 2**i for i in range(4)]
    projections = stages if expansion == 4 else stages[1:]
    shortcut_norms = sum(2 * expansion * features for features in projections)
    # v1: stem norm and one norm after each convolution; v2: one before each, and a final one.
    v1_outputs = 2 * 64
    blocks = {
        "resnet18": (2, 2, 2, 2),
        "resnet34": (3, 4, 6, 3),
        "resnet50": (3, 4, 6, 3),
        "resnet101": (3, 4, 23, 3),
    }
    inputs, outputs, channels = 0, 0, 64
    for features, depth in zip(stages, blocks[variant], strict=True):
        for _ in range(depth):
            inputs += 2 * channels
            outputs += 2 * features * expansion
            channels = features * expansion
    v2 = parameters - shortcut_norms - v1_outputs - outputs + inputs + 2 * channels
    assert count(ResNet(variant, stem="standard"), 64) == v2


def test_the_width_multiplier_scales_the_features():
    source = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    for multiplier, features in [(0.25, 128), (0.5, 256), (2, 1024)]:
        trunk = ResNet("resnet10", multiplier, norm="group")
        init = partial(trunk.init_with_output, train=False)
        output, _ = jax.eval_shape(init, jax.random.key(0), source)
        assert output.shape == (2, features)


def test_the_last_convolution_gives_as_many_features_as_are_asked_for():
    source = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    plain, wide = (ResNet("resnet10", 0.25, features=features) for features in (0, 300))
    init = partial(wide.init_with_output, train=False)
    output, _ = jax.eval_shape(init, jax.random.key(0), source)
    assert output.shape == (2, 300)
    # 128 channels come in; scale and bias of the norm.
    assert count(wide) == count(plain) + 128 * 300 + 2 * 300


def test_all_stages_are_pooled_before_the_last_or_the_last_alone():
    """With the same weights the last part is what the last stage gives alone."""
    source = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    stages, last = (
        ResNet("resnet10", 0.125, norm="group", pooling=pooling) for pooling in ("stages", "last")
    )
    variables = jax.jit(partial(stages.init, train=False))(jax.random.key(1), source)
    pooled, captured = jax.jit(
        partial(stages.apply, train=False, capture_intermediates=True, mutable="intermediates")
    )(variables, source)
    assert pooled.shape == (2, 8 + 16 + 32 + 64)
    shared = {k: v for k, v in variables["params"].items() if not k.startswith("pooled")}
    assert len(shared) + 3 == len(variables["params"])
    alone = jax.jit(partial(last.apply, train=False))({"params": shared}, source)
    np.testing.assert_allclose(pooled[:, -64:], alone, rtol=0, atol=1e-6)
    # Before it, from fine to coarse, the averages of what the stages' norms give.
    begin = 0
    for stage, width in enumerate((8, 16, 32)):
        (level,) = captured["intermediates"][f"pooled_stage{stage}"]["__call__"]
        assert level.shape == (2, 16 // 2**stage, 16 // 2**stage, width)
        part = pooled[:, begin : begin + width]
        np.testing.assert_allclose(part, level.mean((1, 2)), rtol=0, atol=1e-6)
        begin += width


def test_deviations_over_the_picture_stand_after_the_means():
    source = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    one, two = (ResNet("resnet10", 0.125, norm="group", moments=number) for number in (1, 2))
    variables = jax.jit(partial(one.init, train=False))(jax.random.key(1), source)
    means = jax.jit(partial(one.apply, train=False))(variables, source)
    pooled, captured = jax.jit(
        partial(two.apply, train=False, capture_intermediates=True, mutable="intermediates")
    )(variables, source)
    assert pooled.shape == (2, 128)
    np.testing.assert_allclose(pooled[:, :64], means, rtol=0, atol=1e-6)
    (h,) = captured["intermediates"]["norm"]["__call__"]
    expected = np.sqrt(np.asarray(h, np.float64).var((1, 2)) + 1e-3)
    np.testing.assert_allclose(pooled[:, 64:], expected, rtol=1e-5)
    # A channel that is one number over the picture has a deviation whose gradient is finite.
    flat = jax.grad(lambda h: sum(part.sum() for part in moments(h, 2)))(jnp.ones((1, 4, 4, 2)))
    assert jnp.isfinite(flat).all()


def test_an_encoder_is_told_where_its_pixels_lie():
    """As one that sees two channels more: down and right, from -1 to 1."""
    source = jax.random.normal(jax.random.key(0), (2, 4, 8, 3))
    told, plain = (ResNet("resnet10", 0.125, norm="group", places=told) for told in (True, False))
    down = np.broadcast_to(np.array([-0.75, -0.25, 0.25, 0.75])[:, None], (2, 4, 8))
    right = np.broadcast_to((2 * np.arange(8) - 7) / 8, (2, 4, 8))
    beside = jnp.concatenate([source, np.stack([down, right], axis=-1)], axis=-1)
    variables = jax.jit(partial(told.init, train=False))(jax.random.key(1), source)
    pooled = jax.jit(partial(told.apply, train=False))(variables, source)
    expected = jax.jit(partial(plain.apply, train=False))(variables, beside)
    np.testing.assert_allclose(pooled, expected, rtol=0, atol=1e-6)


def test_stems_reduce_the_resolution_by_one_and_by_four():
    source = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)

    def first_stage(stem):
        def run():
            return ResNet("resnet10", 0.125, stem, "group").init_with_output(
                jax.random.key(0), jnp.zeros(source.shape), False, capture_intermediates=True
            )[1]["intermediates"]["stage0_block0"]["__call__"][0]

        return jax.eval_shape(run).shape[1]

    assert (first_stage("small"), first_stage("standard")) == (64, 16)


def test_batch_statistics_move_in_training_and_serve_at_evaluation():
    encoder = Encoder(z_size=5, trunk=ResNet("resnet10", 0.125, norm="batch"))
    source = jax.random.normal(jax.random.key(0), (4, 16, 16, 3)) + 2
    variables = jax.jit(encoder.init)(jax.random.key(1), source)
    apply = jax.jit(encoder.apply, static_argnames=("train", "mutable"))
    _, updates = apply(variables, source, train=True, mutable=("batch_stats",))
    before, after = variables["batch_stats"], updates["batch_stats"]
    assert all(
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    )
    # At evaluation a picture's code doesn't depend on its batch; in training it does.
    alone, together = apply(variables, source[:1]), apply(variables, source)[:1]
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_a_normalised_code_has_mean_0_and_variance_1_over_a_batch():
    encoder = Encoder(z_size=5, trunk=ResNet("resnet10", 0.125), code_norm="batch")
    source = (
        jax.random.normal(jax.random.key(0), (8, 16, 16, 3)) * jnp.arange(1, 9)[:, None, None, None]
    )
    variables = jax.jit(encoder.init)(jax.random.key(1), source)
    apply = jax.jit(encoder.apply, static_argnames=("train", "mutable"))
    z, _ = apply(variables, source, train=True, mutable=("batch_stats",))
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(z.var(0), 1, atol=1e-2)


def test_group_norm_leaves_no_statistics():
    encoder = Encoder(z_size=5, trunk=ResNet("resnet10", 0.125, norm="group"))
    variables = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    assert set(variables) == {"params"}
