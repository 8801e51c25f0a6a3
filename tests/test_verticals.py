"""The comparison of five ways to answer, and its paired intervals, against walking rows, listings and paths one by one."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from family.data.dataset import Rows
from family.data.ontology import from_leaves
from family.evaluation import paired
from family.evaluation.paired import count_differing, is_shown, macro_intervals, micro_interval
from family.evaluation.verticals import WAYS, Comparison, to_table

N_DRAWS = 12


@st.composite
def cases(draw):
    """Draw a tree, two verticals of it, listings of test rows, and every model's probabilities of every row."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    places = [(d, k) for d in range(draw(st.integers(2, 4))) for k in range(draw(st.integers(1, 4)))]
    paths = [f"D{d}/" + f"G{k % 2}/" * (k % 3 > 0) + f"leaf {k}" for d, k in places]
    tree = from_leaves([(f"id{k}", path) for k, path in enumerate(paths)])
    parts = {name: np.array([tree.class_of[leaf] for leaf in tree.subset([root]).leaves]) for name, root in (("one", "D0"), ("two", "D1"))}
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=14))
    labels = np.repeat(rng.integers(0, len(tree.leaves), len(sizes)), sizes).astype(np.int32)
    rows = Rows(Path("."), tree, np.repeat([f"l{k:02}" for k in range(len(sizes))], sizes), np.array([""] * len(labels)), labels)
    general = rng.dirichlet(np.full(len(tree.leaves), 0.5), len(labels)).astype(np.float32)
    return (
        rows,
        parts,
        general,
        {name: rng.dirichlet(np.full(len(part), 0.5), len(labels)).astype(np.float32) for name, part in parts.items()},
    )


def compared(rows, parts, general, subs, batch=5) -> tuple[dict, dict]:
    comparison = Comparison(rows, parts)
    chained = [
        comparison.add(general[k : k + batch], {name: sub[k : k + batch] for name, sub in subs.items()}) for k in range(0, len(rows), batch)
    ]
    return comparison.finish(), {way: np.concatenate([found[way] for found in chained]) for way in ("hard", "soft")}


def answer(rows, parts, general, subs, chained, way: str, row: int) -> dict[int, float]:
    """Return a way's probability of each leaf that it may answer."""
    p = {leaf: float(value) for leaf, value in enumerate(general[row])}
    own = next((name for name, part in parts.items() if rows.labels[row] in part), None)
    if way == "general":
        return p
    if way == "restricted":
        return {leaf: p[leaf] for leaf in parts[own]}
    if way == "submodel":
        return dict(zip(parts[own].tolist(), map(float, subs[own][row]), strict=True))
    return {leaf: float(value) for leaf, value in enumerate(chained[way][row])}


def cut(tree, leaf: int, level: int) -> str:
    return "/".join(tree.path_of[tree.leaves[leaf]].split("/")[:level])


def is_right(tree, found: dict[int, float], label: int, metric: tuple) -> bool:
    if metric[0] != "levels":
        return label in sorted(found, key=lambda leaf: (-found[leaf], leaf))[: int(metric[0][3:])]
    level, sums = int(metric[1]), {}
    if len(metric) == 2:
        return cut(tree, max(found, key=lambda leaf: (found[leaf], -leaf)), level) == cut(tree, label, level)
    for leaf, value in found.items():
        sums[cut(tree, leaf, level)] = sums.get(cut(tree, leaf, level), 0.0) + value
    return max(sums, key=sums.get) == cut(tree, label, level)


def macro(right: list, truth: list) -> float:
    return float(np.mean([np.mean([r for r, t in zip(right, truth, strict=True) if t == category]) for category in set(truth)]))


def at(metrics: dict, path: tuple) -> dict:
    for key in path:
        metrics = metrics[key]
    return metrics


def wanted_micro(differences: list, ids: list) -> tuple[float, float]:
    """Compute METHOD's formula, listing by listing."""
    sums = {name: sum(d for d, i in zip(differences, ids, strict=True) if i == name) for name in set(ids)}
    if len(sums) == 1:
        return -1, 1
    m = sum(differences) / (len(ids) + 2)
    v = len(sums) / (len(sums) - 1) * sum((total - ids.count(name) * m) ** 2 for name, total in sums.items()) + 1 + 2 * m**2
    half = 1.96 * v**0.5 / (len(ids) + 2)
    return max(-1, m - half), min(1, m + half)


def wanted_macro(right: list, base: list, truth: list, ids: list) -> tuple[float, float]:
    """Draw listings, write their rows out, and measure both ways on them."""
    names, draws = sorted(set(ids)), []
    for b in range(N_DRAWS):
        rows = []
        for drawn in np.random.default_rng((0, b)).integers(0, len(names), len(names)):
            rows += [row for row, i in enumerate(ids) if i == names[drawn]]
        draws.append(macro([right[r] for r in rows], [truth[r] for r in rows]) - macro([base[r] for r in rows], [truth[r] for r in rows]))
    return tuple(np.quantile(draws, (0.025, 0.975)))


@settings(max_examples=12)
@given(cases())
def test_the_comparison_is_what_walking_the_rows_gives(case):
    rows, parts, general, subs = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paired, "N_DRAWS", N_DRAWS)
        found, chained = compared(rows, parts, general, subs)
    tree, owners = rows.ontology, [next((name for name, part in parts.items() if label in part), None) for label in rows.labels]
    kinds = {"pooled": lambda o: o is not None, "outside": lambda o: o is None, "all": lambda o: True}
    sets = {name: (found[name], test) for name, test in kinds.items()}
    sets |= {name: (found["verticals"][name], lambda o, name=name: o == name) for name in parts}
    metrics = [
        ("top1",),
        ("top3",),
        ("top5",),
        *((*m,) for k in range(tree.depth) for m in (("levels", str(k + 1)), ("levels", str(k + 1), "summed"))),
    ]
    for name, (part, test) in sets.items():
        chosen = [row for row, owner in enumerate(owners) if test(owner)]
        assert part["n"] == len(chosen)
        if not chosen:
            assert part["ways"] == {}
            continue
        ids = [str(rows.listing_ids[row]) for row in chosen]
        assert (part["n_listings"], part["n_categories"]) == (len(set(ids)), len({rows.labels[row] for row in chosen}))
        assert list(part["ways"]) == (["general", "hard", "soft"] if name in ("outside", "all") else list(WAYS))
        for metric in metrics:
            truth = [cut(tree, rows.labels[row], int(metric[1])) if metric[0] == "levels" else int(rows.labels[row]) for row in chosen]
            right = {way: [is_right(tree, answer(rows, parts, general, subs, chained, way, row), rows.labels[row], metric) for row in chosen]
                     for way in part["ways"]}  # fmt: skip
            for way, values in part["ways"].items():
                values, base = at(values, metric), right["general"]
                assert values["micro"]["share"] == pytest.approx(np.mean(right[way]))
                assert values["macro"]["share"] == pytest.approx(macro(right[way], truth))
                if way == "general":
                    assert set(values["micro"]) == set(values["macro"]) == {"share"}
                    continue
                differences = [int(r) - int(b) for r, b in zip(right[way], base, strict=True)]
                assert values["micro"]["points"] == pytest.approx(100 * np.mean(differences))
                assert values["macro"]["points"] == pytest.approx(100 * (macro(right[way], truth) - macro(base, truth)))
                assert values["micro"]["interval"] == pytest.approx([100 * end for end in wanted_micro(differences, ids)])
                if metric in (("top1",), ("levels", "2")):
                    assert values["macro"]["interval"] == pytest.approx([100 * end for end in wanted_macro(right[way], base, truth, ids)])
                n = sum(sum(d for d, i in zip(differences, ids, strict=True) if i == listing) != 0 for listing in set(ids))
                assert values["n_differing"] == n
                for kind in ("micro", "macro"):
                    low, high = values[kind]["interval"]
                    assert values[kind]["shown"] == ((low > 0 or high < 0) and n >= 6)


@settings(max_examples=10)
@given(cases(), st.integers(1, 9))
def test_the_batch_and_the_order_of_a_submodels_classes_change_nothing(case, batch):
    rows, parts, general, subs = case
    turned = {name: part[::-1] for name, part in parts.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paired, "N_DRAWS", N_DRAWS)
        first, _ = compared(rows, parts, general, subs)
        assert compared(rows, parts, general, subs, batch)[0] == first
        again, _ = compared(rows, turned, general, {name: sub[:, ::-1] for name, sub in subs.items()})
    for name in ("pooled", "all"):
        for way, metrics in first[name]["ways"].items():
            assert again[name]["ways"][way]["top1"]["micro"] == metrics["top1"]["micro"]


def test_routes_are_counted_and_a_vertical_without_rows_is_told():
    tree = from_leaves([("a", "A/a"), ("b", "A/b"), ("c", "C/c"), ("d", "D/d"), ("e", "E/e")])
    rows = Rows(Path("."), tree, np.array(["1", "2", "3"]), np.array([""] * 3), np.int32([0, 1, 3]))
    parts = {"first": np.array([0, 1]), "second": np.array([2])}
    general = np.float32([[0.6, 0.3, 0.1, 0, 0], [0, 0.2, 0.7, 0.1, 0], [0.3, 0.25, 0, 0.4, 0.05]])
    found, _ = compared(
        rows, parts, general, {"first": np.float32([[0.2, 0.8], [0, 1], [0.9, 0.1]]), "second": np.ones((3, 1), np.float32)}
    )
    assert found["routing"] == {
        "verticals": {"first": {"n": 2, "routed": 1, "others": 1}, "second": {"n": 0, "routed": 0, "others": 1}},
        "outside": {"n": 1, "routed": 0, "others": 0},
    }
    shares = {way: metrics["top1"]["micro"]["share"] for way, metrics in found["verticals"]["first"]["ways"].items()}
    assert shares == {"general": 0.5, "restricted": 1, "submodel": 0.5, "hard": 0, "soft": 0}
    assert found["outside"]["ways"]["general"]["top1"]["micro"]["share"] == 1
    assert found["outside"]["ways"]["hard"]["top1"]["micro"]["share"] == 0, "it was routed to the first vertical"
    table = to_table(found).splitlines()
    assert len({len(line) for line in table}) == 1 and table[0].count("|") == 9
    assert [line.split("|")[1].strip() for line in table if line.split("|")[1].strip(" -")] == [
        "rows", "first: 2 images, 2 categories", "second: 0 images, 0 categories", "pooled: 2 images, 2 categories",
        "outside of all: 1 images, 1 categories", "all rows: 3 images, 3 categories",
    ]  # fmt: skip
    assert "no rows" in table[7] and "-50.0 (" in table[5] and "not shown" in table[5] and "100.0 / 100.0" in table[3]


def test_one_row_a_listing_is_agresti_and_mins_interval():
    n, b, c = 400, 9, 24
    differences = np.repeat([1, -1, 0], [c, b, n - b - c])
    low, high = micro_interval(differences, np.arange(n))
    middle, half = (c - b) / (n + 2), 1.96 * ((b + c + 1) - (c - b) ** 2 / (n + 2)) ** 0.5 / (n + 2)
    assert (low, high) == pytest.approx((middle - half, middle + half), rel=0.01)
    assert low < (c - b) / n < high


@pytest.mark.parametrize("size", [1, 4])
def test_the_intervals_hold_the_truth_about_as_often_as_they_say(size, monkeypatch):
    """Listings of `size` rows that are alike: an interval that took rows for independent would hold it far less often."""
    monkeypatch.setattr(paired, "N_DRAWS", 200)
    rng, n_listings, truth = np.random.default_rng(7), 200, 0.06
    listings, held, naive, held_macro = np.repeat(np.arange(n_listings), size), 0, 0, 0
    groups = np.repeat(np.arange(n_listings) % 3, size)
    for trial in range(300):
        differences = np.repeat(rng.choice([1, -1, 0], n_listings, p=[0.12, 0.06, 0.82]), size)
        low, high = micro_interval(differences, listings)
        held += low <= truth <= high
        low, high = micro_interval(differences, np.arange(len(listings)))
        naive += low <= truth <= high
        if trial < 100:
            low, high = macro_intervals({("w", "m"): differences}, {("m",): groups}, lambda key: key[1:], listings)["w", "m"]
            held_macro += low <= truth <= high
    assert 0.92 <= held / 300 <= 0.98 and 0.88 <= held_macro / 100 <= 1
    assert (naive / 300 < 0.8) == (size == 4)


def test_nothing_that_differs_is_not_a_narrow_interval_and_a_handful_is_not_shown():
    low, high = micro_interval(np.zeros(50, int), np.arange(50))
    assert low == -high and high == pytest.approx(1.96 / 52)
    assert micro_interval(np.array([1, 1, 0]), np.zeros(3, int)) == (-1, 1), "one listing tells nothing"
    assert not is_shown((0.01, 0.02), 5) and is_shown((0.01, 0.02), 6) and is_shown((-0.02, -0.01), 6)
    assert not is_shown((0.0, 0.02), 60) and not is_shown((-0.01, 0.02), 60)
    assert count_differing(np.array([1, -1, 0, 1, 0]), np.array([0, 0, 1, 2, 2])) == 1
