"""Every figure again for each value of a column: by country, by kind of seller, by whatever was carried along."""

import numpy as np

from family.data.ontology import Ontology
from family.errors import UserError
from family.evaluation.filing import Filed, measure_filing
from family.evaluation.metrics import first_rows, measure_parts
from family.evaluation.predictions import Answers

MAX_VALUES = 200
NO_VALUE = "(none)"


def check_values(column: str, values: np.ndarray) -> None:
    """Refuse a column that has too many values to be a group each.

    Raises:
        UserError: more than MAX_VALUES.
    """
    n_values = len(np.unique(values))
    if n_values > MAX_VALUES:
        raise UserError(
            f"--by {column}: {n_values} different values; at most {MAX_VALUES}, so that groups have rows. Carry a coarser column along"
        )


def measure_groups(ontology: Ontology, by_image: Answers, by_listing: Answers, filed: Filed | None, values: np.ndarray) -> dict:
    """Return for each value, the one with the most listings first, what `measure_parts` returns, and `filing` where thresholds were fitted.

    A listing is of its first image's value, with all of its images.

    Args:
        values: str [n], of the images.
    """
    values = np.where(values == "", NO_VALUE, values)
    names, places = np.unique(values[first_rows(by_listing)], return_inverse=True)
    found = {}
    for k in np.argsort(-np.bincount(places), kind="stable"):
        own = places == k
        listings = by_listing.take(own)
        group = measure_parts(ontology, by_image.take(np.repeat(own, by_listing.n_images)), listings)
        if filed:
            group["filing"] = measure_filing(ontology, listings, filed.take(own))
        found[str(names[k])] = group
    return found
