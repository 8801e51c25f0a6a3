"""Features of the frozen trunk, computed once: each rank computes its share of the rows, all read them from the run folder."""

from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras

from distributed.world import World
from family.data.dataset import Rows
from family.data.images import Preprocessing
from family.data.order import rank_slice
from family.data.pipeline import plain_batches
from family.progress import progress

BATCH_SIZE = 32


class Features:
    """Memory-mapped float32 features of all rows; `features[rows]` reads [len(rows), d]."""

    def __init__(self, files: list[Path], n_rows: int):
        self._parts = [np.load(file, mmap_mode="r") for file in files]
        self._starts = np.array([rank_slice(n_rows, rank, len(files))[0] for rank in range(len(files))])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        return np.stack([self._parts[part][row - self._starts[part]] for part, row in zip(part_of, rows, strict=True)])


def compute_features(trunk: tf_keras.Model, rows: Rows, how: Preprocessing, folder: Path, world: World) -> Features:
    """Run the trunk once over all rows, without augmentation, and open the result."""
    start, stop = rank_slice(len(rows), world.rank, world.size)
    folder.mkdir(parents=True, exist_ok=True)
    own = rows.take(np.arange(start, stop))
    path = folder / f"part-{world.rank}-of-{world.size}.npy"
    part = np.lib.format.open_memmap(path, "w+", np.float32, (len(own), trunk.output.shape[-1]))
    images_of_any_number = tf.TensorSpec([None, *trunk.input.shape[1:]], tf.uint8)
    embed = tf.function(lambda images: trunk(tf.cast(images, tf.float32), training=False), input_signature=[images_of_any_number])
    n_batches = -(-len(own) // BATCH_SIZE)
    batches = progress(plain_batches(own, how, BATCH_SIZE), "features", total=n_batches, unit="batches", shown=world.is_first)
    for k, images in enumerate(batches):
        part[k * BATCH_SIZE : k * BATCH_SIZE + len(images)] = embed(images)
    part.flush()
    world.barrier()
    return Features([folder / f"part-{rank}-of-{world.size}.npy" for rank in range(world.size)], len(rows))
