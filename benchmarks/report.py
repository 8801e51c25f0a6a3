"""The report of results: which member is how fast and how right, where, and under which conditions."""

import argparse
import hashlib
import json
import math
import sys
from pathlib import Path

from benchmarks.measurements import read_rows, uncollected
from benchmarks.reporting.conditions import TITLE as CONDITIONS
from benchmarks.reporting.lines import reported
from benchmarks.reporting.page import WIDE_PX, page, scatter
from benchmarks.reporting.texts import csv_text, markdown, markdown_board, markdown_conditions
from family import pages
from family.errors import UserError
from family.outputs import is_done, whole_file, whole_folder
from family.progress import next_command


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS.jsonl", help="measurements, one a line")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the report")
    parser.add_argument("--budget-ms", type=float, metavar="MS", help="mark what answers within this, at p99")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a path")
    parser.add_argument("--fresh", action="store_true", help="move a DIR that is there aside")


def run(args: argparse.Namespace) -> int:
    """Write the report and print its path."""
    if args.budget_ms is not None and not 0 < args.budget_ms < math.inf:
        raise UserError(f"--budget-ms is {args.budget_ms:g}; give milliseconds above 0, such as 20")
    out = args.out.absolute()
    made_of = _made_of(args)  # before they are read: what is added meanwhile is not in the page
    path = out / "report.html"
    with uncollected():
        rows = read_rows(args.results)  # what can't be read moves nothing aside
        if is_done(out, made_of, args.fresh):
            print(f"{args.out}: already done", file=sys.stderr)
        else:
            _write_folder(rows, out, made_of)
    if args.json:
        print(json.dumps({"report": str(path), "folder": str(out)}))
        return 0
    print(next_command("pick", *args.results, *(["--budget-ms", f"{args.budget_ms:g}"] if args.budget_ms else [])))
    print(path)
    return 0


def _write_folder(rows: list[dict], out: Path, made_of: dict) -> None:
    try:
        with whole_folder(out, made_of) as folder:
            write_report(rows, folder, made_of["budget_ms"])
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from error


def done(args: argparse.Namespace) -> bool:
    """Say whether the report is there, of these results.

    Raises:
        OtherOutput: something else is there.
    """
    return is_done(args.out.absolute(), _made_of(args), args.fresh)


def _made_of(args: argparse.Namespace) -> dict:
    texts = [path.read_bytes() if path.is_file() else b"" for path in args.results]
    digests = [hashlib.sha256(text).hexdigest() for text in texts]
    return {"command": "report", "results": digests, "budget_ms": args.budget_ms}


def write_report(rows: list[dict], out: Path, budget_ms: float | None = None) -> Path:
    """Write report.html, report.md, table.csv and accuracy-latency.svg to a folder; return the page's path.

    Each file is replaced whole, the page last; other files in the folder stay.

    Raises:
        UserError: there is nothing to report, a row cannot be read, or the folder cannot be written.
    """
    found = reported(rows)
    files = {
        "accuracy-latency.svg": _picture(found, budget_ms),
        "table.csv": csv_text(found),
        "report.md": markdown(found, rows, budget_ms),
        "report.html": page(found, rows, budget_ms),
    }
    out = Path(out).absolute()
    try:
        for name, text in files.items():
            with whole_file(out / name) as partial:
                partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from error
    return out / "report.html"


def picture(rows: list[dict], budget_ms: float | None = None) -> str:
    """Return the first board's accuracy against latency as the text of an .svg file."""
    return _picture(reported(rows), budget_ms)


def _picture(found: list[dict], budget_ms: float | None) -> str:
    return pages.standalone(scatter(found[0], budget_ms, WIDE_PX))


def markdown_tables(rows: list[dict], budget_ms: float | None = None) -> str:
    """Return a Markdown table for each board, then the conditions of their numbers."""
    found = reported(rows)
    tables = [markdown_board(board, found, budget_ms) for board in found]
    return "\n\n".join([*tables, f"### {CONDITIONS}", markdown_conditions(found)]) + "\n"
