"""The README: its tables are what the program writes, and its commands exist."""

import argparse
import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from benchmarks.measurements import read_rows
from benchmarks.readme import BEGIN, END, PICTURE, render, splice
from benchmarks.report import picture
from benchmarks.studies.predicting import table
from family.cli import COMMANDS
from family.errors import UserError
from family.evaluation.verticals import to_table

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("caltech101-*.jsonl"))


def test_the_tables_are_what_the_program_writes():
    assert splice(TEXT, render(read_rows(RESULTS))) == TEXT, (
        "run python -m benchmarks.readme README.md benchmarks/results/caltech101-*.jsonl"
    )
    assert f"]({PICTURE})" in TEXT and (ROOT / PICTURE).read_text(encoding="utf-8") == picture(read_rows(RESULTS))


def test_a_document_without_markers_is_refused():
    with pytest.raises(UserError, match="no section"):
        splice("text", "section")
    assert splice(f"a{BEGIN}old{END}b", "new") == f"a{BEGIN}\n\nnew\n{END}b"


def test_every_command_of_the_readme_exists_with_its_options():
    blocks = re.findall(r"```\n(.*?)```", TEXT, flags=re.S)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("family ")]
    assert len(lines) > 8
    for line in lines:
        words = shlex.split(line)[1:]
        name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
        parser = argparse.ArgumentParser(exit_on_error=False)
        importlib.import_module(COMMANDS[name][0]).arguments(parser)
        parser.parse_args(words[len(name.split()) :])


def test_the_table_of_verticals_is_that_of_the_checked_in_result():
    path = ROOT / "benchmarks" / "results" / "verticals-caltech101.json"
    lines = to_table(json.loads(path.read_text(encoding="utf-8"))).splitlines()
    pooled = next(k for k, line in enumerate(lines) if line.startswith("| pooled"))
    assert "\n".join([*lines[:2], *lines[pooled:]]) in TEXT


@pytest.mark.parametrize(("name", "file"), [("V2-B0", "v2-b0"), ("B0", "b0"), ("Lite0", "lite0")])
def test_the_chains_of_three_variants_are_what_was_measured(name, file):
    found = json.loads((ROOT / f"benchmarks/results/verticals-caltech101-{file}-128.json").read_text(encoding="utf-8"))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in to_table(found).splitlines()]
    first = next(k for k, cells in enumerate(lines) if cells[0].startswith("pooled"))
    told = [cells[3] for cells in lines[first + 1 : first + 5]]
    assert [cells[1] for cells in lines[first : first + 5]] == ["general", "restricted", "submodel", "hard", "soft"]
    assert f"| {name} | {lines[first][2]} | {' | '.join(told)} |" in TEXT


def test_the_table_of_predicted_chains_is_that_of_the_checked_in_result():
    told = table(json.loads((ROOT / "benchmarks" / "results" / "chains-caltech101.json").read_text(encoding="utf-8")))
    assert f"<!-- chains -->\n\n{told}\n" in TEXT


def test_the_page_of_benchmarks_names_every_result_and_only_commands_that_are_there():
    page, results = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8"), ROOT / "benchmarks" / "results"
    assert {path.name for path in results.iterdir()} == set(re.findall(r"`([\w.-]+\.(?:jsonl?|svg|png))`", page))
    for name in re.findall(r"python -m (benchmarks\.[\w.]+)", page):
        assert name.endswith("NAME") or (ROOT / f"{name.replace('.', '/')}.py").is_file(), name
