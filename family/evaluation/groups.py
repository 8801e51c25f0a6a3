"""Every figure again for each value of a column: by country, by kind of seller, by whatever was carried along."""

import numpy as np

from family.data.ontology import Ontology
from family.errors import UserError
from family.evaluation.calibration import measure_calibration
from family.evaluation.metrics import measure_rows
from family.evaluation.predictions import Answers, listing_starts

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


def measure_groups(ontology: Ontology, by_image: Answers, by_listing: Answers, listing_ids: np.ndarray, values: np.ndarray) -> dict:
    """Return for each value, the one with the most rows first, what `measure_rows` returns, with `n_listings`, `ece` and `listings`.

    Images of one listing may have different values; a listing's own is that of its first image.

    Args:
        listing_ids, values: str [n], of the images.
    """
    found = {}
    names, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    of_listing = places[listing_starts(listing_ids)]
    for k in np.argsort(-counts, kind="stable"):
        rows = np.flatnonzero(places == k)
        starts = listing_starts(listing_ids[rows])
        images, listings = by_image.take(rows), by_listing.take(np.flatnonzero(of_listing == k))
        hits = images.top[:, 0] == images.labels
        calibration = measure_calibration(images.top_probabilities[:, 0], hits, images.true_probabilities, starts)
        group = {**measure_rows(ontology, images, starts), "n_listings": len(starts)}
        group |= {"ece": calibration["ece"], "ece_interval": calibration["ece_interval"]}
        if len(listings.labels):
            group["listings"] = measure_rows(ontology, listings, np.arange(len(listings.labels)))
        found[str(names[k]) or NO_VALUE] = group
    return found
