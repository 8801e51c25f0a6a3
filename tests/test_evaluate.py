"""`family evaluate`: the files that it leaves, mistakes and what to do about them, groups, comparison, gate."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from export.evaluate import FIGURES
from family.cli import main
from family.data.dataset import Rows, open_dataset
from family.data.importing import import_dataset
from family.data.ontology import from_leaves
from family.evaluation.assembling import Answered, Temperature, assemble
from family.evaluation.gate import expected_names, numbers
from family.evaluation.groups import measure_groups
from family.evaluation.mistakes import KINDS
from family.evaluation.predictions import gather_answers
from family.outputs import MADE_OF
from family.reporting.writing import summarize_findings, write_files

PX = 32
TREE = from_leaves([("cat", "Animals/Cats"), ("dog", "Animals/Dogs"), ("van", "Transport/Vans"), ("bus", "Transport/Buses")])
CAT, DOG, BUS, VAN = range(4)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, write_source, write_bundle):
    """A dataset of flat colours with all splits and a column, two bundles of one member, and an evaluation with groups."""
    folder = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    leaves, splits = ("laptop", "tower", "phone", "cat", "dog", "art"), ("train", "val", "val", "test", "test", "test")
    rows, images = [], {}
    for k in range(216):
        buffer = io.BytesIO()
        Image.new("RGB", (40, 40), tuple(int(v) for v in rng.integers(0, 256, 3))).save(buffer, "PNG")
        listing = k // 2
        rows.append({"listing_id": f"{listing:03}", "image": f"{k}.png", "category": leaves[listing % 6], "split": splits[listing // 6 % 6],
                     "country": ("de", "fr", "")[listing % 3]})  # fmt: skip
        images[f"{k}.png"] = buffer.getvalue()
    import_dataset(write_source(folder / "src", rows, images=images), folder / "data")
    write_bundle(folder / "bundle", open_dataset(folder / "data").ontology, PX)
    assert main(words(folder, "out", "--by", "country")) == 0
    return folder


def words(folder: Path, out: str, *more: str) -> list[str]:
    return ["evaluate", str(folder / "bundle"), str(folder / "data"), "--out", str(folder / out), *more]


def test_every_file_is_there_and_agrees_with_the_others(evaluated):
    out = evaluated / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    predictions = pyarrow.parquet.read_table(out / "predictions.parquet").to_pylist()
    wrong = [row for row in predictions if row["top_ids"][0] != row["true_id"]]
    errors = list(csv.DictReader((out / "errors.csv").open(encoding="utf-8")))
    assert [(row["listing_id"], row["image"], row["answer_id"]) for row in errors] == [
        (row["listing_id"], row["image"], row["top_ids"][0]) for row in wrong
    ]
    for row in (row for row in errors if row["kind"] == KINDS[0]):
        assert float(row["rule_probability"]) >= max(0.9, float(row["rule_usual_probability"])) and float(row["rule_true_probability"]) <= 0.05
    counts = {kind: sum(row["kind"] == kind for row in errors) for kind in KINDS}
    assert metrics["errors"]["by_kind"] == counts and metrics["errors"]["n"] == len(wrong) == sum(counts.values())
    assert list(metrics["errors"]["rules"]) == list(KINDS)
    lines = {line["id"]: line for line in csv.DictReader((out / "categories.csv").open(encoding="utf-8"))}
    thresholds = json.loads((out / "thresholds.json").read_text())
    for i, line in lines.items():
        own = [row for row in predictions if row["true_id"] == i]
        assert int(line["support"]) == len(own) and int(line["train_rows"]) > 0
        assert float(line["recall"]) == pytest.approx(sum(row["top_ids"][0] == i for row in own) / len(own))
        assert (line["threshold"] or None) == (str(t) if (t := thresholds["levels"]["3"][i]) is not None else None)
    assert pyarrow.parquet.read_table(out / "predictions-val.parquet").num_rows == thresholds["fitting_listings"] * 2
    filed = pyarrow.parquet.read_table(out / "filed.parquet").to_pylist()
    assert [row["listing_id"] for row in filed] == sorted({row["listing_id"] for row in predictions})
    backoff = metrics["filing"]["backoff"]
    there = [row for row in filed if row["filed_id"] is not None]
    assert len(there) == pytest.approx(backoff["share"] * len(filed)) and all(row["filed_id"] in {**thresholds["levels"][str(row["level"])]} for row in there)
    if there:
        assert sum(row["right"] for row in there) / len(there) == pytest.approx(backoff["precision"])
    assert metrics["filing"]["leaf"]["share"] == pytest.approx(sum(row["is_final"] for row in filed) / len(filed))
    assert metrics["calibration"]["nll"] == pytest.approx(-np.log([row["true_probability"] for row in predictions]).mean(), rel=1e-4)
    assert metrics["calibration"]["fitted_on"] == metrics["filing"]["fitted_on"] == "val"
    assert metrics["calibration"]["after"]["nll"] < metrics["calibration"]["nll"]
    assert metrics["macro_over"] == {"categories": 6, "under_5_rows": 0}
    assert "top-1" in (out / "summary.md").read_text() and (out / "actions.csv").is_file()


def test_groups_are_what_their_rows_alone_give(evaluated):
    metrics = json.loads((evaluated / "out/metrics.json").read_text())
    table = open_dataset(evaluated / "data").table
    country = dict(zip(table["image"].to_pylist(), table["country"].to_pylist(), strict=True))
    predictions = pyarrow.parquet.read_table(evaluated / "out/predictions.parquet").to_pylist()
    groups = metrics["by"]["country"]
    assert set(groups) == {"de", "fr", "(none)"} and sum(group["n"] for group in groups.values()) == metrics["n"]
    for name, group in groups.items():
        own = [row for row in predictions if (country[row["image"]] or "(none)") == name]
        assert group["n"] == len(own) and group["n_listings"] == len(own) / 2
        share = sum(row["true_id"] == row["top_ids"][0] for row in own) / len(own)
        assert group["top1"]["micro"] == pytest.approx(share)
        low, high = group["top1"]["micro_interval"]
        assert low <= share <= high and group["listings"]["n"] == len(own) / 2
        assert 0 <= group["filing"]["backoff"]["share"] <= 1 and group["macro_over"]["categories"] == len({row["true_id"] for row in own})


def test_a_gate_ends_with_1_and_a_name_that_is_none_with_2(evaluated, capsys):
    told = words(evaluated, "out", "--by", "country", "--fail-under")
    assert main([*told, "top1.micro=0,by.country.de.top1.micro=0"]) == 0
    assert main([*told, "top1.micro=0,levels.2.macro=1.01"]) == 1
    assert "levels.2.macro is 0." in (shown := capsys.readouterr().err) and "wanted at least 1.01" in shown and "top1.micro" not in shown
    assert main([*told, "top1.micros=0"]) == 2
    assert "Did you mean 'top1.micro'" in capsys.readouterr().err
    assert main(words(evaluated, "early", "--fail-under", "top1.micros=0")) == 2
    assert "Did you mean 'top1.micro'" in capsys.readouterr().err and not (evaluated / "early").exists()
    assert main(words(evaluated, "none", "--by", "contry")) == 2
    assert "Did you mean 'country'" in capsys.readouterr().err and not (evaluated / "none").exists()


def test_what_an_earlier_version_computed_does_not_stand_for_this_one(evaluated, capsys):
    shutil.copytree(evaluated / "out", evaluated / "older")
    told = json.loads((evaluated / "older" / MADE_OF).read_text())
    del told["figures"]
    (evaluated / "older" / MADE_OF).write_text(json.dumps(told))
    assert main(words(evaluated, "older", "--by", "country")) == 2
    assert f"figures was 1, now {FIGURES}" in (shown := capsys.readouterr().err) and "--fresh" in shown


def test_no_value_and_a_value_of_that_name_are_one_group():
    given = answered([(CAT, CAT, 0.9, 2), (DOG, DOG, 0.9, 2)])
    groups = measure_groups(TREE, given.by_image, given.by_listing, None, np.array(["", "(none)", "", "de"]))
    assert {name: group["n"] for name, group in groups.items()} == {"(none)": 3, "de": 1}


def test_a_member_against_itself_differs_nowhere_and_other_rows_are_refused(evaluated, capsys):
    assert main(words(evaluated, "again", "--against", str(evaluated / "out"))) == 0
    found = json.loads((evaluated / "again/compared.json").read_text())
    assert {"top1.micro", "top5.macro", "levels.2.summed.micro"} <= {line["metric"] for line in found["differences"]}
    for line in found["differences"]:
        low, high = line["interval"]
        assert line["difference"] == 0 and low < 0 < high and not line["shown"] and line["ours"] == line["other"]
    assert main(words(evaluated, "other", "--split", "val", "--against", str(evaluated / "out"))) == 2
    assert "other rows" in capsys.readouterr().err


def test_the_names_that_a_gate_may_have_are_told_before_the_work(evaluated):
    dataset = open_dataset(evaluated / "data")
    columns = {"country": dataset.column("country", "test")}
    metrics = json.loads((evaluated / "out/metrics.json").read_text())
    assert expected_names(dataset.ontology, columns, with_filing=True) == set(numbers(metrics))
    assert not any("filing" in name for name in expected_names(dataset.ontology, {}, with_filing=False))


def test_a_vertical_is_compared_with_the_general_model_on_its_own_rows(evaluated, write_bundle, capsys):
    tree = open_dataset(evaluated / "data").ontology.subset(["Animals"])
    write_bundle(evaluated / "animals", tree, PX, scope="animals", subtrees=["Animals"])
    told = ["evaluate", str(evaluated / "animals"), str(evaluated / "data"), "--out", str(evaluated / "vertical")]
    assert main([*told, "--against", str(evaluated / "out")]) == 0
    assert main(words(evaluated, "general", "--against", str(evaluated / "vertical"))) == 0
    assert "rows: they are compared" in capsys.readouterr().err
    there, back = (json.loads((evaluated / name / "compared.json").read_text()) for name in ("vertical", "general"))
    general = {row["image"]: row for row in pyarrow.parquet.read_table(evaluated / "out/predictions.parquet").to_pylist()}
    own = pyarrow.parquet.read_table(evaluated / "vertical/predictions.parquet").to_pylist()
    right = [(row["top_ids"][0] == row["true_id"], general[row["image"]]["top_ids"][0] == row["true_id"]) for row in own]
    first = there["differences"][0]
    assert first["metric"] == "top1.micro" and (first["ours"], first["other"]) == pytest.approx(np.mean(right, axis=0))
    mirrored = {line["metric"]: line for line in back["differences"]}
    for line in there["differences"]:
        assert mirrored[line["metric"]]["difference"] == pytest.approx(-line["difference"])
        assert mirrored[line["metric"]]["interval"] == pytest.approx([-end for end in reversed(line["interval"])])


def test_without_validation_rows_nothing_is_told_of_filing(evaluated):
    assert main(words(evaluated, "val", "--split", "val")) == 0
    metrics = json.loads((evaluated / "val/metrics.json").read_text())
    assert "filing" not in metrics and metrics["calibration"]["temperature"] is None and metrics["calibration"]["after"] is None
    assert "Note: The validation rows themselves" in (evaluated / "val/summary.md").read_text()
    assert not (evaluated / "val/thresholds.json").exists()


def answered(cases: list[tuple[int, int, float, int]], true_share: float = 0.04) -> Answered:
    """Return rows of (truth, answer, probability, how many listings of one image)."""
    labels = np.concatenate([np.full(n, truth, np.int32) for truth, _, _, n in cases])
    batch = []
    for truth, answer, probability, n in cases:
        p = np.full(4, 0.0, np.float64)
        p[truth] = true_share * (1 - probability)
        p[answer] = probability
        p[[k for k in range(4) if p[k] == 0]] = (1 - p.sum()) / (p == 0).sum()
        batch += [p] * n
    ids = np.array([f"l{k:03}" for k in range(len(labels))])
    rows = Rows(Path("."), TREE, ids, np.array([f"images/{i}.jpg" for i in ids]), labels)
    return Answered(rows, *gather_answers([np.array(batch)], rows))


def found_of(cases):
    about = {"member": "m", "dataset": "d", "digest": "0" * 64, "split": "test", "scope": "general", "notes": []}
    return assemble(about, answered(cases), None, Temperature(1.0, "val"), np.array([9, 8, 7, 6]), {})


def test_mistakes_are_sorted_by_the_rules_in_their_order():
    found = found_of(
        [(CAT, CAT, 0.8, 20), (DOG, DOG, 0.95, 20), (CAT, DOG, 0.97, 4), (CAT, DOG, 0.93, 3), (CAT, DOG, 0.7, 5), (VAN, DOG, 0.7, 2)]
    )
    assert found.findings.metrics["errors"]["by_kind"] == {KINDS[0]: 4, KINDS[1]: 8, KINDS[2]: 2}, "0.93 is less than dogs have, 0.95"
    whys = {error["kind"]: error["why"] for error in found.findings.errors}
    assert "97.0%" in whys[KINDS[0]] and "95.0% on average" in whys[KINDS[0]]
    assert whys[KINDS[1]].startswith("Both stand under Animals;") and whys[KINDS[2]].startswith("The two part at the top of the tree;")


def test_categories_to_merge_rename_and_relabel_are_told_from_one_another(tmp_path):
    cases = [(CAT, CAT, 0.9, 40), (DOG, DOG, 0.9, 30), (CAT, DOG, 0.6, 10), (DOG, CAT, 0.6, 9), (VAN, VAN, 0.9, 20), (BUS, BUS, 0.9, 60),
             (VAN, BUS, 0.6, 12), (BUS, CAT, 0.99, 5)]  # fmt: skip
    evaluated = found_of(cases)
    actions = {action["kind"]: action for action in evaluated.findings.actions}
    assert [action["kind"] for action in evaluated.findings.actions] == ["merge", "rename", "relabel"]
    assert actions["merge"]["listings"] == 19 and actions["merge"]["gain_points"] == pytest.approx(100 * 19 / 186)
    assert [category["id"] for category in actions["rename"]["categories"]] == ["van", "bus"] and actions["rename"]["gain_points"] is None
    assert [category["id"] for category in actions["relabel"]["categories"]] == ["bus", "cat"] and actions["relabel"]["listings"] == 5
    errors = {id(error) for error in evaluated.findings.errors}
    assert (
        all(id(error) in errors for action in actions.values() for error in action["examples"]) and len(actions["merge"]["examples"]) == 6
    )
    first = evaluated.findings.pairs[0]
    assert (first["a"]["id"], first["b"]["id"], first["n_ab"], first["n_ba"], first["lca_path"]) == ("cat", "dog", 10, 9, "Animals")
    assert json.loads(json.dumps(evaluated.findings.__dict__))["about"]["n_listings"] == 186
    write_files(tmp_path, answered(cases), evaluated)
    assert len(list(csv.DictReader((tmp_path / "actions.csv").open(encoding="utf-8")))) == 3
    assert "| 1 | merge | Animals/Cats, Animals/Dogs | 19 | 10.22 |" in summarize_findings(evaluated.findings)


def test_two_that_are_taken_for_each_other_across_the_tree_want_other_names():
    (action,) = found_of([(CAT, CAT, 0.9, 20), (VAN, VAN, 0.9, 20), (CAT, VAN, 0.6, 8), (VAN, CAT, 0.6, 9)]).findings.actions
    assert (action["kind"], action["listings"], action["gain_points"]) == ("rename", 17, None)
    assert "stand in different places of the tree" in action["why"] and {category["id"] for category in action["categories"]} == {"cat", "van"}


def test_perfect_answers_have_no_errors_and_no_actions(tmp_path):
    evaluated = found_of([(CAT, CAT, 0.9, 3), (VAN, VAN, 0.9, 2)])
    assert evaluated.findings.errors == evaluated.findings.actions == evaluated.findings.pairs == []
    assert len(evaluated.findings.right) == 5 and evaluated.findings.metrics["severity"]["of_mistakes"] is None
    write_files(tmp_path, answered([(CAT, CAT, 0.9, 3), (VAN, VAN, 0.9, 2)]), evaluated)


def test_text_that_a_spreadsheet_would_run_is_quoted(tmp_path):
    tree = from_leaves([("=1+1", "-A/B"), ("x", "C")])
    rows = Rows(Path("."), tree, np.array(["@l", "m"]), np.array(["a.jpg", "b.jpg"]), np.int32([0, 1]))
    given = Answered(rows, *gather_answers([np.array([[0.1, 0.9], [0.2, 0.8]])], rows))
    about = {"member": "m", "dataset": "d", "digest": "0" * 64, "split": "test", "scope": "general", "notes": []}
    write_files(tmp_path, given, assemble(about, given, None, None, np.array([1, 1]), {}))
    for name in ("errors.csv", "categories.csv"):
        for line in csv.DictReader((tmp_path / name).open(encoding="utf-8")):
            assert not any((value or "").startswith(("=", "-", "@")) for value in line.values())
