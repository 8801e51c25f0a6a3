"""The accuracy rows of `family bench --data`: each file on a split, and each scheme beside its own fp32. No TensorFlow."""

import argparse
import os

import numpy as np

from benchmarks.machine import describe_machine
from benchmarks.measurements import append_rows, identify, part_of, read_rows, same_measurement
from benchmarks.timing.members import asked_for, settings_of
from export.chain import identify_any, open_any
from export.evaluate import BATCH_SIZE, answer_split, metrics_of
from family.evaluation.against import compare_members


def known_accuracies(rows: list[dict]) -> dict[tuple, set[str | None]]:
    """Return of what was measured, by (model_sha256, digest of the dataset, split), the fp32 files that it was compared with."""
    found: dict[tuple, set[str | None]] = {}
    for row in (row for row in rows if row["kind"] == "accuracy"):
        key = row["model_sha256"], row["dataset"].get("digest"), row["dataset"].get("split")
        found.setdefault(key, set()).add(str(part_of(row, "against_fp32", dict).get("model_sha256")))
    return found


def is_judged(known: dict[tuple, set], files: dict[tuple, str], asked: tuple, dataset, split: str) -> bool:
    """Say whether a file's accuracy was measured, and compared with its own bundle's fp32 where that is asked for too.

    Args:
        files: (path, scheme) -> model_sha256, of all that are asked for.
        asked: one of them.
    """
    path, scheme = asked
    base, compared = files.get((path, "fp32")), known.get((files[asked], dataset.digest, split))
    return compared is not None and (base is None or scheme == "fp32" or base in compared)


def measure_accuracy(args: argparse.Namespace, dataset) -> list[dict]:
    """Measure each file once on a split; a file's accuracy does not change with the machine or the threads."""
    known, machine = known_accuracies(read_rows([args.out])), describe_machine(args.machine)
    files, rows, full = {(path, scheme): identify_any(path, scheme)[1] for path, scheme in asked_for(args)}, [], {}
    for path, scheme in files:
        if is_judged(known, files, (path, scheme), dataset, args.split):
            continue
        provider = settings_of(path, scheme, args).provider
        model = open_any(path, scheme, provider, 0)
        answered = answer_split(model, dataset, args.split)
        metrics, against = metrics_of(model, dataset, args.split, answered), {}
        if scheme == "fp32":
            full = {path: (model, answered)}  # of one bundle at a time
        elif (path, "fp32") in files:
            if path not in full:  # it was measured before
                base = open_any(path, "fp32", provider, 0)
                full = {path: (base, answer_split(base, dataset, args.split))}
            against = {"against_fp32": _against_fp32(answered, *full[path])}
        rows.append({
            **identify(model.card, model.about["scheme"], "accuracy", model.member, model.about["model_sha256"]),
            "bundle": os.path.relpath(path, args.out.parent),
            "machine": machine,  # that answered; it splits nothing
            "provider": model.about["provider"],
            "threads": model.about["threads"],
            "batch": BATCH_SIZE,
            "dataset": {"name": dataset.about["name"], "digest": dataset.digest, "split": args.split},
            "n": metrics["n"],
            "metrics": {**metrics, "n_listings": metrics["listings"]["n"]},
            **against,
        })  # fmt: skip
        rows[-1:] = append_rows(args.out, rows[-1:], same_measurement)
    return rows


def _against_fp32(answered, base, of_base) -> dict:
    """Return what a scheme's accuracy is above its own bundle's fp32 on the same rows, of each metric {"difference", "interval", "shown"}, a fraction with
    its paired 95 % interval; `model_sha256` is that of the fp32."""
    everything = np.arange(len(answered.rows))
    found = compare_members(answered.by_image, everything, of_base.by_image.top, of_base.by_image.nodes, answered.rows)
    kept = {row["metric"]: {key: row[key] for key in ("difference", "interval", "shown")} for row in found if ".summed." not in row["metric"]}
    return {"model_sha256": base.about["model_sha256"], **kept}
