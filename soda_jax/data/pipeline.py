"""The order of the pictures, a pure function of (seed, step), and the batches in that order.

No iterator has a state to save: to resume is to start at another step. Only pictures travel here;
labels never do.
"""

import concurrent.futures
import functools
import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterator

import jax
import numpy as np

from soda_jax.array_types import Array, PyTree
from soda_jax.data.cameras import Cameras
from soda_jax.data.records import Source
from soda_jax.data.views import Posed

CHUNK = 8  # pictures that a thread decodes at a time: closing waits for no more than this


def batch_indices(seed: int, step: int, batch_size: int, num_examples: int) -> np.ndarray:
    """Which records [b] make up the batch of a step.

    Random permutations of all records, one an epoch, lie end to end, and batch k is the k-th piece
    of that line: every record comes once an epoch, and a batch may straddle two of them or more.
    """
    if batch_size < 1 or num_examples < 1:
        raise ValueError(f"batches need pictures: batch_size {batch_size}, records {num_examples}")
    first, last = step * batch_size, (step + 1) * batch_size
    pieces = []
    for epoch in range(first // num_examples, (last - 1) // num_examples + 1):
        start = epoch * num_examples
        order = _permutation(seed, epoch, num_examples)
        pieces.append(order[max(first - start, 0) : last - start])
    return np.concatenate(pieces)


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    # RandomState: numpy promises that its streams never change.
    order = np.random.RandomState([seed, epoch]).permutation(num_examples).astype(np.int64)
    order.setflags(write=False)
    return order


class Batches:
    """An endless iterator over the batches from one step on, and a context manager.

    Close it, or leave its `with`, to stop the thread behind it at once.
    """

    def __init__(self, batches: Iterator[Array], close: Callable[[], None]):
        self._batches = batches
        self._close = close

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Array:
        return next(self._batches)

    def close(self) -> None:
        self._batches = iter(())
        self._close()

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *unused) -> None:
        self.close()


def view_indices(seed: int, step: int, batch_size: int, starts: np.ndarray, views: int):
    """Which pictures [b v] make up the batch of a step, where starts [n + 1] tells objects apart.

    Objects come in the order of `batch_indices`; of each, as many different views, at random.

    Raises:
      ValueError: an object has fewer views.
    """
    counts = np.diff(starts)
    if counts.min() < views:
        raise ValueError(
            f"object {int(counts.argmin())} has {counts.min()} views; {views} are needed, for "
            "sources and target"
        )
    objects = batch_indices(seed, step, batch_size, len(counts))
    draws = np.random.RandomState([seed, step, 1]).random_sample((batch_size, counts.max()))
    draws[np.arange(counts.max())[None] >= counts[objects][:, None]] = 2  # views that aren't there
    return starts[objects][:, None] + np.argsort(draws, axis=1)[:, :views]


def device_batches(
    source: Source,
    put_replicated: Callable[[np.ndarray], Array],
    shard: Callable[[np.ndarray], Array],
    *,
    order: Callable[[int], np.ndarray],
    start_step: int = 0,
) -> Batches:
    """Batches gathered on the device from the whole set, which lies there as uint8.

    Args:
      put_replicated: an array, the same on every process -> a copy on every device.
      shard: int32 [b] or [b v], the *whole* batch's indices, the same on every process -> a global
        array split over the batch axis. The pictures of the batch take its sharding.
      order: step -> the indices of its pictures.

    Returns:
      An iterator over the steps start_step, start_step + 1, ...: uint8 [b h w c], or Posed where
      the order gives several views, for which the source must have cameras.
    """
    records = put_replicated(read_all(source))
    if order(start_step).ndim == 2:
        seen = source.cameras(np.arange(len(source)))
        records = Posed(records, Cameras(*map(put_replicated, seen)))

    def batches() -> Iterator[Array | Posed]:
        for step in itertools.count(start_step):
            indices = shard(order(step).astype(np.int32))
            yield _gather(indices.sharding)(records, indices)

    return Batches(batches(), lambda: None)


@functools.lru_cache(maxsize=8)
def _gather(sharding: jax.sharding.Sharding) -> Callable[[PyTree, Array], PyTree]:
    def gather(records, indices):
        return jax.tree.map(lambda array: array[indices], records)

    return jax.jit(gather, out_shardings=sharding)


def host_batches(
    source: Source,
    shard_local: Callable[[np.ndarray], Array],
    *,
    order: Callable[[int], np.ndarray],
    batch_size: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    prefetch: int = 2,
) -> Batches:
    """Batches decoded on the host, ahead of time, by a thread of their own.

    Each process decodes one contiguous share of the batch's indices.

    Args:
      shard_local: an array [b/process_count ...], this process's share -> the global array.
      order: step -> the indices of its pictures, [b] or [b v].
      prefetch: batches that are made ahead.

    Returns:
      An iterator as `device_batches` gives. What goes wrong in the thread is raised by the `next`
      that would have returned the spoilt batch.
    """
    if batch_size % process_count:
        raise ValueError(
            f"batch_size {batch_size} cannot be divided among {process_count} processes"
        )
    if prefetch < 1:
        raise ValueError(f"prefetch must be at least 1, not {prefetch}")
    share = batch_size // process_count
    mine = slice(process_index * share, (process_index + 1) * share)
    ready: queue.Queue[PyTree | Exception] = queue.Queue(prefetch)
    stop = threading.Event()

    def hand_over(item: PyTree | Exception) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            with _decoders() as pool:
                for step in itertools.count(start_step):
                    local = _read(source, order(step)[mine], pool, stop)
                    if stop.is_set():
                        return
                    hand_over(local)
        except BaseException as error:  # it belongs to whoever asks for the batch
            hand_over(error)

    thread = threading.Thread(target=work, name="soda_jax.data", daemon=True)
    thread.start()

    def batches() -> Iterator[Array]:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield jax.tree.map(shard_local, item)

    def close() -> None:
        stop.set()
        thread.join()

    return Batches(batches(), close)


def read_all(source: Source) -> np.ndarray:
    """All pictures of a source, uint8 [n h w c]."""
    with _decoders() as pool:
        return _read_pictures(source, np.arange(len(source)), pool, threading.Event())


def read_batch(source: Source, indices: np.ndarray) -> np.ndarray | Posed:
    """The pictures at indices [b], or views with their cameras at [b v]."""
    with _decoders() as pool:
        return _read(source, indices, pool, threading.Event())


def _decoders() -> concurrent.futures.ThreadPoolExecutor:
    # Pillow lets go of the interpreter's lock while it decodes.
    workers = min(16, os.cpu_count() or 1)
    return concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="soda_jax.decode")


def _read(
    source: Source,
    indices: np.ndarray,
    pool: concurrent.futures.ThreadPoolExecutor,
    stop: threading.Event,
) -> np.ndarray | Posed:
    """A batch [b] of pictures, or of views [b v] with their cameras."""
    pictures = _read_pictures(source, indices.reshape(-1), pool, stop)
    pictures = pictures.reshape(*indices.shape, *pictures.shape[1:])
    return Posed(pictures, source.cameras(indices)) if indices.ndim == 2 else pictures


def _read_pictures(
    source: Source,
    indices: np.ndarray,
    pool: concurrent.futures.ThreadPoolExecutor,
    stop: threading.Event,
) -> np.ndarray:
    """Pictures in the order of indices; unfinished, and not to be used, once stop is set."""
    pictures = np.empty((len(indices), *source.image_shape), np.uint8)

    def read(start: int) -> None:
        if not stop.is_set():
            part = slice(start, start + CHUNK)
            pictures[part] = source.images(indices[part])

    try:
        for _ in pool.map(read, range(0, len(indices), CHUNK)):
            pass
    except Exception:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return pictures
