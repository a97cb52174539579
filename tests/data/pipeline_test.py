"""The order is a pure function of (seed, step): on devices, on hosts, after any restart."""

import itertools
import threading
import time

import jax
import numpy as np
import pytest
from PIL import Image

from soda_jax.data import pipeline, records
from soda_jax.data.cameras import Cameras
from soda_jax.data.pipeline import batch_indices, view_indices
from soda_jax.data.source_posed_arrays import PosedArrays
from soda_jax.data.sources import open_source

GOLDEN = (
    [3, 7, 6, 4, 1, 0, 2, 8],
    [49323, 45858, 15529, 45116, 38727, 21010, 44096, 37866],
)


def source(n=23):
    x = np.random.RandomState(0).randint(0, 256, (n, 4, 4, 3)).astype(np.uint8)
    return records.ArraySource("test", "train", 4, 3, x)


def order(seed, batch_size, n=23):
    return lambda step: batch_indices(seed, step, batch_size, n)


def take(batches, n):
    return [np.asarray(batch) for batch in itertools.islice(batches, n)]


@pytest.mark.parametrize("batch_size", [1, 4, 23, 50])
def test_every_epoch_is_a_permutation(batch_size):
    n = 23
    steps = 5 * n // batch_size + 5
    line = np.concatenate([batch_indices(0, step, batch_size, n) for step in range(steps)])
    assert line.dtype == np.int64 and len(line) == steps * batch_size
    epochs = line[: len(line) // n * n].reshape(-1, n)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(n), (len(epochs), 1)))
    assert len(np.unique(epochs, axis=0)) == len(epochs)


def test_a_batch_is_the_same_from_any_start_and_differs_by_seed():
    forwards = [batch_indices(3, step, 7, 23) for step in range(40)]
    pipeline._permutation.cache_clear()
    for step in (39, 0, 17, 3):
        np.testing.assert_array_equal(batch_indices(3, step, 7, 23), forwards[step])
    assert not np.array_equal(batch_indices(3, 0, 23, 23), batch_indices(4, 0, 23, 23))


def test_the_order_never_changes_between_versions():
    np.testing.assert_array_equal(batch_indices(0, 0, 8, 10), GOLDEN[0])
    np.testing.assert_array_equal(batch_indices(42, 1_000_003, 8, 50_000), GOLDEN[1])


def test_bad_sizes():
    with pytest.raises(ValueError, match="records 0"):
        batch_indices(0, 0, 4, 0)
    with pytest.raises(ValueError, match="divided among 3 processes"):
        pipeline.host_batches(
            source(), jax.device_put, order=order(0, 8), batch_size=8, process_count=3
        )


@pytest.mark.parametrize("start", [0, 5])
def test_device_and_host_give_bitwise_the_same_batches(start):
    options = dict(order=order(1, 10), start_step=start)
    with pipeline.device_batches(source(), jax.device_put, jax.device_put, **options) as batches:
        on_device = take(batches, 6)
    with pipeline.host_batches(source(), jax.device_put, batch_size=10, **options) as batches:
        on_host = take(batches, 6)
    np.testing.assert_array_equal(on_device, on_host)
    for k, batch in enumerate(on_host):
        expected = source().images(batch_indices(1, start + k, 10, 23))
        np.testing.assert_array_equal(batch, expected)
        assert batch.dtype == np.uint8


def test_two_processes_together_read_what_one_reads():
    options = dict(order=order(1, 20), batch_size=20, start_step=3, prefetch=1)
    with pipeline.host_batches(source(), jax.device_put, **options) as batches:
        whole = take(batches, 4)
    shares = []
    for process in range(2):
        options.update(process_index=process, process_count=2)
        with pipeline.host_batches(source(), jax.device_put, **options) as batches:
            shares.append(take(batches, 4))
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), whole)


def test_the_batch_takes_the_sharding_of_its_indices():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    over_batch = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    count = 4 * len(jax.devices())
    with pipeline.device_batches(
        source(),
        lambda x: jax.device_put(x, whole),
        lambda x: jax.device_put(x, over_batch),
        order=order(0, count),
    ) as batches:
        batch = next(batches)
    assert batch.shape == (count, 4, 4, 3) and batch.addressable_shards[0].data.shape[0] == 4
    np.testing.assert_array_equal(batch, source().images(batch_indices(0, 0, count, 23)))


def test_an_unreadable_picture_is_named_by_the_batch_that_needs_it(tmp_path):
    for k in range(8):
        Image.new("RGB", (4, 4), (k, k, k)).save(tmp_path / f"{k}.png")
    (tmp_path / "5.png").write_bytes(b"broken")
    folder = open_source("folder", "all", image_size=4, channels=3, path=str(tmp_path))
    guilty = next(step for step in range(8) if 5 in batch_indices(0, step, 1, 8))
    one = order(0, 1, n=8)
    with pipeline.host_batches(folder, jax.device_put, order=one, batch_size=1) as batches:
        take(batches, guilty)
        with pytest.raises(ValueError, match="5.png"):
            next(batches)
    with pytest.raises(ValueError, match="5.png"):
        pipeline.device_batches(folder, jax.device_put, jax.device_put, order=one)


class SlowSource:
    """Every picture takes 50 ms."""

    name, split, class_names, fingerprint, image_shape = "slow", "train", None, "", (4, 4, 3)

    def __len__(self):
        return 10_000

    def images(self, indices):
        time.sleep(0.05 * len(indices))
        return np.zeros((len(indices), 4, 4, 3), np.uint8)


def test_closing_stops_the_threads_at_once():
    before = set(threading.enumerate())
    many = order(0, 4096, n=10_000)
    batches = pipeline.host_batches(SlowSource(), jax.device_put, order=many, batch_size=4096)
    time.sleep(0.1)
    assert set(threading.enumerate()) - before
    start = time.monotonic()
    batches.close()
    assert time.monotonic() - start < 2  # the batch alone would take minutes
    assert not set(threading.enumerate()) - before
    with pytest.raises(StopIteration):
        next(batches)
    batches.close()


def test_closing_while_batches_wait_to_be_fetched():
    options = dict(order=order(0, 4), batch_size=4)
    with pipeline.host_batches(source(), jax.device_put, **options) as batches:
        next(batches)
        time.sleep(0.1)
    with pytest.raises(StopIteration):
        next(batches)


STARTS = np.array([0, 3, 8, 12])


def test_views_are_different_ones_of_one_object():
    batches = [view_indices(0, step, 4, STARTS, 3) for step in range(30)]
    for batch in batches:
        objects = np.searchsorted(STARTS, batch, side="right") - 1
        assert (objects == objects[:, :1]).all()
        assert all(len(set(row)) == 3 for row in batch.tolist())
    np.testing.assert_array_equal(view_indices(0, 7, 4, STARTS, 3), batches[7])
    # Every view of an object comes at every place.
    last = np.concatenate(batches)[:, 2]
    np.testing.assert_array_equal(np.unique(last), np.arange(12))


def test_an_object_with_too_few_views_is_named():
    with pytest.raises(ValueError, match="object 0 has 3 views; 4 are needed"):
        view_indices(0, 0, 4, STARTS, 4)


def test_posed_batches_are_the_same_from_device_and_host():
    seen = Cameras(
        np.random.RandomState(1).rand(12, 4, 4).astype(np.float32), np.ones((12, 4), np.float32)
    )
    pictures = np.random.RandomState(0).randint(0, 256, (12, 4, 4, 3)).astype(np.uint8)
    posed = PosedArrays("test", "train", 4, 3, pictures, seen=seen, starts=STARTS)
    assert isinstance(posed, records.PosedSource) and not isinstance(source(), records.PosedSource)
    options = dict(order=lambda step: view_indices(0, step, 4, STARTS, 3), start_step=2)
    with pipeline.device_batches(posed, jax.device_put, jax.device_put, **options) as batches:
        on_device = next(batches)
    with pipeline.host_batches(posed, jax.device_put, batch_size=4, **options) as batches:
        on_host = next(batches)
    jax.tree.map(np.testing.assert_array_equal, on_device, on_host)
    expected = view_indices(0, 2, 4, STARTS, 3)
    np.testing.assert_array_equal(on_host.images, pictures[expected])
    np.testing.assert_array_equal(on_host.seen.pose, seen.pose[expected])
