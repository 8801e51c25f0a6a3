"""What exports came to: losses against counting them by hand, the tables of the page against the checked-in result."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.measurements import read_rows
from benchmarks.readme import splice
from benchmarks.studies import exports
from benchmarks.studies.exports_page import MARKS, render, write_tables
from family.data.dataset import Rows
from family.data.ontology import from_leaves
from family.errors import UserError
from family.evaluation.predictions import gather_answers, write_predictions

TREE = from_leaves([("cat", "Animals/Cats"), ("dog", "Animals/Dogs"), ("van", "Transport/Vans")])
ROOT = Path(__file__).parent.parent


@pytest.fixture
def evaluations(tmp_path):
    """Rows of listings of two images, of which one category has few, and two evaluations of them, with their answers."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.r_[np.zeros(12), np.ones(15), np.full(3, 2)], 2).astype(np.int32)
    ids = np.repeat([f"l{k:02}" for k in range(30)], 2)
    rows = Rows(Path("."), TREE, ids, np.array([f"images/{k}.jpg" for k in range(60)]), labels)
    answers = {}
    for name in ("fp32", "int8"):
        probabilities = rng.dirichlet(np.ones(3), 60)
        (tmp_path / name).mkdir()
        write_predictions(tmp_path / name / "predictions.parquet", rows, gather_answers([probabilities], rows)[0])
        answers[name] = probabilities.argmax(1)
    return tmp_path, rows, answers


def test_losses_are_those_that_counting_gives(evaluations):
    folder, rows, answers = evaluations
    found = exports.loss(rows, folder / "fp32", folder / "int8")
    for level, node_of in (("1", [0, 0, 1]), ("2", [0, 1, 2])):
        truth = [node_of[k] for k in rows.labels]
        right = {name: [node_of[k] == t for k, t in zip(best, truth, strict=True)] for name, best in answers.items()}
        lost = [int(a) - int(b) for a, b in zip(right["fp32"], right["int8"], strict=True)]
        assert found[level]["micro"]["points"] == pytest.approx(100 * sum(lost) / 60, abs=1e-3)
        nodes = [node for node in set(truth) if truth.count(node) >= exports.LEAST_ROWS]
        means = [sum(d for d, t in zip(lost, truth, strict=True) if t == node) / truth.count(node) for node in nodes]
        assert found[level]["macro"]["points"] == pytest.approx(100 * sum(means) / len(means), abs=1e-3)
        assert found[level]["macro"]["nodes"] == len(nodes) == int(level), "vans have six rows"
        for one in found[level].values():
            assert one["interval"][0] < one["points"] < one["interval"][1]


def test_an_evaluation_of_other_rows_is_refused(evaluations):
    folder, rows, _ = evaluations
    few = Rows(rows.folder, rows.ontology, rows.listing_ids[:50], rows.images[:50], rows.labels[:50])
    write_predictions(folder / "int8" / "predictions.parquet", few, gather_answers([np.eye(3)[few.labels]], few)[0])
    with pytest.raises(UserError, match="not of the 60 rows"):
        exports.loss(rows, folder / "fp32", folder / "int8")


def test_what_an_export_refused_is_told():
    machine = {"cpu": "Abacus", "features": ["avx512_vnni"]}
    made = {key: told("")[key] for key in ("made", "candidates")}
    refused = {"name": "b0-128-general", "refused": "fail", **made}
    result = {"schema": 2, "machine": machine, "dataset": {"name": "d"}, "members": [refused, told("v2-b0-128-general")]}
    page = render(result)
    assert "| b0-128-general | refused: fail |" in page and "<summary>b0-128-general: the best of 40 candidates on 128 joined halves</summary>" in page
    assert render({**result, "members": [refused]}).count("<details>") == 1 and page.count("<details>") == 2
    assert "| v2-b0-128-general | 89 | 2 | 0 | 3 | 0.20 | 7.0 (0.29) | 1.70 (1.60 to 1.80) | pass | 0.9981, 0.950 | 150 s, 2.8 GB |" in page
    assert "on Abacus with VNNI." in page and "on Abacus without VNNI. Verdicts are" in render({**result, "schema": 1, "machine": {**machine, "features": []}})
    assert "| v2-b0-128-general | micro | -0.10 (-0.30 to +0.10) |\n|  | macro |  |" in page
    assert "| chosen | percentile 99.99 | block1a | QDQ | 0.0031 | 99.2% | 7.0 | 1.00 | 95.0% | 92.0% |" in page


def told(name: str) -> dict:
    candidate = {"chosen": True, "ranges": "percentile 99.99", "blocks_in_float": "block1a", "format": "QDQ", "divergence": 0.0031, "agreement": 0.992,
                 "size_mb": 7.0, "relative_time": 1.0, "val_micro": 0.95, "val_macro": 0.92}  # fmt: skip
    return {
        "name": name, "mb": {"fp32": 23.9, "int8": 7.03}, "made": {"n_candidates": 40, "n_ranked_on": 128},
        "proof": {"int8_convolutions": 89, "float_convolutions": 2, "batchnorms": 0, "transposes": 3, "float_weights_mb": 0.2},
        "speed": {"ratio": 1.7, "interval": [1.6, 1.8]}, "verdict": {"verdict": "pass"}, "candidates": [candidate],
        "embedding_cosine": {"n": 256, "median": 0.99812, "least": 0.95}, "export_s": 150.0, "export_peak_memory_mb": 2867.0,
        "loss": {"1": {"micro": {"points": -0.1, "interval": [-0.3, 0.1]}, "macro": None}},
    }  # fmt: skip


def test_candidates_are_read_as_numbers(tmp_path):
    path = tmp_path / "candidates.csv"
    path.write_text("chosen,ranges,blocks_in_float,format,divergence,relative_time\nTrue,all,,QDQ,0.5,1.0\nFalse,all,top,QDQ,0.4,\n")
    assert exports.read_candidates(path) == [
        {"chosen": True, "ranges": "all", "blocks_in_float": "", "format": "QDQ", "divergence": 0.5, "relative_time": 1.0}
    ]
    assert exports.read_candidates(tmp_path / "none.csv") == []


def test_the_page_holds_the_tables_of_the_checked_in_results():
    results = ROOT / "benchmarks" / "results"
    names = ("exports.json", "exports-avx2.json", "exports-128-avx2.json", "versus-224.json")
    *told, versus = (json.loads((results / name).read_text(encoding="utf-8")) for name in names)
    page = (ROOT / "export" / "README.md").read_text(encoding="utf-8")
    assert write_tables(page, told, read_rows([results / "peers-224-amd-epyc-2.jsonl"]), versus) == page and all(result["members"] for result in told)
    with pytest.raises(UserError, match="no section"):
        splice("text", "section", *MARKS)
