"""Figures that count how near an answer is to the truth in the tree: hierarchical precision and recall, severity, distance."""

from dataclasses import dataclass

import numpy as np

from family.data.ontology import SEPARATOR, Ontology

_ROWS_AT_ONCE = 1 << 18  # of the rows of a large evaluation, so that what is computed on the way stays small


@dataclass(frozen=True)
class Ancestors:
    """The nodes above each leaf, as arrays."""

    nodes: np.ndarray  # int32 [depth, n_leaves], the leaf's node of each level, itself on its own; -1 - leaf below it
    heights: np.ndarray  # int8 [depth + 1, n_leaves], the height of the leaf's node of each level; first the root's
    depths: np.ndarray  # int8 [n_leaves], levels from the department to the leaf


def ancestors_of(ontology: Ontology) -> Ancestors:
    """Return the nodes above each leaf; a node's height is how many levels it stands above its deepest leaf."""
    paths = [ontology.path_of[leaf].split(SEPARATOR) for leaf in ontology.leaves]
    n, depth = len(paths), ontology.depth
    depths = np.array([len(path) for path in paths])
    nodes = np.empty((depth, n), np.int32)
    heights = np.zeros((depth + 1, n), np.int8)
    heights[0] = depth
    for level in range(1, depth + 1):
        node_of = ontology.level(level)[1]
        there = depths >= level
        deepest = np.zeros(int(node_of.max()) + 1, int)
        np.maximum.at(deepest, node_of, depths)
        nodes[level - 1] = np.where(there, node_of, -1 - np.arange(n))
        heights[level] = np.where(there, deepest[node_of] - level, 0)
    return Ancestors(nodes, heights, depths.astype(np.int8))


def relate(ancestors: Ancestors, truth: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 [n]: how many nodes truth and answer have in common, and the height of their lowest common ancestor (0: the same leaf).

    Args:
        truth, answers: int [n], classes.
    """
    common, height = np.zeros(len(truth), np.int8), np.zeros(len(truth), np.int8)
    for start in range(0, len(truth), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        a, b = truth[part].astype(np.intp), answers[part].astype(np.intp)
        height[part] = ancestors.heights[0, 0]
        for nodes, heights in zip(ancestors.nodes, ancestors.heights[1:], strict=True):
            own = nodes[a]
            same = (own == nodes[b]) & (own >= 0)
            common[part] += same
            np.copyto(height[part], heights[a], where=same)
    return common, height


def overlap(ancestors: Ancestors, truth: np.ndarray, answers: np.ndarray, common: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return of each row what hierarchical `precision`, `recall` and `f1` divide: (shared nodes, nodes), int [n].

    A row's sets are its truth and its answer, each with all nodes above it but the root. Precision is the sum of the shared nodes over the
    sum of the answers' nodes, recall over the sum of the truths', both over all rows (micro); F1 is their harmonic mean.
    *Source*: Kiritchenko, Matwin and Famili, Functional annotation of genes using hierarchical text categorization (2005); as in HiClass
    (Miranda et al., Journal of Machine Learning Research 24, 2023, number 29).
    """
    n_answer, n_truth = ancestors.depths[answers].astype(np.int16), ancestors.depths[truth].astype(np.int16)
    shared = common.astype(np.int16)
    return {"precision": (shared, n_answer), "recall": (shared, n_truth), "f1": (2 * shared, n_answer + n_truth)}


def sum_distances(ancestors: Ancestors, truth: np.ndarray, top: np.ndarray) -> np.ndarray:
    """Return int16 [n, k]: the sum of the heights of the lowest common ancestors of the truth and each of the best 1, 2, ... k answers.

    Over k and the rows it is the mean that is told.

    *Source*: "average hierarchical distance of top-k", Bertinetto et al. 2020 (1912.09393), which counts right answers too, as 0.

    Args:
        top: int [n, k], best first.
    """
    found = np.empty(top.shape, np.int16)
    total = np.zeros(len(top), np.int16)
    for k in range(top.shape[1]):
        total += relate(ancestors, truth, top[:, k])[1]
        found[:, k] = total
    return found
