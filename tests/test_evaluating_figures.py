"""Figures of an evaluation against independent ones: intervals by simulation, nearness by walking paths, thresholds by trying them all."""

import hiclass.metrics
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, precision_recall_fscore_support

from family.data.ontology import from_leaves
from family.errors import UserError
from family.evaluation.calibration import TemperatureFit, at_temperature, measure_calibration
from family.evaluation.filing import MIN_ANSWERED, NEVER, file_listings, fit_thresholds, lowest_thresholds, measure_filing
from family.evaluation.gate import find_short, parse_wanted
from family.evaluation.intervals import macro_difference, macro_interval, ratio_interval, share_interval, t_975
from family.evaluation.metrics import measure_rows, split_in_thirds
from family.evaluation.mistakes import MISFILED, sort_mistakes
from family.evaluation.predictions import level_maps, summarize


@st.composite
def trees(draw):
    """Draw a tree of one to four levels."""
    paths = draw(st.sets(st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple), min_size=1, max_size=14))
    leaves = [path for path in paths if not any(other[: len(path)] == path and other != path for other in paths)]
    return from_leaves([(f"id{k}", "/".join(f"n{part}" for part in path)) for k, path in enumerate(sorted(leaves))])


def answers_of(tree, n, seed, sharpness=3.0):
    """Draw labels and what is kept of a model's probabilities, one image a listing."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, len(tree.leaves), n).astype(np.int32)
    logits = generator.normal(0, 1.5, (n, len(tree.leaves)))
    logits[np.arange(n), labels] += sharpness
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return summarize(probabilities, labels, level_maps(tree)), probabilities


def names_above(tree, leaf):
    """Return the leaf's path and those of all nodes above it, by walking."""
    parts = tree.path_of[tree.leaves[leaf]].split("/")
    return {"/".join(parts[:k]) for k in range(1, len(parts) + 1)}


def height_of(tree, node):
    """Return how many levels a node ('' is the root) stands above its deepest leaf."""
    below = [tree.path_of[leaf] for leaf in tree.leaves if not node or f"{tree.path_of[leaf]}/".startswith(f"{node}/")]
    depth = len(node.split("/")) if node else 0
    return max(len(path.split("/")) for path in below) - depth


def lca_height(tree, a, b):
    shared = names_above(tree, a) & names_above(tree, b)
    return 0 if a == b else height_of(tree, max(shared, key=len, default=""))


@settings(max_examples=40)
@given(trees(), st.integers(0, 2**32))
def test_nearness_is_what_walking_the_tree_gives(tree, seed):
    answers, _ = answers_of(tree, 25, seed, sharpness=1.0)
    found = measure_rows(tree, answers, np.arange(25))
    best, truth = answers.top[:, 0], answers.labels
    # HiClass' definitions: sums over all rows of |answer's nodes & truth's nodes|, over sums of |answer's nodes| and |truth's nodes|.
    shared = sum(len(names_above(tree, a) & names_above(tree, b)) for a, b in zip(best, truth, strict=True))
    precision = shared / sum(len(names_above(tree, a)) for a in best)
    recall = shared / sum(len(names_above(tree, a)) for a in truth)
    assert found["hierarchical"]["precision"] == pytest.approx(precision, abs=1e-9)
    assert found["hierarchical"]["recall"] == pytest.approx(recall, abs=1e-9)
    f1 = 2 * precision * recall / (precision + recall) if shared else 0
    assert found["hierarchical"]["f1"] == pytest.approx(f1, abs=1e-9)
    heights = np.array([[lca_height(tree, t, a) for a in row] for t, row in zip(truth, answers.top, strict=True)], float)
    assert found["severity"]["of_rows"] == pytest.approx(heights[:, 0].mean(), abs=1e-9)
    wrong = best != truth
    assert found["severity"]["of_mistakes"] == (pytest.approx(heights[wrong, 0].mean(), abs=1e-9) if wrong.any() else None)
    for k in (1, 3, 5):
        assert found["distance_at"][str(k)] == pytest.approx(heights[:, :k].mean(axis=1).mean(), abs=1e-9)


@settings(max_examples=40)
@given(trees(), st.integers(0, 2**32))
def test_hierarchical_figures_are_hiclass(tree, seed):
    answers, _ = answers_of(tree, 25, seed, sharpness=1.0)
    found = measure_rows(tree, answers, np.arange(25))["hierarchical"]
    levels = np.full((len(tree.leaves), 4), "", object)  # a category's nodes from the top; HiClass pads with ""
    for leaf in range(len(tree.leaves)):
        above = sorted(names_above(tree, leaf), key=len)
        levels[leaf, : len(above)] = above
    truth, answered = levels[answers.labels], levels[answers.top[:, 0]]
    for name in ("precision", "recall"):
        assert found[name] == pytest.approx(getattr(hiclass.metrics, name)(truth, answered), abs=1e-9)
    if found["precision"]:  # HiClass divides by 0 otherwise
        assert found["f1"] == pytest.approx(hiclass.metrics.f1(truth, answered), abs=1e-9)


def test_planted_misfilings_are_found_and_few_others_are_suspected():
    """Of 4,000 listings 5 % get another category, any of the others; the model is right about 98 of 100 things that it sees."""
    tree = from_leaves([(f"c{k}", f"d{k // 10}/n{k // 5}/c{k}") for k in range(40)])
    answers, probabilities = answers_of(tree, 4000, 7, sharpness=7.0)
    seen = answers.labels
    generator = np.random.default_rng(8)
    planted = generator.random(len(seen)) < 0.05
    labels = np.where(planted, (seen + generator.integers(1, 40, len(seen))) % 40, seen).astype(np.int32)
    assert 0.97 < (answers.top[:, 0] == seen).mean() < 0.99
    filed = summarize(probabilities, labels, level_maps(tree))
    mistakes = sort_mistakes(tree, filed, filed)
    suspected = np.zeros(len(seen), bool)
    suspected[mistakes.rows[mistakes.kinds == MISFILED]] = True
    assert (planted & suspected).sum() / planted.sum() > 0.5, "of what was planted, this share is found"
    assert (planted & suspected).sum() / suspected.sum() > 0.95, "of what is suspected, this share was planted"


def listings_of(generator, shares, n_listings):
    """Draw listings of one to four images that are alike: sums of right ones, sizes, category."""
    groups = generator.integers(0, len(shares), n_listings)
    sizes = generator.integers(1, 5, n_listings)
    own = generator.beta(2 * shares[groups], 2 * (1 - shares[groups]))
    return generator.binomial(sizes, own).astype(float), sizes.astype(float), groups


def test_intervals_hold_the_truth_in_95_of_100_simulations():
    generator = np.random.default_rng(0)
    shares = np.array([0.95, 0.9, 0.7, 0.5, 0.85])
    micro, macro, ratio, by_image = [], [], [], []
    for _ in range(2000):
        sums, sizes, groups = listings_of(generator, shares, 250)
        for found, interval, truth in ((micro, share_interval(sums, sizes), shares.mean()), (macro, macro_interval(sums, sizes, groups), shares.mean()),
                                       (ratio, ratio_interval(3 * sums, sizes), 3 * shares.mean())):  # fmt: skip
            found.append(interval[0] <= truth <= interval[1])
        n = int(sizes.sum())
        rows = share_interval(np.repeat([1.0, 0.0], [int(sums.sum()), n - int(sums.sum())]), np.ones(n))
        by_image.append(rows[0] <= shares.mean() <= rows[1])
    assert 0.93 <= np.mean(micro) <= 0.97 and 0.93 <= np.mean(macro) <= 0.97 and 0.93 <= np.mean(ratio) <= 0.97
    assert np.mean(by_image) < 0.9, "an interval by image is too narrow: this is what intervals by listing are for"


def test_macro_intervals_hold_the_truth_over_long_tails():
    generator, n_simulations, held = np.random.default_rng(2), 500, []
    for n_groups, n_listings in ((10, 100), (100, 300)):
        weights = 1 / np.arange(1, n_groups + 1)
        for share in (0.6, 0.9, 0.97):
            for alike in (0.0, 0.7):  # how often an image is as right or as wrong as its whole listing
                n_held = 0
                for _ in range(n_simulations):
                    shares = generator.beta(10 * share, 10 * (1 - share), n_groups)
                    groups = generator.choice(n_groups, n_listings, p=weights / weights.sum())
                    sizes = generator.integers(1, 5, n_listings)
                    owner = np.repeat(np.arange(n_listings), sizes)
                    draws = np.where(generator.random(len(owner)) < alike, generator.random(n_listings)[owner], generator.random(len(owner)))
                    sums = np.bincount(owner, draws < shares[groups[owner]])
                    low, high = macro_interval(sums, sizes, groups)
                    n_held += low <= shares[np.unique(groups)].mean() <= high
                held.append(n_held / n_simulations)
    assert min(held) >= 0.92 and max(held) <= 0.99 and 0.94 <= np.mean(held) <= 0.97


def test_the_difference_of_two_members_holds_the_truth_in_95_of_100_simulations():
    generator = np.random.default_rng(1)
    shares, held = np.array([0.9, 0.8, 0.6, 0.7]), []
    for _ in range(2000):
        groups, sizes = generator.integers(0, 4, 200), generator.integers(1, 4, 200)
        common = generator.beta(2 * shares[groups], 2 * (1 - shares[groups]))
        ours, theirs = generator.binomial(sizes, common), generator.binomial(sizes, 0.9 * common)
        low, high = macro_difference((ours - theirs).astype(float), sizes.astype(float), groups)
        held.append(low <= 0.1 * shares.mean() <= high)
    assert 0.93 <= np.mean(held) <= 0.97


def test_quantiles_of_t_are_those_of_scipy():
    t = pytest.importorskip("scipy.stats").t
    for df in (1, 2, 3, 4, 10, 100, 2.5):
        assert t_975(df) == pytest.approx(t.ppf(0.975, np.floor(df) if df < 3 else df), rel=4e-3)


def test_intervals_at_the_ends():
    assert share_interval(np.ones(1), np.ones(1)) == [0, 1] and ratio_interval(np.ones(1), np.ones(1)) == [None, None]
    low, high = share_interval(np.full(50, 2.0), np.full(50, 2.0))
    assert 0.9 < low < 0.95 and high == 1.0, "50 listings, all right, prove no more than 50 rows"
    assert t_975(10) == pytest.approx(2.228139, rel=3e-3) and t_975(1e6) == pytest.approx(1.959964, rel=1e-4)


@settings(max_examples=10)
@given(st.integers(0, 2**32), st.floats(0.3, 4))
def test_the_temperature_is_that_of_the_smallest_log_loss(seed, factor):
    tree = from_leaves([(str(k), f"n{k}") for k in range(6)])
    answers, probabilities = answers_of(tree, 300, seed, sharpness=2.0)
    probabilities = at_temperature(probabilities, 1 / factor)  # too sure, or not sure enough
    fit = TemperatureFit()
    assert np.array_equal(np.concatenate(list(fit.watch(np.array_split(probabilities, 7), answers.labels))), probabilities)

    def loss(temperature):
        return -np.log(at_temperature(probabilities, temperature)[np.arange(300), answers.labels]).mean()

    found = fit.temperature()
    assert loss(found) == pytest.approx(log_loss(answers.labels, at_temperature(probabilities, found), labels=range(6)), abs=1e-9)
    assert loss(found) <= min(loss(t) for t in np.geomspace(1 / 8, 8, 100)) + 1e-5


def test_calibration_by_hand():
    confidence, hits = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True])
    found = measure_calibration(confidence, hits, np.array([0.95, 0.05, 0.55, 0.55]), np.arange(4))
    assert found["ece"] == pytest.approx(0.5 * abs(0.95 - 0.5) + 0.5 * abs(0.55 - 1))
    assert found["nll"] == pytest.approx(-np.log([0.95, 0.05, 0.55, 0.55]).mean())
    assert sum(place["n"] for place in found["bins"]) == 4 and found["bins"][0]["accuracy"] is None


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.booleans()), max_size=60), st.sampled_from([0.5, 0.8, 0.9]))
def test_thresholds_are_those_that_trying_each_one_gives(listings, wanted):
    groups, probabilities, right = (np.array([row[k] for row in listings], kind) for k, kind in enumerate((int, float, bool)))
    found = lowest_thresholds(groups, probabilities, right, 3, wanted)
    for k in range(3):
        allowed = []
        for t in probabilities[groups == k]:
            at_least = (groups == k) & (probabilities >= t)
            if (~right[at_least]).sum() + 1 <= (1 - wanted) * (at_least.sum() + 1) + 1e-9:
                allowed.append(t)
        assert found[k] == min(allowed, default=NEVER)


def test_what_is_filed_on_other_listings_is_about_as_precise_as_wanted_and_backs_off():
    tree = from_leaves([(f"{a}{b}{c}", f"d{a}/g{b}/leaf{c}") for a in range(2) for b in range(2) for c in range(3)] + [("x", "d9")])
    fitting, _ = answers_of(tree, 6000, 0)
    fresh, _ = answers_of(tree, 6000, 1)
    thresholds = fit_thresholds(tree, fitting, 0.9)
    filed = file_listings(tree, fresh, thresholds)
    found = measure_filing(tree, fresh, filed)
    for told in (found["backoff"], found["leaf"], *found["backoff"]["by_depth"]):
        assert told["share"] > 0.02 and told["precision"] == pytest.approx(0.9, abs=0.05), "at each depth, not on the whole alone"
    assert found["levels"]["1"]["share"] > found["levels"]["2"]["share"] > found["levels"]["3"]["share"] == found["leaf"]["share"]
    for k in range(300):  # by hand: the deepest level whose node clears its threshold
        cleared = [level for level in range(3) if fresh.node_probabilities[k, level] >= thresholds[level][fresh.nodes[k, level]]]
        assert filed.level[k] == (cleared[-1] + 1 if cleared else 0)
        if cleared:
            assert filed.right[k] == (tree.level(cleared[-1] + 1)[1][fresh.labels[k]] == fresh.nodes[k, cleared[-1]])
    assert [point["share"] for point in found["curve"]] == sorted((point["share"] for point in found["curve"]), reverse=True)
    few = fit_thresholds(tree, fitting.take(np.arange(MIN_ANSWERED - 1)), 0.9)
    assert all((values == NEVER).all() for values in few), "too few listings prove nothing at any level"


def test_thirds_are_of_the_categories_that_have_rows():
    assert split_in_thirds(np.array([5, 100, 50, 3, 70, 1]), np.array([0, 1, 2, 3, 4, 5])).tolist() == [1, 0, 1, 2, 0, 2]


def test_flat_figures_of_a_category_are_those_of_scikit_learn():
    from family.evaluation.categories import count_confusions, measure_categories
    from family.evaluation.mistakes import sort_mistakes

    tree = from_leaves([(str(k), f"n{k % 3}/leaf{k}") for k in range(8)])
    answers, _ = answers_of(tree, 400, 2, sharpness=1.0)
    mistakes = sort_mistakes(tree, answers, answers)
    confusions = count_confusions(answers, mistakes, 8)
    lines = measure_categories(tree, answers, answers, confusions, np.ones(8, int), np.zeros(8, int), None, None)
    n_wrong = [line["support"] * (1 - line["recall"]) for line in lines]
    assert n_wrong == pytest.approx(sorted(n_wrong, reverse=True)), "the most mistakes first"
    lines.sort(key=lambda line: tree.class_of[line["id"]])
    wanted = precision_recall_fscore_support(answers.labels, answers.top[:, 0], labels=range(8), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), wanted, strict=True):
        assert [line[name] for line in lines] == pytest.approx(values.tolist(), abs=1e-9)
    assert sum(confusions[:, 2]) == (answers.labels != answers.top[:, 0]).sum() == len(mistakes.rows)


def test_a_gate_names_what_falls_short_and_refuses_unknown_names():
    metrics = {"top1": {"micro": 0.8, "micro_interval": [0.7, 0.9]}, "levels": {"2": {"macro": 0.84}}, "severity": {"of_mistakes": None}}
    assert find_short(metrics, parse_wanted("top1.micro=0.80, levels.2.macro=0.84")) == []
    assert find_short(metrics, parse_wanted("top1.micro=0.81")) == ["top1.micro is 0.8000, wanted at least 0.81"]
    assert "severity.of_mistakes is nothing" in find_short(metrics, parse_wanted("severity.of_mistakes=1"))[0]
    assert find_short(metrics, {"thirds.tail.micro": 0.5}) == ["thirds.tail.micro is nothing, since no row counts for it, wanted at least 0.5"]
    with pytest.raises(UserError, match=r"Did you mean 'top1.micro'"):
        find_short(metrics, parse_wanted("top1.mikro=0.8"))
    for text in ("top1.micro", "top1.micro=x", "=0.5", "top1.micro=nan"):
        with pytest.raises(UserError, match="NAME=NUMBER"):
            parse_wanted(text)
