"""Features of the frozen trunk, computed once: each rank computes its share of the rows, all read them from the run folder."""

from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras

from distributed.signals import Wishes
from distributed.world import World
from family.data.dataset import Rows
from family.data.images import Preprocessing
from family.data.order import rank_slice
from family.data.pipeline import plain_batches
from family.outputs import whole_file
from family.progress import progress

BATCH_SIZE = 32
_NOTED = 64  # batches between two notes of how far it came


class Features:
    """Memory-mapped float32 features of all rows; `features[rows]` reads [len(rows), d]."""

    def __init__(self, files: list[Path], n_rows: int):
        self._parts = [np.load(file, mmap_mode="r") for file in files]
        self._starts = np.array([rank_slice(n_rows, rank, len(files))[0] for rank in range(len(files))])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        return np.stack([self._parts[part][row - self._starts[part]] for part, row in zip(part_of, rows, strict=True)])


def compute_features(
    trunk: tf_keras.Model, rows: Rows, how: Preprocessing, folder: Path, world: World, wishes: Wishes
) -> tuple[Features, bool]:
    """Run the trunk once over all rows, without augmentation, and open the result; go on where an earlier run was cut short.

    Returns:
        The features, and whether they are complete: a signal may have come while they were computed.
    """
    start, stop = rank_slice(len(rows), world.rank, world.size)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"part-{world.rank}-of-{world.size}.npy"
    n_done = _rows_done(path, (stop - start, trunk.output.shape[-1]))
    part = np.lib.format.open_memmap(path, "r+" if n_done else "w+", np.float32, (stop - start, trunk.output.shape[-1]))
    own = rows.take(np.arange(start + n_done, stop))
    images_of_any_number = tf.TensorSpec([None, *trunk.input.shape[1:]], tf.uint8)
    embed = tf.function(
        lambda images: tf.cast(trunk(tf.cast(images, tf.float32), training=False), tf.float32), input_signature=[images_of_any_number]
    )
    batches = progress(plain_batches(own, how, BATCH_SIZE), "features", -(-len(own) // BATCH_SIZE), "batches", world.is_first)
    for images in batches if len(own) else ():
        if wishes.come_back or wishes.end:
            break
        part[n_done : n_done + len(images)] = embed(images)
        n_done += len(images)
        if n_done % (_NOTED * BATCH_SIZE) == 0:
            _note_rows_done(path, part, n_done)
    _note_rows_done(path, part, n_done)
    complete = world.sum([stop - start - n_done])[0] == 0
    return Features([folder / f"part-{rank}-of-{world.size}.npy" for rank in range(world.size)], len(rows)), complete


def _rows_done(path: Path, shape: tuple[int, int]) -> int:
    """Return how many rows of a part hold features already."""
    done = path.with_suffix(".done")
    if not path.is_file() or not done.is_file():
        return 0
    try:
        return int(done.read_text()) if np.load(path, mmap_mode="r").shape == shape else 0
    except (OSError, ValueError):
        return 0


def _note_rows_done(path: Path, part: np.memmap, n_done: int) -> None:
    part.flush()  # the rows first: a note of rows that are not there would be believed
    with whole_file(path.with_suffix(".done")) as partial:
        partial.write_text(str(n_done))
