"""Two members on the same rows: what one evaluation's answers are better or worse at than another's, with intervals of the difference."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from family.data.dataset import Rows
from family.data.ontology import Ontology
from family.errors import UserError
from family.evaluation.intervals import macro_difference, sum_by_listing
from family.evaluation.metrics import TOPS, micro_macro
from family.evaluation.paired import count_differing, is_shown, micro_interval
from family.evaluation.predictions import Answers, listing_starts

_KEYS = ["listing_id", "image", "true_id"]
_ELSEWHERE = -1  # an answer that the rows' tree does not have


def read_answers(folder: Path, rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read another evaluation's answers to the same rows; the general model and a vertical have the rows of the vertical in common.

    Returns:
        int [k], the rows that both have, in their order; int [k, n] of the best classes and [k, n_levels] of the best nodes there, as indexes;
        -1 for what the rows' tree does not have.

    Raises:
        UserError: no evaluation, or one of other rows.
    """
    try:
        table = pyarrow.parquet.read_table(folder / "predictions.parquet")
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{folder} holds no predictions of `family evaluate`: {error}") from error
    leaves = pa.array(rows.ontology.leaves, pa.string())
    own = [pa.array(rows.listing_ids, pa.string()), pa.array(rows.images, pa.string()), leaves.take(pa.array(rows.labels))]
    common, places = _match(pa.table(own, names=_KEYS), table.select(_KEYS))
    if len(common) == 0:
        raise UserError(f"{folder} was evaluated on other rows; evaluate both on rows of the same split, of scopes that overlap")
    table = table.take(pa.array(places))
    return common, _places(_lists(table["top_ids"]), rows.ontology.leaves), _read_nodes(table["level_ids"], rows.ontology)


def _match(own: pa.Table, other: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the one that the other has too, in their order, and where the other has them."""
    if own.equals(other):
        return np.arange(len(own)), np.arange(len(own))
    numbered = [table.append_column(name, pa.array(np.arange(len(table)))) for name, table in (("own", own), ("other", other))]
    joined = numbered[0].join(numbered[1], _KEYS, join_type="inner").sort_by("own")
    return joined["own"].to_numpy(), joined["other"].to_numpy()


def _lists(column: pa.ChunkedArray) -> list[pa.Array]:
    """Return the columns of lists that are all of one length."""
    lists = column.combine_chunks()
    return [pc.list_element(lists, k) for k in range(len(lists[0]))]


def _places(columns: list[pa.Array], known: tuple[str, ...]) -> np.ndarray:
    """Return int [n, columns], the place of each id among those that are known, or _ELSEWHERE."""
    known = pa.array(known, pa.string())
    return np.stack([pc.fill_null(pc.index_in(ids, known), _ELSEWHERE).to_numpy(zero_copy_only=False) for ids in columns], axis=1)


def _read_nodes(column: pa.ChunkedArray, ontology: Ontology) -> np.ndarray:
    """Return the best node of each level of the rows' tree; a tree with fewer levels has its leaves on those below too."""
    ids = _lists(column)
    levels = [ontology.level(level)[0] for level in range(1, ontology.depth + 1)]
    return np.concatenate([_places([ids[min(k, len(ids) - 1)]], known) for k, known in enumerate(levels)], axis=1)


def compare_members(ours: Answers, common: np.ndarray, top: np.ndarray, nodes: np.ndarray, rows: Rows) -> list[dict]:
    """Return for each metric, by its path, the two shares by image and their difference, ours less theirs, with a 95 % interval by listing.

    Micro intervals are those of `family.evaluation.paired`, macro ones of `family.evaluation.intervals.macro_difference`; `shown` says that
    the interval does not hold 0 and that enough listings differ.

    Args:
        ours: of all rows, by image.
        common, top, nodes: what `read_answers` returns.
    """
    ours = ours.take(common)
    starts = listing_starts(rows.listing_ids[common])
    sizes = np.diff(starts, append=len(common))
    listings, found = np.repeat(np.arange(len(starts)), sizes), []
    theirs = dict(_hits(ours.labels, top, nodes, rows.ontology))
    for name, (hits, groups) in _hits(ours.labels, ours.top, ours.nodes, rows.ontology):
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


def _hits(labels: np.ndarray, top: np.ndarray, nodes: np.ndarray, ontology: Ontology):
    """Yield (metric, (hits bool [n], true categories int [n])); an answer that the tree does not have is wrong."""
    hits = top == labels[:, None]
    for k in TOPS:
        yield f"top{k}", (hits[:, :k].any(axis=1), labels)
    for level in range(1, ontology.depth + 1):
        node_of = ontology.level(level)[1]
        truth = node_of[labels]
        yield f"levels.{level}", ((top[:, 0] >= 0) & (node_of[top[:, 0]] == truth), truth)
        yield f"levels.{level}.summed", (nodes[:, level - 1] == truth, truth)
