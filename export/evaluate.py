"""`family evaluate`: accuracy of a run, a bundle or a chain at every level of the tree, on the rows of a split."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from export.chain import Chain, identify_any, is_chain, open_any
from export.opening import Model, add_settings
from family.card import read_card
from family.data.dataset import Dataset, Rows, open_dataset
from family.data.reading import read_sizes
from family.evaluation.metrics import measure
from family.evaluation.predictions import gather_answers, predict_rows, write_predictions
from family.evaluation.verticals import Comparison, to_table
from family.outputs import is_done, read_json, whole_folder, write_json
from family.progress import next_command, progress

BATCH_SIZE = 32


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="RUN|BUNDLE|CHAIN.toml")
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="gets metrics.json and predictions.parquet; of a chain also verticals.json"
    )
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
        model = open_any(args.model, args.scheme, args.provider, args.threads)
        with whole_folder(args.out, made_of) as folder:
            if isinstance(model, Chain):
                metrics, verticals = evaluate_chain(model, dataset, args.split, folder / "predictions.parquet")
                write_json(folder / "verticals.json", verticals)
            else:
                metrics = evaluate(model, dataset, args.split, folder / "predictions.parquet")
            write_json(folder / "metrics.json", metrics)
    if args.json:
        json.dump(metrics, sys.stdout)
        print()
    else:
        print(_table(made_of["member"], args.split, metrics))
        if is_chain(args.model):
            print(f"\n{to_table(read_json(args.out / 'verticals.json'))}\n")
        print(_next(args))
    return 0


def _next(args: argparse.Namespace) -> str:
    if is_chain(args.model):
        return next_command("predict", args.model, "IMAGE")
    if not read_card(args.model).get("schemes"):
        return next_command("export", args.model, "--out", f"{args.model}-bundle")
    return next_command("bench", args.model, "--out", "results.jsonl", "--data", args.dataset)


def done(args: argparse.Namespace) -> bool:
    """Say whether these rows were answered by this model already."""
    return is_done(args.out, _made_of(args, open_dataset(args.dataset)))


def _made_of(args: argparse.Namespace, dataset: Dataset) -> dict:
    # Not the provider and not the threads: the answers don't depend on them.
    member, sha256 = identify_any(args.model, args.scheme)
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


def evaluate_chain(chain: Chain, dataset: Dataset, split: str, predictions: Path | None = None) -> tuple[dict, dict]:
    """Return the metrics of a chain on a split's rows, and the comparison of its ways to answer; each member answers each row once.

    Raises:
        UserError: the general model's classes are not those of the dataset.
    """
    rows = dataset.rows(split, dataset.scope_of(chain.card))
    comparison = Comparison(rows, chain.parts)
    by_image, by_listing = gather_answers(_chained(chain, rows, comparison), rows)
    if predictions:
        write_predictions(predictions, rows, by_image)
    members = {name: {"member": model.member, **model.about} for name, model in {"general": chain.general, **chain.submodels}.items()}
    about = {"dataset": {"name": dataset.about["name"], "digest": dataset.digest, "split": split}, "members": members}
    return measure(rows.ontology, by_image, by_listing), {**about, "routing_of_chain": chain.routing, **comparison.finish()}


def _chained(chain: Chain, rows: Rows, comparison: Comparison) -> Iterator[np.ndarray]:
    """Yield the chain's probabilities batch by batch, and give those of its members to the comparison."""
    batches = read_sizes(rows, chain.hows, BATCH_SIZE)
    for images in progress(batches, "predicting", total=-(-len(rows) // BATCH_SIZE), unit="batches"):
        subs = {name: chain.predict_vertical(name, images) for name in chain.submodels}
        yield comparison.add(chain.predict_general(images), subs)[chain.routing]


def _table(member: str, split: str, metrics: dict) -> str:
    lines = [f"{member} on {metrics['n']} {split} images", f"{'':12}{'micro':>8}{'macro':>8}"]
    lines += [f"{name:12}{metrics[name]['micro']:8.1%}{metrics[name]['macro']:8.1%}" for name in ("top1", "top3", "top5")]
    for level, found in metrics["levels"].items():
        lines.append(f"{'level ' + level:12}{found['micro']:8.1%}{found['macro']:8.1%}  of {found['nodes']} categories")
    return "\n".join(lines)
