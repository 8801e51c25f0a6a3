"""What can be filed without a person: a threshold for every node, fitted on other listings, and the deepest node that clears its own.

At each level the node with the largest summed probability is answered. The deepest level whose answer clears its threshold files the listing
(backing off). So thresholds are fitted from the deepest level up, each level's on the listings that no deeper one files: those that are left
over are the harder ones, and a threshold that was fitted on all of them would file them less precisely than is wanted.

A node's threshold is the lowest probability t so that of the n fitting listings that were left over and answered with it and at least t, w of
them wrong, (w + 1) / (n + 1) <= 1 - wanted. The one wrong answer that is added
is what conformal risk control adds for the listing that is yet to come (Angelopoulos et al. 2022, 2208.02814, equation 4); at 90 % at
least nine answers, all right, are needed. The lowest such t is taken, so that the precision that comes out is a little lower than what a
t chosen beforehand would give.

A node that fewer than MIN_ANSWERED such listings were answered with has the threshold of all nodes of its level below its parent together, or
below a node further up, or of the whole level: the first that has as many. A node with none is never filed automatically.

A leaf that is not on the deepest level stands on all levels below it too.
"""

from dataclasses import dataclass

import numpy as np

from family.data.ontology import Ontology
from family.evaluation.hierarchy import ancestors_of
from family.evaluation.intervals import share_interval
from family.evaluation.predictions import Answers, level_maps

MIN_ANSWERED = 30
NEVER = np.inf
N_CURVE = 100


@dataclass(frozen=True)
class Filed:
    """What thresholds do to n listings."""

    level: np.ndarray  # int [n], the deepest level that files the listing; 0 where none does
    node: np.ndarray  # int [n], its node there
    right: np.ndarray  # bool [n]
    depth: np.ndarray  # int [n], the levels that the answer tells, as many as its node's path has names; 0 where there is none
    is_leaf: np.ndarray  # bool [n]

    def take(self, listings: np.ndarray) -> "Filed":
        """Return how some listings are filed: indices int [k], or bool [n]."""
        return Filed(*(getattr(self, name)[listings] for name in Filed.__dataclass_fields__))


def fit_thresholds(ontology: Ontology, answers: Answers, wanted: float) -> list[np.ndarray]:
    """Return for each level float [n_nodes], the probability from which each node's answers are filed; NEVER where none is enough.

    Args:
        answers: by listing, of rows that nothing else was fitted on, and that nothing is measured on afterwards.
        wanted: the precision, above 0 and below 1.
    """
    maps, found = level_maps(ontology), []
    left = np.arange(len(answers.labels))
    for level in range(len(maps), 0, -1):
        node_of, n_nodes = maps[level - 1]
        nodes, probabilities = answers.nodes[left, level - 1], answers.node_probabilities[left, level - 1]
        right = node_of[answers.labels[left]] == nodes
        thresholds, decided = np.full(n_nodes, NEVER), np.zeros(n_nodes, bool)
        for pool_of, n_pools in _pools(maps, level):
            n_answered = np.bincount(pool_of[nodes], minlength=n_pools)
            own = lowest_thresholds(pool_of[nodes], probabilities, right, n_pools, wanted)
            now = ~decided & (n_answered >= MIN_ANSWERED)[pool_of]
            thresholds[now] = own[pool_of[now]]
            decided |= now
        left = left[probabilities < thresholds[nodes]]
        found.append(thresholds)
    return found[::-1]


def _pools(maps: list, level: int) -> list[tuple[np.ndarray, int]]:
    """Return the ways to pool a level's nodes, int [n_nodes] and their number: each alone, by its node one level up, ..., all together."""
    node_of, n_nodes = maps[level - 1]
    a_leaf = np.empty(n_nodes, np.int64)
    a_leaf[node_of] = np.arange(len(node_of))
    above = [(maps[up][0][a_leaf], maps[up][1]) for up in range(level - 2, -1, -1)]
    return [(np.arange(n_nodes), n_nodes), *above, (np.zeros(n_nodes, np.int64), 1)]


def lowest_thresholds(groups: np.ndarray, probabilities: np.ndarray, right: np.ndarray, n_groups: int, wanted: float) -> np.ndarray:
    """Return float [n_groups], the lowest threshold of each group that the rule of this module allows, or NEVER.

    Args:
        groups: int [n], probabilities: float [n], right: bool [n].
    """
    order = np.lexsort((-probabilities, groups))
    groups, probabilities, right = groups[order], probabilities[order], right[order]
    counts = np.bincount(groups, minlength=n_groups)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    n = np.arange(len(order)) - first + 1
    n_right = np.cumsum(right)
    n_wrong = n - (n_right - (n_right - right)[first])
    next_differs = np.append((groups[1:] != groups[:-1]) | (probabilities[1:] != probabilities[:-1]), True)
    allowed = np.flatnonzero(next_differs & (n_wrong + 1 <= (1 - wanted) * (n + 1) + 1e-9))
    found = np.full(n_groups, NEVER)
    found[groups[allowed]] = probabilities[allowed]  # of several in a group the last stays, which is the lowest
    return found


def file_listings(ontology: Ontology, answers: Answers, thresholds: list[np.ndarray]) -> Filed:
    """Return how each listing is filed, from the deepest level up."""
    maps, depths = level_maps(ontology), ancestors_of(ontology).depths
    n = len(answers.labels)
    level, node, depth = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    right, is_leaf = np.zeros(n, bool), np.zeros(n, bool)
    for k in range(len(maps) - 1, -1, -1):
        node_of, n_nodes = maps[k]
        answered = answers.nodes[:, k]
        rows = np.flatnonzero((level == 0) & (answers.node_probabilities[:, k] >= thresholds[k][answered]))
        depth_of, leaf_below = np.empty(n_nodes, np.int64), np.empty(n_nodes, bool)
        depth_of[node_of] = np.minimum(depths, k + 1)
        leaf_below[node_of] = depths <= k + 1  # no leaf shares its node with another one
        level[rows], node[rows] = k + 1, answered[rows]
        right[rows] = node_of[answers.labels[rows]] == answered[rows]
        depth[rows], is_leaf[rows] = depth_of[answered[rows]], leaf_below[answered[rows]]
    return Filed(level, node, right, depth, is_leaf)


def measure_filing(ontology: Ontology, answers: Answers, filed: Filed) -> dict:
    """Return `leaf`, `levels`, `backoff`, `curve` and `departments` of listings; the shares are of all of them."""
    as_leaf = (filed.level > 0) & filed.is_leaf
    return {
        "leaf": {"share": float(as_leaf.mean()), "share_interval": _share_interval(as_leaf), **_precision(filed.right[as_leaf])},
        "levels": _measure_levels(ontology, answers, filed),
        "backoff": _measure_backoff(ontology, filed),
        "curve": measure_curve(answers),
        "departments": _measure_departments(ontology, answers, filed),
    }


def _measure_levels(ontology: Ontology, answers: Answers, filed: Filed) -> dict:
    """Return for each level the share that is filed at it or deeper, or as a leaf above it, and how often its node of that level is right."""
    maps, found = level_maps(ontology), {}
    right_at = _right_at_levels(maps, answers, filed)
    for level in range(1, len(maps) + 1):
        there = (filed.level > 0) & ((filed.depth >= level) | filed.is_leaf)
        found[str(level)] = {
            "share": float(there.mean()),
            "share_interval": _share_interval(there),
            **_precision(right_at[level - 1][there]),
        }
    return found


def _right_at_levels(maps: list, answers: Answers, filed: Filed) -> np.ndarray:
    """Return bool [n_levels, n]: whether what a listing is filed under, cut to a level, is true there."""
    a_leaf = np.zeros(len(answers.labels), np.int64)  # below the node that it is filed under
    for k, (node_of, n_nodes) in enumerate(maps):
        leaf_of = np.empty(n_nodes, np.int64)
        leaf_of[node_of] = np.arange(len(node_of))
        rows = filed.level == k + 1
        a_leaf[rows] = leaf_of[filed.node[rows]]
    return np.stack([(node_of[a_leaf] == node_of[answers.labels]) & (filed.level > 0) for node_of, _ in maps])


def _measure_backoff(ontology: Ontology, filed: Filed) -> dict:
    there = filed.level > 0
    by_depth = []
    for depth in range(1, ontology.depth + 1):
        here = filed.depth == depth
        by_depth.append({"level": depth, "share": float(here.mean()), **_precision(filed.right[here])})
    return {
        "share": float(there.mean()),
        "share_interval": _share_interval(there),
        **_precision(filed.right[there]),
        "mean_depth": float(filed.depth[there].mean()) if there.any() else None,
        "by_depth": by_depth,
        "without_answer": float(1 - there.mean()),
    }


def measure_curve(answers: Answers) -> list[dict]:
    """Return, for one threshold of all leaves from 0 to below 1, the share of listings at or above it and how many of these are right."""
    best, right = answers.top_probabilities[:, 0], answers.top[:, 0] == answers.labels
    places = np.minimum(np.floor(best.astype(np.float64) * N_CURVE + 1e-9).astype(np.int64), N_CURVE - 1)
    counts = np.bincount(places, minlength=N_CURVE)[::-1].cumsum()[::-1]
    n_right = np.bincount(places, weights=right, minlength=N_CURVE)[::-1].cumsum()[::-1]
    return [
        {"threshold": k / N_CURVE, "share": float(counts[k] / len(best)), "precision": float(n_right[k] / counts[k]) if counts[k] else None}
        for k in range(N_CURVE)
    ]


def _measure_departments(ontology: Ontology, answers: Answers, filed: Filed) -> list[dict]:
    """Return for each true department what is filed of it, as a leaf and at all; the largest first."""
    ids, node_of = ontology.level(1)
    department, found = node_of[answers.labels], []
    as_leaf = (filed.level > 0) & filed.is_leaf
    for k, i in enumerate(ids):
        own = department == k
        if own.any():
            precision = _precision(filed.right[own & as_leaf])
            found.append(
                {
                    "id": i,
                    "path": ontology.path_of[i],
                    "n_listings": int(own.sum()),
                    "share_leaf": float(as_leaf[own].mean()),
                    "share_leaf_interval": _share_interval(as_leaf[own]),
                    "share_backoff": float((filed.level[own] > 0).mean()),
                    "precision_leaf": precision["precision"],
                    "interval": precision["interval"],
                }
            )
    return sorted(found, key=lambda department: -department["n_listings"])


def _precision(right: np.ndarray) -> dict:
    """Return the `precision` of what is filed, and its `interval`; None where nothing is."""
    return {"precision": float(right.mean()) if len(right) else None, "interval": _share_interval(right)}


def _share_interval(hits: np.ndarray) -> list[float]:
    return share_interval(hits.astype(np.float64), np.ones(len(hits)))
