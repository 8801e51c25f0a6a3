"""`family data import`: a source folder becomes a dataset folder; what can't be used is reported, row by row."""

import argparse
import collections
import csv
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from family.data.dataset import SCHEMA, Dataset, digest_table, open_dataset
from family.data.images import ImageError, decode_rgb
from family.data.lookalikes import N_BYTES, difference_hash, group_rows, lookalike_pairs
from family.data.ontology import Ontology, clean_path
from family.data.reading import map_ahead
from family.data.sources import SUFFIXES, TABLES, read_source
from family.data.splits import SPLITS, assign_splits
from family.errors import UserError
from family.outputs import is_done, whole_folder, write_json
from family.progress import next_command, progress

MAX_BYTES = 64 * 2**20


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", type=Path, metavar="SRC", help="folder with listings.csv or listings.parquet, or folders of images")
    parser.add_argument("out", type=Path, metavar="OUT", help="the dataset folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the split, where the table gives none (default 0)")
    parser.add_argument("--splits-of", type=Path, metavar="DATASET", help="an earlier dataset: listings that it has stay on their side of the split, "
                        "so that a model which learned from it is not tested on what it saw")  # fmt: skip
    parser.add_argument(
        "--max-bad", type=float, default=0.02, metavar="SHARE", help="refuse above this share of unusable rows (default 0.02)"
    )
    parser.add_argument("--fresh", action="store_true", help="move an OUT that is there aside")


def run(args: argparse.Namespace) -> int:
    import_dataset(args.src, args.out, args.seed, args.max_bad, args.fresh, args.splits_of)
    print(next_command("train", args.out, "--out", "runs/first"))
    return 0


@dataclass(frozen=True)
class _Image:
    """What importing one image found: its stored name and hashes, or the problem."""

    name: str = ""
    sha256: bytes = b""
    looks: bytes = bytes(N_BYTES)
    problem: str = ""


def import_dataset(
    src: Path, out: Path, seed: int = 0, max_bad: float = 0.02, fresh: bool = False, splits_of: Path | None = None
) -> None:
    """Write the dataset folder `out` of a source folder.

    Images are copied as they are, named by their content, so that hostile names and double copies end here. Problems go to
    `problems.csv`, look-alikes that sit on both sides of a given split to `leaks.csv`.

    Raises:
        UserError: nothing usable, or more than `max_bad` of the rows are unusable.
    """
    if out.resolve().is_relative_to(src.resolve()) and not any((src / name).is_file() for name in TABLES):
        raise UserError(f"{out} lies in {src}, where every folder is a category; choose an OUT outside of it")
    earlier = open_dataset(splits_of) if splits_of else None
    table, ontology = read_source(src)
    made_of = {"command": "data import", "src": str(src.resolve()), "table": _digest_source(table, src)}
    made_of |= {"tree": ontology.digest, "seed": seed}
    made_of |= {"splits_of": earlier.digest} if earlier else {}  # older datasets don't tell it
    if is_done(out, made_of, fresh):
        print(f"{out}: already done")
        return
    table = _with_splits_of(earlier, table) if earlier else table
    with whole_folder(out, made_of) as folder:
        categories, problems = _check_rows(table, ontology)
        found = _import_images(table, src, folder, skip=problems)
        problems |= {row: f"image: {image.problem}" for row, image in enumerate(found) if image.problem and row not in problems}
        problems |= {row: p for row, p in _double_rows(table, found).items() if row not in problems}
        _write_problems(folder / "problems.csv", table, problems)
        _refuse_too_many(problems, table.num_rows, max_bad)
        kept = np.array([row for row in range(table.num_rows) if row not in problems])
        _write_tables(folder, src.resolve().name, table, ontology, categories, found, kept, seed, n_skipped=len(problems))


def _with_splits_of(earlier: Dataset, table: pa.Table) -> pa.Table:
    """Return the table with the split that a listing had, where the table gives its listing none."""
    had = dict(zip(earlier.table["listing_id"].to_pylist(), earlier.table["split"].to_pylist(), strict=True))
    listing_ids = table["listing_id"].to_pylist()
    given = table["split"].to_pylist() if "split" in table.column_names else [None] * table.num_rows
    told = {listing for listing, split in zip(listing_ids, given, strict=True) if split}
    splits = [split if listing in told else had.get(listing) for listing, split in zip(listing_ids, given, strict=True)]
    known = sum(listing in had for listing in set(listing_ids))
    print(f"{known} of {len(set(listing_ids))} listings stand in {earlier.folder}: they stay on their side of the split")
    table = table.drop_columns("split") if "split" in table.column_names else table
    return table.append_column("split", pa.array(splits, pa.string()))


def _check_rows(table: pa.Table, ontology: Ontology) -> tuple[list[str], dict[int, str]]:
    """Return each row's leaf id, and the problems by row number."""
    categories, problems, home = [], {}, {}
    splits = table["split"].to_pylist() if "split" in table.column_names else [None] * table.num_rows
    leaves = set(ontology.leaves)
    rows = zip(table["listing_id"].to_pylist(), table["category"].to_pylist(), splits, strict=True)
    for row, (listing_id, category, split) in enumerate(rows):
        leaf = _find_leaf(category or "", ontology)
        categories.append(leaf)
        if not listing_id:
            problems[row] = "listing_id is empty"
        elif leaf not in leaves:
            problems[row] = (
                f"unknown category {category!r}" if not leaf else f"category {category!r} is no leaf: it has categories below it"
            )
        elif split and split not in SPLITS:
            problems[row] = f"unknown split {split!r}; allowed: {', '.join(SPLITS)}, or empty"
        elif home.setdefault(listing_id, (leaf, split)) != (leaf, split):
            problems[row] = f"listing {listing_id!r} has another category or split in an earlier row"
    return categories, problems


def _find_leaf(category: str, ontology: Ontology) -> str:
    if category in ontology.path_of:
        return category
    try:
        return ontology.id_of.get(clean_path(category), "")
    except UserError:
        return ""


def _import_images(table: pa.Table, src: Path, folder: Path, skip: dict[int, str]) -> list[_Image]:
    """Check and copy the images of all rows but `skip`, a bounded number at a time."""
    root = src.resolve()

    def import_row(item: tuple[int, str]) -> _Image:
        row, name = item
        return _Image() if row in skip else _import_image(root, name or "", folder / "images")

    names = enumerate(table["image"].to_pylist())
    return list(progress(map_ahead(import_row, names), "importing", total=table.num_rows))


def _import_image(root: Path, name: str, images: Path) -> _Image:
    try:
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            return _Image(problem="outside of the table's folder" if not path.is_relative_to(root) else "missing file")
        if path.stat().st_size > MAX_BYTES:
            return _Image(problem=f"{path.stat().st_size / 2**20:.0f} MB; at most {MAX_BYTES // 2**20} MB are read")
        data = path.read_bytes()
        looks = difference_hash(decode_rgb(data))
    except (ImageError, OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of links
        return _Image(problem=str(error))
    sha256 = hashlib.sha256(data)
    suffix = path.suffix.lower() if path.suffix.lower() in SUFFIXES else ""
    stored = images / sha256.hexdigest()[:2] / f"{sha256.hexdigest()}{suffix}"
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_bytes(data)
    return _Image(stored.relative_to(images.parent).as_posix(), sha256.digest(), looks)


def _double_rows(table: pa.Table, found: list[_Image]) -> dict[int, str]:
    seen, problems = {}, {}
    for row, (listing_id, image) in enumerate(zip(table["listing_id"].to_pylist(), found, strict=True)):
        if not image.name:
            continue
        first = seen.setdefault((listing_id, image.sha256), row)
        if first != row:
            problems[row] = f"the same image of the same listing as row {first + 1}"
    return problems


def _write_problems(path: Path, table: pa.Table, problems: dict[int, str]) -> None:
    listing_ids, images = table["listing_id"], table["image"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "listing_id", "image", "problem"])
        for row in sorted(problems):  # rows are counted from 1, as a spreadsheet does without its header
            writer.writerow([row + 1, listing_ids[row].as_py(), images[row].as_py(), problems[row]])


def _refuse_too_many(problems: dict[int, str], n_rows: int, max_bad: float) -> None:
    if not problems:
        return
    examples = "; ".join(f"row {row + 1}: {problems[row]}" for row in sorted(problems)[:3])
    said = f"{len(problems)} of {n_rows} rows can't be used ({examples}{'; ...' if len(problems) > 3 else ''})"
    if len(problems) > max_bad * n_rows or len(problems) == n_rows:
        hint = "mend the table, or allow more with --max-bad, which lists them all in problems.csv"
        raise UserError(f"{said}. At most {max_bad:.0%} are skipped: {hint}")
    print(f"skipped: {said}; all of them are in problems.csv")


def _write_tables(folder, name, table, ontology, categories, found, kept, seed, n_skipped) -> None:
    kept_table = table.take(pa.array(kept))
    listing_ids = kept_table["listing_id"].to_pylist()
    leaf = np.array(categories, dtype=object)[kept].astype(str)
    looks = np.frombuffer(b"".join(found[row].looks for row in kept), np.uint8).reshape(-1, N_BYTES)
    bytes_key = np.array([found[row].sha256.hex() for row in kept])
    pairs = lookalike_pairs(looks)
    groups = group_rows(len(kept), [np.array(listing_ids), bytes_key], pairs)
    given = kept_table["split"].to_pylist() if "split" in table.column_names else [None] * len(kept)
    split = _split_rows(groups, listing_ids, leaf, given, seed)
    n_leaks = _write_leaks(folder / "leaks.csv", listing_ids, groups, split)
    columns = {"listing_id": listing_ids, "image": [found[row].name for row in kept], "category": leaf, "split": split}
    if "source_image" not in kept_table.column_names:  # a dataset that is imported again keeps its first source
        columns["source_image"] = kept_table["image"]
    carried = [c for c in kept_table.column_names if c not in columns]
    written = pa.table({**columns, **{c: kept_table[c] for c in carried}})
    pa.parquet.write_table(written, folder / "listings.parquet")
    ontology.write(folder / "ontology.csv")
    about = describe(name, written, ontology, n_skipped, n_leaks)
    write_json(folder / "dataset.json", about)
    counts = about["counts"]
    print(
        f"{counts['images']} images of {counts['listings']} listings in {counts['categories']} categories: "
        + ", ".join(f"{counts[s]} {s}" for s in SPLITS)
    )
    if n_leaks:
        print(f"warning: {n_leaks} groups of look-alike images sit on both sides of the split that was given; see leaks.csv")
    if about["untrained"]:
        print(f"warning: {len(about['untrained'])} categories have no training image, such as {about['untrained'][0]!r}")


def _split_rows(groups: np.ndarray, listing_ids: list[str], leaf: np.ndarray, given: list[str | None], seed: int) -> np.ndarray:
    """Keep the splits that were given, let rows without one go where their group was put, and draw the rest."""
    told = dict(sorted((group, split) for group, split in zip(groups.tolist(), given, strict=True) if split))
    found = np.array([split or told.get(group, "") for group, split in zip(groups.tolist(), given, strict=True)], dtype=object)
    free = np.flatnonzero(found == "")
    if len(free):
        found[free] = assign_splits(groups[free], [listing_ids[row] for row in free], leaf[free], seed)
    return found.astype(str)


def _write_leaks(path: Path, listing_ids: list[str], groups: np.ndarray, split: np.ndarray) -> int:
    """Write the groups that sit in more than one split, and return their number."""
    sides: dict[int, set] = collections.defaultdict(set)
    for group, side in zip(groups.tolist(), split.tolist(), strict=True):
        sides[group].add(side)
    leaking = {group for group, found in sides.items() if len(found) > 1}
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["group", "listing_id", "split"])
        rows = [(g, i, s) for g, i, s in zip(groups.tolist(), listing_ids, split.tolist(), strict=True) if g in leaking]
        writer.writerows(sorted(set(rows)))
    return len(leaking)


def describe(name: str, written: pa.Table, ontology: Ontology, n_skipped: int, n_leaks: int) -> dict:
    """Return what dataset.json says of a table of listings."""
    splits = collections.Counter(written["split"].to_pylist())
    trained = set(written.filter(pa.compute.equal(written["split"], "train"))["category"].unique().to_pylist())
    return {
        "schema": SCHEMA,
        "kind": "dataset",
        "name": name,
        "digest": digest_table(written),
        "ontology_digest": ontology.digest,
        "counts": {
            "images": written.num_rows,
            "listings": len(written["listing_id"].unique()),
            "categories": len(ontology.leaves),
            "nodes_per_level": [len(ontology.level(level)[0]) for level in range(1, ontology.depth + 1)],
            **{split: splits.get(split, 0) for split in SPLITS},
            "skipped_rows": n_skipped,
            "leaking_groups": n_leaks,
        },
        "untrained": [leaf for leaf in ontology.leaves if leaf not in trained],
    }


def _digest_source(table: pa.Table, src: Path) -> str:
    """Digest the table and the size and time of each image, so that a changed source is noticed without reading it."""
    digest = hashlib.sha256()
    for batch in table.to_batches(max_chunksize=4096):
        digest.update(repr(batch.to_pylist()).encode())
    for name in table["image"].to_pylist():
        try:
            stat = os.stat(src / (name or ""))
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
        except (OSError, ValueError):
            digest.update(b"missing\n")
    return digest.hexdigest()
