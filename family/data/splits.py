"""Assign groups of rows to train, val and test: stratified, deterministic for a seed, independent of row order."""

import hashlib

import numpy as np

SPLITS = ("train", "val", "test")
FRACTIONS = {"val": 0.1, "test": 0.2}


def assign_splits(groups: np.ndarray, names: list[str], categories: np.ndarray, seed: int) -> np.ndarray:
    """Give every group of rows a split so that each category trains.

    Within a category, groups are ordered by a hash of their name, so that new listings move few old ones. The first
    group trains, the second is tested, the third validates; from then on the fractions hold.

    Args:
        groups: int64 [n], a row number for each row's group.
        names: the listing of each row; a group is named by its smallest.
        categories: [n]; a group counts for the category of its first row.

    Returns:
        str [n] of SPLITS.
    """
    name_of: dict[int, str] = {}
    for group, name in zip(groups.tolist(), names, strict=True):
        name_of[group] = min(name_of.get(group, name), name)
    members: dict[object, list[tuple[str, int]]] = {}
    for group, name in name_of.items():
        draw = hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()
        members.setdefault(categories[group], []).append((draw, group))
    split_of = {}
    for drawn in members.values():
        ordered = [group for _, group in sorted(drawn)]
        split_of.update(zip(ordered, _splits_of(len(ordered)), strict=True))
    return np.array([split_of[group] for group in groups.tolist()])


def _splits_of(n: int) -> list[str]:
    """Return the splits of n groups of one category."""
    n_test = max(round(n * FRACTIONS["test"]), int(n >= 2))
    n_val = max(round(n * FRACTIONS["val"]), int(n >= 3))
    return ["test"] * n_test + ["val"] * n_val + ["train"] * (n - n_test - n_val)
