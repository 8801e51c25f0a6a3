"""How bad a mistake is: the height of the lowest common ancestor of the category that is true and the one that was answered."""

import numpy as np

from family.data.ontology import Ontology
from family.evaluation.hierarchy import ancestors_of, relate


def severities(ontology: Ontology, truth: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return int64 [n]: 0 where the answer is right, else how many levels the lowest common ancestor stands above its deepest leaf.

    The root, under which all departments stand, is as high as the tree is deep.
    *Source*: Bertinetto et al. 2020 (1912.09393), section 2: the height of the lowest common ancestor.

    Args:
        truth, answers: int [n], classes.
    """
    return relate(ancestors_of(ontology), np.asarray(truth), np.asarray(answers))[1].astype(np.int64)
