"""`family show`: the card of a run, a bundle or a dataset, or a table of results, readably."""

import argparse
import csv
import json
from pathlib import Path

from family.card import read_card
from family.data.dataset import open_dataset
from family.errors import UserError
from family.evaluation.paired import MOST_ROWS

CANDIDATES = "candidates.csv"  # of a bundle whose int8 was searched


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="RUN|BUNDLE|DATASET|RESULTS")
    parser.add_argument("--json", action="store_true", help="print the card, or the rows, as JSON")


def run(args: argparse.Namespace) -> int:
    path = args.path
    if path.is_file():
        rows = _read_rows(path)
        print(json.dumps(rows) if args.json else _results(rows))
    elif (path / "dataset.json").is_file():
        about = open_dataset(path).about
        print(json.dumps(about) if args.json else _lines({**about, **about["counts"], "counts": None}))
    else:
        card = read_card(path)
        print(json.dumps(card) if args.json else _card(card) + _candidates(path / CANDIDATES))
    return 0


def _read_rows(path: Path) -> list[dict]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} holds no results (JSON lines): {error}") from error


def _results(rows: list[dict]) -> str:
    """Return a table of members: latency joined with accuracy by the model file's sha256."""
    accuracy = {row["model_sha256"]: row for row in rows if row.get("kind") == "accuracy"}
    batches = {row.get("batch", 1) for row in rows if row.get("kind") == "latency"} - {1}
    lines = [f"{'member':34}{'MB':>7}{'p50 ms':>9}{'p99 ms':>9}{'top-1':>8}{'top-3':>8}{'macro':>8}   right at level 1, 2, ..."]
    for row in rows:
        if row.get("kind") != "latency":
            continue
        ms, found = row["latency_ms"], accuracy.get(row["model_sha256"])
        name = row["member"] + (f" ({row.get('batch', 1)} at once)" if batches else "")
        line = f"{name:34}{row['size_mb']:7.1f}{ms['p50']:9.2f}{ms['p99']:9.2f}"
        if found and row["trained"]:
            metrics = found["metrics"]
            shares = (metrics["top1"]["micro"], metrics["top3"]["micro"], metrics["top1"]["macro"])
            line += "".join(f"{share:8.1%}" for share in shares)
            line += "   " + " ".join(f"{level['micro']:.0%}" for level in metrics["levels"].values())
        else:
            line += "   untrained" if not row["trained"] else "   accuracy not measured"
        lines.append(line + ("" if row["valid"] else f"   INVALID: {row['invalid_because']}"))
    return "\n".join(lines)


def _card(card: dict) -> str:
    shown = {key: card.get(key) for key in ("name", "variant", "resolution_px", "scope", "label", "activation", "n_parameters")}
    shown["categories"] = len(card["classes"])
    shown["preprocessing"] = ", ".join(f"{key} {value}" for key, value in card["preprocessing"].items())
    shown["dataset"] = card.get("dataset", {}).get("name")
    for phase in card.get("training", {}).get("phases", []):
        val = f", validation {phase['val_accuracy']:.1%}" if phase.get("val_accuracy") is not None else ""
        cost = f"; {phase.get('features_s', 0) + phase['s']:.0f} s, {phase['peak_memory_mb'] / 1024:.1f} GB" if phase.get("peak_memory_mb") else ""
        shown[f"phase {phase['phase']}"] = (
            f"{phase['epochs']} epochs, ended by {phase['stopped_by']}, training {phase['train_accuracy']:.1%}{val}{cost}"
        )
    for scheme, entry in card.get("schemes", {}).items():
        shown[f"scheme {scheme}"] = f"{entry.get('size_mb')} MB" + _verdict(entry.get("gate"))
        if speed := entry.get("speed"):
            shown[f"scheme {scheme}"] += f"; {speed['ratio']:.2f} times the speed of fp32" + ("" if speed["interval"][0] > 1 else ", NOT SHOWN to be faster")
    if (made := card.get("export", {})).get("peak_memory_mb"):
        shown["export"] = f"{made['s']:.0f} s, {made['peak_memory_mb'] / 1024:.1f} GB"
    for scheme, found in card.get("refused", {}).items():
        shown[f"refused {scheme}"] = _verdict(found.get("gate")).strip(", ") or found.get("why") or "it is not what it should be; card.json has what was found"
    if serve := card.get("serve"):
        shown["serve"] = f"{serve.get('scheme')} with {serve.get('threads')} threads, picked on {serve.get('machine')}"
    return _lines(shown)


def _verdict(gate: dict | None) -> str:
    if not gate:
        return ""
    needs = f" by {gate['decided_by']}" if gate.get("decided_by") else ""
    if gate.get("needs_rows", MOST_ROWS + 1) <= MOST_ROWS:
        needs += f", about {gate['needs_rows']:,} validation images would decide, it was judged on {gate['n']:,}"
    return f", {gate['drop_points']:+.2f} points lost: {gate['verdict']}{needs}"


def _candidates(path: Path) -> str:
    """Return a table of the int8 files that were tried, as an export writes it, or "" where none were."""
    if not path.is_file():
        return ""
    with open(path, newline="", encoding="utf-8") as file:
        try:
            head, *rows = csv.reader(file)
        except (ValueError, csv.Error) as error:
            raise UserError(f"{path} is no table: {error}") from error
    if any(len(row) != len(head) for row in rows):
        raise UserError(f"{path} is no table: its lines differ in length")
    cells = [head, *([_short(cell) for cell in row] for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n\ncandidates for int8 (val_ is reported alone: it had no part in the choice)\n" + "\n".join(lines)


def _short(cell: str) -> str:
    """Return a number with as many digits as tell something, and anything else as it is, with truths as marks."""
    try:
        return f"{float(cell):.4g}"
    except ValueError:
        return {"True": "*", "False": ""}.get(cell, cell)


def _lines(values: dict) -> str:
    return "\n".join(f"{key:18}{value}" for key, value in values.items() if value not in (None, [], ""))
