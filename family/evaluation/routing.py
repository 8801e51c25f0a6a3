"""How a general model and submodels answer together: the arithmetic of a chain, on probabilities alone.

Of a row, P is the general model's probability of each leaf, V a vertical (a set of leaves), P(V) the sum of P over it, and Q the submodel's
probabilities of V's leaves. No vertical shares a leaf with another; the leaves of none of them are one group more.

Soft: P(V) Q(leaf) for the leaves of every vertical, P(leaf) for the others.

Hard: the group with the largest sum decides (of equal ones, first "none of them", then the earlier vertical). Where none of them does, P
stands. Where V does, its leaves get P(V) Q(leaf) and the others keep P(leaf); but a leaf outside of V may then be ahead of V's best,
although V is where the row went. So the leaves outside are scaled by the largest factor s <= 1 that leaves each of them behind V's best, and
V has what they lose:

    with T the sum of P over all leaves, O over those outside of V, o their largest, q the largest of Q:
    s = min(1, (1 - MARGIN) T q / (o + O q)),  P'(V) = T - s O,  P'(leaf) = s P(leaf) outside of V.

The answer is a distribution (its sum is T, as the general model's), its best leaf is the submodel's best, and where that was so anyway (s = 1)
it is the same as soft for V.

A vertical may have a threshold: where the general model gives its best leaf at least this probability, it is sure enough, P stands, and the submodel is not
asked.
"""

from collections.abc import Callable, Sequence

import numpy as np

NONE = -1  # the route of a row that no vertical answers
MARGIN = 1e-4  # above what float32 rounds away


def groups_of(parts: Sequence[np.ndarray], n_classes: int) -> np.ndarray:
    """Return float64 [n_classes, 1 + parts], 1 where a class is of none of the verticals, or of one of them."""
    groups = np.zeros((n_classes, 1 + len(parts)))
    groups[:, 0] = 1
    for k, part in enumerate(parts, 1):
        groups[part, k], groups[part, 0] = 1, 0
    return groups


def route(
    general: np.ndarray, parts: list[np.ndarray], thresholds: Sequence[float] | None = None, groups: np.ndarray | None = None
) -> np.ndarray:  # fmt: skip
    """Return int [n], the index of the part that answers each row, or NONE.

    Args:
        general: float [n, n_classes] probabilities.
        parts: int [k] classes of each vertical.
        thresholds: of each part; infinite, or None for all, where its submodel is always asked.
        groups: of `groups_of`, for one who asks often: single rows are routed in some 10 µs with it.
    """
    groups = groups_of(parts, general.shape[1]) if groups is None else groups
    routes = (general.astype(np.float64) @ groups).argmax(axis=1) - 1
    if thresholds is not None:
        routes[general.max(axis=1) >= np.append(thresholds, np.inf)[routes]] = NONE  # NONE, -1, takes the last
    return routes


def _rest(parts: list[np.ndarray], n_classes: int) -> np.ndarray:
    return np.setdiff1d(np.arange(n_classes), np.concatenate([*parts, np.empty(0, int)]))


def answer_hard(
    general: np.ndarray, parts: list[np.ndarray], sub_of: Callable, thresholds: Sequence[float] | None = None, groups: np.ndarray | None = None
) -> np.ndarray:  # fmt: skip
    """Return float32 [n, n_classes]; `sub_of(index of a part, int rows)` gives float [rows, k] and is asked for routed rows alone."""
    found, routes = general.astype(np.float32), route(general, parts, thresholds, groups)
    for k in sorted(set(routes.tolist()) - {NONE}):
        rows = np.flatnonzero(routes == k)
        found[rows] = _hand_over(general[rows], parts[k], sub_of(k, rows))
    return found


def answer_soft(general: np.ndarray, parts: list[np.ndarray], sub_of: Callable) -> np.ndarray:
    """Return float32 [n, n_classes]; `sub_of(index of a part, int rows)` gives float [rows, k] and is asked for every row."""
    found, rows = general.astype(np.float64), np.arange(len(general))
    for k, part in enumerate(parts):
        found[:, part] = found[:, part].sum(axis=1, keepdims=True) * sub_of(k, rows)
    return found.astype(np.float32)


def _hand_over(general: np.ndarray, part: np.ndarray, sub: np.ndarray) -> np.ndarray:
    """Return float64 [n, n_classes] of rows that were all routed to one part."""
    found = general.astype(np.float64)
    outside = _rest([part], found.shape[1])
    total, q = found.sum(axis=1), sub.max(axis=1).astype(np.float64)
    if len(outside):
        largest = (1 - MARGIN) * total * q / (found[:, outside].max(axis=1) + found[:, outside].sum(axis=1) * q).clip(np.finfo(float).tiny)
        found[:, outside] *= np.minimum(1, largest)[:, None]
    found[:, part] = (total - found[:, outside].sum(axis=1))[:, None] * sub
    return found


def restrict(general: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return float64 [n, n_classes]: the general model's probabilities given that the leaf is in the part, 0 elsewhere.

    Where all of the part has probability 0, its leaves are equal.
    """
    inside = general[:, part].astype(np.float64)
    total = inside.sum(axis=1, keepdims=True)
    return place(np.divide(inside, total, out=np.full_like(inside, 1 / len(part)), where=total > 0), part, general.shape[1])


def place(sub: np.ndarray, part: np.ndarray, n_classes: int) -> np.ndarray:
    """Return float64 [n, n_classes]: a submodel's probabilities in the general model's classes, 0 elsewhere."""
    found = np.zeros((len(sub), n_classes))
    found[:, part] = sub
    return found
