"""What whoever looks after the categories can do: merge two, rename one, or relabel listings; the ten that concern the most listings.

- *relabel*: at least MIN_LISTINGS listings of a category have images that are probably misfiled (see `family.evaluation.mistakes`).
- *merge*: two categories under the same node, where at least MUTUAL of each one's images are taken for the other one, and at least
  MIN_LISTINGS listings are concerned.
- *rename*: at least ONE_SIDED of a category's images are taken for another one, less than MUTUAL of the other one's for it: people and the model
  know the other name. Or two categories under different nodes are taken for each other as those of a merger are: neither name says which of them a
  listing belongs to. At least MIN_LISTINGS listings are concerned.

Images that are probably misfiled count for relabelling alone, so that no image argues for two things.

`gain_points` of a merger is the least that it gives on these rows: if the two were one category, each of these images would be right, so that top-1
gains their share, and what else the added probabilities decide.
Of relabelling it is the same share if the suspicion is right each time, so a bound. What a new name does is not known: null.
"""

import numpy as np

from family.data.ontology import Ontology
from family.evaluation.categories import category_of, count_confusions, group_by_confusion, told_apart
from family.evaluation.examples import Examples
from family.evaluation.mistakes import MISFILED, parents_of
from family.evaluation.predictions import Answers

N_ACTIONS = 10
N_EXAMPLES = 6
MIN_LISTINGS = 3
MUTUAL = 0.1
ONE_SIDED = 0.25


def find_actions(ontology: Ontology, by_image: Answers, listing_of: np.ndarray, examples: Examples) -> list[dict]:
    """Return the N_ACTIONS actions that concern the most listings.

    Args:
        listing_of: int [n], the number of each image's listing.
    """
    found = [*_relabels(ontology, by_image, listing_of, examples), *_confused(ontology, by_image, listing_of, examples)]
    found.sort(key=lambda action: (-action["listings"], action["kind"], action["places"][0]))
    return [
        {"rank": rank, **{key: value for key, value in action.items() if key != "places"}, "examples": examples.surest(action["places"], N_EXAMPLES)}
        for rank, action in enumerate(found[:N_ACTIONS], 1)
    ]  # fmt: skip


def _relabels(ontology: Ontology, by_image: Answers, listing_of: np.ndarray, examples: Examples) -> list[dict]:
    mistakes, found = examples.mistakes, []
    misfiled = np.flatnonzero(mistakes.kinds == MISFILED)
    truth = by_image.labels[mistakes.rows[misfiled]]
    order = np.argsort(truth, kind="stable")
    classes, firsts = np.unique(truth[order], return_index=True)
    for k, places in zip(classes, np.split(misfiled[order], firsts)[1:], strict=True):
        rows = mistakes.rows[places]
        n_listings = len(np.unique(listing_of[rows]))
        if n_listings >= MIN_LISTINGS:
            answers, counts = np.unique(by_image.top[rows, 0], return_counts=True)
            mine, to = category_of(ontology, int(k)), category_of(ontology, int(answers[counts.argmax()]))
            why = (f"{n_listings} listings in {mine['path']} look like something else, most often {to['path']} "
                   f"({counts.max()} of {len(rows)} images): look at them and move those that belong there.")  # fmt: skip
            found.append({"kind": "relabel", "categories": [mine, to], "listings": n_listings, "why": why,
                          "gain_points": 100 * len(rows) / len(by_image.labels), "places": places})  # fmt: skip
    return found


def _confused(ontology: Ontology, by_image: Answers, listing_of: np.ndarray, examples: Examples) -> list[dict]:
    """Return the mergers and the new names."""
    mistakes, n, found = examples.mistakes, len(ontology.leaves), []
    support, parents = np.bincount(by_image.labels, minlength=n), parents_of(ontology)
    counted = mistakes.kinds != MISFILED
    count_of = {(int(a), int(b)): int(count) for a, b, count in count_confusions(by_image, mistakes, n, counted)}
    places_of = group_by_confusion(by_image, mistakes, n)

    def rates(a: int, b: int) -> tuple[float, float]:
        return count_of.get((a, b), 0) / max(1, support[a]), count_of.get((b, a), 0) / max(1, support[b])

    for a, b in count_of:
        (there, back), siblings = rates(a, b), parents[a] == parents[b]
        mutual = there >= MUTUAL and back >= MUTUAL
        one_sided = there >= ONE_SIDED and back < MUTUAL
        if not (one_sided or (mutual and a < b)):
            continue
        places = np.concatenate([places_of(a, b), places_of(b, a)]) if mutual else places_of(a, b)
        places = places[counted[places]]
        n_listings = len(np.unique(listing_of[mistakes.rows[places]]))
        if n_listings >= MIN_LISTINGS:
            taken = [(count_of.get(pair, 0), int(support[pair[0]])) for pair in ((a, b), (b, a))]
            gain = 100 * len(places) / len(by_image.labels) if mutual and siblings else None
            found.append(_action(category_of(ontology, a), category_of(ontology, b), *taken, mutual, bool(siblings))
                         | {"listings": n_listings, "places": places, "gain_points": gain})  # fmt: skip
    return found


def _action(a: dict, b: dict, there: tuple[int, int], back: tuple[int, int], mutual: bool, siblings: bool) -> dict:
    """Return an action's kind, categories and reason; `there` and `back` are (images that are taken for the other category, images)."""
    names = told_apart([a["path"], b["path"]])
    if mutual and not siblings:
        why = (f"{_of(there)} photos in {names[0]} are taken for {names[1]}, and {_of(back)} the other way round, though they stand in different places "
               "of the tree: names that say what belongs where would help, or one place for both.")  # fmt: skip
        return {"kind": "rename", "categories": [a, b], "why": why}
    if mutual:
        why = (f"{_of(there)} photos in {names[0]} are taken for {names[1]}, and {_of(back)} the other way round: "
               "make one category of them, or tell sellers by what to tell them apart.")  # fmt: skip
        return {"kind": "merge", "categories": [a, b], "why": why}
    why = (f"{_of(there)} photos in {names[0]} are taken for {names[1]}, but only {_of(back)} the other way round: "
           "a name that says what is special about it would help.")  # fmt: skip
    return {"kind": "rename", "categories": [a, b], "why": why}


def _of(taken: tuple[int, int]) -> str:
    return f"{taken[0]:,} of {taken[1]:,} ({taken[0] / max(1, taken[1]):.0%})"
