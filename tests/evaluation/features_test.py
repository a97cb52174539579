import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.evaluation.features import extract

NUM_EXAMPLES = 65  # 65 = 9 * 7 + 2 = 64 + 1: both batch sizes end in a partial batch
IMAGES = np.random.default_rng(0).integers(0, 256, (NUM_EXAMPLES, 4, 4, 3), np.uint8)


def encoder():
    shapes = []

    @jax.jit
    def encode(images):
        shapes.append(images.shape)  # runs when the function is traced, so once a compilation
        x = images.astype(jnp.float32)
        return {
            "sum": jnp.sum(x, axis=(1, 2, 3))[:, None],
            "pixels": x.reshape(len(x), -1).astype(jnp.bfloat16),
        }

    return encode, shapes


@pytest.mark.parametrize("batch_size", [1, 7, 64, 100])
def test_every_picture_once_in_order_with_one_compilation(batch_size):
    encode, shapes = encoder()
    asked = []

    def images_fn(indices):
        assert indices.dtype == np.int64
        asked.append(indices)
        return IMAGES[indices]

    features = extract(encode, images_fn, NUM_EXAMPLES, batch_size)

    np.testing.assert_array_equal(np.concatenate(asked), np.arange(NUM_EXAMPLES))
    assert shapes == [(batch_size, 4, 4, 3)]
    assert {name: value.shape for name, value in features.items()} == {
        "sum": (NUM_EXAMPLES, 1),
        "pixels": (NUM_EXAMPLES, 48),
    }
    assert all(value.dtype == np.float32 for value in features.values())
    np.testing.assert_array_equal(features["sum"][:, 0], IMAGES.sum(axis=(1, 2, 3)))
    # uint8 fits into bfloat16's 8 bits exactly.
    np.testing.assert_array_equal(features["pixels"], IMAGES.reshape(NUM_EXAMPLES, -1))


def test_a_batch_is_sent_before_the_one_before_it_is_fetched():
    events = []

    class Feature:
        """Stands for a device array: it tells when it is fetched."""

        def __init__(self, number):
            self.number = number

        def __array__(self, dtype=None, copy=None):
            events.append(("fetch", self.number))
            return np.zeros((2, 1), np.float32)

    def encode(images):
        events.append(("send", int(images[0, 0, 0, 0])))
        return {"z": Feature(int(images[0, 0, 0, 0]))}

    numbers = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    extract(encode, lambda indices: numbers[indices], 6, 2, shard=lambda images: images)
    order = [("send", 0), ("send", 2), ("fetch", 0), ("send", 4), ("fetch", 2), ("fetch", 4)]
    assert events == order


def test_sharded_batches_give_the_same_features():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    placed = []

    def shard(images):
        placed.append(jax.device_put(images, sharding))
        return placed[-1]

    encode, _ = encoder()
    batch_size = 2 * len(jax.devices())
    sharded = extract(encode, lambda i: IMAGES[i], NUM_EXAMPLES, batch_size, shard=shard)
    assert all(images.sharding == sharding for images in placed)
    np.testing.assert_array_equal(sharded["sum"][:, 0], IMAGES.sum(axis=(1, 2, 3)))


def test_wrong_sizes_are_refused_in_words():
    encode, _ = encoder()
    with pytest.raises(ValueError, match="at least 1, but are 0 and 7"):
        extract(encode, lambda i: IMAGES[i], 0, 7)
    with pytest.raises(ValueError, match="gave 3 pictures for 7 positions"):
        extract(encode, lambda i: IMAGES[:3], NUM_EXAMPLES, 7)
    with pytest.raises(ValueError, match=r"'map' must be \[batch, d\]"):
        extract(lambda images: {"map": images}, lambda i: IMAGES[i], NUM_EXAMPLES, 7)
