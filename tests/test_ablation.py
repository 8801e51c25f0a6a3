"""Figures of ablations, against hand-made and brute-force ones; and the severity of mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies.ablation import LONGEST, RATIO, long_tail, summarize, t_975, table, tail_figures, tree_figures
from family.data.ontology import from_leaves
from family.evaluation.severity import severities

PATHS = ["Animals/Cats/Tabby", "Animals/Cats/Siamese", "Animals/Dogs", "Cars/Vans", "Books"]
TREE = from_leaves([(str(k), path) for k, path in enumerate(PATHS)])


def classes(*paths):
    return np.array([TREE.leaves.index(TREE.id_of[path]) for path in paths])


def test_severity_is_the_height_of_the_lowest_common_ancestor():
    truth = classes("Animals/Cats/Tabby", "Animals/Cats/Tabby", "Animals/Cats/Tabby", "Animals/Dogs", "Cars/Vans", "Books")
    answers = classes("Animals/Cats/Tabby", "Animals/Cats/Siamese", "Animals/Dogs", "Animals/Cats/Tabby", "Books", "Animals/Dogs")
    assert severities(TREE, truth, answers).tolist() == [0, 1, 2, 2, 3, 3]
    assert severities(TREE, answers, truth).tolist() == [0, 1, 2, 2, 3, 3]
    assert severities(TREE, truth[:0], answers[:0]).tolist() == []


def test_figures_of_the_tree():
    truth = classes("Animals/Cats/Tabby", "Animals/Cats/Tabby", "Books", "Books")
    answers = classes("Animals/Cats/Tabby", "Animals/Dogs", "Cars/Vans", "Books")
    assert tree_figures(TREE, truth, answers) == {"top1": 0.5, "level_1": 0.75, "severity_of_mistakes": 2.5, "severity_of_rows": 1.25}


def test_a_long_tail_has_the_profile_that_is_told():
    labels = np.repeat(np.arange(10), 400)
    kept = long_tail(labels, 0)
    counts = np.sort(np.bincount(labels[kept]))[::-1]
    assert counts[0] == LONGEST and counts[-1] == LONGEST // RATIO
    np.testing.assert_allclose(counts[1:] / counts[:-1], RATIO ** (-1 / 9), atol=0.1)
    assert len(set(kept.tolist())) == len(kept) and kept.tolist() != long_tail(labels, 1).tolist()
    assert long_tail(np.array([0, 0, 1]), 0).tolist() == [0, 1, 2]


def test_the_tail_is_the_third_with_the_fewest_training_rows():
    counts = np.array([50, 40, 5, 4, 30, 3])
    labels = np.array([0, 1, 2, 3, 4, 4, 5, 5])
    found = tail_figures(counts, labels, np.array([0, 0, 2, 0, 4, 4, 5, 0]))
    assert found == {"top1": 5 / 8, "macro": pytest.approx((1 + 0 + 1 + 0 + 1 + 0.5) / 6), "head_third": 0.5, "tail_third": 0.25}


def test_a_difference_inside_the_spread_is_not_shown():
    seeds = [
        {"plain": {"top1": 0.5 + noise}, "same": {"top1": 0.5 - noise}, "better": {"top1": 0.6 + noise}} for noise in (0.0, 0.01, -0.02)
    ]
    found = summarize(seeds)
    assert not found["same"]["top1"]["shown"] and found["better"]["top1"]["shown"]
    assert found["better"]["top1"]["difference"] == pytest.approx(0.1)
    assert "not shown" in table(found).splitlines()[3] and "(+10.00 ± " in table(found).splitlines()[4]
    assert "(+10.00, one seed)" in table(summarize(seeds[:1]))


def test_quantiles_of_t_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for df in range(1, 11):
        assert t_975(df) == pytest.approx(stats.t.ppf(0.975, df), abs=1e-3)
    assert t_975(30) > stats.t.ppf(0.975, 30)


@pytest.mark.parametrize("what", ["tail", "tree"])
def test_the_page_holds_the_table_of_the_checked_in_result(what):
    root = Path(__file__).parent.parent
    result = json.loads((root / "benchmarks" / "results" / f"ablation-{what}.json").read_text(encoding="utf-8"))
    assert f"<!-- {what} -->\n\n{table(result['summary'])}\n" in (root / "family" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("variant", ["b0", "lite0"])
def test_the_page_holds_the_tables_of_the_checked_in_distillation(variant):
    root = Path(__file__).parent.parent
    result = json.loads((root / "benchmarks" / "results" / "recipes-distill.json").read_text(encoding="utf-8"))
    assert f"<!-- distill {variant} -->\n\n{table(result['summary'][variant])}\n" in (root / "family" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("what", ["tail", "tree"])
def test_the_page_holds_the_tables_of_the_checked_in_whole_trainings(what):
    root = Path(__file__).parent.parent
    result = json.loads((root / "benchmarks" / "results" / f"recipes-{what}.json").read_text(encoding="utf-8"))
    assert f"<!-- recipes {what} -->\n\n{table(result['summary']['v2-b0'])}\n" in (root / "family" / "README.md").read_text(encoding="utf-8")
