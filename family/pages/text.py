"""Values as text: printable, safe in HTML, SVG, Markdown and spreadsheets, and with sensible digits."""

import csv
import html
import io
import re
from collections.abc import Sequence

NOTHING = "–"  # shown where there is no value

# Control characters (which XML forbids), lone surrogates (which UTF-8 forbids) and marks that reorder text.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]+")
_MARKDOWN_SIGNS = re.compile(r"([\\|`*_\[\]#~])")


def plain(value: object) -> str:
    """Return a value as one line of printable text; a name from outside may hold anything."""
    return _UNPRINTABLE.sub(" ", str(value)).strip()


def escape(value: object) -> str:
    """Return a value as text that is safe between HTML or SVG tags and inside quoted attributes."""
    return html.escape(plain(value), quote=True)


def percent(value: float | None) -> str:
    """Format a fraction as per cent with one decimal, without the sign."""
    return NOTHING if value is None else f"{100 * value:.1f}"


def number(value: int | None) -> str:
    """Format a count."""
    return NOTHING if value is None else f"{value:,}"


def amount(value: float | None) -> str:
    """Format milliseconds, megabytes or rates with as many digits as a measurement carries."""
    if value is None:
        return NOTHING
    decimals = 2 if abs(value) < 1 else 1 if abs(value) < 100 else 0
    return f"{value:,.{decimals}f}"


def points(value: float | None, digits: int = 1) -> str:
    """Format a difference in percentage points with its sign."""
    if value is None:
        return NOTHING
    shown = f"{value:+.{digits}f}"
    return shown[1:] if float(shown) == 0 else shown.replace("-", "\u2212")


def cell_text(row: dict, column: dict) -> str:
    """Return the text of a table's cell; columns are those of `table`."""
    value = row.get(column["key"])
    return column["text"](value) if "text" in column else NOTHING if value is None else plain(value)


def markdown(value: object) -> str:
    """Return text that Markdown shows as it is."""
    text = html.escape(plain(value), quote=False)
    return _MARKDOWN_SIGNS.sub(r"\\\1", text)


def markdown_table(rows: Sequence[dict], columns: Sequence[dict]) -> str:
    """Return a Markdown table: the first column to the left, the others to the right."""
    lines = [[markdown(column["label"]) for column in columns], ["---", *["---:"] * (len(columns) - 1)]]
    lines += [[markdown(cell_text(row, column) + _beside(row, column)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _beside(row: dict, column: dict) -> str:
    after, beside = row.get(column.get("after")), row.get(column.get("beside"))
    return ("" if after is None else f" {plain(after)}") + ("" if beside is None else f" ({plain(beside)})")


def csv_table(rows: Sequence[dict], fields: Sequence[str]) -> str:
    """Return comma-separated values; text that a spreadsheet would take for a formula gets a quote."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([_csv_value(row.get(field)) for field in fields] for row in rows)
    return text.getvalue()


def _csv_value(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
