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

from soda_jax.array_types import Array
from soda_jax.data.records import Source

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


def device_batches(
    source: Source,
    put_replicated: Callable[[np.ndarray], Array],
    shard: Callable[[np.ndarray], Array],
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
) -> Batches:
    """Batches gathered on the device from the whole set, which lies there as uint8.

    Args:
      put_replicated: uint8 [n h w c], the same on every process -> a copy on every device.
      shard: int32 [b], the *whole* batch's indices, the same on every process -> a global array
        split over the batch axis. The pictures of the batch take its sharding.

    Returns:
      An iterator over uint8 [b h w c] of the steps start_step, start_step + 1, ...
    """
    pictures = put_replicated(read_all(source))

    def batches() -> Iterator[Array]:
        for step in itertools.count(start_step):
            indices = shard(batch_indices(seed, step, batch_size, len(source)).astype(np.int32))
            yield _gather(indices.sharding)(pictures, indices)

    return Batches(batches(), lambda: None)


@functools.lru_cache(maxsize=8)
def _gather(sharding: jax.sharding.Sharding) -> Callable[[Array, Array], Array]:
    return jax.jit(lambda pictures, indices: pictures[indices], out_shardings=sharding)


def host_batches(
    source: Source,
    shard_local: Callable[[np.ndarray], Array],
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    prefetch: int = 2,
) -> Batches:
    """Batches decoded on the host, ahead of time, by a thread of their own.

    Each process decodes one contiguous share of the batch's indices.

    Args:
      shard_local: uint8 [b/process_count h w c], this process's share -> the global array.
      prefetch: batches that are made ahead.

    Returns:
      An iterator over uint8 [b h w c] of the steps start_step, start_step + 1, ... What goes wrong
      in the thread is raised by the `next` that would have returned the spoilt batch.
    """
    if batch_size % process_count:
        raise ValueError(
            f"batch_size {batch_size} cannot be divided among {process_count} processes"
        )
    if prefetch < 1:
        raise ValueError(f"prefetch must be at least 1, not {prefetch}")
    share = batch_size // process_count
    mine = slice(process_index * share, (process_index + 1) * share)
    ready: queue.Queue[np.ndarray | Exception] = queue.Queue(prefetch)
    stop = threading.Event()

    def hand_over(item: np.ndarray | Exception) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            with _decoders() as pool:
                for step in itertools.count(start_step):
                    indices = batch_indices(seed, step, batch_size, len(source))[mine]
                    local = _read(source, indices, pool, stop)
                    if stop.is_set():
                        return
                    hand_over(local)
        except Exception as error:  # it belongs to whoever asks for the batch
            hand_over(error)

    thread = threading.Thread(target=work, name="soda_jax.data", daemon=True)
    thread.start()

    def batches() -> Iterator[Array]:
        while True:
            item = ready.get()
            if isinstance(item, Exception):
                raise item
            yield shard_local(item)

    def close() -> None:
        stop.set()
        thread.join()

    return Batches(batches(), close)


def read_all(source: Source) -> np.ndarray:
    """All pictures of a source, uint8 [n h w c]."""
    with _decoders() as pool:
        return _read(source, np.arange(len(source)), pool, threading.Event())


def _decoders() -> concurrent.futures.ThreadPoolExecutor:
    # Pillow lets go of the interpreter's lock while it decodes.
    workers = min(16, os.cpu_count() or 1)
    return concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="soda_jax.decode")


def _read(
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
