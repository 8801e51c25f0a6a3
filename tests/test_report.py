"""The report of results: joined, kept apart where conditions differ, honest about what is missing."""

import argparse
import copy
import csv
import hashlib
import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import report
from benchmarks.boards import boards, pareto
from benchmarks.pick import pick
from benchmarks.reporting.costs import costs_of
from benchmarks.reporting.page import LONG
from benchmarks.studies.picking import repeated
from family.errors import NothingFits, OtherOutput, UserError
from family.plan.steps import Step, run_steps, standing

MACHINE = {
    "name": "epyc", "cpu": "AMD EPYC", "cores": 2, "features": ["avx2"], "memory_gb": 23.4,
    "system": "Linux", "gpu": None, "versions": {"python": "3.11.7", "onnxruntime": "1.26.0"},
}  # fmt: skip


def named(variant: str, scheme: str, scope: str) -> dict:
    """Return the fields that both kinds of row share."""
    member = f"{variant}-64-{scope}-{scheme}"
    return {
        "schema": 1, "at": "2026-11-22T10:00:00Z", "member": member, "variant": variant, "resolution_px": 64,
        "scope": scope, "label": None, "scheme": scheme, "trained": True,
        "model_sha256": hashlib.sha256(member.encode()).hexdigest(),
    }  # fmt: skip


def latency(variant="b0", scheme="fp32", scope="general", p50=8.0, **changes) -> dict:
    """Return a latency row; its upper bound of p99 is 1.5 times p50."""
    row = {
        **named(variant, scheme, scope), "kind": "latency", "bundle": f"bundles/{variant}-64-{scope}",
        "size_mb": 16.0 if scheme == "fp32" else 4.0, "n_parameters": 4_000_000, "n_classes": 40,
        "machine": MACHINE, "provider": "cpu", "threads": 1, "batch": 1, "n": 400, "warmup": 20,
        "latency_ms": {"p50": p50, "p90": p50, "p95": p50, "p99": 1.4 * p50, "upper": 1.5 * p50, "mean": p50},
        "stages_ms": {"decode": 0.1 * p50, "model": 0.9 * p50}, "valid": True, "invalid_because": None,
        "throughput": [{"batch": 1, "images_per_s": 120.0}, {"batch": 8, "images_per_s": 180.0, "from_bytes_per_s": 150.0}],
    }  # fmt: skip
    return {**row, **changes}


def accuracy(variant="b0", scheme="fp32", scope="general", top1=0.6, data="caltech101", **changes) -> dict:
    """Return an accuracy row of two levels."""
    rates = {"micro": top1, "macro": top1 - 0.05}
    metrics = {
        "n": 500, "n_listings": 450,
        "top1": rates, "top3": {"micro": min(top1 + 0.1, 1)}, "top5": {"micro": min(top1 + 0.2, 1)},
        "levels": {"1": {"nodes": 2, "micro": min(top1 + 0.15, 1)}, "2": {"nodes": 9, "micro": top1}},
        "confusion": {"level": 1, "ids": ["Animals", "Transport"], "matrix": [[200, 50], [10, 240]]},
    }  # fmt: skip
    row = {
        **named(variant, scheme, scope), "kind": "accuracy", "n": 500, "metrics": metrics,
        "dataset": {"name": data, "digest": "9f2c4a7e55b1d3", "split": "test"},
    }  # fmt: skip
    return {**row, **changes}


def family_rows() -> list[dict]:
    """Return four general members and a vertical one, all measured."""
    rows = []
    for variant, p50, top1 in (("b0", 8.0, 0.60), ("b2", 30.0, 0.70)):
        rows += [latency(variant, p50=p50), accuracy(variant, top1=top1)]
        rows += [latency(variant, "int8", p50=p50 / 2), accuracy(variant, "int8", top1=top1 - 0.01)]
    return [*rows, latency(scope="animals", p50=4.0), accuracy(scope="animals", top1=0.9)]


def write_lines(path, rows) -> list:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [path]


def test_latency_and_accuracy_are_joined_by_the_file():
    renamed = accuracy(top1=0.61)
    renamed["member"] = "another-name"
    (board,) = boards([latency(), renamed])
    (member,) = board["members"]
    assert (member["member"], member["top1"], member["upper_ms"]) == ("b0-64-general-fp32", 0.61, 12.0)
    assert member["images_per_s"] == 180.0 and member["front"]


def test_the_newest_measurement_counts_whatever_the_order():
    old, new = latency(p50=9.0, at="2026-01-01T00:00:00Z"), latency(p50=7.0, at="2026-02-01T00:00:00Z")
    for rows in ([old, new], [new, old]):
        assert boards(rows)[0]["members"][0]["p50_ms"] == 7.0


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=12))
def test_no_front_member_is_dominated(points):
    on_front = pareto(points)
    front = [point for point, on in zip(points, on_front, strict=True) if on]

    def beats(a, b):
        return a != b and a[0] <= b[0] and a[1] >= b[1]

    assert not any(beats(a, b) for a in points for b in front)
    assert all(on or any(beats(a, b) for a in front) for b, on in zip(points, on_front, strict=True))


def test_scopes_have_fronts_of_their_own():
    found = boards(family_rows())
    assert [board["scope"] for board in found] == ["general", "animals"]
    assert [m["member"] for m in found[1]["members"] if m["front"]] == ["b0-64-animals-fp32"]
    assert all(m["scope"] == board["scope"] for board in found for m in board["members"])


@pytest.mark.parametrize(
    "change",
    [
        {"machine": {**MACHINE, "name": "laptop"}},
        {"machine": {**MACHINE, "versions": {"onnxruntime": "1.25.0"}}},
        {"threads": 2},
        {"provider": "cuda"},
    ],
)
def test_latency_of_other_conditions_is_not_mixed(change):
    rows = [latency(), accuracy(), latency("b2", **change), accuracy("b2")]
    assert [len(board["members"]) for board in boards(rows)] == [1, 1]


def test_accuracy_on_other_rows_is_not_mixed():
    rows = [latency(), latency("b2"), accuracy(), accuracy("b2", data="another")]
    assert [len(board["members"]) for board in boards(rows)] == [1, 1]
    fewer = accuracy("b2", n=100)
    assert len(boards([latency(), latency("b2"), accuracy(), fewer])) == 2


def test_one_member_on_two_machines_stands_in_both():
    other = {**MACHINE, "name": "laptop"}
    found = boards([latency(), latency(machine=other, p50=2.0), accuracy()])
    assert [board["machine"]["machine"]["name"] for board in found] == ["epyc", "laptop"]
    text = report.markdown_tables([latency(), latency(machine=other), accuracy()])
    assert "laptop" in text and "epyc" in text


def test_what_cannot_be_compared_is_marked_and_on_no_front(tmp_path):
    busy = latency("b1", p50=1.0, valid=False, invalid_because="the machine was busy | <b>")
    rows = [latency(), accuracy(), busy, accuracy("b1", top1=0.99), latency("b3", p50=0.5)]
    rows += [latency("b4", p50=0.1, trained=False), accuracy("b4", top1=0.999, trained=False)]
    (board,) = report.reported(rows)
    remarks = {member["variant"]: list(member["remarks"]) for member in board["members"]}
    assert remarks == {"b0": [], "b1": ["INVALID"], "b3": ["no accuracy"], "b4": ["untrained"]}
    assert [m["variant"] for m in board["members"] if m["front"]] == ["b0"]
    page = report.write_report(rows, tmp_path).read_text()
    assert "the machine was busy | &lt;b&gt;" in page and ">INVALID<" in page and ">untrained<" in page


def test_latency_alone_and_accuracy_alone_are_reported(tmp_path):
    for rows in ([latency()], [accuracy()]):
        page = report.write_report(rows, tmp_path).read_text()
        assert "b0-64-general-fp32" in page
        assert (tmp_path / "accuracy-latency.svg").read_text().count("nothing to show") == 1


def test_headline_names_the_best_the_fastest_and_what_fits(tmp_path):
    text = (report.write_report(family_rows(), tmp_path, 20) and (tmp_path / "report.md")).read_text()
    assert "Of 4 general members on epyc, **b2-64-general-fp32** is the most accurate (70.0 %" in text
    assert "**b0-64-general-int8** the fastest (59.0 %, p99 at most 6.0 ms)" in text
    assert "within 20 ms **b0-64-general-fp32** is the most accurate (60.0 %, p99 at most 12.0 ms)" in text
    report.write_report(family_rows(), tmp_path, 1)
    assert "none with a known accuracy fits 1 ms" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([latency(rate=50.0, scenario="server", workers=2), accuracy()],
         "Of 1 general member on epyc, at 50 requests/s at random times, 2 workers, **b0-64-general-fp32** is the most accurate (60.0 %"),
        ([latency(batch=8, scenario="multi-stream"), accuracy()],
         "Of 1 general member on epyc, asked for 8 images a query, **b0-64-general-fp32** is the most accurate (60.0 %"),
        ([latency(batch=8, scenario="multi-stream")],
         "asked for 8 images a query, **b0-64-general-fp32** is the fastest (p99 at most 12.0 ms); none has an accuracy "
         "(family bench --data DATASET measures it); 1 of them answers within 20 ms."),
        ([latency(latency_ms={}), accuracy()],
         "**b0-64-general-fp32** is the most accurate (60.0 % of images filed right at the first guess); **b0-64-general-fp32** has the highest rate "
         "(180 images/s); no time of a query is known; none is known to fit 20 ms."),
        ([latency(latency_ms={"p50": 8.0, "p99": 9.0, "upper": None}), accuracy()],
         "**b0-64-general-fp32** has the lowest p50 (8.0 ms), without a bound of p99"),
        ([latency(valid=False), latency("b2", valid=False), accuracy()],
         "Of 2 general members on epyc, **b0-64-general-fp32** is the most accurate (60.0 % of images filed right at the first guess); no latency counts: "
         "2 measurements INVALID; none is known to fit 20 ms."),
        ([latency(agreement=0.5), latency("b2", valid=False), accuracy()], "no latency counts: 1 measurement INVALID, 1 of wrong answers; no accuracy is of a"),
        ([accuracy(), accuracy("b2", top1=0.7)],
         "Of 2 general members, **b2-64-general-fp32** is the most accurate (70.0 % of images filed right at the first guess); none was timed; none"),
        ([latency(trained=False), accuracy(trained=False)],
         "is the fastest (p99 at most 12.0 ms); no accuracy is of a trained member with right answers; 1 of them answers within 20 ms"),
        ([accuracy(scope="animals")], "Of 1 member for animals, **b0-64-animals-fp32** is the most accurate (60.0 %"),
        ([latency(), latency("b2", p50=1.0), accuracy()], "Of 2 general members on epyc, **b0-64-general-fp32** is the most accurate (60.0 % of images filed "
         "right at the first guess, p99 at most 12.0 ms) and the fastest; within 20 ms"),
    ],
)  # fmt: skip
def test_the_headline_says_what_is_true_of_what_was_measured(tmp_path, rows, told):
    text = report.write_report(rows, tmp_path, 20) and (tmp_path / "report.md").read_text()
    assert told in text.split("\n\n")[1]


def test_quantized_members_are_compared_with_fp32_of_the_same_run():
    (first, second) = costs_of(report.reported(family_rows())[0])
    assert {first["member"], second["member"]} == {"b2-64-general-int8", "b0-64-general-int8"}
    assert (first["size"], first["speed"], round(first["top1"], 6)) == (0.25, 2.0, -1.0)
    rows = family_rows()
    base = next(row for row in rows if row["member"] == "b2-64-general-fp32")["model_sha256"]
    paired = {"model_sha256": base, "top1.micro": {"interval": [-0.021, 0.003], "shown": False}, "levels.2.micro": {"interval": [0.002, 0.012], "shown": True},
              "top1.macro": {"interval": ["x", {}], "shown": True}}  # fmt: skip
    rows = [{**row, "against_fp32": paired} if row["kind"] == "accuracy" and row["member"] == "b2-64-general-int8" else row for row in rows]
    (told,) = (line for line in costs_of(report.reported(rows)[0]) if line["member"] == "b2-64-general-int8")
    assert (told["top1_interval"], told["L2_interval"], told["macro_interval"]) == ("\u22122.10 to +0.30", "+0.20 to +1.20 *", None)
    assert "(\u22122.10 to +0.30)" in report.markdown(report.reported(rows), rows, None)
    assert all(line["top1_interval"] is None for line in costs_of(report.reported(family_rows())[0])), "no intervals of what was not paired"
    apart = [latency(), latency("b0", "int8", bundle="bundles/other")]
    assert costs_of(report.reported(apart)[0]) == []


def test_a_speed_of_paired_rounds_is_told_with_its_interval():
    rows = family_rows()
    paired = {"ratio": 1.9, "interval": [1.8, 2.05]}
    rows[2] = {**rows[2], "against_fp32": paired}
    first = next(line for line in costs_of(report.reported(rows)[0]) if line["member"] == rows[2]["member"])
    assert (first["speed"], first["speed_interval"]) == (1.9, "1.80 to 2.05")


def test_schemes_are_compared_with_the_fp32_file_that_rows_name():
    rows = [latency(p50=8.0), latency(p50=9.0), latency(scheme="int8", p50=2.0)]  # two runs of one name, in one folder one after the other
    rows[1]["model_sha256"] = "another"
    for sha, speed in ((rows[0]["model_sha256"], 4.0), ("another", 4.5)):
        rows[2]["against_fp32"] = {"model_sha256": sha}
        assert [line["speed"] for line in costs_of(report.reported(rows)[0])] == [speed]
    rows[2]["against_fp32"] = {"model_sha256": "not here"}
    assert costs_of(report.reported(rows)[0]) == []


def test_costs_are_told_over_images_and_over_categories_at_each_level(tmp_path):
    rows = [latency(), accuracy(), latency(scheme="int8", p50=2.0), accuracy(scheme="int8", top1=0.58)]
    for row, macro in ((rows[1], 0.70), (rows[3], 0.69)):
        row["metrics"]["levels"]["1"]["macro"] = macro
    text = report.write_report(rows, tmp_path) and (tmp_path / "report.md").read_text()
    lines = [line for line in text[text.index("## What quantization costs") :].splitlines() if line.startswith("| ")]
    assert lines[0] == "| member | size | speed | averaged over | top-1 points | L1 points |"
    assert lines[2:4] == [
        "| b0-64-general-int8 | 0.25× | 4.00× | images | \u22122.00 | \u22122.00 |",
        "| b0-64-general-int8 | 0.25× | 4.00× | categories | \u22122.00 | \u22121.00 |",
    ]


def test_a_scheme_that_is_not_faster_is_marked_and_on_no_front():
    rows = family_rows()
    slow = next(row for row in rows if row["kind"] == "latency" and row["scheme"] == "int8")
    slow["latency_ms"] = {**slow["latency_ms"], "p50": 9.0, "p99": 9.5, "upper": 9.9}
    (board, _) = boards(rows)
    member = next(m for m in board["members"] if m["model_sha256"] == slow["model_sha256"])
    assert member["remarks"] == {"no gain": "not faster than b0-64-general-fp32, whose answers it approximates"} and not member["front"]


def test_machines_and_settings_stand_side_by_side(tmp_path):
    other = {**MACHINE, "name": "laptop"}
    rows = [*family_rows(), latency(machine=other, p50=2.0), latency("b2", machine=other, p50=3.0), latency(batch=8, scenario="multi-stream", p50=50.0)]
    text = report.write_report(rows, tmp_path) and (tmp_path / "report.md").read_text()
    section = text[text.index("## Machines and settings side by side: general") :].split("\n## ")[0]
    for told in ("epyc single images", "laptop single images", "epyc 8 images a query"):
        assert f"| {told} p50 ms |" in section, "the machine, and what differs"
    (line,) = [line for line in section.splitlines() if line.startswith("| b0-64-general-fp32 |")]
    assert [cell.strip() for cell in line.split("|")[2:-1]] == ["8.0", "12.0", "2.0", "3.0", "50.0", "75.0"]
    assert "side by side" not in (report.write_report(family_rows(), tmp_path) and (tmp_path / "report.md").read_text())


def test_conditions_tell_what_else_the_machine_did():
    calm = {"others_cores": 0.03, "stolen_cores": 0.0, "throttled": 0.0, "spread": 0.04}
    text = report.markdown_tables([latency(conditions=calm, overhead_ms=0.004), accuracy()])
    assert "other processes used at most 0.03 cores" in text and "medians of turns lay at most 4% apart" in text
    assert "the harness itself takes 4.0 \u00b5s a query" in text and "the clock's governor is not told" in text
    assert "Meanwhile" not in report.markdown_tables([latency(), accuracy()])


def test_tables_carry_numbers_and_conditions():
    text = report.markdown_tables(family_rows())
    head = "top-1 %|p99 ms at most|p50 ms|p99 ms|size MB|rate images/s|from bytes images/s|top-3 %|top-5 %|macro %|L1 %"
    cells = "70.0|45.0|30.0|42.0|16.0|180|150|80.0|90.0|65.0|85.0"
    assert f"| member | {head.replace('|', ' | ')} |" in text
    assert f"| b2-64-general-fp32, front | {cells.replace('|', ' | ')} |" in text
    for condition in (
        "AMD EPYC",
        "2 cores",
        "onnxruntime 1.26.0",
        "1 thread",
        "single images; 400 queries",
        "2026-11-22",
        "caltech101",
    ):
        assert condition in text
    assert "500 images of 450 listings" in text


def test_levels_that_say_nothing_have_no_column():
    rows = family_rows()
    for row in rows:
        if row["kind"] == "accuracy":
            row["metrics"]["levels"] = {"1": {"nodes": 1, "micro": 1.0}, **{str(int(k) + 1): v for k, v in row["metrics"]["levels"].items()}}
    assert " L2 % |" in (text := report.markdown_tables(rows)) and " L1 % |" not in text and " L3 % |" not in text
    rows[1]["metrics"]["levels"]["3"]["micro"] = 0.1
    assert " L3 % |" in report.markdown_tables(rows), "the deepest level is not that of the leaves"


def test_intervals_are_told_and_drawn(tmp_path):
    rows = [latency(), accuracy(), latency("b2", p50=30.0), accuracy("b2", top1=0.7)]
    rows[1]["metrics"]["top1"] = {"micro": 0.6, "macro": 0.5, "micro_interval": [0.58, 0.63], "macro_interval": ["x"]}
    page = report.write_report(rows, tmp_path).read_text()
    assert "| 60.0 ± 2.5 |" in (tmp_path / "report.md").read_text() and '60.0 <small>± 2.5</small>' in page
    picture = (tmp_path / "accuracy-latency.svg").read_text()
    assert picture.count('class="whisker"') == 2 + 3 * 3, "the legend's two, then two of the first and one of the second, with caps"
    with (tmp_path / "table.csv").open(newline="") as file:
        assert [(row["top1_low"], row["macro_low"]) for row in csv.DictReader(file)] == [("", ""), ("0.58", "")]


def test_conditions_are_told_once_for_a_machine(tmp_path):
    page = report.write_report(family_rows(), tmp_path).read_text()
    assert page.count("onnxruntime 1.26.0") == 1 and page.count('<a href="#conditions">All conditions</a>') == 3
    assert '<section id="conditions">' in page and "general 500 images of 450 listings, animals 500 images of 450 listings" in page
    other = report.markdown_tables([*family_rows(), latency(threads=2)])
    assert other.count("onnxruntime 1.26.0") == 2 and "2 threads, single images; 400 queries" in other


def test_many_members_are_folded_and_nothing_is_dropped_unsaid(tmp_path):
    rows = []
    for k in range(60):
        rows += [latency(f"b{k}", p50=2 + k, latency_ms={"p50": 2 + k, "p99": 3 + k, "upper": 4 + k}), accuracy(f"b{k}", top1=0.3 + k / 200)]
    page = report.write_report(rows, tmp_path).read_text()
    members = page[page.index("<h2>Members") :].split("</section>")[0]
    assert members.count('<th scope="row"') == 60 and f'data-step="{LONG}"' in members
    assert "24 of 60 members: the front, then the most accurate" in page
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 61
    picture = (tmp_path / "accuracy-latency.svg").read_text()
    assert len(re.findall(r"<g[^>]*><title>", picture)) == 60, "each has its mark"


def test_rows_are_repeated_as_other_members_with_fp32_files_of_their_own():
    rows = [latency(), latency(scheme="int8", against_fp32={"model_sha256": latency()["model_sha256"], "ratio": 2.0})]
    (board,) = report.reported(list(itertools.islice(repeated(rows), 7)))
    assert len(board["members"]) == 7 and len({member["member"] for member in board["members"]}) == 7
    assert [line["speed"] for line in costs_of(board)] == [2.0, 2.0, 2.0]


def test_published_figures_stand_apart(tmp_path):
    page = report.write_report(family_rows(), tmp_path).read_text()
    for figure in ("62.5", "80.4", "85.6", "not reproduced", "private data"):
        assert figure in page


def test_files_are_complete_and_self_contained(tmp_path):
    path = report.write_report(family_rows(), tmp_path / "new" / "out")
    assert path.is_absolute()
    names = {"accuracy-latency.svg", "report.html", "report.md", "table.csv"}
    assert {found.name for found in path.parent.iterdir()} == names
    assert set(re.findall(r"\w+://[^\s\"'<)]+", path.read_text())) == {"http://www.w3.org/2000/svg"}
    with (path.parent / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 and rows[0]["member"] == "b2-64-general-fp32" and float(rows[0]["upper_ms"]) == 45


def test_a_failure_leaves_the_old_report(tmp_path):
    path = report.write_report(family_rows(), tmp_path)
    before = path.read_bytes()
    with pytest.raises(UserError):
        report.write_report([], tmp_path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 4


def test_hostile_names_do_nothing(tmp_path):
    bad = "<script>alert(1)</script>\"'\n|\x00\ud800"
    rows = [latency(), accuracy(), latency("b2"), accuracy("b2", top1=0.8)]
    for row in rows:
        row.update(member=bad, scope=bad, scheme=bad, variant=bad, label=bad)
        if row["kind"] == "latency":
            row["machine"] = {**MACHINE, "name": bad, "cpu": bad, "features": [bad], "versions": {bad: bad}}
            row.update(provider=bad, stages_ms={bad: 3.0}, invalid_because=bad)
        else:
            row["dataset"] = {"name": bad, "digest": bad, "split": bad}
            row["metrics"]["confusion"]["ids"] = [bad, bad]
    path = report.write_report(rows, tmp_path)
    for name in ("report.html", "report.md", "accuracy-latency.svg"):
        assert "<script>alert" not in (tmp_path / name).read_text(), name
    assert path.read_text().count("<script") == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "not a JSON object"),
        ("[1]", "not a measurement"),
        ('{"schema": 1}', '"kind" is missing'),
        ('{"schema": 7, "kind": "latency"}', "schema 7; this version reads up to 2"),
        ('{"schema": 1, "kind": "latency", "member": 3}', "'member' is 3"),
        ('{"schema": 1, "kind": "latency", "member": NaN}', "NaN is no number"),
    ],
)
def test_bad_lines_are_refused_by_file_and_line(tmp_path, line, told):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(latency()) + "\n\n" + line + "\n")
    with pytest.raises(UserError) as refusal:
        report.read_rows([path])
    assert f"{path}, line 3" in str(refusal.value) and told in str(refusal.value)


def test_missing_empty_and_unwritable_are_refused(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        report.read_rows([tmp_path / "none.jsonl"])
    with pytest.raises(UserError, match="no latency or accuracy"):
        report.write_report([{"schema": 1, "kind": "scaling"}], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        report.write_report([latency()], tmp_path / "file")
    crooked = copy.deepcopy(accuracy())
    crooked["metrics"]["confusion"]["matrix"] = [[1, 2]]
    with pytest.raises(UserError, match="confusion matrix"):
        boards([crooked])


def run_command(argv) -> int:
    parser = argparse.ArgumentParser()
    report.arguments(parser)
    return report.run(parser.parse_args([str(word) for word in argv]))


def test_command_ends_with_the_path(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = write_lines(tmp_path / "a b.jsonl", [*family_rows(), {"schema": 1, "kind": "scaling"}])
    assert run_command([*paths, "--out", "out", "--budget-ms", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(tmp_path / "out" / "report.html")
    assert lines[-2].startswith("next: family pick '") and lines[-2].endswith("--budget-ms 20")
    assert "not shown: scaling" in (tmp_path / "out" / "report.html").read_text()
    assert run_command([*paths, "--out", "out", "--budget-ms", "20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == lines[-1]
    with pytest.raises(UserError, match="--budget-ms is -1"):
        run_command([*paths, "--out", "out", "--budget-ms", "-1"])


def test_a_report_of_other_results_is_not_written_over(tmp_path, capsys):
    paths, out = write_lines(tmp_path / "a.jsonl", family_rows()), tmp_path / "out"
    assert run_command([*paths, "--out", out]) == 0
    before = (out / "report.html").stat().st_mtime_ns
    capsys.readouterr()
    assert run_command([*paths, "--out", out, "--json"]) == 0
    done = capsys.readouterr()
    assert "already done" in done.err and json.loads(done.out)["report"] == str(out / "report.html")
    assert (out / "report.html").stat().st_mtime_ns == before
    with pytest.raises(OtherOutput, match="budget_ms was None, now 20.0"):
        run_command([*paths, "--out", out, "--budget-ms", "20"])
    others = write_lines(tmp_path / "b.jsonl", [latency(), accuracy()])
    with pytest.raises(OtherOutput, match="results was "):
        run_command([*others, "--out", out])
    assert (out / "report.html").stat().st_mtime_ns == before
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{")
    with pytest.raises(UserError, match="line 1"):
        run_command([broken, "--out", out, "--fresh"])
    assert (out / "report.html").stat().st_mtime_ns == before, "what can't be read moves nothing aside"
    assert run_command([*others, "--out", out, "--fresh"]) == 0
    assert (tmp_path / "out.old-1" / "report.html").stat().st_mtime_ns == before
    assert "Of 1 general member" in (out / "report.md").read_text()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OtherOutput, match="was not made by this command"):
        run_command([*others, "--out", tmp_path / "mine"])


def test_a_plan_renews_its_report_when_results_have_grown(tmp_path):
    results, out = tmp_path / "results.jsonl", tmp_path / "report"
    step = Step(("report", str(results), "--out", str(out)), (results,), renews=True)
    for rows, n in (([latency(), accuracy()], 1), (family_rows(), 4)):
        write_lines(results, rows)
        assert standing(step) == "" and run_steps([step]) == []
        assert f"Of {n} general member" in (out / "report.md").read_text() and standing(step) == "done"
    assert not (tmp_path / "report.old-2").exists()


def test_the_budget_is_moved_in_a_browser_and_chooses_as_pick_does(tmp_path, open_page):
    rows = family_rows()
    path = report.write_report(rows, tmp_path / "out")
    for n, budget in enumerate((5, 7, 13, 50)):
        move = f"""const field = document.querySelector(".budgeted input[type=number]");
field.value = "{budget}"; field.dispatchEvent(new Event("input"));\nroot.dataset.ready = "yes";"""
        moved = path.with_name(f"moved{n}.html")
        moved.write_text(re.sub(r"script-src '[^']+'", "script-src 'unsafe-inline'", path.read_text().replace('root.dataset.ready = "yes";', move)))
        dom = open_page(moved)
        told = re.search(r"<output>([^<]*)</output>", dom[dom.index('class="budgeted"') :]).group(1)
        try:
            assert told.startswith(pick(rows, budget_ms=budget)["member"] + ":")
        except NothingFits:
            assert told == "nothing fits"
        assert "data-error" not in re.search(r"<html[^>]*>", dom).group()


def test_the_budget_line_is_dragged_in_a_browser(tmp_path, open_page):
    path = report.write_report(family_rows(), tmp_path / "out")
    drag = """Element.prototype.setPointerCapture = () => {}; // what no finger does cannot be captured
const chart = document.querySelector(".budgeted svg"), at = chart.getBoundingClientRect();
const press = (kind, share) => chart.dispatchEvent(new PointerEvent(kind, { clientX: at.left + at.width * share, buttons: 1 }));
root.dataset.first = document.querySelector(".budgeted output").textContent;
for (const [kind, share] of [["pointerdown", 0.9], ["pointermove", 0.05], ["pointermove", 0.5]]) press(kind, share);
root.dataset.over = chart.querySelectorAll(".over").length;
root.dataset.line = chart.querySelector(".budget-line line").getAttribute("x1");
root.dataset.ready = "yes";"""
    dragged = path.with_name("dragged.html")
    text = path.read_text().replace('root.dataset.ready = "yes";', drag)
    dragged.write_text(re.sub(r"script-src '[^']+'", "script-src 'unsafe-inline'", text))
    dom = open_page(dragged)
    root = re.search(r"<html[^>]*>", dom).group()
    assert 'data-first="move it here' in root and 'data-over="2"' in root and 'data-line="520.0"' in root and "data-error" not in root
    assert "<output>b0-64-general-fp32: 60.0 %, p99 at most 12.0 ms</output>" in dom


def test_page_renders_in_a_browser(tmp_path, open_page):
    path = report.write_report(family_rows(), tmp_path / "out", 20)
    pressed = path.with_name("pressed.html")
    press = 'document.querySelectorAll("table.sortable th button")[3].click();\nroot.dataset.ready = "yes";'
    text = path.read_text().replace('root.dataset.ready = "yes";', press)
    pressed.write_text(re.sub(r"script-src '[^']+'", "script-src 'unsafe-inline'", text))
    for page in (path, pressed):
        dom = open_page(page)
        root = re.search(r"<html[^>]*>", dom).group()
        assert 'data-ready="yes"' in root and "data-error" not in root
    assert 'aria-sort="descending"' in dom
    first_row = re.search(r'<tbody>\s*<tr[^>]*><th scope="row" data-value="([^"]+)"', dom).group(1)
    assert first_row == "b0-64-general-fp32"
