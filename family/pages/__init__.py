"""Pages and pictures: one shell, one set of colours and one set of charts for every report."""

from family.pages.charts import bars, heatmap, lines, standalone
from family.pages.curves import curve, differences, reliability
from family.pages.fronts import scatter
from family.pages.inline import path
from family.pages.photos import answers, gallery, photo, photos
from family.pages.shell import budgeted, bullets, cards, definitions, details, figure, heading, multiples, page, paragraph, tiles
from family.pages.tables import table
from family.pages.text import (
    NOTHING,
    amount,
    csv_table,
    escape,
    markdown,
    markdown_table,
    number,
    percent,
    plain,
    points,
)

__all__ = [
    "NOTHING",
    "amount",
    "answers",
    "bars",
    "budgeted",
    "bullets",
    "cards",
    "csv_table",
    "curve",
    "definitions",
    "details",
    "differences",
    "escape",
    "figure",
    "gallery",
    "heading",
    "heatmap",
    "lines",
    "markdown",
    "markdown_table",
    "multiples",
    "number",
    "page",
    "paragraph",
    "path",
    "percent",
    "photo",
    "photos",
    "plain",
    "points",
    "reliability",
    "scatter",
    "standalone",
    "table",
    "tiles",
]
