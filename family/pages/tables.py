"""Tables: sorted by their headings and, where wanted, filtered, unfolded step by step and saved as comma-separated values.

The page's script does all of that; without it every row is there, in the order given.
"""

from collections.abc import Sequence

from family.pages.inline import path, share_bar
from family.pages.text import cell_text, escape, plain


def table(rows: Sequence[dict], columns: Sequence[dict], *, caption: str = "", find: str = "", step: int = 0, file: str = "") -> str:
    """Return a table that sorts when a heading is pressed; cells without a value stay at the bottom.

    A column is `{"key", "label"}` with, where wanted, `"text"` (a function that formats the value), `"beside"` (the key
    of a text that stands below it in small), `"after"` (that of one that follows it), `"help"` (shown on hover), `"high": True` (the first press sorts the
    highest up), `"bar": True` (a share from 0 to 1 that is also drawn), `"wrap"` (text to the left, in several lines, at
    least so many pixels wide), `"path": True` (a category's path), `"choices": True` (a filter that offers its values)
    and `"least"` (the label of a filter that asks for a number); a newline in a label starts a second line. A row may
    hold `"tags"`, a list of (text, `good`|`bad`|`plain`) shown beside its first cell, and `"quiet": True`, which greys it.

    Args:
        find: the label of a field that keeps the rows with the words typed; none when empty.
        step: so many rows are shown at first, and so many more at each press; all when 0.
        file: the name that the rows found are saved under, as comma-separated values; cannot be saved when empty.
    """
    head = "".join(_head(column) for column in columns)
    body = "".join(_row(row, columns) for row in rows)
    full = " full" if len(columns) > 6 else ""
    name = escape(caption)
    scroll = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">'
        f'<table class="sortable{full}"><caption>{name}</caption><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>\n"
    )
    fields = _fields(rows, columns, find)
    if not (fields or step or file):
        return scroll
    save = f'<button type="button" class="save" data-file="{escape(file)}">save as CSV</button>' if file else ""
    more = '<div class="tools"><button type="button" class="more"></button></div>\n' if step else ""
    tools = f'<div class="tools">{fields}{save}<output></output></div>\n'
    return f'<div class="tabled" data-step="{step}">{tools}{scroll}{more}</div>\n'


def _fields(rows: Sequence[dict], columns: Sequence[dict], find: str) -> str:
    """Return the filters of a table, as labelled fields; a browser must not fill them in when it loads the page again."""
    fields = f'<label>{escape(find)} <input type="search" autocomplete="off"></label>' if find else ""
    for place, column in enumerate(columns):
        if column.get("choices"):
            values = dict.fromkeys(plain(row[column["key"]]) for row in rows if row.get(column["key"]) is not None)
            options = "".join(f'<option value="{escape(value)}">{escape(value)}</option>' for value in values)
            label, every = escape(column["label"].replace("\n", " ")), '<option value="">all</option>'
            fields += f'<label>{label} <select data-column="{place}" autocomplete="off">{every}{options}</select></label>'
        if column.get("least"):
            field = f'<input type="number" min="0" step="any" data-column="{place}" autocomplete="off">'
            fields += f"<label>{escape(column['least'])} {field}</label>"
    return fields


def _head(column: dict) -> str:
    first = "descending" if column.get("high") else "ascending"
    hint = f' title="{escape(column["help"])}"' if column.get("help") else ""
    label = "<br>".join(escape(line) for line in column["label"].split("\n"))
    wrap = column.get("wrap")  # True, or the least width in px
    least = "" if wrap is True else f' style="min-width:{wrap}px"'
    kind = f' class="wrap"{least}' if wrap else ""
    return (
        f'<th scope="col"{kind} data-key="{escape(column["key"])}" data-first="{first}"><button type="button"{hint}>{label}</button></th>'
    )


def _row(row: dict, columns: Sequence[dict]) -> str:
    cells = []
    for place, column in enumerate(columns):
        value = row.get(column["key"])
        sort_by = "" if value is None else f"{value:.6g}" if isinstance(value, float) else escape(value)
        text = path(value) if column.get("path") and value is not None else escape(cell_text(row, column))
        after, beside = row.get(column.get("after")), row.get(column.get("beside"))
        text += "" if after is None else f" <small>{escape(after)}</small>"
        text += "" if beside is None else f"<br><small>{escape(beside)}</small>"
        kind = ' class="wrap"' if column.get("wrap") else ""
        if place == 0:
            tags = "".join(f' <span class="tag {look}">{escape(tag)}</span>' for tag, look in row.get("tags", ()))
            cells.append(f'<th scope="row"{kind} data-value="{sort_by}">{text}{tags}</th>')
        else:
            bar = share_bar(value) if column.get("bar") and value is not None else ""
            cells.append(f'<td{kind} data-value="{sort_by}">{bar}{text}</td>')
    quiet = ' class="quiet"' if row.get("quiet") else ""
    return f"<tr{quiet}>{''.join(cells)}</tr>\n"
