"""Which rows are answered wrong, and of what kind each mistake is, by rules whose constants are stated.

The rules are tried in the order of KINDS; the first that holds gives the kind. Probabilities are those of the image at the fitted
temperature where there is one, since the first rule asks how sure the model is.

That a label is probably wrong, when the model is as sure of another class as it is on average of rows that have that class, is the
threshold of confident learning. *Source*: Northcutt, Jiang and Chuang, Journal of Artificial Intelligence Research 70, 2021 (1911.00068),
equation 2. Here it must also be sure in itself, give the seller's category next to nothing, and stand by it over all images of the listing.
It is a suspicion: a model that learned from misfiled listings repeats what it saw, and no rule can tell.
"""

from dataclasses import dataclass

import numpy as np

from family.data.ontology import SEPARATOR, Ontology
from family.evaluation.predictions import Answers

MISFILED, SIBLING, OWN = range(3)
KINDS = ("probably misfiled by the seller", "sibling mix-up", "the model's own mistake")
SURE = 0.9
UNLIKELY = 0.05
RULES = {
    KINDS[
        MISFILED
    ]: f"The answer has at least {SURE:.0%}, and at least what the model gives on average to images that are in that category; "
    f"the seller's category has at most {UNLIKELY:.0%}; and all images of the listing together give the same answer.",
    KINDS[SIBLING]: "Both categories lie directly in the same category above them.",
    KINDS[OWN]: "Everything else: the two categories are no neighbours.",
}


@dataclass(frozen=True)
class Mistakes:
    """The m rows that are answered wrong, in the order of the rows."""

    rows: np.ndarray  # int64 [m]
    kinds: np.ndarray  # int8 [m], indexes of KINDS
    usual: np.ndarray  # float64 [n_classes], the mean probability of a class over its own rows; 0 without rows


def sort_mistakes(ontology: Ontology, by_image: Answers, by_listing: Answers) -> Mistakes:
    """Find the rows whose best leaf is not the true one and sort each by the rules of this module."""
    rows = np.flatnonzero(by_image.top[:, 0] != by_image.labels)
    truth, answer = by_image.labels[rows], by_image.top[rows, 0]
    best, true = by_image.tempered[rows].astype(np.float64).T
    counts = np.bincount(by_image.labels, minlength=len(ontology.leaves))
    usual = np.bincount(by_image.labels, by_image.tempered[:, 1], len(ontology.leaves)) / np.maximum(counts, 1)
    listing_of = np.repeat(np.arange(len(by_listing.labels)), by_listing.n_images)[rows]
    misfiled = (best >= np.maximum(SURE, usual[answer])) & (true <= UNLIKELY) & (by_listing.top[listing_of, 0] == answer)
    parents = parents_of(ontology)
    kinds = np.select([misfiled, parents[truth] == parents[answer]], [MISFILED, SIBLING], OWN)
    return Mistakes(rows, kinds.astype(np.int8), usual)


def parents_of(ontology: Ontology) -> np.ndarray:
    """Return int64 [n_classes]: a number for the node above each leaf; departments that are leaves stand under the root."""
    above = [ontology.path_of[leaf].rpartition(SEPARATOR)[0] for leaf in ontology.leaves]
    return np.unique(above, return_inverse=True)[1]


def count_kinds(mistakes: Mistakes) -> dict:
    """Return `n`, `by_kind` and the `rules`, in the order in which they are tried."""
    counts = np.bincount(mistakes.kinds, minlength=len(KINDS))
    return {"n": len(mistakes.rows), "by_kind": dict(zip(KINDS, counts.tolist(), strict=True)), "rules": RULES}


def tell_why(kind: int, truth: str, answer: str, best: float, true: float, usual: float) -> str:
    """Return one sentence with the numbers that a rule looked at; truth and answer are paths."""
    shares = f"the answer has {best:.1%}, the seller's category {true:.1%}"
    if kind == MISFILED:
        return f"Of this image {shares}; images of {answer} have {usual:.1%} on average, and no image of the listing is answered otherwise."
    above = common_path(truth, answer) or "the top of the tree"
    return f"Both stand under {above}; {shares}." if kind == SIBLING else f"The two part at {above}; {shares}."


def common_path(a: str, b: str) -> str:
    """Return the path of the lowest node that stands above both; empty for the root."""
    shared = []
    for left, right in zip(a.split(SEPARATOR), b.split(SEPARATOR), strict=False):
        if left != right:
            break
        shared.append(left)
    return SEPARATOR.join(shared)
