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


def predict_rows(function: Callable, rows: Rows, how: Preprocessing, batch_size: int = 32) -> tuple[Answers, Answers]:
    """Run a function (uint8 images [n, px, px, 3] -> float32 probabilities [n, n_classes]) over rows.

    Returns:
        The answers by image, in the order of the rows, and by listing, where the mean of a listing's images answers.
    """
    n_batches = -(-len(rows) // batch_size)
    batches = progress(read_batches(rows, how, batch_size), "predicting", total=n_batches, unit="batches")
    return gather_answers((np.asarray(function(images)) for images in batches), rows)


def gather_answers(batches: Iterable[np.ndarray], rows: Rows) -> tuple[Answers, Answers]:
    """Return the answers by image and by listing of batches of probabilities [<= batch size, n_classes] of all rows in their order."""
    levels = level_maps(rows.ontology)
    by_image, by_listing = [], []
    probabilities = (p for batch in batches for p in batch)
    for first, listing in _by_listing(probabilities, rows.listing_ids):
        labels = rows.labels[first : first + len(listing)]
        by_image.append(summarize(listing, labels, levels))
        by_listing.append(summarize(listing.mean(axis=0, keepdims=True), labels[:1], levels))
    return concatenate(by_image), concatenate(by_listing)


def _by_listing(probabilities: Iterator[np.ndarray], listing_ids: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Gather adjacent rows of the same listing: (first row, float32 [images, n_classes])."""
    gathered, first = [], 0
    for row, p in enumerate(probabilities):
        if gathered and listing_ids[row] != listing_ids[first]:
            yield first, np.stack(gathered)
            gathered, first = [], row
        gathered.append(p)
    if gathered:
        yield first, np.stack(gathered)


def level_maps(ontology: Ontology) -> list[tuple[np.ndarray, int]]:
    """Return for each level (node of each leaf, number of nodes)."""
    maps = [ontology.level(level) for level in range(1, ontology.depth + 1)]
    return [(node_of, len(ids)) for ids, node_of in maps]


def summarize(probabilities: np.ndarray, labels: np.ndarray, levels: list) -> Answers:
    """Keep of probabilities [n, n_classes] what is kept; `levels` are those of `level_maps`."""
    k = min(N_TOP, probabilities.shape[1])
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    nodes = np.empty((len(labels), len(levels)), np.int32)
    node_probabilities = np.empty((len(labels), len(levels)), np.float32)
    for column, (node_of, n_nodes) in enumerate(levels):
        sums = np.stack([np.bincount(node_of, weights=p, minlength=n_nodes) for p in probabilities])
        nodes[:, column] = sums.argmax(axis=1)
        node_probabilities[:, column] = sums.max(axis=1)
    return Answers(labels, top.astype(np.int32), np.take_along_axis(probabilities, top, 1).astype(np.float32), nodes, node_probabilities)


def concatenate(parts: list[Answers]) -> Answers:
    """Join the answers of consecutive rows."""
    return Answers(*(np.concatenate([getattr(part, name) for part in parts]) for name in Answers.__dataclass_fields__))


def write_predictions(path: Path, rows: Rows, answers: Answers) -> None:
    """Write `predictions.parquet`: ids are those of ontology.csv, never class indexes."""
    leaves = np.array(rows.ontology.leaves)
    level_ids = [rows.ontology.level(level)[0] for level in range(1, rows.ontology.depth + 1)]
    table = {
        "listing_id": pa.array(rows.listing_ids.tolist(), pa.string()),
        "image": pa.array(rows.images.tolist(), pa.string()),
        "true_id": leaves[answers.labels].tolist(),
        "top_ids": leaves[answers.top].tolist(),
        "top_probabilities": pa.array(answers.top_probabilities.tolist(), pa.list_(pa.float32())),
        "level_ids": [[ids[node] for ids, node in zip(level_ids, nodes, strict=True)] for nodes in answers.nodes],
        "level_probabilities": pa.array(answers.node_probabilities.tolist(), pa.list_(pa.float32())),
    }
    pa.parquet.write_table(pa.table(table), path)
