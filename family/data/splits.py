"""Assign groups of rows to train, val and test: stratified, deterministic for a seed, independent of row order."""

import hashlib

import numpy as np

SPLITS = ("train", "val", "test")
HELD_BACK = ("val", "test")
FRACTIONS = {"val": 0.1, "test": 0.2}


def assign_splits(groups: np.ndarray, names: list[str], categories: np.ndarray, seed: int) -> np.ndarray:
    """Give every group of rows a split so that each category trains.

    Within a category, groups are ordered by a hash of their name, so that new listings move few old ones. A category of
    one group trains; of two, one is tested; of three, one validates; from then on the fractions hold.

    Args:
        groups: int64 [n], a row number for each row's group.
        names: the listing of each row; a group is named by its smallest, and counts for that listing's category.
        categories: [n].

    Returns:
        str [n] of SPLITS.
    """
    head: dict[int, tuple] = {}
    groups_of: dict[object, set[int]] = {}
    for group, name, category in zip(groups.tolist(), names, categories.tolist(), strict=True):
        head[group] = min(head.get(group, (name, category)), (name, category))
        groups_of.setdefault(category, set()).add(group)
    draw = {group: hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest() for group, (name, _) in head.items()}
    split_of: dict[int, str] = {}
    for category, members in groups_of.items():
        own = sorted((group for group in members if head[group][1] == category), key=draw.get)
        split_of.update(zip(own, _splits_of(len(own)), strict=True))
    for _, members in sorted(groups_of.items()):
        # Look-alikes may tie the whole of a category to another one, whose draw did not ask whether this one trains.
        if all(split_of[group] != "train" for group in members):
            split_of[min(members, key=draw.get)] = "train"
    return np.array([split_of[group] for group in groups.tolist()])


def _splits_of(n: int) -> list[str]:
    """Return the splits of n groups of one category."""
    n_test = max(round(n * FRACTIONS["test"]), int(n >= 2))
    n_val = max(round(n * FRACTIONS["val"]), int(n >= 3))
    return ["test"] * n_test + ["val"] * n_val + ["train"] * (n - n_test - n_val)
