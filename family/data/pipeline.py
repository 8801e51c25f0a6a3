"""Rows to pixels for training: `tf.data` maps rows and keeps their order; it never chooses them."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from family.data.dataset import Rows
from family.data.images import Preprocessing, decode_image
from family.recipe import Recipe


def training_batches(rows: Rows, slices: list, how: Preprocessing, recipe: Recipe, epoch: int) -> Iterator[tuple]:
    """Yield (images uint8 [n, px, px, 3], labels int32 [n, 2], weights float32 [n, 2], start, total) for each update.

    Args:
        slices: of `family.data.order.epoch_slices`.
    """
    if not slices:
        return
    slices = [at_least_one_row(*part) for part in slices]
    order = np.concatenate([own for own, *_ in slices])
    batches = seen_batches(rows, order, how, recipe, epoch, max(len(own) for own, *_ in slices))
    for images, (own, weight, start, total) in zip(batches, slices, strict=True):
        yield images, *targets(rows.labels[own], weight), start, total


def seen_batches(rows: Rows, order: np.ndarray, how: Preprocessing, recipe: Recipe, epoch: int, batch_size: int) -> tf.data.Dataset:
    """Return uint8 [<= batch_size, px, px, 3] of rows in the given order, cropped and flipped as an epoch of training sees them."""

    def read(row: int) -> np.ndarray:
        box, flip = draw_crop(recipe, epoch, int(row))
        pixels = decode_image(rows.read(row), how, box)
        return pixels[:, ::-1] if flip else pixels

    return _decoded(order, batch_size, read, how.resolution_px)


def targets(labels: np.ndarray, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (labels int32 [n, 2], weights float32 [n, 2]) of rows that are not mixed: the second label has no share."""
    return np.stack([labels, labels], 1), np.tile(np.float32([weight, 0]), (len(labels), 1))


def at_least_one_row(own: np.ndarray, start: int, total: int) -> tuple[np.ndarray, float, int, int]:
    """Return (rows, their weight, start, total): a slice without rows gets one of weight 0, since every rank takes part in every update.

    It stands in the first row's place, for which there are random draws; a place after the last row has none.
    """
    return (own, 1.0, start, total) if len(own) else (np.zeros(1, np.int64), 0.0, 0, total)


def plain_batches(rows: Rows, how: Preprocessing, batch_size: int) -> Iterator[tf.Tensor]:
    """Yield uint8 [<= batch_size, px, px, 3] of all rows in their order, as they are evaluated and served."""
    return iter(_decoded(np.arange(len(rows)), batch_size, lambda row: decode_image(rows.read(row), how), how.resolution_px))


def _decoded(order: np.ndarray, batch_size: int, read, px: int) -> tf.data.Dataset:
    def decode(row):
        pixels = tf.numpy_function(read, [row], tf.uint8, stateful=False)
        return tf.ensure_shape(pixels, (px, px, 3))

    rows = tf.data.Dataset.from_tensor_slices(order)
    # Decoding runs outside of Python's lock; two in flight per core keep it busy, and memory is bounded by a few batches.
    return rows.map(decode, num_parallel_calls=4, deterministic=True).batch(batch_size).prefetch(2).with_options(_fixed())


def _fixed() -> tf.data.Options:
    # Nothing here is left to tune, and the tuner's thread, which sleeps twice as long each time (10 ms up to a minute), is waited
    # for at the end of every pass over the data: an epoch of 0.7 s took 1.3 to 2.8 s, measured on two cores.
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def draw_crop(recipe: Recipe, epoch: int, row: int) -> tuple[tuple[float, float, float, float] | None, bool]:
    """Draw a training crop (left, top, right, bottom in 0..1) and a flip from (seed, epoch, row) alone."""
    draw = np.random.Generator(np.random.Philox(key=[recipe.seed, (epoch << 40) + row])).random(5)
    flip = bool(recipe.flip and draw[4] < 0.5)
    if recipe.crop_min_area >= 1:
        return None, flip
    area = recipe.crop_min_area + (1 - recipe.crop_min_area) * draw[0]
    stretch = (4 / 3) ** (2 * draw[1] - 1)  # aspect 3:4 to 4:3, as is usual since Szegedy et al. 2014
    width, height = min(1.0, (area * stretch) ** 0.5), min(1.0, (area / stretch) ** 0.5)
    left, top = (1 - width) * draw[2], (1 - height) * draw[3]
    return (left, top, left + width, top + height), flip
