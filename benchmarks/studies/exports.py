"""What the export of runs came to: the candidates for int8, the proof that it is int8, and what it costs on test rows at each level of the tree.

python -m benchmarks.studies.exports DATASET --run RUN [--run RUN ...] --work DIR --out benchmarks/results/exports.json

The tables of export/README.md are written from results by `python -m benchmarks.studies.exports_page export/README.md PEERS.jsonl VERSUS.json RESULT.json ...`.
Killed, the same command goes on: what is exported and evaluated in DIR is passed over.
"""

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.studies.compressing import SCHEMES, evaluate_bundles, exporting
from benchmarks.studies.exports_page import LEAST_ROWS, render
from benchmarks.studies.parts import exit_code_of
from export.bundle import CANDIDATES
from export.rows import held_back_rows
from family.card import read_card
from family.data.dataset import Dataset, Rows, open_dataset
from family.data.images import Preprocessing
from family.data.reading import decode_all
from family.errors import UserError
from family.evaluation.against import read_answers
from family.evaluation.intervals import macro_difference, sum_by_listing
from family.evaluation.paired import micro_interval
from family.evaluation.predictions import listing_starts
from family.outputs import write_json
from family.plan.steps import run_steps


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.exports", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("--run", type=Path, action="append", required=True, metavar="RUN", help="a trained run; several")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="for bundles and evaluations")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    args = parser.parse_args()
    return exit_code_of(lambda: measure(args))


def measure(args: argparse.Namespace) -> dict:
    """Export and evaluate, and write what came out.

    Raises:
        Failure: an evaluation failed; what an export refuses is told in the result.
    """
    from benchmarks.machine import describe_machine, now

    dataset = open_dataset(args.dataset)
    bundles = [args.work / "bundles" / run.name for run in args.run]
    told = {bundle: run_steps([exporting(args, run, bundle)]) for run, bundle in zip(args.run, bundles, strict=True)}  # one alone: what it takes is told
    made = [bundle for bundle in bundles if (bundle / "card.json").is_file()]
    evaluate_bundles(args, made, [])
    result = {
        "schema": 2,  # 1 had verdicts by point estimates, and no cost of the export
        "kind": "exports",
        "at": now(),
        "command": f"python -m benchmarks.studies.exports DATASET {'--run RUN ' * len(args.run)}--work DIR --out FILE.json",
        "dataset": {"name": dataset.about["name"], "digest": dataset.digest},
        "members": [
            member(args.work, run.name, dataset) if bundle in made else _without_bundle(run, told[bundle], dataset)
            for run, bundle in zip(args.run, bundles, strict=True)
        ],
        "machine": describe_machine(),
    }
    write_json(args.out, result)
    print(render(result))
    return result


def _without_bundle(run: Path, failed: list[str], dataset: Dataset) -> dict:
    """Return what there is to say of a run whose fp32 is refused: the candidates that there would have been, made of the graph that was not kept."""
    from family.training.runs import load_calibrated  # isort: skip  (TensorFlow, quietly, from here on)
    from export.exporting import MAKERS, Judged
    from export.onnx import convert

    model, card = load_calibrated(run)
    how, val = Preprocessing.from_card(card["preprocessing"]), held_back_rows(dataset, card)
    judged = Judged(decode_all(val, how), val.labels, val.listing_ids, [], np.empty((0, 0), np.float32), len(val))  # accuracies alone: nothing is judged
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        convert(model, folder / "model.fp32.onnx")
        made, _, _ = MAKERS["int8"](folder / "model.fp32.onnx", folder / "model.int8.onnx", dataset, card, how, judged)
        candidates = read_candidates(folder / CANDIDATES)
    return {"name": card["name"], "refused": f"fp32 too, {failed[0].rpartition(': ')[2]}", "made": made, "candidates": candidates}  # without paths


def member(work: Path, name: str, dataset: Dataset) -> dict:
    """Return what the card and the table of candidates of a bundle tell, and `loss` on the test rows."""
    bundle = work / "bundles" / name
    card = read_card(bundle)
    if "int8" not in card["schemes"]:
        refused = card.get("refused", {}).get("int8", {})
        return {"name": card["name"], "refused": refused.get("why", "no int8"), "made": refused.get("made"), "candidates": read_candidates(bundle / CANDIDATES)}
    int8 = card["schemes"]["int8"]
    rows = dataset.rows("test", dataset.scope_of(card))
    return {
        "name": card["name"],
        "mb": {scheme: card["schemes"][scheme]["size_mb"] for scheme in SCHEMES},
        "sha256": {scheme: card["schemes"][scheme]["sha256"] for scheme in SCHEMES},
        **{key: int8[key] for key in ("made", "proof", "speed", "embedding_cosine")},
        "verdict": {key: int8["gate"].get(key) for key in ("verdict", "n", "drop_points", "interval", "decided_by", "needs_rows")},
        **{f"export_{key}": card["export"].get(key) for key in ("s", "peak_memory_mb")},
        "candidates": read_candidates(bundle / CANDIDATES),
        "loss": loss(rows, *(work / "evaluations" / f"{name}-{scheme}" for scheme in SCHEMES)),
    }


def read_candidates(path: Path) -> list[dict]:
    """Return the candidates that were timed, the chosen one first, then by divergence; numbers as numbers."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["relative_time"]]
    texts = ("ranges", "blocks_in_float", "format")
    return [{key: value if key in texts else value == "True" if key == "chosen" else float(value) for key, value in row.items()} for row in rows]


def loss(rows: Rows, fp32: Path, int8: Path) -> dict:
    """Return for each level how many points of accuracy int8 loses, micro, and macro over nodes with at least LEAST_ROWS rows, with 95 % intervals by
    listing.

    Args:
        fp32, int8: evaluations of these rows.
    """
    common, before, _ = read_answers(fp32, rows)
    again, after, _ = read_answers(int8, rows)
    if len(common) != len(rows) or len(again) != len(rows):
        raise UserError(f"{fp32} and {int8} are not of the {len(rows):,} rows of this split")
    found = {}
    for level in range(1, rows.ontology.depth + 1):
        node_of = rows.ontology.level(level)[1]
        truth = node_of[rows.labels]
        d = (node_of[before[:, 0]] == truth).astype(np.int8) - (node_of[after[:, 0]] == truth)
        found[str(level)] = {"micro": _points(d.mean(), micro_interval(d, _numbered(rows.listing_ids))), "macro": _macro(d, truth, rows.listing_ids)}
    return found


def _macro(d: np.ndarray, truth: np.ndarray, listing_ids: np.ndarray) -> dict | None:
    """Return the macro difference over the nodes with enough rows; None where there is none."""
    kept = np.bincount(truth)[truth] >= LEAST_ROWS
    if not kept.any():
        return None
    d, truth, starts = d[kept], truth[kept], listing_starts(listing_ids[kept])
    sizes = np.diff(starts, append=len(d))
    counts = np.bincount(truth)
    mean = (np.bincount(truth, d)[counts > 0] / counts[counts > 0]).mean()
    return {**_points(mean, macro_difference(sum_by_listing(d, starts), sizes, truth[starts])), "nodes": int((counts > 0).sum())}


def _numbered(listing_ids: np.ndarray) -> np.ndarray:
    return np.unique(listing_ids, return_inverse=True)[1]


def _points(mean: float, interval) -> dict:
    return {"points": round(100 * float(mean), 4), "interval": [round(100 * float(end), 4) for end in interval]}


if __name__ == "__main__":
    sys.exit(main())
