"""Accuracy of answers: top-k, micro and macro, the same after collapsing to every level of the tree, how near mistakes are, calibration."""

import numpy as np

from family.data.ontology import Ontology
from family.evaluation.calibration import measure_calibration
from family.evaluation.hierarchy import ancestors_of, overlap, relate, sum_distances
from family.evaluation.intervals import macro_interval, ratio_interval, share_interval, sum_by_listing
from family.evaluation.predictions import Answers

FEW_ROWS = 5
TOPS = (1, 3, 5)


def measure(ontology: Ontology, by_image: Answers, by_listing: Answers) -> dict:
    """Return every figure that answers alone give; `n` and the headline count images, `listings` holds the same by listing.

    Every share has its 95 % interval beside it, by listing: see `family.evaluation.intervals`.
    """
    return {**measure_parts(ontology, by_image, by_listing), "confusion": confusion(ontology, by_image, level=1)}


def measure_parts(ontology: Ontology, by_image: Answers, by_listing: Answers) -> dict:
    """Return all of `measure` but the confusion matrix."""
    starts = first_rows(by_listing)
    metrics = {**measure_rows(ontology, by_image, starts), "n_listings": len(starts)}
    metrics["macro_over"] = _count_categories(by_image.labels)
    measured = calibration_of(by_image, by_image.top_probabilities[:, 0], by_image.true_probabilities, starts)
    metrics["calibration"] = {"temperature": None, "fitted_on": None, **measured, "after": None}
    metrics["listings"] = measure_rows(ontology, by_listing, np.arange(len(starts)))
    return metrics


def first_rows(by_listing: Answers) -> np.ndarray:
    """Return int64 [n_listings], the first image's row of each listing."""
    return np.cumsum(by_listing.n_images) - by_listing.n_images


def measure_rows(ontology: Ontology, answers: Answers, starts: np.ndarray) -> dict:
    """Return `n`, `top1`, `top3`, `top5`, `levels`, `hierarchical`, `severity` and `distance_at` of rows.

    Args:
        starts: int [n_listings], the first row of each listing, whose rows are adjacent.
    """
    metrics = {"n": len(answers.labels)}
    for path, (hits, groups) in find_hits(ontology, answers).items():
        put(metrics, path, shares(hits, groups, starts))
    for level, found in metrics["levels"].items():
        found["nodes"] = len(ontology.level(int(level))[0])
    return metrics | _nearness(ontology, answers, starts)


def find_hits(ontology: Ontology, answers: Answers) -> dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]]:
    """Return for each metric, by its path in the metrics, which rows are right, bool [n], and their true categories, int [n]."""
    hits = answers.top == answers.labels[:, None]
    found = {(f"top{k}",): (hits[:, :k].any(axis=1), answers.labels) for k in TOPS}
    for level in range(1, ontology.depth + 1):
        _, node_of = ontology.level(level)
        truth = node_of[answers.labels]
        found["levels", str(level)] = node_of[answers.top[:, 0]] == truth, truth
        found["levels", str(level), "summed"] = answers.nodes[:, level - 1] == truth, truth
    return found


def put(metrics: dict, path: tuple[str, ...], values: dict) -> None:
    """Add values to the metrics at a path."""
    for key in path:
        metrics = metrics.setdefault(key, {})
    metrics |= values


def shares(hits: np.ndarray, groups: np.ndarray, starts: np.ndarray) -> dict:
    """Return `micro` and `macro` of `micro_macro` with their 95 % intervals by listing."""
    sums, sizes = sum_by_listing(hits, starts), np.diff(starts, append=len(hits))
    return {
        **micro_macro(hits, groups),
        "micro_interval": share_interval(sums, sizes),
        "macro_interval": macro_interval(sums, sizes, groups[starts]),
    }


def micro_macro(hits: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Return the share of hits over rows, and its mean over the groups that are present.

    Args:
        hits: bool [n].
        groups: int [n], the true category of each row.
    """
    counts = np.bincount(groups)
    present = counts > 0
    per_group = np.bincount(groups, weights=hits)[present] / counts[present]
    return {"micro": float(hits.mean()), "macro": float(per_group.mean())}


def _count_categories(labels: np.ndarray) -> dict[str, int]:
    """Return over how many categories macro is a mean, and how many of them have few rows, so that chance weighs on it."""
    counts = np.bincount(labels)
    return {"categories": int((counts > 0).sum()), f"under_{FEW_ROWS}_rows": int(((counts > 0) & (counts < FEW_ROWS)).sum())}


def _nearness(ontology: Ontology, answers: Answers, starts: np.ndarray) -> dict:
    """Return the figures of `family.evaluation.hierarchy`, each the ratio of two sums over rows, with intervals by listing."""
    ancestors, truth, best = ancestors_of(ontology), answers.labels, answers.top[:, 0]
    common, height = relate(ancestors, truth, best)
    hierarchical = {}
    for name, (shared, nodes) in overlap(ancestors, truth, best, common).items():
        sums, sizes = sum_by_listing(shared, starts), sum_by_listing(nodes, starts)
        hierarchical |= {name: float(sums.sum() / sizes.sum()), f"{name}_interval": share_interval(sums, sizes)}
    sums, sizes = sum_by_listing(height, starts), np.diff(starts, append=len(truth))
    wrong = sum_by_listing(height > 0, starts)
    severity = {
        "of_mistakes": float(sums.sum() / wrong.sum()) if wrong.any() else None,
        "of_mistakes_interval": ratio_interval(sums, wrong),
        "of_rows": float(sums.sum() / sizes.sum()),
        "of_rows_interval": ratio_interval(sums, sizes),
    }
    far = sum_distances(ancestors, truth, answers.top)
    at = {}
    for k in TOPS:
        of = min(k, far.shape[1])
        sums = sum_by_listing(far[:, of - 1], starts) / of
        at |= {str(k): float(sums.sum() / sizes.sum()), f"{k}_interval": ratio_interval(sums, sizes)}
    return {"hierarchical": hierarchical, "severity": severity, "distance_at": at}


def calibration_of(answers: Answers, best: np.ndarray, true: np.ndarray, starts: np.ndarray) -> dict:
    """Return the calibration of the best class's and the true class's probabilities, float [n], of answers by image."""
    return measure_calibration(best, answers.top[:, 0] == answers.labels, true, starts)


def measure_thirds(answers: Answers, starts: np.ndarray, third_of: np.ndarray) -> dict:
    """Return top-1 of the rows whose category is in the `head`, the `middle` and the `tail`.

    Args:
        third_of: int [n_classes], of `split_in_thirds`.
    """
    hits, thirds = answers.top[:, 0] == answers.labels, third_of[answers.labels]
    found = {}
    for k, name in enumerate(("head", "middle", "tail")):
        rows = thirds == k
        if rows.any():
            own = np.flatnonzero(rows[starts])
            sizes = np.diff(starts, append=len(hits))[own]
            counted = {"categories": len(np.unique(answers.labels[rows])), "n": int(rows.sum())}
            found[name] = {**counted, **shares(hits[rows], answers.labels[rows], np.cumsum(sizes) - sizes)}
    return found


def split_in_thirds(train_rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return int [n_classes]: 0 for the third of the categories with the most training rows, 1, 2 for that with the fewest.

    The categories of the evaluated rows are split; another one is where its training rows put it. Of equals, the earlier class comes first.

    Args:
        train_rows: int [n_classes].
        labels: int [n], the evaluated rows'.
    """
    order = np.argsort(-train_rows, kind="stable")
    present = np.isin(order, labels)
    sizes = [len(part) for part in np.array_split(np.flatnonzero(present), 3)]
    place = np.searchsorted(np.cumsum(sizes)[:2], np.maximum(np.cumsum(present) - 1, 0), side="right")
    found = np.empty(len(order), np.int64)
    found[order] = place
    return found


def confusion(ontology: Ontology, answers: Answers, level: int) -> dict:
    """Return the counts of (true node, node of the best leaf) at a level, and the nodes' paths."""
    ids, node_of = ontology.level(level)
    places = node_of[answers.labels].astype(np.int64) * len(ids) + node_of[answers.top[:, 0]]
    matrix = np.bincount(places, minlength=len(ids) ** 2).reshape(len(ids), len(ids))
    return {"level": level, "ids": [ontology.path_of[i] for i in ids], "matrix": matrix.tolist()}
