"""How bad a mistake is: the height of the lowest common ancestor of the category that is true and the one that was answered."""

import numpy as np

from family.data.ontology import SEPARATOR, Ontology


def severities(ontology: Ontology, truth: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return int64 [n]: 0 where the answer is right, else how many levels the lowest common ancestor stands above its deepest leaf.

    The root, under which all departments stand, is as high as the tree is deep.
    *Source*: Bertinetto et al. 2020 (1912.09393), section 2: the height of the lowest common ancestor.

    Args:
        truth, answers: int [n], classes.
    """
    paths = [tuple(ontology.path_of[leaf].split(SEPARATOR)) for leaf in ontology.leaves]
    height: dict[tuple, int] = {}
    for path in paths:
        for depth in range(len(path) + 1):
            height[path[:depth]] = max(height.get(path[:depth], 0), len(path) - depth)
    pairs, place = np.unique(np.stack([truth, answers], 1), axis=0, return_inverse=True)
    found = [0 if a == b else height[_common(paths[a], paths[b])] for a, b in pairs.tolist()]
    return np.array(found, np.int64)[place.reshape(-1)]


def _common(a: tuple, b: tuple) -> tuple:
    """Return the names that two paths begin with alike."""
    n = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:n]
