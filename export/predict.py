"""`family predict`: file images under the tree."""

import argparse
import json
import sys
from pathlib import Path

from export.answering import levels_of, tell
from export.chain import open_any
from export.opening import add_settings
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
    levels = levels_of(model.card)
    answers, bad = [], []
    for path in args.images:
        try:
            answer = tell(model.card, levels, model.answer(_read(path)), args.top)
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
