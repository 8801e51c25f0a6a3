"""The page of an evaluation: first what a category manager wants to know, then what who trains models wants to know.

One file without anything to load. Its size is bounded: about 4 MB of photos (see `thumbnails`), 1 kB a category, 1 MB of errors;
under 10 MB for 3,000 categories.
"""

from family import pages
from family.evaluation.findings import Findings
from family.reporting.accuracy import accuracy_section, confusion_section
from family.reporting.categories import categories_section, errors_section
from family.reporting.compared import by_section, compared_section
from family.reporting.first import first_page, lead, title
from family.reporting.photos import gallery_section, pairs_section
from family.reporting.trust import calibration_section, filing_section
from family.reporting.words import words


def evaluation_page(findings: Findings, pictures: dict[str, bytes], origin: dict | None = None, compared: dict | None = None) -> str:
    """Return the whole page as HTML.

    Args:
        pictures: a small JPEG of each image of `images_shown`; where one is missing, its place says so.
        origin: published figures of another system, `{"source", "data", "status", "figures": [{"measure", "percent"}]}`.
        compared: differences from another member on the same rows, see `compared_section`.
    """
    metrics = findings.metrics
    sections = [
        ("In short", first_page(findings, pictures)),
        ("Accuracy at every level", accuracy_section(findings, origin)),
        ("Departments that are confused", confusion_section(metrics["confusion"])),
        ("Every category", categories_section(findings.categories)),
        ("Worst confusions", pairs_section(findings.pairs, pictures)),
        ("Right and wrong", gallery_section(findings, pictures)),
        ("Errors one by one", errors_section(findings)),
        ("Calibration", calibration_section(metrics["calibration"])),
        ("Filing without a person", filing_section(metrics["filing"], findings.about["precision_wanted"]) if "filing" in metrics else ""),
        (f"Compared with {compared['other']}" if compared else "", compared_section(compared) if compared else ""),
        ("By column", by_section(metrics.get("by", {}))),
        ("Words", pages.definitions(words()) + pages.paragraph(_made_of(findings.about), "note")),
    ]
    return pages.page(title(findings), lead(findings), [section for section in sections if section[1]])


def _made_of(about: dict) -> str:
    return (
        f"Made of {about['dataset']}, digest {str(about['digest'])[:12]}, split {about['split']}, scope {about['scope']}: {about['n_images']:,} photos of "
        f"{about['n_listings']:,} listings, {about['n_categories']:,} categories in {about['depth']} levels. Schema {about['schema']}."
    )
