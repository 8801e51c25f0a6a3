"""What a benchmark of training works on: the dataset where none is given, the recipe, the updates. No TensorFlow."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from distributed.world import World
from family.data.dataset import Dataset, Rows, open_dataset
from family.data.importing import import_dataset
from family.data.order import epoch_slices
from family.data.synth import write_source
from family.recipe import Recipe, make_recipe

LISTINGS, CATEGORIES = 320, 40
TAIL_STEPS = 10  # after the timed ones, so that as much input is being read while these run as in a training that goes on


@contextlib.contextmanager
def dataset_or_made_up(folder: Path | None, n_listings: int = LISTINGS) -> Iterator[Dataset]:
    """Open a dataset, or one of made-up listings in a temporary folder."""
    if folder is not None:
        yield open_dataset(folder)
        return
    with tempfile.TemporaryDirectory(prefix="family-bench-") as temporary:
        source = Path(temporary) / "made-up"
        with contextlib.redirect_stdout(sys.stderr):
            write_source(source, n_listings, CATEGORIES, seed=0)
            import_dataset(source, Path(temporary) / "dataset")
        yield open_dataset(Path(temporary) / "dataset")


def enough_rows(rows: Rows, batch_size: int) -> Rows:
    """Repeat rows until they fill an update; a tiny dataset is no reason to refuse."""
    return rows if len(rows) >= batch_size else rows.take(np.arange(batch_size) % len(rows))


def timed_recipe(resolution_px: int, batch_size: int) -> Recipe:
    """Return the recipe of timed steps: everything learns, BatchNorm in training mode, as Keras does by default."""
    return make_recipe({"resolution_px": resolution_px, "batch_size": batch_size, "batchnorm": "train", "schedule": "constant"})


def full_slices(n_rows: int, recipe: Recipe, n_steps: int, world: World) -> list[tuple[np.ndarray, int, int]]:
    """Return a rank's slices of `n_steps` full updates, over as many epochs as they take.

    Raises:
        ValueError: there are fewer rows than one update takes.
    """
    if n_rows < recipe.batch_size:
        raise ValueError(f"{n_rows} rows are fewer than the {recipe.batch_size} of one update")
    slices, epoch = [], 0
    while len(slices) < n_steps:
        found = epoch_slices(n_rows, recipe.batch_size, recipe.seed, epoch, world.rank, world.size)
        slices += [part for part in found if part[2] == recipe.batch_size]
        epoch += 1
    return slices[:n_steps]
