"""`family bench`: latency and throughput of bundles on this machine, and their accuracy where a dataset is given."""

import argparse
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from family.errors import UserError
from family.progress import next_command

STORED_AGREEMENT = 0.99


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--out", type=Path, required=True, metavar="RESULTS.jsonl", help="measurements are added to it")
    parser.add_argument("--data", type=Path, metavar="DATASET", help="measure accuracy on its test rows too")
    parser.add_argument("--split", default="test", help="the rows of --data (default test)")
    parser.add_argument("--provider", default="auto", help="auto (default), cpu, cuda or tensorrt")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the model (default 1: one request, one core)")
    parser.add_argument("--samples", type=int, default=400, metavar="N", help="images timed a member (default 400); fewer than 300 can't bound p99: INVALID")
    parser.add_argument("--scheme", help="only this one (default: every scheme of each bundle)")
    parser.add_argument("--machine", metavar="NAME", help="what to call this machine (default: its processor and cores)")
    parser.add_argument("--peers", action="store_true", help="compare with OpenVINO (`pip install '.[peers]'`), with --data also as NNCF quantizes")
    parser.add_argument("--plain", type=Path, metavar="FILE.onnx", help="with --peers: the run as the plain converter writes it, a peer of one "
                        "bundle (`python -m benchmarks.plain_export RUN FILE.onnx`)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=200, metavar="N", help="of --peers, in which all sides take turns (default 200)")
    parser.add_argument("--json", action="store_true", help="print the measurements as one JSON object")


def run(args: argparse.Namespace) -> int:
    from benchmarks import peers
    from benchmarks.measurements import append_rows, read_rows

    if args.samples < 1:
        raise UserError(f"--samples {args.samples}: wanted at least 1 image")
    dataset = _open_dataset(args)
    peers.check(args, dataset)
    rows = _time_bundles(args)
    append_rows(args.out, rows, _same_measurement)  # kept even if what follows fails
    if dataset:
        rows += _measure_accuracy(args, dataset)
    if args.peers:
        rows += peers.measure(args, dataset)
    if args.json:
        json.dump({"rows": rows}, sys.stdout)
        print()
    else:
        _print_rows(rows, [row for row in read_rows([args.out]) if row["kind"] == "accuracy"])
        print(next_command("report", args.out, "--out", "report"))
    return 0


def done(args: argparse.Namespace) -> bool:
    """Say whether every file of the bundles was measured so on this machine, and on the rows of --data."""
    from benchmarks import peers
    from benchmarks.machine import describe_machine
    from benchmarks.measurements import read_rows
    from export.bundle import open_bundle

    if not args.out.is_file():
        return False
    rows = read_rows([args.out])
    bundles = [open_bundle(folder) for folder in args.bundles]
    files = {entry["sha256"] for bundle in bundles for scheme, entry in bundle.schemes.items() if args.scheme in (None, scheme)}
    here = describe_machine(args.machine)
    timed = {row["model_sha256"] for row in rows if row["kind"] == "latency" and _was_timed_so(row, args, here)}
    dataset = _open_dataset(args)
    right = _known_accuracies(rows)
    compared = not args.peers or peers.done(args, rows, lambda row: _is_here(row, here), dataset)
    return files <= timed and (dataset is None or all((file, dataset.digest, args.split) in right for file in files)) and compared


def _is_here(row: dict, here: dict) -> bool:
    return all(row["machine"].get(key) == here[key] for key in ("name", "cpu", "cores", "versions"))


def _was_timed_so(row: dict, args: argparse.Namespace, here: dict) -> bool:
    same_settings = row["threads"] == args.threads and row["n"] >= args.samples and args.provider in ("auto", row["provider"])
    return _is_here(row, here) and same_settings and row["valid"]


def _known_accuracies(rows: list[dict]) -> set[tuple]:
    """Return (model_sha256, digest of the dataset, split) of what was measured."""
    accuracies = [row for row in rows if row["kind"] == "accuracy"]
    return {(row["model_sha256"], row["dataset"].get("digest"), row["dataset"].get("split")) for row in accuracies}


def _open_dataset(args: argparse.Namespace):
    """Open --data before anything is timed, so that a mistake is told at once."""
    from family.data.dataset import open_dataset

    if args.data is None:
        return None
    dataset = open_dataset(args.data)
    dataset.rows(args.split)
    return dataset


def _open_all(args: argparse.Namespace) -> list:
    """Open a predictor for every scheme of every bundle."""
    from export.bundle import open_bundle
    from export.runtime import Predictor, Settings

    bundles = [open_bundle(folder) for folder in args.bundles]
    pairs = [(bundle, scheme) for bundle in bundles for scheme in bundle.schemes if args.scheme in (None, scheme)]
    if not pairs:
        raise UserError(f"no bundle has the scheme {args.scheme!r}")
    return [Predictor(bundle, Settings(scheme, args.provider, args.threads)) for bundle, scheme in pairs]


def _time_bundles(args: argparse.Namespace) -> list[dict]:
    from benchmarks.latency import WARMUP, measure_throughput, summarize, time_members
    from benchmarks.machine import describe_machine

    predictors = _open_all(args)
    stored = [predictor.bundle.samples(predictor.settings.scheme) for predictor in predictors]
    images = [samples[0] for samples in stored]
    machine = describe_machine(args.machine)
    timed = time_members(predictors, images, args.samples)
    rows = []
    for predictor, (own, answers), samples in zip(predictors, stored, timed, strict=True):
        agreement = _agreement(predictor, own[:64], answers[:64])
        faults = _faults(agreement, args.samples)
        rows.append({
            **identify(predictor.bundle, predictor.settings.scheme, "latency"),
            "bundle": os.path.relpath(predictor.bundle.folder, args.out.parent),
            "image_px": _median_px(own),
            "size_mb": predictor.bundle.schemes[predictor.settings.scheme]["size_mb"],
            "n_parameters": predictor.bundle.card.get("n_parameters"),
            "n_classes": len(predictor.bundle.card["classes"]),
            "machine": machine,
            "provider": predictor.provider,
            "threads": predictor.settings.n_threads,
            "batch": 1,
            "n": args.samples,
            "warmup": WARMUP,
            "latency_ms": summarize(samples["decode"] + samples["model"]),
            "stages_ms": {stage: float(np.median(values)) for stage, values in samples.items()},
            "throughput": [measure_throughput(predictor, own, batch) for batch in (1, 8)],
            "agreement": agreement,
            "valid": not faults,
            "invalid_because": "; ".join(faults) or None,
        })  # fmt: skip
    return rows


def _faults(agreement: float, n_samples: int) -> list[str]:
    """Return why a measurement doesn't count, and what to do about it."""
    from benchmarks.latency import MIN_SAMPLES

    faults = []
    if agreement < STORED_AGREEMENT:
        faults.append(f"its answers agree with the stored ones in {agreement:.1%}: export it anew")
    if n_samples < MIN_SAMPLES:
        faults.append(f"{n_samples} images can't bound p99: --samples {MIN_SAMPLES}")
    return faults


def _median_px(images: list[bytes]) -> int:
    """Return the median of the images' longer sides: decoding costs what it costs because of it."""
    return int(np.median([max(Image.open(io.BytesIO(data)).size) for data in images]))


def identify(bundle, scheme: str, kind: str) -> dict:
    """Return the fields that say which member a row is of."""
    from benchmarks.machine import now
    from benchmarks.measurements import SCHEMA
    from family.card import member_name

    card = bundle.card
    return {
        "schema": SCHEMA,
        "kind": kind,
        "at": now(),
        "member": member_name(card, scheme),
        **{key: card.get(key) for key in ("variant", "resolution_px", "scope", "label")},
        "scheme": scheme,
        "model_sha256": bundle.schemes[scheme]["sha256"],
        "trained": card.get("training", {}).get("trained", True),
    }


def _agreement(predictor, images: list[bytes], answers: np.ndarray) -> float:
    """Return the share of stored inputs that get the stored answer's best class."""
    best = [int(predictor.predict_bytes(data).argmax()) for data in images]
    return float(np.mean(np.array(best) == answers.argmax(axis=1)))


def _measure_accuracy(args: argparse.Namespace, dataset) -> list[dict]:
    """Measure each file once on a split; a file's accuracy does not change with the machine or the threads."""
    from benchmarks.measurements import append_rows, read_rows
    from export.evaluate import evaluate
    from export.opening import open_model

    known = _known_accuracies(read_rows([args.out]))
    rows = []
    for predictor in _open_all(args):
        row = identify(predictor.bundle, predictor.settings.scheme, "accuracy")
        if (row["model_sha256"], dataset.digest, args.split) in known:
            continue
        model = open_model(predictor.bundle.folder, predictor.settings.scheme, args.provider, 0)
        metrics = evaluate(model, dataset, args.split)
        about = {"name": dataset.about["name"], "digest": dataset.digest, "split": args.split}
        rows.append(
            {
                **row,
                "bundle": os.path.relpath(predictor.bundle.folder, args.out.parent),
                "dataset": about,
                "n": metrics["n"],
                "metrics": {**metrics, "n_listings": metrics["listings"]["n"]},
            }
        )
        append_rows(args.out, rows[-1:], _same_measurement)
    return rows


def _same_measurement(old: dict, new: dict) -> bool:
    """Say whether a new row measures what an old one did; a file that was exported anew replaces the old one's row."""

    def key(row: dict) -> tuple:
        where = row["machine"] if row["kind"] == "latency" else row["dataset"]
        wanted = ("name", "digest", "split") if row["kind"] == "accuracy" else ("name", "cpu", "cores", "versions")
        fixed = [row.get(field) for field in ("kind", "bundle", "member", "provider", "threads", "batch")]
        return (*map(str, fixed), *(str(where.get(field)) for field in wanted))

    return old["kind"] in ("latency", "accuracy") and key(old) == key(new)


def _print_rows(rows: list[dict], known: list[dict]) -> None:
    """Print measurements; the accuracies of our files beside their peers may have been `known` before."""
    from benchmarks import peer_table

    for row in rows:
        if row["kind"] == "latency":
            ms = row["latency_ms"]
            rate = max(found["images_per_s"] for found in row["throughput"])
            print(f"{row['member']:36} p50 {ms['p50']:7.2f} ms  p99 {ms['p99']:7.2f} ms  {rate:7.1f} images/s  {row['size_mb']:6.1f} MB"
                  + ("" if row["valid"] else f"  INVALID: {row['invalid_because']}"))  # fmt: skip
        elif row["kind"] == "accuracy":
            top1 = row["metrics"]["top1"]
            print(
                f"{row['member']:36} top-1 {top1['micro']:.1%} micro, {top1['macro']:.1%} macro on {row['n']} {row['dataset']['split']} images"
            )
    compared = [row for row in rows if row["kind"] == "peer"]
    for name, lines, conditions in peer_table.groups([*known, *compared]):
        print(f"{name}\n{peer_table.to_markdown(lines)}\n{conditions}")
