"""What an answer tells: from the probabilities of the leaves to categories and their paths. No TensorFlow."""

import numpy as np

from export.bundle import card_ontology


def levels_of(card: dict) -> list[tuple[list[str], list[str], np.ndarray]]:
    """Return (ids, paths, node of each class) of every level of a card's tree, the broadest first."""
    ontology = card_ontology(card)
    found = [ontology.level(level) for level in range(1, ontology.depth + 1)]
    return [(ids, [ontology.path_of[i] for i in ids], node_of) for ids, node_of in found]


def tell(card: dict, levels: list[tuple], probabilities: np.ndarray, n_top: int = 5) -> dict:
    """Return the object that `family predict` prints of one image, without its name.

    Args:
        levels: of `levels_of`.
        probabilities: float [n_classes].
    """
    best = np.argsort(-probabilities, kind="stable")[:n_top]
    classes, paths = card["classes"], card["paths"]
    top = [{"category_id": classes[k], "path": paths[k], "probability": float(probabilities[k])} for k in best]
    nodes = []
    for ids, paths_of, node_of in levels:
        sums = np.bincount(node_of, weights=probabilities, minlength=len(ids))
        node = int(sums.argmax())
        nodes.append({"category_id": ids[node], "path": paths_of[node], "probability": float(sums[node])})
    return {**top[0], "levels": nodes, "top": top}
