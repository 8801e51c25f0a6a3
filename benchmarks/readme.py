"""Write the README's tables and its picture, PICTURE of it, from results: `python -m benchmarks.readme README.md RESULTS.jsonl ... [BUDGET_MS ...]`.

A test holds the README against the checked-in results, so that no figure in it is written by hand.
"""

import sys
from pathlib import Path

from benchmarks.boards import boards
from benchmarks.measurements import read_rows
from benchmarks.pick import pick
from benchmarks.report import markdown_tables, picture
from benchmarks.reporting.lines import ORIGIN
from family.errors import NothingFits, UserError
from family.outputs import read_json, whole_file
from family.pages import amount, percent

BEGIN, END = "<!-- results: written by benchmarks.readme -->", "<!-- end of results -->"
BUDGETS_MS = (5.0, 10.0, 15.0)
PICTURE = "benchmarks/results/caltech101.svg"


def render(rows: list[dict], budgets_ms: tuple[float, ...] = BUDGETS_MS) -> str:
    """Return the section: members by scope, what `pick` answers at the budgets, and the published figures apart."""
    return "\n\n".join([markdown_tables(rows).strip(), _picks(rows, budgets_ms), _origin()]) + "\n"


def _picks(rows: list[dict], budgets_ms: tuple[float, ...]) -> str:
    scopes = list(dict.fromkeys(board["scope"] for board in boards(rows)))
    lines = [
        "### What `family pick` answers",
        "",
        "| scope | budget (p99, ms) | member | top-1 % | p99 at most, ms |",
        "|---|---|---|---|---|",
    ]
    for scope in scopes:
        for budget_ms in budgets_ms:
            try:
                found = pick(rows, budget_ms, scope=scope)
                told = f"{found['member']} | {percent(found['accuracy'])} | {amount(found['latency_ms']['upper'])}"
            except NothingFits as nothing:
                told = f"nothing fits: {str(nothing).rpartition('. ')[2]} | | "
            lines.append(f"| {scope} | {budget_ms:g} | {told} |")
    return "\n".join(lines)


def _origin() -> str:
    origin = read_json(ORIGIN)
    head = "| " + " | ".join(figure["measure"] for figure in origin["figures"]) + " |"
    values = "| " + " | ".join(f"{figure['percent']} %" for figure in origin["figures"]) + " |"
    note = f"{origin['source'].capitalize()}: {origin['data']}. They are {origin['status']}; they can't be compared with the tables above."
    return "\n".join(["### The system that this project follows", "", head, "|---" * len(origin["figures"]) + "|", values, "", note])


def splice(text: str, section: str, begin: str = BEGIN, end: str = END) -> str:
    """Return a document with the section between two markers replaced.

    Raises:
        UserError: it has no markers.
    """
    before, has_begin, rest = text.partition(begin)
    _, has_end, after = rest.partition(end)
    if not has_begin or not has_end:
        raise UserError(f"the document has no section between {begin!r} and {end!r}")
    return f"{before}{begin}\n\n{section}\n{end}{after}"


def main(words: list[str]) -> None:
    readme, results = Path(words[0]), [Path(word) for word in words[1:] if word.endswith(".jsonl")]
    budgets_ms = tuple(float(word) for word in words[1:] if not word.endswith(".jsonl")) or BUDGETS_MS
    text = splice(readme.read_text(encoding="utf-8"), render(read_rows(results), budgets_ms))
    for path, content in ((readme, text), (readme.parent / PICTURE, picture(read_rows(results)))):
        with whole_file(path) as partial:
            partial.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
