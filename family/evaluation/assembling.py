"""From answers to findings: everything that an evaluation tells, put together."""

from dataclasses import dataclass

import numpy as np

from family.data.dataset import Rows
from family.evaluation.actions import find_actions
from family.evaluation.categories import count_confusions, find_pairs, measure_categories
from family.evaluation.examples import Examples, choose_errors, choose_right
from family.evaluation.filing import Filed, file_listings, fit_thresholds, measure_filing
from family.evaluation.findings import SCHEMA, Findings
from family.evaluation.groups import measure_groups
from family.evaluation.metrics import calibration_of, first_rows, measure, measure_thirds, split_in_thirds
from family.evaluation.mistakes import Mistakes, count_kinds, sort_mistakes
from family.evaluation.predictions import Answers

WANTED = 0.9
THRESHOLDS_OF = (
    "the mean of the probabilities as the member gives them, over a listing's images, summed over the leaves of each node; "
    "of a listing with one image, that image's"
)


@dataclass(frozen=True)
class Answered:
    """Rows of a split and a member's answers to them."""

    rows: Rows
    by_image: Answers
    by_listing: Answers


@dataclass(frozen=True)
class Temperature:
    """A temperature, and the words for what it was fitted on."""

    value: float
    fitted_on: str


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found: the findings, and what the files need beside them."""

    findings: Findings
    mistakes: Mistakes
    thresholds: list[np.ndarray] | None  # of each level, float [n_nodes]
    filed: Filed | None  # of listings, where there are thresholds


def assemble(
    about: dict, answered: Answered, validation: Answered | None, temperature: Temperature | None, train_rows: np.ndarray,
    columns: dict[str, np.ndarray], wanted: float = WANTED,
) -> Evaluated:  # fmt: skip
    """Compute everything of a member's answers to a split.

    Args:
        about: "member", "dataset", "digest", "split", "scope", and "notes" so far.
        validation: other rows, which thresholds are fitted on; None leaves filing out.
        temperature: that of `answered`'s column `tempered`; None leaves calibration after it out.
        train_rows: int [n_classes].
        columns: of each column that groups are made by, str [n].
        wanted: the precision with which listings are to be filed.
    """
    rows, by_image, by_listing = answered.rows, answered.by_image, answered.by_listing
    ontology, starts = rows.ontology, first_rows(answered.by_listing)
    listing_of = np.repeat(np.arange(len(starts)), by_listing.n_images)
    metrics = measure(ontology, by_image, by_listing)
    if temperature:
        after = calibration_of(by_image, by_image.tempered[:, 0], by_image.tempered[:, 1], starts)
        metrics["calibration"] |= {"temperature": temperature.value, "fitted_on": temperature.fitted_on, "after": after}
    third_of = split_in_thirds(train_rows, by_image.labels)
    metrics["thirds"] = measure_thirds(by_image, starts, third_of)
    thresholds, filed = _file(answered, validation, wanted, metrics)
    mistakes = sort_mistakes(ontology, by_image, by_listing)
    metrics["errors"] = count_kinds(mistakes)
    if columns:
        metrics["by"] = {name: measure_groups(ontology, by_image, by_listing, filed, values) for name, values in columns.items()}
    confusions = count_confusions(by_image, mistakes, len(ontology.leaves))
    categories = measure_categories(
        ontology, by_image, by_listing, confusions, train_rows, third_of, thresholds[-1] if thresholds else None, filed
    )
    examples = Examples(rows, by_image, mistakes, {})
    pairs = find_pairs(ontology, by_image, confusions, examples)
    actions = find_actions(ontology, by_image, listing_of, examples)
    choose_errors(examples)
    findings = Findings(
        {**about, "n_images": len(rows), "n_listings": len(starts), "n_categories": len(ontology.leaves), "depth": ontology.depth,
         "precision_wanted": wanted, "schema": SCHEMA},
        metrics, categories, pairs, examples.all_made(), choose_right(rows, by_image), actions,
    )  # fmt: skip
    return Evaluated(findings, mistakes, thresholds, filed)


def _file(answered: Answered, validation: Answered | None, wanted: float, metrics: dict) -> tuple[list[np.ndarray] | None, Filed | None]:
    """Fit thresholds on validation listings, file the others by them, and add what comes out to the metrics."""
    if validation is None:
        return None, None
    ontology = answered.rows.ontology
    thresholds = fit_thresholds(ontology, validation.by_listing, wanted)
    filed = file_listings(ontology, answered.by_listing, thresholds)
    told = {
        "precision_wanted": wanted,
        "fitted_on": "val",
        "probabilities": THRESHOLDS_OF,
        "fitting_listings": len(validation.by_listing.labels),
    }
    metrics["filing"] = {**told, **measure_filing(ontology, answered.by_listing, filed)}
    return thresholds, filed
