"""How often a model is right: at every level of the tree, for common and rare categories, and between departments."""

from family import pages
from family.evaluation.findings import Findings
from family.pages import number, percent, plain
from family.reporting.words import counted

WIDE_PX, MATRIX_PX, NARROW_PX = 1040, 760, 358
N_WORST_CELLS = 100
N_MATRIX = 24  # departments that a matrix still shows readably
THIRDS = {"head": "common", "middle": "middle", "tail": "rare"}


def accuracy_section(findings: Findings, origin: dict | None) -> str:
    """Return the curve of accuracy against level, the table of all figures, and common against rare categories."""
    metrics = findings.metrics
    wide, narrow = (_levels_chart(metrics, width) for width in (WIDE_PX, NARROW_PX))
    caption = (
        "Right at a level: the answer lies below the same node of that level as the seller's category. A mark's area grows with the number of "
        "nodes. Summed: the node with the largest summed probability, instead of the node of the best leaf. Mean of categories: each counts alike."
    )
    note = pages.paragraph(_nearness(metrics), "note")
    return pages.figure(wide, caption, narrow=narrow) + _figures(metrics, origin) + note + _thirds(metrics["thirds"])


def _levels_chart(metrics: dict, width: int) -> str:
    levels = metrics["levels"]

    def series(label: str, values: dict, *path: str) -> dict:
        def at(level: str) -> float:
            found = values[level]
            for key in path:
                found = found[key]
            return 100 * found

        return {"label": label, "points": [{"x": int(level), "y": at(level), "n": levels[level]["nodes"]} for level in levels]}

    wide = width > 500
    return pages.lines(
        [
            series("listings", metrics["listings"]["levels"], "micro"),
            series("photos", levels, "micro"),
            series("photos, summed", levels, "summed", "micro"),
            series("mean of categories", levels, "macro"),
        ],
        title="Accuracy against level",
        y_label="right at the level, %",
        x_names={int(k): f"level {k}\n{counted(v['nodes'], 'node')}" if wide else f"L{k}\n{v['nodes']}" for k, v in levels.items()},
        width=width,
        y_max=100,
    )


def _nearness(metrics: dict) -> str:
    """Say how near to the truth the answers are."""
    severity, shared = metrics["severity"], {key: percent(metrics["hierarchical"][key]) for key in ("precision", "recall", "f1")}
    of_mistakes = (
        ""
        if severity["of_mistakes"] is None
        else f" The mistakes' truth and answer meet {severity['of_mistakes']:.2f} levels up on average."
    )
    return (
        f"Of the nodes of answers' paths {shared['precision']} % are true, of those of true paths {shared['recall']} % are answered (hierarchical "
        f"precision and recall; F1 {shared['f1']} %).{of_mistakes} Over all photos, right ones as 0, it is {severity['of_rows']:.2f}."
    )


def _figures(metrics: dict, origin: dict | None) -> str:
    """Return the table of all figures; those published of another system stand in a column of their own."""
    found = [(f"top-{k}", metrics[f"top{k}"], metrics["listings"][f"top{k}"], "") for k in (1, 3, 5)]
    for level, values in metrics["levels"].items():
        found.append((f"level {level}", values, metrics["listings"]["levels"][level], f" ({counted(values['nodes'], 'node')})"))
    rows = [_figure_row(name, values, listings, more) for name, values, listings, more in found]
    columns = [
        {"key": "name", "label": "right"},
        {"key": "micro", "label": "photos\n%", "text": percent, "high": True},
        {"key": "micro_interval", "label": "95 % interval"},
        {"key": "macro", "label": "mean of\ncategories %", "text": percent, "high": True},
        {"key": "macro_interval", "label": "95 % interval"},
        {"key": "listings", "label": "listings\n%", "text": percent, "high": True},
    ]
    note = ""
    if origin:
        rows, column, note = _published(rows, origin)
        columns.append(column)
    return pages.table(rows, columns, caption="All figures", file="figures.csv") + pages.paragraph(note, "note")


def _figure_row(name: str, values: dict, listings: dict, more: str) -> dict:
    row = {"name": name + more, "measure": name, "micro": values["micro"], "macro": values["macro"], "listings": listings["micro"]}
    intervals = {key: values.get(key) for key in ("micro_interval", "macro_interval")}
    return row | {key: f"{percent(ends[0])} to {percent(ends[1])}" if ends else None for key, ends in intervals.items()}


def _published(rows: list[dict], origin: dict) -> tuple[list[dict], dict, str]:
    """Put published figures beside the rows of the same measure, and in rows of their own where we have none.

    Args:
        origin: `{"source", "data", "status", "figures": [{"measure", "percent"}]}`; a measure is `top-1`, or `level 2, macro`.
    """
    told: dict[str, list[str]] = {}
    for figure in origin["figures"]:
        measure, _, kind = plain(figure["measure"]).partition(", ")
        told.setdefault(measure, []).append(f"{figure['percent']:g}" + (f" ({kind})" if kind else ""))
    known = {row["measure"] for row in rows}
    extra = [{"name": measure, "measure": measure} for measure in told if measure not in known]
    joined = [{**row, "published": ", ".join(told[row["measure"]]) if row["measure"] in told else None} for row in [*rows, *extra]]
    column = {"key": "published", "label": "published for\nanother system %"}
    note = f"Published: {origin['source']}, {origin['data']}. They are {origin['status']}: a column beside ours, not a comparison."
    return joined, column, note


def _thirds(thirds: dict) -> str:
    rows = [{"third": THIRDS[name], **values} for name, values in thirds.items()]
    columns = [
        {"key": "third", "label": "third of the categories,\nby training photos"},
        {"key": "categories", "label": "categories", "text": number, "high": True},
        {"key": "n", "label": "photos", "text": number, "high": True},
        {"key": "micro", "label": "photos\nright %", "text": percent, "high": True},
        {"key": "macro", "label": "mean of\ncategories %", "text": percent, "high": True},
    ]
    return pages.heading("Common and rare categories") + pages.table(rows, columns, caption="Common and rare categories")


# Confusion of departments


def confusion_section(confusion: dict) -> str:
    """Return the matrix of the tree's first level, as far as one can read it, and its worst cells as a list."""
    names, counts = confusion["ids"], confusion["matrix"]
    cells = [
        {"true": plain(a), "answer": plain(b), "n": counts[i][j], "of": counts[i][j] / sum(counts[i])}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if i != j and counts[i][j]
    ]
    cells.sort(key=lambda cell: -cell["n"])
    columns = [
        {"key": "true", "label": "filed in"},
        {"key": "answer", "label": "the model says", "wrap": 120},
        {"key": "n", "label": "photos", "text": number, "high": True},
        {"key": "of", "label": "of the\ndepartment's %", "text": percent, "high": True},
    ]
    wide, narrow = (
        pages.heatmap(names, counts, title="Confusion of departments", width=w, n_most=N_MATRIX) for w in (MATRIX_PX, NARROW_PX)
    )
    caption = "Of the photos of each department (row), the per cent that the model files under each department (column)."
    if len(names) > N_MATRIX:
        caption += f" Of {len(names)} departments, those with the fewest photos are drawn together; the list below has each by itself."
    table = (
        pages.table(cells[:N_WORST_CELLS], columns, caption="Departments that are confused", step=10, file="confusion.csv") if cells else ""
    )
    return pages.figure(wide, caption, narrow=narrow) + pages.heading("The most frequent confusions of departments") * bool(cells) + table
