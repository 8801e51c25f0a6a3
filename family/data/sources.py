"""What a user brings: a listing table with images, or a tree of folders with images, as one table of rows."""

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from family.data.ontology import Ontology, clean_path, from_leaves, read_ontology
from family.errors import UserError

WANTED = ("listing_id", "image", "category")
TABLES = ("listings.csv", "listings.parquet")
SUFFIXES = {".jpg", ".jfif", ".avif", ".jp2", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


def read_source(folder: Path) -> tuple[pa.Table, Ontology]:
    """Read a source folder: `listings.csv` or `listings.parquet` (with `ontology.csv`, where categories are ids), or folders.

    Returns:
        The listing table, with `listing_id, image, category` as strings and all other columns as they are, and the tree.

    Raises:
        UserError: nothing usable is there, or a wanted column is missing.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; wanted one with listings.csv, listings.parquet or folders of images")
    tables = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(tables) == 2:
        raise UserError(f"{folder} holds both listings.csv and listings.parquet; keep one")
    table = _read_table(tables[0]) if tables else _walk_folders(folder)
    if (folder / "ontology.csv").is_file():
        return table, read_ontology(folder / "ontology.csv")
    paths = sorted({path for value in table["category"].unique().to_pylist() if (path := _path_of(value))})
    return table, from_leaves([(path, path) for path in paths])


def _path_of(category: str | None) -> str:
    """Return a category as a clean path; "" where it is none, which its rows are reported for."""
    try:
        return clean_path(category or "")
    except UserError:
        return ""


def _read_table(path: Path) -> pa.Table:
    try:
        table = _read_csv(path) if path.suffix == ".csv" else pa.parquet.read_table(path)
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: {error}") from error
    double = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if double:
        raise UserError(f"{path}: the column {', '.join(double)} stands there twice; keep one")
    missing = [name for name in WANTED if name not in table.column_names]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}; wanted: {', '.join(WANTED)}; found: {', '.join(table.column_names)}")
    if table.num_rows == 0:
        raise UserError(f"{path} has no rows")
    for name in (*WANTED, *(["split"] if "split" in table.column_names else [])):
        try:
            column = table[name].cast(pa.string())
        except pa.ArrowException as error:
            raise UserError(f"{path}: the column {name} is {table[name].type} and not text: {error}") from error
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _read_csv(path: Path) -> pa.Table:
    with open(path, newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file), [])
    # Every column stays text: ids such as 007 must not become numbers.
    convert = pa.csv.ConvertOptions(column_types={name: pa.string() for name in header}, strings_can_be_null=False)
    return pa.csv.read_csv(path, convert_options=convert, parse_options=pa.csv.ParseOptions(newlines_in_values=True))


def _walk_folders(folder: Path) -> pa.Table:
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    names = [path.relative_to(folder) for path in images if path.parent != folder]
    # Hidden files are leftovers of file managers, such as ._photo.jpg, and never photos.
    names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    if not names:
        raise UserError(f"{folder} holds no listings.csv, no listings.parquet and no folders of images ({', '.join(sorted(SUFFIXES))})")
    return pa.table(
        {
            "listing_id": [name.with_suffix("").as_posix() for name in names],
            "image": [name.as_posix() for name in names],
            "category": [name.parent.as_posix() for name in names],
        }
    )
