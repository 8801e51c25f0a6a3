"""`family evaluate`: accuracy of a run or a bundle at every level of the tree, on the rows of a split."""

import argparse
import json
import sys
from pathlib import Path

from export.opening import Model, add_settings, identify_model, open_model
from family.card import read_card
from family.data.dataset import Dataset, open_dataset
from family.evaluation.metrics import measure
from family.evaluation.predictions import predict_rows, write_predictions
from family.outputs import is_done, read_json, whole_folder, write_json


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="RUN|BUNDLE")
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets metrics.json and predictions.parquet")
    parser.add_argument("--split", default="test", help="train, val or test (default test)")
    parser.add_argument("--json", action="store_true", help="print the metrics as one JSON object")
    parser.add_argument("--fresh", action="store_true", help="move a DIR that is there aside")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    dataset = open_dataset(args.dataset)
    made_of = _made_of(args, dataset)
    if is_done(args.out, made_of, args.fresh):
        print(f"{args.out}: already done", file=sys.stderr)
        metrics = read_json(args.out / "metrics.json")
    else:
        model = open_model(args.model, args.scheme, args.provider, args.threads)
        with whole_folder(args.out, made_of) as folder:
            metrics = evaluate(model, dataset, args.split, folder / "predictions.parquet")
            write_json(folder / "metrics.json", metrics)
    if args.json:
        json.dump(metrics, sys.stdout)
        print()
    else:
        print(_table(made_of["member"], args.split, metrics))
        print(f"next: family bench {args.model} --out results.jsonl --data {args.dataset}" if read_card(args.model).get("schemes") else
              f"next: family export {args.model} --out {args.model}-bundle")  # fmt: skip
    return 0


def done(args: argparse.Namespace) -> bool:
    """Say whether these rows were answered by this model already."""
    return is_done(args.out, _made_of(args, open_dataset(args.dataset)))


def _made_of(args: argparse.Namespace, dataset: Dataset) -> dict:
    # Not the provider and not the threads: the answers don't depend on them.
    member, sha256 = identify_model(args.model, args.scheme)
    return {"command": "evaluate", "member": member, "model_sha256": sha256, "split": args.split, "dataset": dataset.digest}


def evaluate(model: Model, dataset: Dataset, split: str, predictions: Path | None = None) -> dict:
    """Return the metrics of a model on a split's rows in its scope, and write each row's answer.

    Raises:
        UserError: the model's classes are not those of the dataset's scope.
    """
    rows = dataset.rows(split, dataset.scope_of(model.card))
    by_image, by_listing = predict_rows(model.predict, rows, model.how)
    if predictions:
        write_predictions(predictions, rows, by_image)
    return measure(rows.ontology, by_image, by_listing)


def _table(member: str, split: str, metrics: dict) -> str:
    lines = [f"{member} on {metrics['n']} {split} images", f"{'':12}{'micro':>8}{'macro':>8}"]
    lines += [f"{name:12}{metrics[name]['micro']:8.1%}{metrics[name]['macro']:8.1%}" for name in ("top1", "top3", "top5")]
    for level, found in metrics["levels"].items():
        lines.append(f"{'level ' + level:12}{found['micro']:8.1%}{found['macro']:8.1%}  of {found['nodes']} categories")
    return "\n".join(lines)
