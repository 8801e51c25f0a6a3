"""Two members on the same rows: what one evaluation's answers are better or worse at than another's, with intervals of the difference."""

from pathlib import Path

import numpy as np
import pyarrow.parquet

from family.data.dataset import Rows
from family.errors import UserError
from family.evaluation.intervals import macro_difference, sum_by_listing
from family.evaluation.metrics import TOPS, micro_macro
from family.evaluation.paired import count_differing, is_shown, micro_interval
from family.evaluation.predictions import Answers, listing_starts

_KEYS = ("listing_id", "image", "true_id")


def read_answers(folder: Path, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Read another evaluation's answers to the same rows.

    Returns:
        int32 [n, k] of the best classes and [n, n_levels] of the best nodes, as indexes; -1 for what the rows' tree does not have.

    Raises:
        UserError: no evaluation, or one of other rows.
    """
    try:
        table = pyarrow.parquet.read_table(folder / "predictions.parquet")
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{folder} holds no predictions of `family evaluate`: {error}") from error
    ontology = rows.ontology
    own = (rows.listing_ids, rows.images, np.array(ontology.leaves)[rows.labels])
    there = [table[name].to_numpy(zero_copy_only=False) for name in _KEYS]
    if any(len(a) != len(b) or (a.astype(str) != b.astype(str)).any() for a, b in zip(own, there, strict=True)):
        raise UserError(
            f"{folder} was evaluated on other rows ({table.num_rows}, here {len(rows)}); evaluate both on the same split and scope"
        )
    levels = [ontology.level(level)[0] for level in range(1, ontology.depth + 1)]
    nodes = _lists(table["level_ids"])
    if nodes.shape[1] != len(levels):
        raise UserError(f"{folder} was evaluated on a tree of {nodes.shape[1]} levels, here {len(levels)}")
    found = np.stack([_indexes(nodes[:, k], ids) for k, ids in enumerate(levels)], axis=1)
    return _indexes(_lists(table["top_ids"]), ontology.leaves), found


def _lists(column) -> np.ndarray:
    """Return object [n, k] of lists of k each."""
    lists = column.combine_chunks()
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), -1)


def _indexes(ids: np.ndarray, known: tuple[str, ...]) -> np.ndarray:
    place = {name: k for k, name in enumerate(known)}
    return np.array([place.get(i, -1) for i in ids.ravel()], np.int32).reshape(ids.shape)


def compare_members(ours: Answers, top: np.ndarray, nodes: np.ndarray, rows: Rows) -> list[dict]:
    """Return for each metric, by its path, the two shares by image and their difference, ours less theirs, with a 95 % interval by listing.

    Micro intervals are those of `family.evaluation.paired`, macro ones of `family.evaluation.intervals.macro_difference`; `shown` says that
    the interval does not hold 0 and that enough listings differ.

    Args:
        top, nodes: what `read_answers` returns.
    """
    starts = listing_starts(rows.listing_ids)
    sizes = np.diff(starts, append=len(rows))
    listings, found = np.repeat(np.arange(len(starts)), sizes), []
    theirs = dict(_hits(ours.labels, top, nodes, rows))
    for name, (hits, groups) in _hits(ours.labels, ours.top, ours.nodes, rows):
        differences = hits.astype(np.int8) - theirs[name][0]
        n_differing = count_differing(differences, listings)
        intervals = {
            "micro": micro_interval(differences, listings),
            "macro": macro_difference(sum_by_listing(differences, starts), sizes, groups[starts]),
        }
        mine, other = micro_macro(hits, groups), micro_macro(theirs[name][0], groups)
        for kind, interval in intervals.items():
            found.append({"metric": f"{name}.{kind}", "ours": mine[kind], "other": other[kind], "difference": mine[kind] - other[kind],
                          "interval": list(interval), "shown": bool(is_shown(tuple(interval), n_differing))})  # fmt: skip
    return found


def _hits(labels: np.ndarray, top: np.ndarray, nodes: np.ndarray, rows: Rows):
    """Yield (metric, (hits bool [n], true categories int [n])); an answer that the tree does not have is wrong."""
    hits = top == labels[:, None]
    for k in TOPS:
        yield f"top{k}", (hits[:, :k].any(axis=1), labels)
    for level in range(1, rows.ontology.depth + 1):
        node_of = rows.ontology.level(level)[1]
        truth = node_of[labels]
        yield f"levels.{level}", ((top[:, 0] >= 0) & (node_of[top[:, 0]] == truth), truth)
        yield f"levels.{level}.summed", (nodes[:, level - 1] == truth, truth)
