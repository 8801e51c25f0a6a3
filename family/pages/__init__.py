"""Pages and pictures: one shell, one set of colours and one set of charts for every report."""

from family.pages.charts import bars, heatmap, lines, scatter, standalone
from family.pages.shell import definitions, figure, heading, multiples, page, paragraph, table
from family.pages.text import (
    NOTHING,
    amount,
    csv_table,
    escape,
    markdown,
    markdown_table,
    percent,
    plain,
    points,
)

__all__ = [
    "NOTHING",
    "amount",
    "bars",
    "csv_table",
    "definitions",
    "escape",
    "figure",
    "heading",
    "heatmap",
    "lines",
    "markdown",
    "markdown_table",
    "multiples",
    "page",
    "paragraph",
    "percent",
    "plain",
    "points",
    "scatter",
    "standalone",
    "table",
]
