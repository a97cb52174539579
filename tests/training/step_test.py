"""The step's arithmetic: accumulation, the streams of random numbers, the diagnostics of z."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from soda_jax import rngs
from soda_jax.array_types import Batch
from soda_jax.data.views import View, pair
from soda_jax.diffusion.process import Process
from soda_jax.diffusion.schedule import InvertedCosine
from soda_jax.models.autoencoder import DiffusionAutoencoder
from soda_jax.models.bottleneck import Bottleneck, Predictor
from soda_jax.models.denoiser import Denoiser
from soda_jax.models.encoder import Encoder, ResNet
from soda_jax.training import step as step_lib
from soda_jax.training.objective import code_losses, training_loss
from soda_jax.training.optimizer import make_optimizer
from soda_jax.training.state import create
from soda_jax.training.step import in_the_order_of_parameters, make_train_step, update_where

PROCESS = Process(InvertedCosine())
VIEW = View(size=8)
MODEL = DiffusionAutoencoder(
    encoder=Encoder(6, ResNet("resnet10", 1 / 32, norm="group")),
    bottleneck=Bottleneck(3, 0.2, 0.2),
    denoiser=Denoiser(8, (1,), 1, (), mid_attention=False, dropout=0.1, zero_init=False),
)
LEARNING_RATE = 0.5


@pytest.fixture(scope="module")
def variables():
    picture = jnp.zeros((1, 8, 8, 3))
    return jax.jit(MODEL.init)(jax.random.key(0), picture, picture, jnp.zeros(1))


@pytest.fixture(scope="module")
def images():
    return np.random.RandomState(0).randint(0, 256, (8, 8, 8, 3)).astype(np.uint8)


def test_accumulated_steps_average_their_parts(variables, images):
    """With plain gradient descent the update of two parts is the mean of the parts' gradients."""
    tx = optax.sgd(LEARNING_RATE)
    step = make_train_step(
        MODEL, PROCESS, VIEW, VIEW, tx, seed=5, accumulate=2, ema_decay=0.9, ema_warmup=False
    )
    state = jax.jit(lambda: create(variables, tx))()
    new_state, metrics = jax.jit(step)(state, images)

    key = rngs.stream(rngs.root(5), "train", 0)

    @jax.jit
    def part_gradient(part, index):
        part_key = rngs.stream(key, "part", index)
        batch = pair(rngs.stream(part_key, "views"), part, VIEW, VIEW)
        return jax.value_and_grad(
            lambda params: training_loss(MODEL, PROCESS, params, {}, batch, part_key)[0]
        )(variables["params"])

    (loss0, gradient0), (loss1, gradient1) = (part_gradient(images[i::2], i) for i in range(2))
    np.testing.assert_allclose(metrics["loss"], (loss0 + loss1) / 2, rtol=1e-5)
    before, new_state, gradient0, gradient1 = jax.device_get(
        (variables["params"], new_state, gradient0, gradient1)
    )
    expected = jax.tree.map(
        lambda p, a, b: p - LEARNING_RATE * (a + b) / 2, before, gradient0, gradient1
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        new_state.params,
        expected,
    )
    average = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, before, new_state.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        new_state.ema_params,
        average,
    )


def test_several_targets_share_the_code_of_their_picture(variables, images):
    """Three targets of a source are the pairs that three copies of the source would make."""
    batch = pair(jax.random.key(2), images[:4], VIEW, VIEW, targets=3)
    copied = Batch(jnp.repeat(batch.source, 3, axis=0), batch.target)

    @jax.jit
    def loss(batch):
        key = jax.random.key(1)
        return training_loss(MODEL, PROCESS, variables["params"], {}, batch, key)[0]

    np.testing.assert_allclose(loss(batch), loss(copied), rtol=1e-5)
    swapped = Batch(jnp.roll(batch.source, 1, axis=0), batch.target)
    assert abs(loss(swapped) - loss(batch)) > 1e-4


def test_the_moving_average_is_what_is_guessed_and_learns_nothing_by_it(images):
    """Its error depends on the average without a gradient to it, and has one to the encoder; the
    predictor goes at the denoiser's rate."""
    bootstrapped = DiffusionAutoencoder(
        MODEL.encoder,
        Bottleneck(3, 0.2, 0.2, penalty="bootstrap", penalty_weight=1.0),
        MODEL.denoiser,
        predictor=Predictor(width=4),
    )
    picture = jnp.zeros((1, 8, 8, 3))
    initial = jax.jit(bootstrapped.init)(jax.random.key(0), picture, picture, jnp.zeros(1))
    batch = pair(jax.random.key(2), images[:4], VIEW, VIEW, pairs=2)

    @jax.jit
    def losses(params, average):
        def loss(params, average):
            average = {"params": average, "batch_stats": {}}
            key = jax.random.key(1)
            return training_loss(bootstrapped, PROCESS, params, {}, batch, key, average=average)[0]

        return jax.value_and_grad(loss, (0, 1))(params, average)

    params = initial["params"]
    same, (gradient, none) = losses(params, params)
    assert not optax.global_norm(none)
    assert optax.global_norm(gradient["predictor"]) > 1e-3
    other, (other_gradient, _) = losses(params, jax.tree.map(lambda leaf: -leaf, params))
    assert abs(other - same) > 1e-3
    changed = jax.tree.map(jnp.subtract, gradient["encoder"], other_gradient["encoder"])
    assert optax.global_norm(changed) > 1e-3

    tx = make_optimizer(
        optax.constant_schedule(0.0), optax.constant_schedule(1.0),
        b1=0.9, b2=0.95, weight_decay=0.0, clip_norm=0.0,
    )  # fmt: skip
    step = make_train_step(
        bootstrapped, PROCESS, VIEW, VIEW, tx,
        pairs=2, seed=5, accumulate=1, ema_decay=0.9, ema_warmup=False,
    )  # fmt: skip
    state = create(initial, tx)
    changed, _ = jax.jit(step)(state, images[:4])
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), changed.params, params)
    assert max(jax.tree.leaves(moved["encoder"])) == 0
    assert min(jax.tree.leaves(moved["predictor"])) > 0


def test_streams_differ_by_name_and_step_and_are_otherwise_the_same():
    def draw(*arguments):
        return float(jax.random.normal(rngs.stream(*arguments)))

    root = rngs.root(0)
    draws = [draw(root, "a", 0), draw(root, "a", 1), draw(root, "b", 0), draw(rngs.root(1), "a", 0)]
    assert len(set(draws)) == 4
    assert draw(root, "a", 0) == draw(rngs.root(0), "a", 0) == draws[0]


def test_the_losses_with_and_without_z_tell_whether_it_is_used(variables, images):
    batch = Batch(*(jnp.asarray(images, jnp.float32) / 127.5 - 1,) * 2)

    @jax.jit
    def losses(params):
        return code_losses(MODEL, PROCESS, params, {}, batch, jax.random.key(1))[0]

    used = losses(variables["params"])
    assert len({float(loss) for loss in used.values()}) == 3

    def without_code(path, leaf):
        return leaf * 0 if any(getattr(key, "key", "") == "code" for key in path) else leaf

    unread = jax.tree_util.tree_map_with_path(without_code, variables["params"])
    ignored = losses(unread)
    assert float(ignored["z"]) == float(ignored["shuffled"]) == float(ignored["null"])


@pytest.mark.parametrize("how", [step_lib._branch, step_lib._choice])
def test_a_state_that_is_kept_is_kept_to_the_bit_by_branch_and_by_choice(how):
    state = {"a": jnp.asarray([1.5, -0.0, 2.0]), "step": jnp.asarray(3, jnp.int32)}
    update = {"a": jnp.asarray([jnp.nan, 1.0, jnp.inf]), "step": jnp.asarray(4, jnp.int32)}
    keep = jax.jit(lambda finite, state: how(lambda _: update, finite, state))
    for finite, expected in ((False, state), (True, update)):
        found = keep(jnp.asarray(finite), state)
        for name in state:
            assert found[name].dtype == expected[name].dtype
            assert np.asarray(found[name]).tobytes() == np.asarray(expected[name]).tobytes()


def test_on_a_gpu_the_state_is_chosen_in_its_own_layout_and_on_a_cpu_it_is_a_branch():
    def step(finite, a):
        return update_where(finite, lambda a: 2 * a, in_the_order_of_parameters(a))

    traced = jax.jit(step).trace(jnp.asarray(True), jnp.ones(3))
    text = {
        name: traced.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "cuda", "tpu")
    }
    assert {name: "stablehlo.select" in text[name] for name in text} == {
        "cpu": False, "cuda": True, "tpu": False,
    }  # fmt: skip
    assert {name: "@LayoutConstraint" in text[name] for name in text} == {
        "cpu": False, "cuda": True, "tpu": False,
    }  # fmt: skip
    np.testing.assert_array_equal(jax.jit(step)(jnp.asarray(True), jnp.ones(3)), 2 * np.ones(3))
