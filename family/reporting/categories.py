"""The two long tables of an evaluation's page: every category, and the errors one by one."""

from family import pages
from family.evaluation.findings import Findings
from family.pages import number, percent
from family.reporting.accuracy import THIRDS
from family.reporting.words import counted

N_ERRORS = 2_000
STEP = 25


def categories_section(categories: list[dict]) -> str:
    """Return the table of every category."""
    rows = [{**c, "third": THIRDS[c["third"]], **_worst(c["worst"])} for c in categories]
    columns = [
        {"key": "path", "label": "category", "wrap": 190, "path": True},
        {"key": "third", "label": "how\ncommon", "choices": True, "wrap": 60},
        {"key": "train_rows", "label": "training\nphotos", "text": number, "high": True},
        {"key": "support", "label": "photos\nhere", "text": number, "high": True, "least": "photos here, at least"},
        {"key": "listings", "label": "listings\nhere", "text": number, "high": True},
        {"key": "recall", "label": "recall\n%", "text": percent, "bar": True, "help": "of its photos, named right"},
        {"key": "precision", "label": "precision\n%", "text": percent, "help": "of photos put here, right"},
        {"key": "f1", "label": "F1\n%", "text": percent},
        {"key": "share_filed", "label": "filed\n%", "text": percent, "high": True, "help": "of its listings, filed without a person"},
        {"key": "threshold", "label": "threshold\n%", "text": percent, "high": True},
        {"key": "worst_n", "label": "most taken\nfor, photos", "high": True},
        {"key": "worst_path", "label": "most often taken for", "wrap": 190, "path": True},
    ]
    note = (
        f"{counted(len(rows), 'category')}. What is saved are the rows found, in the order shown; categories.csv beside this page has all."
    )
    table = pages.table(rows, columns, caption="Categories", find="find a category", step=STEP, file="categories.csv")
    return pages.paragraph(note, "note") + table


def _worst(worst: dict | None) -> dict:
    return {"worst_n": worst["n"], "worst_path": worst["path"]} if worst else {}


def errors_section(findings: Findings) -> str:
    """Return the table of the errors that the findings hold."""
    rows, n = findings.errors[:N_ERRORS], findings.metrics["errors"]["n"]
    columns = [
        {"key": "listing_id", "label": "listing", "wrap": 80},
        {"key": "kind", "label": "kind", "choices": True, "wrap": 90},
        {"key": "true_path", "label": "filed in", "wrap": 170, "path": True},
        {"key": "true_probability", "label": "belief in\nthat %", "text": percent, "high": True},
        {"key": "answer_path", "label": "the model says", "wrap": 170, "path": True},
        {"key": "probability", "label": "belief in\nthat %", "text": percent, "high": True},
        {"key": "why", "label": "why it is of this kind", "wrap": 190},
    ]
    what = f"All {n:,}." if len(rows) == n else f"{len(rows):,} of {n:,}; errors.csv beside this page has all."
    table = pages.table(rows, columns, caption="Errors", find="find an error", step=STEP, file="errors.csv")
    return pages.paragraph(what, "note") + table if rows else ""
