"""`family predict`: file images under the tree."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from export.bundle import card_ontology
from export.chain import Chain, open_any
from export.opening import Model, add_settings
from family.data.images import ImageError
from family.errors import Failure, UserError

MAX_BYTES = 64 * 2**20


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="RUN|BUNDLE|CHAIN.toml")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--top", type=int, default=5, help="categories an image (default 5)")
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    if args.top < 1:
        raise UserError(f"--top takes 1 or more; got {args.top}")
    model = open_any(args.model, args.scheme, args.provider, args.threads)
    levels = _levels(model)
    answers, bad = [], []
    for path in args.images:
        try:
            answer = predict_image(model, levels, _read(path), args.top)
        except (ImageError, OSError) as error:
            bad.append(f"{path}: {error.strerror if isinstance(error, OSError) else error}")
            continue
        answers.append({"image": str(path), **answer})
        if not args.json:
            print(f"{path}\n" + "\n".join(f"  {row['probability']:6.1%}  {row['path']}" for row in answer["top"]))
    if args.json:
        json.dump(answers, sys.stdout)
        print()
    if bad:
        raise Failure("; ".join(bad))
    return 0


def _read(path: Path) -> bytes:
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ImageError(f"more than {MAX_BYTES // 2**20} MB")
    return data


def predict_image(model: Model | Chain, levels: list[tuple], data: bytes, n_top: int = 5) -> dict:
    """Return the contract's object for one encoded image, without its name."""
    probabilities = model.answer(data)
    best = np.argsort(-probabilities, kind="stable")[:n_top]
    classes, paths = model.card["classes"], model.card["paths"]
    top = [{"category_id": classes[k], "path": paths[k], "probability": float(probabilities[k])} for k in best]
    nodes = []
    for ids, paths_of, node_of in levels:
        sums = np.bincount(node_of, weights=probabilities, minlength=len(ids))
        node = int(sums.argmax())
        nodes.append({"category_id": ids[node], "path": paths_of[node], "probability": float(sums[node])})
    return {**top[0], "levels": nodes, "top": top}


def _levels(model: Model | Chain) -> list[tuple]:
    """Return (ids, paths, node of each leaf) of every level."""
    ontology = card_ontology(model.card)
    found = [ontology.level(level) for level in range(1, ontology.depth + 1)]
    return [(ids, [ontology.path_of[i] for i in ids], node_of) for ids, node_of in found]
