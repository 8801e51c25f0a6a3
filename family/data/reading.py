"""Read and decode rows with threads, in order, a bounded number ahead. No TensorFlow."""

import collections
import concurrent.futures
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import numpy as np

from family.data.dataset import Rows
from family.data.images import ImageError, Preprocessing, decode_image, decode_sizes
from family.errors import Failure
from family.machine import n_cores


def map_ahead(function: Callable, items: Iterable, ahead: int = 64) -> Iterator:
    """Map with one thread a core, in order, with at most `ahead` items under way: memory does not grow with their number."""
    waiting = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(n_cores()) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def read_batches(rows: Rows, how: Preprocessing, batch_size: int) -> Iterator[np.ndarray]:
    """Yield uint8 [<= batch_size, px, px, 3] of all rows in their order."""
    return (batch[how] for batch in read_sizes(rows, (how,), batch_size))


def read_sizes(rows: Rows, hows: Iterable[Preprocessing], batch_size: int) -> Iterator[dict[Preprocessing, np.ndarray]]:
    """Yield uint8 [<= batch_size, px, px, 3] of all rows in their order for each way to resize; an image is decoded once."""

    def read(row: int) -> dict[Preprocessing, np.ndarray]:
        try:
            return decode_sizes(rows.read(row), hows)
        except ImageError as error:
            raise ImageError(f"{rows.images[row]}: {error}") from error

    batch = []
    for images in map_ahead(read, range(len(rows)), ahead=2 * batch_size):
        batch.append(images)
        if len(batch) == batch_size:
            yield _stack(batch)
            batch = []
    if batch:
        yield _stack(batch)


def _stack(batch: list[dict[Preprocessing, np.ndarray]]) -> dict[Preprocessing, np.ndarray]:
    return {how: np.stack([images[how] for images in batch]) for how in batch[0]}


def _reserve(file: BinaryIO, n_bytes: int) -> None:
    """Make a file as long as it will be: on a disk that fills up while a mapped file grows, the system ends the process."""
    try:
        os.posix_fallocate(file.fileno(), 0, max(n_bytes, 1))
    except OSError as error:
        raise Failure(f"{n_bytes / 1e9:.1f} GB for decoded images can't be had ({error.strerror}); make room, or take fewer or smaller images") from error


def decode_all(rows: Rows, how: Preprocessing, file: BinaryIO | None = None) -> np.ndarray:
    """Return uint8 [n, px, px, 3] of rows, as a model sees them; all of it is in memory, or in a file, from which it is read where it is used."""
    shape = (len(rows), how.resolution_px, how.resolution_px, 3)
    if file is not None:
        _reserve(file, math.prod(shape))
    pixels = np.empty(shape, np.uint8) if file is None else np.memmap(file, np.uint8, "w+", shape=shape)
    for row, image in enumerate(map_ahead(lambda row: decode_image(rows.read(row), how), range(len(rows)))):
        pixels[row] = image
    return pixels
