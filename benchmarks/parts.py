"""Parts of a dataset as datasets of their own, their images linked."""

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from family.data.dataset import Dataset
from family.data.importing import describe
from family.outputs import write_json


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
