"""Splits: groups stay whole, every category trains, a seed decides, and the order of rows does not matter."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from family.data.lookalikes import group_rows
from family.data.splits import SPLITS, assign_splits


@st.composite
def listings(draw):
    """Draw (listing, category) rows, where a listing keeps its category, and pairs of rows that look alike."""
    n = draw(st.integers(1, 40))
    names = [f"l{draw(st.integers(0, 25))}" for _ in range(n)]
    home = {name: f"c{draw(st.integers(0, 4))}" for name in sorted(set(names))}
    pairs = draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=6))
    return names, [home[name] for name in names], np.array(pairs, np.int64).reshape(-1, 2)


def split(names, categories, pairs, seed=0):
    groups = group_rows(len(names), [np.array(names)], pairs)
    return groups, assign_splits(groups, names, np.array(categories), seed)


@given(listings(), st.integers(0, 9))
def test_groups_are_whole_and_every_category_trains(rows, seed):
    names, categories, pairs = rows
    groups, found = split(names, categories, pairs, seed)
    assert set(found) <= set(SPLITS) and len(found) == len(names)
    for key in (groups.tolist(), names):
        sides = collections.defaultdict(set)
        for k, side in zip(key, found, strict=True):
            sides[k].add(side)
        assert all(len(s) == 1 for s in sides.values())
    assert all(found[a] == found[b] for a, b in pairs)
    assert {c for c, side in zip(categories, found, strict=True) if side == "train"} == set(categories)


@pytest.mark.parametrize("seed", range(8))
def test_a_category_that_looks_like_another_one_trains_too(seed):
    names, categories = ["a1", "a2", "b"], ["A", "A", "B"]
    for twin in (0, 1):
        _, found = split(names, categories, np.array([[twin, 2]]), seed)
        assert found[2] == "train" and found[twin] == "train"


@given(listings(), st.integers(0, 9), st.randoms())
def test_the_order_of_rows_does_not_matter(rows, seed, random):
    names, categories, pairs = rows
    _, found = split(names, categories, pairs, seed)
    order = random.sample(range(len(names)), len(names))
    moved = np.argsort(order)[pairs] if len(pairs) else pairs
    _, again = split([names[k] for k in order], [categories[k] for k in order], moved, seed)
    assert again.tolist() == found[order].tolist()


@pytest.mark.parametrize(("n", "wanted"), [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (10, (7, 1, 2)), (100, (70, 10, 20))])
def test_fractions_of_a_category(n, wanted):
    names = [f"l{k}" for k in range(n)]
    _, found = split(names, ["c"] * n, np.empty((0, 2), np.int64))
    assert tuple(np.sum(found == side) for side in SPLITS) == wanted


def test_another_seed_is_another_split():
    names = [f"l{k}" for k in range(50)]
    drawn = {tuple(split(names, ["c"] * 50, np.empty((0, 2), np.int64), seed)[1]) for seed in range(5)}
    assert len(drawn) == 5


def test_new_listings_move_few_old_ones():
    names = [f"l{k}" for k in range(400)]
    none = np.empty((0, 2), np.int64)
    before = split(names[:380], ["c"] * 380, none)[1]
    after = split(names, ["c"] * 400, none)[1][:380]
    assert np.mean(before != after) < 0.1
