"""Accuracy of answers: top-k, micro and macro, and the same after collapsing to every level of the tree."""

import numpy as np

from family.data.ontology import Ontology
from family.evaluation.predictions import Answers


def measure(ontology: Ontology, by_image: Answers, by_listing: Answers) -> dict:
    """Return the metrics of DESIGN's contract; `n` and the headline count images, `listings` holds the same by listing."""
    metrics = _measure(ontology, by_image)
    metrics["listings"] = _measure(ontology, by_listing)
    metrics["confusion"] = confusion(ontology, by_image, level=1)
    return metrics


def _measure(ontology: Ontology, answers: Answers) -> dict:
    metrics = {"n": len(answers.labels)}
    for path, (hits, groups) in find_hits(ontology, answers).items():
        put(metrics, path, micro_macro(hits, groups))
    for level, found in metrics["levels"].items():
        found["nodes"] = len(ontology.level(int(level))[0])
    return metrics


def find_hits(ontology: Ontology, answers: Answers) -> dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]]:
    """Return for each metric, by its path in the metrics, which rows are right, bool [n], and their true categories, int [n]."""
    hits = answers.top == answers.labels[:, None]
    found = {(f"top{k}",): (hits[:, :k].any(axis=1), answers.labels) for k in (1, 3, 5)}
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


def confusion(ontology: Ontology, answers: Answers, level: int) -> dict:
    """Return the counts of (true node, node of the best leaf) at a level, and the nodes' paths."""
    ids, node_of = ontology.level(level)
    matrix = np.zeros((len(ids), len(ids)), int)
    np.add.at(matrix, (node_of[answers.labels], node_of[answers.top[:, 0]]), 1)
    return {"level": level, "ids": [ontology.path_of[i] for i in ids], "matrix": matrix.tolist()}
