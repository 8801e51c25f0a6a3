"""Figures of single categories, and of pairs of them that are taken for one another."""

from collections.abc import Sequence

import numpy as np

from family.data.ontology import SEPARATOR, Ontology
from family.evaluation.examples import Examples
from family.evaluation.filing import Filed
from family.evaluation.mistakes import Mistakes, common_path
from family.evaluation.predictions import Answers
from family.pages import plain

THIRDS = ("head", "middle", "tail")
N_PAIRS = 30
N_EACH_WAY = 4


def category_of(ontology: Ontology, place: int) -> dict:
    """Return the id and the path of a class."""
    leaf = ontology.leaves[place]
    return {"id": leaf, "path": ontology.path_of[leaf]}


def count_confusions(by_image: Answers, mistakes: Mistakes, n_classes: int, chosen: np.ndarray | None = None) -> np.ndarray:
    """Return int64 [k, 3] of each (true class, answered class, images) that is a mistake, by classes.

    Args:
        chosen: bool [m], of the mistakes; all without it.
    """
    rows = mistakes.rows if chosen is None else mistakes.rows[chosen]
    codes = by_image.labels[rows].astype(np.int64) * n_classes + by_image.top[rows, 0]
    codes, counts = np.unique(codes, return_counts=True)
    return np.stack([codes // n_classes, codes % n_classes, counts], axis=1)


def measure_categories(
    ontology: Ontology, by_image: Answers, by_listing: Answers, confusions: np.ndarray, train_rows: np.ndarray, third_of: np.ndarray,
    thresholds: np.ndarray | None, filed: Filed | None,
) -> list[dict]:  # fmt: skip
    """Return each leaf's figures, by images, that with the most mistakes first; `share_filed` is of its listings, as a leaf.

    Args:
        train_rows, third_of: int [n_classes].
        thresholds: float [n_classes], of the leaves; None where none were fitted.
    """
    n = len(ontology.leaves)
    right = np.bincount(by_image.labels[by_image.top[:, 0] == by_image.labels], minlength=n)
    support, answered = np.bincount(by_image.labels, minlength=n), np.bincount(by_image.top[:, 0], minlength=n)
    listings = np.bincount(by_listing.labels, minlength=n)
    n_filed = np.zeros(n) if filed is None else np.bincount(by_listing.labels[(filed.level > 0) & filed.is_leaf], minlength=n)
    worst = {int(a): (int(b), int(count)) for a, b, count in confusions[np.argsort(confusions[:, 2], kind="stable")]}  # the last stays
    found = []
    for k in range(n):
        wrong = {**category_of(ontology, worst[k][0]), "n": worst[k][1]} if k in worst else None
        found.append({
            **category_of(ontology, k), "train_rows": int(train_rows[k]), "third": THIRDS[third_of[k]],
            "support": int(support[k]), "listings": int(listings[k]),
            "precision": _share(right[k], answered[k]), "recall": _share(right[k], support[k]),
            "f1": _share(2 * right[k], support[k] + answered[k]) if support[k] else None,
            "threshold": float(thresholds[k]) if thresholds is not None and np.isfinite(thresholds[k]) else None,
            "share_filed": _share(n_filed[k], listings[k]) if filed is not None else None, "worst": wrong,
        })  # fmt: skip
    return [found[k] for k in np.lexsort((support == 0, right - support))]


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def find_pairs(ontology: Ontology, by_image: Answers, confusions: np.ndarray, examples: Examples) -> list[dict]:
    """Return the N_PAIRS pairs of categories with the most images of the one taken for the other; `a` is the one that is taken more often."""
    n, support = len(ontology.leaves), np.bincount(by_image.labels, minlength=len(ontology.leaves))
    count_of = {(int(a), int(b)): int(count) for a, b, count in confusions}
    both: dict[tuple[int, int], int] = {}
    for (a, b), count in count_of.items():
        key = (min(a, b), max(a, b))
        both[key] = both.get(key, 0) + count
    worst = sorted(both, key=lambda key: (-both[key], key))[:N_PAIRS]
    places = group_by_confusion(by_image, examples.mistakes, n)
    found = []
    for a, b in worst:
        if count_of.get((b, a), 0) > count_of.get((a, b), 0):
            a, b = b, a
        left, right = category_of(ontology, a), category_of(ontology, b)
        shown = [error for way in ((a, b), (b, a)) for error in examples.surest(places(*way), N_EACH_WAY)]
        found.append({"a": left, "b": right, "n_ab": count_of.get((a, b), 0), "n_ba": count_of.get((b, a), 0), "n_a": int(support[a]),
                      "n_b": int(support[b]), "lca_path": common_path(left["path"], right["path"]), "examples": shown})  # fmt: skip
    return found


def group_by_confusion(by_image: Answers, mistakes: Mistakes, n_classes: int):
    """Return a function of (true class, answered class) that gives the places of such mistakes, int [k]."""
    codes = by_image.labels[mistakes.rows].astype(np.int64) * n_classes + by_image.top[mistakes.rows, 0]
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]

    def places(true: int, answered: int) -> np.ndarray:
        first, last = np.searchsorted(ordered, [true * n_classes + answered, true * n_classes + answered + 1])
        return order[first:last]

    return places


def told_apart(paths: Sequence[str]) -> list[str]:
    """Return the last names of paths, or as many names from the end as it takes until no two are alike."""
    n_most = max(path.count(SEPARATOR) + 1 for path in paths)
    for n in range(1, n_most + 1):
        names = [" / ".join(path.split(SEPARATOR)[-n:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return [plain(name) for name in names]
