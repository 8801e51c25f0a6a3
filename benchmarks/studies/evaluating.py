"""How long the figures of an evaluation take, and how much memory, on made-up answers of any size.

    python -m benchmarks.studies.evaluating --rows 5000000 --categories 3000

The answers are drawn: a tree of five levels, listings of one to three images, categories of which few have most rows, and five best
classes each. What is timed is what `family evaluate` runs once the model has answered: every figure, thresholds fitted on a tenth as many
rows, mistakes sorted, pairs and actions found, the CSVs and the summary written. Drawing, the model and predictions.parquet are not.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from family.data.dataset import Rows
from family.data.ontology import Ontology, from_leaves
from family.evaluation.assembling import Answered, Temperature, assemble
from family.evaluation.predictions import N_TOP, Answers, level_maps
from family.reporting.writing import write_files

_BRANCHES = (12, 5, 4, 3)  # nodes of levels 1 to 4 below each node; the leaves are dealt out to those of level 4
VAL_SHARE = 0.1


def make_tree(n_categories: int) -> Ontology:
    """Return a tree of five levels; every fifth leaf stands a level higher."""
    paths = []
    for k in range(n_categories):
        names, rest = [], k
        for level, branches in enumerate(_BRANCHES):
            names.append(f"n{level}.{rest % branches}")
            rest //= branches
        paths.append("/".join([*names[: 3 if k % 5 == 0 else 4], f"leaf {k}"]))
    return from_leaves([(f"c{k}", path) for k, path in enumerate(paths)])


def make_answers(tree: Ontology, n_rows: int, seed: int) -> Answered:
    """Draw answers: of a row the truth is among the best five in nine of ten cases, and most often the first."""
    generator = np.random.default_rng(seed)
    n_classes = len(tree.leaves)
    sizes = generator.integers(1, 4, n_rows // 2 + 1, dtype=np.int32)
    ends = np.cumsum(sizes)
    sizes = sizes[: int(np.searchsorted(ends, n_rows)) + 1]
    sizes[-1] -= int(sizes.sum()) - n_rows
    of_listing = (n_classes * generator.random(len(sizes)) ** 2).astype(np.int32)
    labels = np.repeat(of_listing, sizes)
    names = np.char.add("l", np.arange(len(sizes)).astype("U8")).astype(object)
    rows = Rows(Path("."), tree, np.repeat(names, sizes), np.full(n_rows, "images/00/0.jpg", object), labels)
    return Answered(rows, _draw(tree, labels, np.ones(n_rows, np.int32), generator), _draw(tree, of_listing, sizes, generator))


def _draw(tree: Ontology, labels: np.ndarray, n_images: np.ndarray, generator: np.random.Generator) -> Answers:
    n, n_classes = len(labels), len(tree.leaves)
    top = (labels[:, None] + generator.integers(1, 40, (n, 1), np.int32) * np.arange(1, N_TOP + 1, dtype=np.int32)) % n_classes
    place = np.minimum(generator.geometric(0.75, n) - 1, N_TOP)  # where the truth stands; N_TOP: further down
    there = np.flatnonzero(place < N_TOP)
    top[there, place[there]] = labels[there]
    best = generator.beta(4, 1, n).astype(np.float32)
    probabilities = best[:, None] * np.float32(0.5) ** np.arange(N_TOP, dtype=np.float32)
    probabilities[:, 1:] *= (1 - best)[:, None]
    true = np.full(n, 1e-4, np.float32)
    true[there] = probabilities[there, place[there]]
    nodes = np.stack([node_of[top[:, 0]] for node_of, _ in level_maps(tree)], axis=1).astype(np.int32)
    steps = np.linspace(0.8, 0, nodes.shape[1], dtype=np.float32)
    node_probabilities = best[:, None] + (1 - best)[:, None] * steps
    return Answers(labels, top.astype(np.int32), probabilities, nodes, node_probabilities, true, np.stack([best, true], axis=1), n_images)


def main(argv: list[str] | None = None) -> int:
    """Time one size and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.evaluating", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--categories", type=int, default=3000)
    args = parser.parse_args(argv)
    tree = make_tree(args.categories)
    answered = make_answers(tree, args.rows, 0)
    validation = make_answers(tree, max(1, int(args.rows * VAL_SHARE)), 1)
    before_gib = _peak_gib()
    train_rows = np.bincount(answered.rows.labels, minlength=len(tree.leaves))
    about = {"member": "drawn", "dataset": "drawn", "digest": "0" * 64, "split": "test", "scope": "general", "notes": []}
    began, began_cpu = time.perf_counter(), time.process_time()
    evaluated = assemble(about, answered, validation, Temperature(1.0, "val"), train_rows, {})
    measured, measured_cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), answered, evaluated)
    written, written_cpu = time.perf_counter(), time.process_time()
    print(f"{args.rows:,} images of {len(answered.by_listing.labels):,} listings, {args.categories:,} categories, "
          f"{evaluated.findings.metrics['errors']['n']:,} mistakes")  # fmt: skip
    print(f"figures {measured - began:.1f} s ({measured_cpu - began_cpu:.1f} s of processor), "
          f"files {written - measured:.1f} s ({written_cpu - measured_cpu:.1f} s of processor), "
          f"peak memory {_peak_gib():.2f} GiB (answers alone, when drawn: {before_gib:.2f} GiB)")  # fmt: skip
    return 0


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    sys.exit(main())
