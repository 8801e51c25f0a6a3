"""`family export`: a run becomes a bundle; a scheme whose answers did not stay is not written."""

import argparse
from pathlib import Path

from family.errors import Failure, UserError, unknown_name

SCHEMES = {"fp32": "as trained, checked against the run to 1e-5", "int8": "static, weights per channel, gated on accuracy"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--schemes", default="fp32,int8", help=f"of {', '.join(SCHEMES)} (default fp32,int8)")
    parser.add_argument("--calibrate", type=Path, metavar="DATASET", help="training rows for ranges (default: the run's dataset)")
    parser.add_argument("--max-drop", type=float, default=0.5, metavar="POINTS", help="top-1 points that int8 may lose (default 0.5)")
    parser.add_argument("--fresh", action="store_true", help="move a BUNDLE that is there aside")


def run(args: argparse.Namespace) -> int:
    # Imported here, since --help must not wait for ONNX Runtime.
    from export.bundle import sha256_of
    from export.exporting import export_run, find_dataset
    from family.card import read_card
    from family.outputs import is_done

    schemes = _parse_schemes(args.schemes)
    card = read_card(args.run_folder)
    made_of = {"command": "export", "weights": sha256_of(args.run_folder / "weights.h5"), "schemes": schemes, "max_drop": args.max_drop}
    dataset = find_dataset(args.calibrate, card)
    made_of["dataset"] = dataset.digest
    if is_done(args.out, made_of, args.fresh):
        print(f"{args.out}: already done")
        refused = read_card(args.out).get("refused", {})
        if refused:
            raise Failure(f"{', '.join(refused)} was refused; see {args.out}/card.json")
        return 0
    refused = export_run(args.run_folder, args.out, schemes, dataset, args.max_drop, made_of)
    print(f"next: family bench {args.out} --out results.jsonl --data {dataset.folder}")
    if refused:
        raise Failure("; ".join(refused))
    return 0


def _parse_schemes(text: str) -> list[str]:
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in SCHEMES:
            raise unknown_name("scheme", name, SCHEMES)
    if not wanted:
        raise UserError(f"--schemes is empty; allowed: {', '.join(SCHEMES)}")
    return [name for name in SCHEMES if name in wanted]
