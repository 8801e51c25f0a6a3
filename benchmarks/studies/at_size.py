"""What a training costs as its dataset grows: seconds and memory of each phase at a fifth of a dataset and at all of it, and the line on.

python -m benchmarks.studies.at_size DATASET --weights FILE --work DIR --out benchmarks/results/at-size.json

A line goes through the two sizes; what it says of more images is extrapolated. Memory is what a phase held at most, less the files that it maps
(libraries, and the features, which the system takes back when it is short of memory). The listings may be made up
(`family data synth DATASET --listings 100000 --categories 3000 --image-px 64`): this measures cost, not accuracy.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.studies.parts import exit_code_of, write_part
from family.data.dataset import Dataset, open_dataset
from family.errors import Failure
from family.outputs import is_done, read_json, whole_folder, write_json
from family.plan.steps import Step, run_steps

PART = 5  # one listing of so many is in the smaller dataset
FAR = 5_000_000  # images
COSTS = ("features", "head epoch", "finetune epoch")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.at_size", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("--weights", required=True, metavar="FILE", help="the pretrained trunk of the variant")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="for runs and the smaller dataset")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--variant", default="v2-b0")
    parser.add_argument("--resolution", type=int, default=32, metavar="PX")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="key=value", help="change a field of both trainings")
    args = parser.parse_args()
    return exit_code_of(lambda: measure(args))


def measure(args: argparse.Namespace) -> dict:
    """Train at both sizes and write what it cost.

    Raises:
        Failure: a training failed.
    """
    from benchmarks.machine import describe_machine, now
    from benchmarks.training.command import training_versions

    whole = open_dataset(args.dataset)
    folders = {"part": args.work / "part", "whole": whole.folder}
    made_of = {"command": "at size", "dataset": whole.digest, "part": PART}
    if not is_done(folders["part"], made_of):
        with whole_folder(folders["part"], made_of) as partial:
            write_part(whole, partial, _one_listing_of(PART, whole), f"1-of-{PART}")
    failed = run_steps([_training(args, folders[name], args.work / "runs" / name) for name in folders])
    if failed:
        raise Failure("not everything could be trained:\n  " + "\n  ".join(failed))
    runs = [_read_run(args.work / "runs" / name, open_dataset(folder)) for name, folder in folders.items()]
    result = {
        "schema": 1,
        "kind": "at-size",
        "at": now(),
        "command": f"python -m benchmarks.studies.at_size DATASET --weights FILE --work DIR --out FILE.json --variant {args.variant} "
        f"--resolution {args.resolution}" + "".join(f" --set {text}" for text in args.settings),
        "dataset": {"name": whole.about["name"], "digest": whole.digest, "categories": len(whole.ontology.leaves)},
        "variant": args.variant,
        "resolution_px": args.resolution,
        "runs": runs,
        "line": draw_line(*runs, FAR),
        "machine": describe_machine(),
        "versions": training_versions(),
    }
    write_json(args.out, result)
    print(table(result))
    return result


def _one_listing_of(part: int, dataset: Dataset) -> list[bool]:
    """Say of each row whether its listing is one of the part's: every so many, in the table's order."""
    number: dict[str, int] = {}
    return [number.setdefault(listing, len(number)) % part == 0 for listing in dataset.table["listing_id"].to_pylist()]


def _training(args: argparse.Namespace, dataset: Path, run: Path) -> Step:
    fields = {"resolution_px": args.resolution, "head_epochs": 2, "finetune_epochs": 1, "batch_size": 128}
    words = ["train", str(dataset), "--out", str(run), "--variant", args.variant, "--weights", args.weights, "--resume"]
    words += [word for setting in (*(f"{key}={value}" for key, value in fields.items()), *args.settings) for word in ("--set", setting)]
    return Step(tuple(words), alone=True)  # memory is measured: nothing of another training may lie in it


def _read_run(run: Path, dataset: Dataset) -> dict:
    """Return a run's number of images and what its phases cost: seconds for an epoch, and once for the features."""
    phases = {phase["phase"]: phase for phase in read_json(run / "card.json")["training"]["phases"]}
    head, finetune = phases["head"], phases["finetune"]
    return {
        "n_train": len(dataset.rows("train")),
        "n_val": len(dataset.rows("val")),
        "features": {"s": head["features_s"]},
        "head epoch": {"s": head["s"] / head["epochs"], "memory_mb": _held_mb(head)},
        "finetune epoch": {"s": finetune["s"] / finetune["epochs"], "memory_mb": _held_mb(finetune)},
        "top1_val": finetune["val_accuracy"],
    }


def _held_mb(phase: dict) -> float:
    return phase["peak_memory_mb"] - phase["mapped_mb"]


def draw_line(small: dict, large: dict, n: int) -> dict:
    """Return what each phase would cost with n training images, on the line through two sizes: a pure function."""
    share = (n - small["n_train"]) / (large["n_train"] - small["n_train"])
    at_n = {name: {key: value + share * (large[name][key] - value) for key, value in small[name].items()} for name in COSTS}
    return {"n_train": n, **at_n}


def table(result: dict) -> str:
    """Return the costs as Markdown."""
    sizes = [*result["runs"], result["line"]]
    marks = ["", "", " (on the line)"]
    lines = [
        "| | " + " | ".join(f"{size['n_train']:,} images{mark}" for size, mark in zip(sizes, marks, strict=True)) + " |",
        "|---|" + "---:|" * len(sizes),
    ]
    for name in COSTS:
        lines.append(f"| {'features, once' if name == 'features' else name} | " + " | ".join(_told(size[name]) for size in sizes) + " |")
    return "\n".join(lines)


def _told(cost: dict) -> str:
    return _time(cost["s"]) + (f", {cost['memory_mb'] / 1024:.1f} GB" if "memory_mb" in cost else "")


def _time(s: float) -> str:
    return f"{s:.0f} s" if s < 120 else f"{s / 60:.0f} min" if s < 7200 else f"{s / 3600:.1f} h"


if __name__ == "__main__":
    sys.exit(main())
