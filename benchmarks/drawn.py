"""The dataset that a benchmark of training reads where none is given. No TensorFlow."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from family.data.dataset import Dataset, Rows, open_dataset
from family.data.importing import import_dataset
from family.data.synth import write_source

LISTINGS, CATEGORIES = 320, 40


@contextlib.contextmanager
def dataset_or_made_up(folder: Path | None) -> Iterator[Dataset]:
    """Open a dataset, or one of made-up listings in a temporary folder."""
    if folder is not None:
        yield open_dataset(folder)
        return
    with tempfile.TemporaryDirectory(prefix="family-bench-") as temporary:
        source = Path(temporary) / "made-up"
        with contextlib.redirect_stdout(sys.stderr):
            write_source(source, LISTINGS, CATEGORIES, seed=0)
            import_dataset(source, Path(temporary) / "dataset")
        yield open_dataset(Path(temporary) / "dataset")


def enough_rows(rows: Rows, batch_size: int) -> Rows:
    """Repeat rows until they fill an update; a tiny dataset is no reason to refuse."""
    return rows if len(rows) >= batch_size else rows.take(np.arange(batch_size) % len(rows))
