"""Read and decode rows with threads, in order, a bounded number ahead. No TensorFlow."""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from family.data.dataset import Rows
from family.data.images import ImageError, Preprocessing, decode_image


def map_ahead(function: Callable, items: Iterable, ahead: int = 64) -> Iterator:
    """Map with one thread a core, in order, with at most `ahead` items under way: memory does not grow with their number."""
    waiting = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def read_batches(rows: Rows, how: Preprocessing, batch_size: int) -> Iterator[np.ndarray]:
    """Yield uint8 [<= batch_size, px, px, 3] of all rows in their order."""

    def read(row: int) -> np.ndarray:
        try:
            return decode_image(rows.read(row), how)
        except ImageError as error:
            raise ImageError(f"{rows.images[row]}: {error}") from error

    batch = []
    for image in map_ahead(read, range(len(rows)), ahead=2 * batch_size):
        batch.append(image)
        if len(batch) == batch_size:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)
