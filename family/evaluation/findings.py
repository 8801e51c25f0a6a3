"""What an evaluation found, as plain data: what the files and the page of `family evaluate` are written from."""

from dataclasses import dataclass

SCHEMA = 1


@dataclass(frozen=True)
class Findings:
    """Everything that is shown of one member's answers to one split. JSON-able; ids are those of ontology.csv; shares are 0 to 1.

    Every list is in the order in which it should be shown. `errors` and `right` are samples: metrics["errors"] counts all errors.
    """

    about: dict  # what was evaluated on what; `notes` are sentences on what was left out, and why
    metrics: dict  # the object of metrics.json
    categories: list[dict]  # every leaf
    pairs: list[dict]  # of categories that are taken for one another, worst first
    errors: list[dict]  # rows answered wrong, each of a kind, with the reason
    right: list[dict]  # rows answered right, sure and unsure ones
    actions: list[dict]  # categories to merge, rename or relabel, the most worthwhile first
