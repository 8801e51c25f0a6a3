"""Rows to pixels for training: `tf.data` maps rows and keeps their order; it never chooses them."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import tensorflow as tf

from family.data.augment import Augment, training_view
from family.data.crops import read_cropped, row_draws
from family.data.dataset import Rows
from family.data.images import Preprocessing, decode_image
from family.data.order import expected_draws
from family.recipe import Recipe


def training_batches(rows: Rows, slices: list, how: Preprocessing, recipe: Recipe, epoch: int) -> Iterator[tuple]:
    """Yield (images uint8 [n, px, px, 3], labels int32 [n, 2], weights float32 [n, 2], start, total) for each update.

    A row that is mixed of two has the labels of both, and their shares as its weights.

    Args:
        slices: of `family.data.order.epoch_slices`.
    """
    if not slices:
        return
    slices = [at_least_one_row(*part) for part in slices]
    order = np.concatenate([own for own, *_ in slices])
    seen = _decoded(order, max(len(own) for own, *_ in slices), _seen(rows, how, recipe, epoch, recipe.augmentation), how.resolution_px)
    for (images, partners, shares), (own, weight, start, total) in zip(seen, slices, strict=True):
        shares = shares.numpy()
        yield (
            images,
            np.stack([rows.labels[own % len(rows)], rows.labels[partners]], 1),
            weight * np.stack([shares, 1 - shares], 1),
            start,
            total,
        )


def seen_batches(rows: Rows, order: np.ndarray, how: Preprocessing, recipe: Recipe, epoch: int, batch_size: int) -> Iterator[tf.Tensor]:
    """Yield uint8 [<= batch_size, px, px, 3] of rows in the given order, as an epoch of training sees them, but not mixed."""
    unmixed = replace(recipe.augmentation, mixup=0.0, cutmix=0.0)
    for images, *_ in _decoded(order, batch_size, _seen(rows, how, recipe, epoch, unmixed), how.resolution_px):
        yield images


def _seen(rows: Rows, how: Preprocessing, recipe: Recipe, epoch: int, augment: Augment) -> Callable:
    """Return row -> (uint8 [px, px, 3], the row it is mixed with, its own share), in a given epoch."""

    draws = expected_draws(rows.labels, recipe.sampling_power)
    ends = None if draws is None else np.cumsum(draws)

    def crop(pick: int, draw: np.random.Generator) -> np.ndarray:
        return read_cropped(rows, pick % len(rows), how, recipe, draw)

    def partner_of(drawn: int) -> int:
        """Return the partner for a number that is drawn evenly: it is as often of a class as rows are."""
        return drawn if ends is None else min(len(rows) - 1, int(np.searchsorted(ends, (drawn + 0.5) * ends[-1] / len(rows))))

    def see(pick: int) -> tuple[np.ndarray, np.int64, np.float32]:
        own = int(pick)
        pixels, partner, share = training_view(own, len(rows), augment, lambda pick: row_draws(recipe.seed, epoch, pick), crop, partner_of)
        return pixels, np.int64(partner % len(rows)), np.float32(share)

    return see


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

    def see(row: int) -> tuple[np.ndarray, np.int64, np.float32]:
        return decode_image(rows.read(row), how), np.int64(row), np.float32(1)

    for images, *_ in _decoded(np.arange(len(rows)), batch_size, see, how.resolution_px):
        yield images


def _decoded(order: np.ndarray, batch_size: int, see: Callable, px: int) -> tf.data.Dataset:
    def decode(row):
        pixels, partner, share = tf.numpy_function(see, [row], [tf.uint8, tf.int64, tf.float32], stateful=False)
        return tf.ensure_shape(pixels, (px, px, 3)), tf.ensure_shape(partner, ()), tf.ensure_shape(share, ())

    rows = tf.data.Dataset.from_tensor_slices(order)
    # Decoding runs outside of Python's lock; two in flight per core keep it busy, and memory is bounded by a few batches.
    return rows.map(decode, num_parallel_calls=4, deterministic=True).batch(batch_size).prefetch(2).with_options(_fixed())


def _fixed() -> tf.data.Options:
    # Nothing here is left to tune, and the tuner's thread, which sleeps twice as long each time (10 ms up to a minute), is waited
    # for at the end of every pass over the data: an epoch of 0.7 s took 1.3 to 2.8 s, measured on two cores.
    options = tf.data.Options()
    options.autotune.enabled = False
    return options
