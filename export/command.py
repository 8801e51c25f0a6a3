"""`family export`: a run becomes a bundle; a scheme whose answers did not stay is not written."""

import argparse
import math
import sys
from pathlib import Path

from family.card import SCHEMES
from family.errors import Failure, UserError, unknown_name
from family.progress import next_command

EXPORTER = 3  # what the same run and rows become; of another version, a bundle is not the same


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--schemes", default="fp32,int8", help=f"of {', '.join(SCHEMES)} (default fp32,int8)")
    parser.add_argument("--calibrate", type=Path, metavar="DATASET", help="training rows for ranges, and validation rows to judge (default: the run's "
                        "dataset)")
    parser.add_argument("--max-drop", type=float, default=0.5, metavar="POINTS", help="points of accuracy that a smaller scheme may lose, micro "
                        "and macro, at every level of the tree (default 0.5)")  # fmt: skip
    parser.add_argument("--judge-on", type=int, metavar="N", help="validation images to judge on, at most (default: 5,000, or as many as a scheme needs "
                        "that loses nothing)")  # fmt: skip
    parser.add_argument("--saved-model", action="store_true", help="write saved_model/1 too, for TensorFlow Serving")
    parser.add_argument("--strict", action="store_true", help="refuse a smaller scheme also where the validation rows don't show that it loses no "
                        "more")  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="move a BUNDLE that is there aside")


def run(args: argparse.Namespace) -> int:
    # Imported here, since --help must not wait for ONNX Runtime.
    from export.exporting import Gate, export_run

    if not math.isfinite(args.max_drop):
        raise UserError(f"--max-drop takes a number of percentage points; got {args.max_drop}")
    if args.judge_on is not None and args.judge_on < 1:
        raise UserError(f"--judge-on takes 1 image or more; got {args.judge_on}")
    made_of, dataset = _made_of(args)
    if _is_done(args, made_of):
        print(f"{args.out}: already done")
        return 0
    _check_rows(args, made_of["schemes"], dataset)
    gate = Gate(args.max_drop, args.strict, args.judge_on)
    refused = export_run(args.run_folder, args.out, made_of["schemes"], dataset, gate, made_of, args.saved_model)
    print(next_command("bench", args.out, "--out", "results.jsonl", "--data", dataset.folder))
    if refused:
        raise Failure(f"{'; '.join(refused)}; the other files were written")
    return 0


def _check_rows(args: argparse.Namespace, schemes: list[str], dataset) -> None:
    """Warn where the run has seen what it is judged on here, or where that can't be told.

    Raises:
        UserError: int8 would be calibrated on rows that the run is judged on.
    """
    from export.rows import check_calibration
    from family.card import read_card
    from family.training.before import warn_of_seen

    warnings = [warn_of_seen(args.run_folder, dataset)] + ([check_calibration(dataset, read_card(args.run_folder))] if "int8" in schemes else [])
    for warning in filter(None, warnings):
        print(warning, file=sys.stderr)


def done(args: argparse.Namespace) -> bool:
    """Say whether the bundle is there, of the same run.

    Raises:
        Failure: it is there, and a scheme was refused.
    """
    return _is_done(args, _made_of(args)[0])


def _is_done(args: argparse.Namespace, made_of: dict) -> bool:
    from family.card import read_card
    from family.outputs import is_done

    if not is_done(args.out, made_of, args.fresh):
        return False
    refused = read_card(args.out).get("refused", {})
    if refused:
        told = "; ".join(f"{name} was refused" + (f": {found['why']}" if found.get("why") else "") for name, found in refused.items())
        raise Failure(f"{told}; `family show {args.out}` tells more, and --fresh tries again")
    return True


def _made_of(args: argparse.Namespace):
    """Return what the bundle is a function of, and the dataset."""
    from export.bundle import sha256_of
    from export.opening import find_dataset
    from family.card import read_card

    schemes, card = _parse_schemes(args.schemes), read_card(args.run_folder)
    if not (args.run_folder / "weights.h5").is_file():
        what = "a bundle already" if card.get("schemes") else "no run (no weights.h5)"
        raise UserError(f"{args.run_folder} is {what}; export takes the folder of a run, as `family train` and `family compress` write it")
    dataset = find_dataset(args.calibrate, card)
    weights = sha256_of(args.run_folder / "weights.h5")
    made_of = {"command": "export", "weights": weights, "schemes": schemes, "max_drop": args.max_drop, "dataset": dataset.digest}
    made_of |= {"exporter": EXPORTER, "card": sha256_of(args.run_folder / "card.json")}
    made_of |= {name: getattr(args, name) for name in ("strict", "saved_model", "judge_on") if getattr(args, name)}
    return made_of, dataset


def _parse_schemes(text: str) -> list[str]:
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in SCHEMES:
            raise unknown_name("scheme", name, SCHEMES)
    if not wanted:
        raise UserError(f"--schemes is empty; allowed: {', '.join(SCHEMES)}")
    return [name for name in SCHEMES if name in wanted]
