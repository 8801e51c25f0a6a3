"""The HTML shell that every report shares: one self-contained page, its sections, figures and tables."""

import base64
import hashlib
from collections.abc import Sequence

from family.pages import style
from family.pages.text import cell_text, escape


def page(title: str, lead: str, sections: Sequence[tuple[str, str]]) -> str:
    """Return a whole page that needs no network.

    `title` is text; `lead` and each section's body are HTML made by this module; headings are text. The
    content policy admits only this page's own script, so even a mistake in escaping would run nothing.
    """
    digest = base64.b64encode(hashlib.sha256(style.SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    links = "".join(f'<a href="#s{i}">{escape(name)}</a>' for i, (name, _) in enumerate(sections, 1))
    body = "".join(f'<section id="s{i}"><h2>{escape(name)}</h2>\n{content}</section>\n' for i, (name, content) in enumerate(sections, 1))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style.page_css()}</style>\n</head>\n<body>\n<main>\n"
        f'<header><h1>{escape(title)}</h1>\n{lead}\n<nav aria-label="Contents">{links}</nav></header>\n'
        f"{body}</main>\n<script>{style.SCRIPT}</script>\n</body>\n</html>\n"
    )


def paragraph(text: object, kind: str = "") -> str:
    """Return text as a paragraph, or nothing for no text; kind is `note` or nothing."""
    class_ = f' class="{kind}"' if kind else ""
    return f"<p{class_}>{escape(text)}</p>\n" if text else ""


def heading(text: object) -> str:
    """Return a heading inside a section."""
    return f"<h3>{escape(text)}</h3>\n"


def figure(chart: str, caption: str = "", *, heading: str = "", narrow: str = "") -> str:
    """Return a chart with its caption; `narrow` is the same chart drawn for a phone, shown there instead."""
    above = f"<h3>{escape(heading)}</h3>" if heading else ""
    small = f'<div class="narrow">{narrow}</div>' if narrow else ""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    kind = ' class="has-narrow"' if narrow else ""
    return f'<figure{kind}>{above}<div class="wide">{chart}</div>{small}{below}</figure>\n'


def multiples(figures: Sequence[str]) -> str:
    """Return small figures side by side, as many in a row as fit; nothing for none."""
    return f'<div class="multiples">{"".join(figures)}</div>\n' if figures else ""


def definitions(entries: dict[str, str]) -> str:
    """Return words with their meanings."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in entries.items()) + "</dl>\n"


def table(rows: Sequence[dict], columns: Sequence[dict], *, caption: str = "") -> str:
    """Return a table that sorts when a heading is pressed; cells without a value stay at the bottom.

    A column is `{"key", "label"}` with, where wanted, `"text"` (a function that formats the value), `"help"`
    (shown on hover) and `"high": True` (the first press sorts the highest up); a newline in a label starts a
    second line. A row may hold `"tags"`, a list of (text, `good`|`bad`|`plain`) shown beside its first cell,
    and `"quiet": True`, which greys it.
    """
    head = "".join(_head(column) for column in columns)
    body = "".join(_row(row, columns) for row in rows)
    full = " full" if len(columns) > 6 else ""
    name = escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">'
        f'<table class="sortable{full}"><caption>{name}</caption><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def _head(column: dict) -> str:
    first = "descending" if column.get("high") else "ascending"
    hint = f' title="{escape(column["help"])}"' if column.get("help") else ""
    label = "<br>".join(escape(line) for line in column["label"].split("\n"))
    return f'<th scope="col" data-first="{first}"><button type="button"{hint}>{label}</button></th>'


def _row(row: dict, columns: Sequence[dict]) -> str:
    cells = []
    for place, column in enumerate(columns):
        value = row.get(column["key"])
        sort_by = "" if value is None else escape(value)
        text = escape(cell_text(row, column))
        if place == 0:
            tags = "".join(f' <span class="tag {kind}">{escape(tag)}</span>' for tag, kind in row.get("tags", ()))
            cells.append(f'<th scope="row" data-value="{sort_by}">{text}{tags}</th>')
        else:
            cells.append(f'<td data-value="{sort_by}">{text}</td>')
    quiet = ' class="quiet"' if row.get("quiet") else ""
    return f"<tr{quiet}>{''.join(cells)}</tr>\n"
