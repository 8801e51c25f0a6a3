"""Features of the frozen trunk, computed once: each rank computes its share of the rows, all read them from one folder.

The folder is the run's own, or one that runs share (`--features`): then it is named by a digest of all that the features depend on.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import tensorflow as tf
import tf_keras

from distributed.signals import Wishes
from distributed.world import World
from family.data.dataset import Rows
from family.data.images import Preprocessing
from family.data.order import rank_slice
from family.data.pipeline import plain_batches, seen_batches
from family.errors import UserError
from family.outputs import whole_file
from family.progress import progress
from family.recipe import Recipe

BATCH_SIZE = 32
_NOTED = 64  # batches between two notes of how far it came
_SPARE_BYTES = 2**30  # that stay free on the disk
_FORMAT = 1  # of the folder; a new one makes old features unknown
_POLL_S = 1.0


class Features:
    """Memory-mapped float32 features of all rows, in one or several views; `features.view(epoch)[rows]` reads [len(rows), d]."""

    def __init__(self, views: list[list[Path]], n_rows: int):
        self._views = [_View(files, n_rows) for files in views]

    def view(self, epoch: int) -> "_View":
        return self._views[epoch % len(self._views)]


class _View:
    def __init__(self, files: list[Path], n_rows: int):
        self._parts = [np.load(file, mmap_mode="r") for file in files]
        self._starts = np.array([rank_slice(n_rows, rank, len(files))[0] for rank in range(len(files))])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        found = np.empty((len(rows), self._parts[0].shape[1]), np.float32)
        for part in np.unique(part_of):
            own = part_of == part
            found[own] = self._parts[part][rows[own] - self._starts[part]]
        return found


@dataclass(frozen=True)
class Extraction:
    """What features are computed of, and how."""

    trunk: tf_keras.Model
    rows: Rows
    how: Preprocessing
    recipe: Recipe
    world: World
    wishes: Wishes

    @property
    def n_features(self) -> int:
        return self.trunk.output.shape[-1]

    def digest(self) -> str:
        """Return what tells these features from others: the trunk's weights, the images, and how they are seen."""
        digest = hashlib.sha256()
        versions = (_FORMAT, tf.__version__, PIL.__version__)
        digest.update(repr((versions, self.how.card(), *self.recipe.features_seen)).encode())
        digest.update(json.dumps(self.trunk.get_config(), sort_keys=True, default=str).encode())
        for array in self.trunk.get_weights():
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update("\n".join(self.rows.images.tolist()).encode())  # their names hold the hash of their content
        return digest.hexdigest()[:32]


def compute_features(of: Extraction, folder: Path) -> tuple[Features | None, bool]:
    """Run the trunk over all rows, once for each view, and open the result; go on where an earlier run was cut short.

    The first view is the picture as it is evaluated; others are cropped and flipped as in training.

    Returns:
        The features, and whether they are complete: a signal may have come while they were computed, or while another run was waited for.

    Raises:
        UserError: the disk has no room for them, has no locks, or is not that of all ranks.
    """
    world, n_views = of.world, of.recipe.feature_views
    with _one_at_a_time(folder, of) as is_ours:
        if not is_ours:
            return None, False
        n_parts = world.broadcast(_parts_of_an_earlier_world(folder, n_views, len(of.rows), of.n_features) if world.is_first else 0)
        complete = True
        if not n_parts:
            n_parts = world.size
            _refuse_full_disk(of, folder)
            embed = _embedding_function(of.trunk)
            complete = all([_compute_part(of, folder, view, embed) for view in range(n_views)])
            complete = world.sum([not complete])[0] == 0
    files = [[_part(folder, view, rank, n_parts) for rank in range(n_parts)] for view in range(n_views)]
    return Features(files, len(of.rows)), complete


def _part(folder: Path, view: int, rank: int, size: int) -> Path:
    return folder / f"view-{view}-part-{rank}-of-{size}.npy"


@contextmanager
def _one_at_a_time(folder: Path, of: Extraction) -> Iterator[bool]:
    """Let the first rank wait until no other run computes into the folder, and the others wait for it; False where a signal came first."""
    world = of.world
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        is_ours, refusal = False, None
        if world.is_first:
            try:
                is_ours = _wait_for_lock(stack.enter_context(open(folder / ".lock", "a+")), of.wishes)
            except OSError as error:
                refusal = f"{folder} can't be locked ({error.strerror}); give --features on a file system with locks, or leave it out"
        is_ours, refusal = world.broadcast((is_ours, refusal))
        if not refusal and not (folder / ".lock").exists():
            refusal = f"{folder} is another folder on rank {world.rank} than on rank 0; the features must lie where all ranks see them"
        _refuse_all(world, refusal)
        yield is_ours


def _wait_for_lock(file, wishes: Wishes) -> bool:
    waited = False
    while not (wishes.come_back or wishes.end):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if not waited:
                print(f"waiting for another run that computes the features of {Path(file.name).parent}", flush=True)
            waited = True
            time.sleep(_POLL_S)
    return False


def _refuse_all(world: World, refusal: str | None) -> None:
    """Raise on every rank what any of them found, so that none waits for the others."""
    found = next(filter(None, world.gather(refusal)), None)
    if found:
        raise UserError(found)


def _parts_of_an_earlier_world(folder: Path, n_views: int, n_rows: int, n_features: int) -> int:
    """Return into how many parts complete features in the folder are cut; 0 where there are none."""
    for size in sorted({int(file.stem.rpartition("-")[2]) for file in folder.glob("view-0-part-0-of-*.npy")}):
        shares = [(rank, stop - start) for rank in range(size) for start, stop in [rank_slice(n_rows, rank, size)]]
        parts = [(_part(folder, view, rank, size), n) for view in range(n_views) for rank, n in shares]
        if all(_rows_done(part, (n, n_features)) == n for part, n in parts if n):
            return size
    return 0


def _refuse_full_disk(of: Extraction, folder: Path) -> None:
    there = sum(file.stat().st_blocks * 512 for file in folder.glob("*.npy"))
    needed = 4 * of.n_features * len(of.rows) * of.recipe.feature_views - there
    free = shutil.disk_usage(folder).free
    refusal = None
    if of.world.is_first and needed > free - _SPARE_BYTES:
        refusal = (f"the features of {len(of.rows)} images take {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free; "
                   "give another disk with --features, fewer feature_views, or head_epochs = 0")  # fmt: skip
    _refuse_all(of.world, refusal)


def _embedding_function(trunk: tf_keras.Model):
    images_of_any_number = tf.TensorSpec([None, *trunk.input.shape[1:]], tf.uint8)
    return tf.function(
        lambda images: tf.cast(trunk(tf.cast(images, tf.float32), training=False), tf.float32), input_signature=[images_of_any_number]
    )


def _compute_part(of: Extraction, folder: Path, view: int, embed) -> bool:
    """Compute this rank's rows of a view; say whether all of them are done."""
    world = of.world
    start, stop = rank_slice(len(of.rows), world.rank, world.size)
    path = _part(folder, view, world.rank, world.size)
    n_done = _rows_done(path, (stop - start, of.n_features))
    if not n_done:
        path.with_suffix(".done").unlink(missing_ok=True)  # of a file that is gone: it would vouch for rows of zeros
    part = np.lib.format.open_memmap(path, "r+" if n_done else "w+", np.float32, (stop - start, of.n_features))
    with open(path, "r+b") as file:  # a disk that fills up later kills who writes to the map
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    left = np.arange(start + n_done, stop)
    plain = view == 0
    batches = (
        plain_batches(of.rows.take(left), of.how, BATCH_SIZE) if plain else seen_batches(of.rows, left, of.how, of.recipe, view, BATCH_SIZE)
    )
    what = "features" if of.recipe.feature_views == 1 else f"features, view {view + 1} of {of.recipe.feature_views}"
    for images in progress(batches, what, -(-len(left) // BATCH_SIZE), "batches", world.is_first) if len(left) else ():
        if of.wishes.come_back or of.wishes.end:
            break
        part[n_done : n_done + len(images)] = embed(images)
        n_done += len(images)
        if n_done % (_NOTED * BATCH_SIZE) == 0:
            _note_rows_done(path, part, n_done)
    _note_rows_done(path, part, n_done)
    return n_done == stop - start


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
