"""Answers of a model on rows, streamed: the best five leaves and the best node of each level, by image and by listing."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from family.data.dataset import Rows
from family.data.images import Preprocessing
from family.data.ontology import Ontology
from family.data.reading import read_batches
from family.errors import Failure
from family.evaluation.calibration import at_temperature
from family.progress import progress

N_TOP = 5


@dataclass(frozen=True)
class Answers:
    """What is kept of the probabilities of n rows. Full probabilities are never all in memory."""

    labels: np.ndarray  # int32 [n], true classes
    top: np.ndarray  # int32 [n, k <= 5], classes, best first
    top_probabilities: np.ndarray  # float32 [n, k]
    nodes: np.ndarray  # int32 [n, n_levels], the best node of each level by summed probability
    node_probabilities: np.ndarray  # float32 [n, n_levels]
    true_probabilities: np.ndarray  # float32 [n], of the true class
    tempered: np.ndarray  # float32 [n, 2], of the best and of the true class at the temperature
    n_images: np.ndarray  # int32 [n], whose mean the row is; 1 by image

    def take(self, rows: np.ndarray) -> "Answers":
        """Return the answers of some rows: indices int [k], or bool [n]."""
        return Answers(*(getattr(self, name)[rows] for name in Answers.__dataclass_fields__))


def predict_rows(
    function: Callable, rows: Rows, how: Preprocessing, batch_size: int = 32, temperature: float = 1.0
) -> tuple[Answers, Answers]:
    """Run a function (uint8 images [n, px, px, 3] -> float32 probabilities [n, n_classes]) over rows.

    Returns:
        The answers by image, in the order of the rows, and by listing, where the mean of a listing's images answers.
    """
    return gather_answers(predict_batches(function, rows, how, batch_size), rows, temperature)


def predict_batches(function: Callable, rows: Rows, how: Preprocessing, batch_size: int = 32) -> Iterator[np.ndarray]:
    """Yield float32 [<= batch_size, n_classes] probabilities of all rows in their order; images are decoded ahead, by threads."""
    n_batches = -(-len(rows) // batch_size)
    for images in progress(read_batches(rows, how, batch_size), "predicting", total=n_batches, unit="batches"):
        yield np.asarray(function(images))


def gather_answers(batches: Iterable[np.ndarray], rows: Rows, temperature: float = 1.0) -> tuple[Answers, Answers]:
    """Return the answers by image and by listing of batches of probabilities [n, n_classes], which are of all rows in their order.

    Args:
        temperature: of the probabilities that are kept as `tempered`, by image alone.

    Raises:
        Failure: the probabilities are no numbers, not of these classes, or not of as many rows.
    """
    levels = level_maps(rows.ontology)
    starts = listing_starts(rows.listing_ids)
    sizes = np.diff(starts, append=len(rows)).astype(np.int32)
    by_image: list[Answers] = []
    by_listing: list[Answers] = []

    def answered() -> Iterator[np.ndarray]:
        first = 0
        for batch in batches:
            labels = rows.labels[first : first + len(batch)]
            first += len(batch)
            if first > len(rows) or batch.shape[1:] != (len(rows.ontology.leaves),) or not np.isfinite(batch).all():
                raise Failure(f"the model answers {batch.shape}, or no numbers, for rows of {len(rows.ontology.leaves)} categories")
            by_image.append(summarize(batch, labels, levels, temperature=temperature))
            yield batch
        if first < len(rows):
            raise Failure(f"the model answers {first} rows of {len(rows)}")

    for probabilities, first, n in _whole_listings(answered(), sizes):
        own = sizes[first : first + n]
        sums = np.add.reduceat(probabilities, np.cumsum(own) - own, axis=0)
        means = sums / own[:, None].astype(sums.dtype)
        by_listing.append(summarize(means, rows.labels[starts[first : first + n]], levels, own))
    return concatenate(by_image), concatenate(by_listing)


def listing_starts(listing_ids: np.ndarray) -> np.ndarray:
    """Return int64 [n_listings], the first row of each listing; its rows are adjacent."""
    return np.flatnonzero(np.append(True, listing_ids[1:] != listing_ids[:-1]))


def _whole_listings(batches: Iterable[np.ndarray], sizes: np.ndarray) -> Iterator[tuple[np.ndarray, int, int]]:
    """Yield (probabilities of whole listings, the first one's number, how many); what is cut waits for the next batch.

    Args:
        sizes: int [n_listings], images of each.
    """
    ends, done, seen, waiting = np.cumsum(sizes), 0, 0, []
    for batch in batches:
        waiting.append(batch)
        seen += len(batch)
        complete = int(np.searchsorted(ends, seen, side="right"))
        if complete > done:
            joined = np.concatenate(waiting)
            n_rows = len(joined) - (seen - int(ends[complete - 1]))
            yield joined[:n_rows], done, complete - done
            waiting, done = [joined[n_rows:]], complete


def level_maps(ontology: Ontology) -> list[tuple[np.ndarray, int]]:
    """Return for each level (node of each leaf, number of nodes)."""
    maps = [ontology.level(level) for level in range(1, ontology.depth + 1)]
    return [(node_of, len(ids)) for ids, node_of in maps]


def summarize(
    probabilities: np.ndarray, labels: np.ndarray, levels: list, n_images: np.ndarray | None = None, temperature: float = 1.0
) -> Answers:
    """Keep of probabilities [n, n_classes] what is kept; `levels` are those of `level_maps`."""
    rows = np.arange(len(labels))
    top = _best_classes(probabilities, min(N_TOP, probabilities.shape[1]))
    nodes = np.empty((len(labels), len(levels)), np.int32)
    node_probabilities = np.empty((len(labels), len(levels)), np.float32)
    for column, (node_of, n_nodes) in enumerate(levels):
        sums = node_sums(probabilities, node_of, n_nodes)
        nodes[:, column] = sums.argmax(axis=1)
        node_probabilities[:, column] = sums[rows, nodes[:, column]]
    tempered = at_temperature(probabilities, temperature)
    return Answers(
        labels, top, probabilities[rows[:, None], top].astype(np.float32), nodes, node_probabilities,
        probabilities[rows, labels].astype(np.float32),
        np.stack([tempered[rows, top[:, 0]], tempered[rows, labels]], 1).astype(np.float32),
        np.ones(len(labels), np.int32) if n_images is None else n_images,
    )  # fmt: skip


def _best_classes(probabilities: np.ndarray, k: int) -> np.ndarray:
    """Return int32 [n, k], the classes with the largest probabilities; of equals, the first comes first."""
    left, rows = probabilities.copy(), np.arange(len(probabilities))
    top = np.empty((len(rows), k), np.int32)
    for column in range(k):
        top[:, column] = left.argmax(axis=1)
        left[rows, top[:, column]] = -np.inf
    return top


def node_sums(probabilities: np.ndarray, node_of: np.ndarray, n_nodes: int) -> np.ndarray:
    """Return float [n, n_nodes], each node's sum over its leaves, added up in float64 in the order of the leaves."""
    n, n_classes = probabilities.shape
    if n_nodes == n_classes:  # each leaf is a node of its own, in the same order
        return probabilities
    places = (np.arange(n)[:, None] * n_nodes + node_of).ravel()
    return np.bincount(places, weights=probabilities.ravel(), minlength=n * n_nodes).reshape(n, n_nodes)


def concatenate(parts: list[Answers]) -> Answers:
    """Join the answers of consecutive rows."""
    return Answers(*(np.concatenate([getattr(part, name) for part in parts]) for name in Answers.__dataclass_fields__))


def write_predictions(path: Path, rows: Rows, answers: Answers) -> None:
    """Write `predictions.parquet`: ids are those of ontology.csv, never class indexes."""
    leaves = pa.array(rows.ontology.leaves, pa.string())
    nodes, first_of_level = numbered_nodes(rows.ontology)
    table = {
        "listing_id": pa.array(rows.listing_ids, pa.string()),
        "image": pa.array(rows.images, pa.string()),
        "true_id": leaves.take(pa.array(answers.labels)),
        "top_ids": _lists(leaves.take(pa.array(answers.top.ravel())), answers.top.shape[1]),
        "top_probabilities": _lists(pa.array(answers.top_probabilities.ravel()), answers.top.shape[1]),
        "level_ids": _lists(nodes.take(pa.array((answers.nodes + first_of_level).ravel())), answers.nodes.shape[1]),
        "level_probabilities": _lists(pa.array(answers.node_probabilities.ravel()), answers.nodes.shape[1]),
        "true_probability": pa.array(answers.true_probabilities),
    }
    pa.parquet.write_table(pa.table(table), path)


def numbered_nodes(ontology: Ontology) -> tuple[pa.Array, np.ndarray]:
    """Return the ids of all nodes, level after level, and int [n_levels], the place where each level begins."""
    ids = [ontology.level(level)[0] for level in range(1, ontology.depth + 1)]
    return pa.array([i for level in ids for i in level], pa.string()), np.cumsum([0, *map(len, ids)])[:-1]


def _lists(values: pa.Array, size: int) -> pa.ListArray:
    """Return lists of `size` values each."""
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, size), pa.int32()), values)
