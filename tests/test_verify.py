"""Proofs of an export: parity that a NaN can't pass, a gate that says how sure it is, and images that no photo is."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from export.rows import n_to_judge_on
from export.verify import (
    MAX_DP,
    embedding_cosine,
    gate,
    hostile_files,
    hostile_images,
    is_refused,
    n_to_pass,
    parity,
    parity_holds,
    tell_verdict,
)
from family.cli import main
from family.data.images import Preprocessing, decode_image

FLAT = [(np.arange(4), 4)]
TREE = [(np.array([0, 0, 1, 1]), 2), (np.arange(4), 4)]


def one_hot(classes, n=4) -> np.ndarray:
    return np.eye(n, dtype=np.float32)[classes]


def judged(n_lost: int, n_won: int, n: int, max_drop: float) -> dict:
    """Gate a scheme that loses and wins so many rows of n."""
    labels = np.zeros(n, int)
    reference, scheme = np.zeros(n, int), np.zeros(n, int)
    scheme[:n_lost] = 1
    reference[n_lost : n_lost + n_won] = 1
    return gate(one_hot(reference), one_hot(scheme), labels, max_drop, FLAT, np.arange(n))


def test_equal_answers_hold():
    p = np.random.default_rng(0).dirichlet(np.ones(5), 20).astype(np.float32)
    assert parity(p, p) == {"n": 20, "max_dp": 0.0, "agreement": 1.0} and parity_holds(parity(p, p))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_nan_fails(value):
    p = one_hot([0, 1, 2])
    broken = p.copy()
    broken[1, 3] = value
    assert not parity_holds(parity(p, broken))
    assert not parity_holds(parity(broken, p))
    assert not parity_holds(parity(p, np.full_like(p, value)))


def test_a_nan_where_the_best_class_is_fails():
    p, broken = one_hot([0, 1, 2]), one_hot([0, 1, 2])
    broken[1, 1] = np.nan
    assert parity(p, broken)["agreement"] == 1 and not parity_holds(parity(p, broken))
    assert not parity_holds(parity(broken, broken))


def test_embeddings_are_compared_by_their_cosine():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(9, 4)).astype(np.float16)
    found = embedding_cosine(source, 3 * source)
    assert found["n"] == 9 and found["median"] == pytest.approx(1) and found["least"] == pytest.approx(1)
    turned = source.copy()
    turned[4] = -source[4]
    turned[5] = 0
    found = embedding_cosine(source, turned)
    assert found["median"] == pytest.approx(1) and found["least"] == pytest.approx(-1)
    assert embedding_cosine(source[5:6], turned[5:6])["least"] == 0
    turned[0, 0] = np.nan
    assert np.isnan(embedding_cosine(source, turned)["least"])


def test_parity_is_of_the_worst_row_and_of_every_best_class():
    p = np.full((50, 2), 0.5, np.float32) + np.float32([[1e-3, -1e-3]])
    near = p.copy()
    near[7] += np.float32([MAX_DP / 2, -MAX_DP / 2])
    assert parity_holds(parity(p, near))
    near[7, 0] += 3 * MAX_DP
    assert not parity_holds(parity(p, near))
    tie, flipped = np.float32([[0.5, 0.499999]]), np.float32([[0.499999, 0.5]])
    assert parity(tie, flipped)["agreement"] == 0 and not parity_holds(parity(tie, flipped))


@pytest.mark.parametrize(
    ("n_lost", "n_won", "n", "max_drop", "verdict"),
    [
        (0, 0, 100, 0.5, "undecided"),
        (0, 0, 400, 0.5, "pass"),
        (0, 0, 4000, 0.0, "undecided"),  # nothing is lost, and nothing may be: no number of rows shows it
        (0, 50, 100, 0.5, "pass"),
        (20, 20, 1000, 0.5, "undecided"),
        (20, 20, 10_000, 0.5, "pass"),
        (5, 0, 1000, 0.5, "undecided"),
        (5, 0, 1000, 1.5, "pass"),
        (100, 0, 1000, 0.5, "fail"),
        (100, 100, 100, 100, "pass"),
        (1, 0, 100, 0.5, "undecided"),
        (12, 4, 1000, 0.5, "undecided"),
        (1000, 0, 1000, 0.5, "fail"),
    ],
)
def test_verdicts(n_lost, n_won, n, max_drop, verdict):
    assert judged(n_lost, min(n_won, n - n_lost), n, max_drop)["verdict"] == verdict


def nodes_right(node_of, answers, labels) -> np.ndarray:
    return node_of[answers] == node_of[labels]


@settings(max_examples=25)
@given(st.integers(1, 200), st.data())
def test_the_gate_counts_what_is_lost_at_every_level(n, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    labels, reference, scheme = rng.integers(0, 4, (3, n))
    allowed = data.draw(st.floats(0, 30))
    found = gate(one_hot(reference), one_hot(scheme), labels, allowed, TREE, np.arange(n) // 2)
    for level, (node_of, n_nodes) in zip("12", TREE, strict=True):
        lost = nodes_right(node_of, reference, labels).astype(float) - nodes_right(node_of, scheme, labels)
        means = [lost[node_of[labels] == node].mean() for node in range(n_nodes) if (node_of[labels] == node).any()]
        told = found["levels"][level]
        assert told["micro"]["drop_points"] == pytest.approx(100 * lost.mean()) and told["macro"]["drop_points"] == pytest.approx(100 * np.mean(means))
        assert all(told[kind]["interval"][0] <= told[kind]["drop_points"] <= told[kind]["interval"][1] for kind in ("micro", "macro"))
    assert found["drop_points"] == found["levels"]["2"]["micro"]["drop_points"] and found["n"] == n
    assert found["agreement"] == pytest.approx(np.mean(reference == scheme))
    every = [one for level in found["levels"].values() for place in (level, level["summed"]) for one in (place["micro"], place["macro"])]
    assert len(every) == 8 and found["levels"]["2"]["summed"] == {kind: found["levels"]["2"][kind] for kind in ("micro", "macro")}
    if found["verdict"] == "pass":
        assert all(one["interval"][1] <= allowed for one in every)
    else:
        assert any(one["interval"][found["verdict"] == "undecided"] > allowed for one in every)
        assert found["decided_by"].split(".")[1] in "12" and found["verdict"] in tell_verdict(found)
    assert ("needs_rows" in found) == (found["verdict"] == "undecided")


def test_a_rare_category_that_is_lost_fails_though_few_rows_are():
    """Of 4,000 rows 40 are of a rare category; int8 forgets it: micro loses 1 point, macro 25."""
    labels = np.repeat([0, 1, 2, 3], [1320, 1320, 1320, 40])
    scheme = np.where(labels == 3, 0, labels)
    found = gate(one_hot(labels), one_hot(scheme), labels, 2.0, TREE, np.arange(len(labels)))
    assert found["drop_points"] == pytest.approx(1) and found["verdict"] == "fail" and found["decided_by"] == "levels.2.macro"
    assert "level 2, macro, loses 25.00 points" in tell_verdict(found)


def test_categories_of_one_row_show_nothing_of_what_is_lost_there():
    """Of 50 categories two have one row, which the scheme happens to keep: had it lost both, macro would lose 4 points."""
    labels = np.concatenate([np.repeat(np.arange(48), 40), [48, 49]])
    answers = np.eye(50, dtype=np.float32)[labels]
    found = gate(answers, answers, labels, 0.5, [(np.arange(50), 50)], np.arange(len(labels)))
    assert found["levels"]["1"]["macro"]["drop_points"] == 0 and found["levels"]["1"]["macro"]["interval"][1] > 1
    assert (found["verdict"], found["decided_by"]) == ("undecided", "levels.1.macro")
    more = np.concatenate([np.repeat(np.arange(48), 200), np.repeat([48, 49], 40)])
    answers = np.eye(50, dtype=np.float32)[more]
    assert gate(answers, answers, more, 0.5, [(np.arange(50), 50)], np.arange(len(more)))["verdict"] == "pass"


def test_a_loss_that_lies_at_what_is_allowed_asks_for_no_number_of_rows():
    found = judged(12, 4, 1000, 0.7999)
    assert found["verdict"] == "undecided" and found["needs_rows"] > 1_000_000
    assert tell_verdict(found).endswith("too near what may be lost for validation images to decide")


def test_what_stays_within_a_department_is_lost_below_it_alone():
    labels = np.tile([0, 1, 2, 3], 250)
    found = gate(one_hot(labels), one_hot(labels ^ 1), labels, 0.5, TREE, np.arange(1000))
    assert found["levels"]["1"]["micro"]["drop_points"] == 0 and found["levels"]["2"]["micro"]["drop_points"] == 100


def test_what_the_sums_of_a_level_lose_is_judged_though_the_best_leaves_stay():
    """All best leaves are right; with the rest of the probability spread over the other department, its sum is larger."""
    labels = np.zeros(4000, int)
    sure, spread = np.float32([[0.6, 0.1, 0.15, 0.15]]), np.float32([[0.4, 0.0, 0.3, 0.3]])
    found = gate(np.repeat(sure, 4000, 0), np.repeat(spread, 4000, 0), labels, 0.5, TREE, np.arange(4000))
    assert found["agreement"] == 1 and found["levels"]["1"]["micro"]["drop_points"] == 0
    assert (found["verdict"], found["levels"]["1"]["summed"]["micro"]["drop_points"]) == ("fail", 100)
    assert found["decided_by"].startswith("levels.1.summed.") and "level 1, summed, m" in tell_verdict(found)


@pytest.mark.parametrize(("n_lost", "plainly", "strictly"), [(0, False, False), (5, False, True), (500, True, True)])
def test_what_is_refused(n_lost, plainly, strictly):
    found = judged(n_lost, 0, 1000, 0.5)
    assert (is_refused(found, strict=False), is_refused(found, strict=True)) == (plainly, strictly)


@pytest.mark.parametrize(
    ("n_lost", "n_won", "n", "verdict"), [(12, 4, 1000, "fail"), (0, 0, 100, "pass"), (0, 0, 20, "pass"), (3, 2, 1000, "pass"), (40, 38, 2000, "pass")]
)
def test_as_many_rows_as_it_asks_for_decide(n_lost, n_won, n, verdict):
    found = judged(n_lost, n_won, n, 0.5)
    assert found["verdict"] == "undecided"
    times = found["needs_rows"] / n

    def again(times: float) -> str:
        return judged(round(n_lost * times), round(n_won * times), round(n * times), 0.5)["verdict"]

    assert times > 1 and again(1.1 * times) == verdict and again(0.5 * times) == "undecided"


def test_a_rare_category_asks_for_as_many_rows_as_hold_enough_of_it():
    """Of 4,000 rows five are of a category that is lost whole: macro falls by the interval, and five listings are too few to say so."""
    labels = np.repeat([0, 1, 2, 3], [1333, 1331, 1331, 5])
    found = gate(one_hot(labels), one_hot(np.where(labels == 3, 0, labels)), labels, 2.0, TREE, np.arange(4000))
    assert found["verdict"] == "undecided" and found["needs_rows"] == 4800 and found["decided_by"] == "levels.2.macro"


@pytest.mark.parametrize("n_categories", [200, 1000])
def test_a_scheme_that_loses_nothing_passes_on_as_many_rows_as_are_said(n_categories):
    """At 5,000, of one with many categories it would stay undecided whatever it answers."""
    labels = np.random.default_rng(0).permutation(np.arange(30 * n_categories) % n_categories)
    n = n_to_pass(labels, 0.5)
    levels = [(np.arange(n_categories), n_categories)]

    def verdict(n: int) -> dict:
        p = np.eye(n_categories, dtype=np.float32)[labels[:n]]
        return gate(p, p, labels[:n], 0.5, levels, np.arange(n)) | {"n_there": len(labels)}

    assert verdict(n)["verdict"] == "pass" and n_to_judge_on(labels, 0.5) == max(5000, n)
    few = verdict(n // 2)
    assert few["verdict"] == "undecided" and f"judged on {n // 2:,} validation images, about" in tell_verdict(few)
    assert tell_verdict(few).endswith(f"would decide: --judge-on {few['needs_rows']}")
    assert tell_verdict(few | {"n_there": n // 2}).endswith("would decide")


def test_where_all_rows_are_too_few_no_number_of_them_is_said():
    labels = np.arange(2000) % 1000
    assert n_to_pass(labels, 0.5) is None and n_to_judge_on(labels, 0.5) == 5000
    assert n_to_pass(labels, 0) is None and n_to_pass(np.zeros(100, int), 50) <= 100


def test_the_interval_covers_the_true_drop():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(600):
        low, high = judged(int(rng.binomial(2000, 0.05)), int(rng.binomial(100, 0.5)), 2000, 0.5)["interval"]
        covered.append(low <= 100 * (0.05 - 0.025) <= high)
    assert 0.92 < np.mean(covered) <= 1


def test_hostile_images_are_of_the_models_shape_and_all_differ():
    for px in (32, 33, 224):
        images = hostile_images(px)
        assert images.shape[1:] == (px, px, 3) and images.dtype == np.uint8 and len(images) >= 10
        assert len({image.tobytes() for image in images}) == len(images)
        assert (images.min(), images.max()) == (0, 255)
        assert np.array_equal(images, hostile_images(px))


@pytest.mark.parametrize("aspect", ["stretch", "crop", "pad"])
def test_hostile_files_of_extreme_sizes_are_decoded_and_all_differ(aspect):
    files = hostile_files()
    sizes = [Image.open(io.BytesIO(data)).size for data in files]
    assert {(1, 1), (1000, 1), (1, 1000)} <= set(sizes)
    pixels = [decode_image(data, Preprocessing(32, aspect)) for data in files]
    assert all(image.shape == (32, 32, 3) for image in pixels)
    n_kinds = len({image.tobytes() for image in pixels})
    assert n_kinds == len(files) or (aspect == "pad" and n_kinds == 3)  # of a line nothing is left where it keeps its shape: all is grey


@pytest.mark.parametrize("points", ["nan", "inf"])
def test_a_drop_that_is_no_number_would_let_everything_pass(points, tmp_path, capsys):
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "bundle"), "--max-drop", points]) == 2
    assert "--max-drop takes a number of percentage points" in capsys.readouterr().err
