"""What measurements by whole trainings share: parts of a dataset as datasets of their own, and how they end."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from family.data.dataset import Dataset
from family.data.importing import describe
from family.errors import ComeBack, Ended, Failure, UserError
from family.outputs import write_json


def exit_code_of(measure: Callable[[], object]) -> int:
    """Run a measurement that trains, and return the exit code; an error is told in its own words."""
    try:
        measure()
    except (UserError, Failure, ComeBack, Ended) as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def write_part(dataset: Dataset, folder: Path, kept: Sequence[bool], name: str) -> None:
    """Write a dataset of the rows that are kept, to a folder that is there and empty.

    Args:
        kept: for each row of the dataset's table.
        name: what becomes part of the dataset's name.
    """
    table = dataset.table.filter(pa.array(kept))
    pa.parquet.write_table(table, folder / "listings.parquet")
    (folder / "ontology.csv").write_bytes((dataset.folder / "ontology.csv").read_bytes())
    os.symlink(dataset.folder.resolve() / "images", folder / "images")
    write_json(folder / "dataset.json", describe(f"{dataset.about['name']}-{name}", table, dataset.ontology, n_skipped=0, n_leaks=0))
