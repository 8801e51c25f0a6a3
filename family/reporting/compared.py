"""Comparisons on an evaluation's page: with another member on the same rows, and between the values of a column."""

from family import pages
from family.pages import percent
from family.reporting.accuracy import NARROW_PX, WIDE_PX
from family.reporting.words import metric_words


def compared_section(compared: dict) -> str:
    """Return the differences from another member on the same rows; one that may be chance is called "not shown".

    Args:
        compared: `{"other", "differences": [{"metric", "ours", "other", "difference", "interval", "shown"}]}`, shares from 0 to 1.
    """
    rows = [
        {**d, "metric": metric_words(d["metric"]), "difference": 100 * d["difference"], "low": 100 * d["interval"][0], "high": 100 * d["interval"][1]}
        for d in compared["differences"]
    ]
    drawn = [{"label": row["metric"], "value": row["difference"], **{k: row[k] for k in ("low", "high", "shown")}} for row in rows]
    label = "points better (+) or worse (−), 95 % intervals"
    wide, narrow = (pages.differences(drawn, title="Differences", x_label=label, width=width) for width in (WIDE_PX, NARROW_PX))
    columns = [
        {"key": "metric", "label": "measure"},
        {"key": "ours", "label": "this\nmember %", "text": percent, "high": True},
        {"key": "other", "label": "the\nother %", "text": percent, "high": True},
        {"key": "difference", "label": "difference\npoints", "text": pages.points, "high": True},
        {"key": "low", "label": "at least\npoints", "text": pages.points, "high": True},
        {"key": "high", "label": "at most\npoints", "text": pages.points, "high": True},
        {"key": "shown", "label": "a difference?", "text": lambda shown: "yes" if shown else "not shown", "high": True},
    ]
    caption = f"Compared with {compared['other']}"
    n_shown = sum(bool(row["shown"]) for row in rows)
    note = (
        f"Both answered the same rows; {n_shown} of {len(rows)} differences are shown. Not shown: zero lies in the interval, or too few listings differ, "
        "so that the rows at hand don't tell whether there is a difference. Each interval stands for itself; of twenty, one misses."
    )
    return pages.paragraph(note) + pages.figure(wide, narrow=narrow) + pages.table(rows, columns, caption=caption, file="compared.csv")


def by_section(by: dict) -> str:
    """Return accuracy for each value of each column that was asked for."""
    body = ""
    for column, values in by.items():
        depth = max((len(found["levels"]) for found in values.values()), default=0)
        rows = [
            {
                "value": value,
                **{key: found[key] for key in ("n", "n_listings")},
                **{key: found[key]["micro"] for key in ("top1", "top3", "top5")},
                **{f"L{level}": levels["micro"] for level, levels in found["levels"].items()},
            }
            for value, found in values.items()
        ]
        columns = [
            {"key": "value", "label": column},
            {"key": "n", "label": "photos", "high": True},
            {"key": "n_listings", "label": "listings", "high": True},
            *({"key": f"top{k}", "label": f"top-{k}\n%", "text": percent, "high": True} for k in (1, 3, 5)),
            *({"key": f"L{k}", "label": f"L{k}\n%", "text": percent, "high": True} for k in range(1, depth + 1)),
        ]
        body += pages.heading(f"By {column}") + pages.table(
            rows, columns, caption=f"Accuracy by {column}", step=20, file=f"by-{column}.csv"
        )
    return body
