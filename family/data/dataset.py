"""A dataset folder: dataset.json, ontology.csv, listings.parquet and images/, and the rows of it that a stage asks for."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from family.data.ontology import Ontology, read_ontology
from family.data.scopes import scope_ontology
from family.data.splits import SPLITS
from family.errors import UserError, unknown_name
from family.outputs import read_json

SCHEMA = 1
_STORED_NAME = r"^images/[0-9a-f]{2}/[0-9a-f]{64}\.[0-9a-z]+$"  # nothing that could lead out of the folder


@dataclass(frozen=True)
class Rows:
    """Rows of one split and scope, all images of a listing adjacent. Arrays are [n]."""

    folder: Path
    ontology: Ontology  # of the scope; its leaves are the classes
    listing_ids: np.ndarray  # str
    images: np.ndarray  # str, paths relative to the folder
    labels: np.ndarray  # int32, class indices

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, row: int) -> bytes:
        """Return the encoded bytes of a row's image."""
        return (self.folder / str(self.images[row])).read_bytes()

    def take(self, rows: np.ndarray) -> "Rows":
        return Rows(self.folder, self.ontology, self.listing_ids[rows], self.images[rows], self.labels[rows])


@dataclass(frozen=True)
class Dataset:
    """An opened dataset folder."""

    folder: Path
    about: dict  # dataset.json
    ontology: Ontology

    @property
    def digest(self) -> str:
        return self.about["digest"]

    @cached_property
    def table(self) -> pa.Table:
        """listings.parquet: one row an image.

        Raises:
            UserError: it is not the table that was imported.
        """
        try:
            table = pa.parquet.read_table(self.folder / "listings.parquet")
            digest = digest_table(table)
        except (OSError, pa.ArrowException, KeyError, TypeError) as error:
            raise UserError(f"{self.folder}/listings.parquet can't be read: {error}") from error
        if digest != self.digest or not pc.all(pc.match_substring_regex(table["image"], _STORED_NAME)).as_py():
            raise UserError(f"{self.folder}/listings.parquet was changed after the import; import again")
        return table

    def scope(self, name: str) -> Ontology:
        """Return the tree of a scope: all of it, or a vertical's part."""
        return scope_ontology(self.ontology, name)

    def scope_of(self, card: dict) -> Ontology:
        """Return the tree that a run or a bundle of this card answers for.

        Raises:
            UserError: its classes are not those of this dataset.
        """
        ontology = self.ontology.subset(card["subtrees"]) if card.get("subtrees") else self.ontology
        if list(ontology.leaves) != card["classes"]:
            raise UserError(
                f"{card['name']} knows {len(card['classes'])} classes, its scope in {self.folder} has {len(ontology.leaves)}, "
                "and they are not the same; use the tree that it was trained on"
            )
        return ontology

    def rows(self, split: str, scope: str | Ontology = "general") -> Rows:
        """Return the rows of a split whose category lies in the scope, given by name or as its tree.

        Raises:
            UserError: no such split or scope, or no row in it.
        """
        ontology = self.scope(scope) if isinstance(scope, str) else scope
        table = self._select(split, ontology)
        labels = np.array([ontology.class_of[code] for code in table["category"].to_pylist()], np.int32)
        listing_ids, images = (table[name].to_numpy(zero_copy_only=False) for name in ("listing_id", "image"))
        return Rows(self.folder, ontology, listing_ids, images, labels)

    def column(self, name: str, split: str, scope: str | Ontology = "general") -> np.ndarray:
        """Return a carried column of the rows that `rows` gives, in their order, as text [n]; empty where there is no value.

        Raises:
            UserError: no such column, split or scope, or no row in it.
        """
        carried = [other for other in self.table.column_names if other not in ("listing_id", "image", "category", "split")]
        if name not in carried:
            raise unknown_name("column", name, carried)
        column = self._select(split, self.scope(scope) if isinstance(scope, str) else scope)[name]
        return np.array(["" if value is None else str(value) for value in column.to_pylist()])

    def count_rows(self, split: str, ontology: Ontology) -> np.ndarray:
        """Return int64 [n_leaves], the rows of each category in a split."""
        counts = pc.value_counts(self.table.filter(pc.equal(self.table["split"], split))["category"]).to_pylist()
        found = {entry["values"]: entry["counts"] for entry in counts}
        return np.array([found.get(leaf, 0) for leaf in ontology.leaves], np.int64)

    def _select(self, split: str, ontology: Ontology) -> pa.Table:
        """Return the table's rows of a split and a tree, sorted by listing."""
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        wanted = pc.and_(pc.equal(self.table["split"], split), pc.is_in(self.table["category"], pa.array(ontology.leaves)))
        table = self.table.filter(wanted)
        if table.num_rows == 0:
            raise UserError(f"{self.folder} has no {split} rows in the scope of {len(ontology.leaves)} categories")
        order = np.argsort(table["listing_id"].to_numpy(zero_copy_only=False).astype(str), kind="stable")
        return table.take(pa.array(order))


def open_dataset(folder: Path) -> Dataset:
    """Open a dataset folder and check that it is one.

    Raises:
        UserError: not a dataset, of a newer schema, or with an ontology that was changed since.
    """
    folder = Path(folder)
    if not (folder / "dataset.json").is_file():
        raise UserError(f"{folder} is no dataset (no dataset.json); `family data import SRC {folder}` makes one")
    about = read_json(folder / "dataset.json")
    if about.get("schema", 0) > SCHEMA:
        raise UserError(f"{folder}: dataset schema {about['schema']}; this version reads up to {SCHEMA}")
    ontology = read_ontology(folder / "ontology.csv")
    if ontology.digest != about.get("ontology_digest"):
        raise UserError(f"{folder}/ontology.csv was changed after the import; import again")
    return Dataset(folder, about, ontology)


def digest_table(table: pa.Table) -> str:
    """Return the sha256 of what is learned from: listing, image (its name holds its content's hash), category, split."""
    digest = hashlib.sha256()
    columns = [table[name] for name in ("listing_id", "image", "category", "split")]
    for batch in pa.table(columns, names=["l", "i", "c", "s"]).to_batches(max_chunksize=65536):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            digest.update("\t".join(row).encode() + b"\n")
    return digest.hexdigest()
