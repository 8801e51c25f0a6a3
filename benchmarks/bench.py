"""`family bench`: latency and throughput of bundles on this machine, and their accuracy where a dataset is given."""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

from family.errors import UserError
from family.progress import next_command

_MOST_THREADS = 8  # of each model that answers beside many others


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE|CHAIN.toml")
    parser.add_argument("--out", type=Path, required=True, metavar="RESULTS.jsonl", help="measurements are added to it")
    parser.add_argument("--data", type=Path, metavar="DATASET", help="measure accuracy on its test rows too")
    parser.add_argument("--split", default="test", help="the rows of --data (default test)")
    parser.add_argument("--provider", help="auto, cpu, cuda or tensorrt (default: what `pick` chose for the bundle, else auto)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the model (default: what `pick` chose, else 1: one request, one core)")
    parser.add_argument("--samples", type=int, default=400, metavar="N", help="queries timed a member, at least (default 400); fewer than 300 can't bound "
                        "p99: INVALID")  # fmt: skip
    parser.add_argument("--min-seconds", type=float, default=2.0, metavar="S", help="each member is timed at least this long (default 2)")
    parser.add_argument("--batch", type=_numbers(int), default=[1], metavar="N,...", help="images of a query (default 1); several: each by itself")
    parser.add_argument("--rate", type=_numbers(float), default=[], metavar="R,...", help="also with requests that come at random times, so many a second: "
                        "as many as bound p99, or a minute of them")  # fmt: skip
    parser.add_argument("--scheme", help="only this one (default: what `pick` chose, else every scheme of each bundle)")
    parser.add_argument("--machine", metavar="NAME", help="what to call this machine (default: its processor and cores)")
    parser.add_argument("--peers", action="store_true", help="compare with OpenVINO, TensorFlow and PyTorch where they are installed "
                        "(`pip install '.[peers]'`), with --data also as NNCF quantizes")  # fmt: skip
    parser.add_argument("--plain", type=Path, metavar="FILE.onnx", help="with --peers: the run as the plain converter writes it, a peer of one "
                        "bundle (`python -m benchmarks.peers.plain RUN FILE.onnx`)")  # fmt: skip
    parser.add_argument("--run", type=Path, dest="run_folder", metavar="RUN", help="with --peers: the run of the one bundle, in Keras")
    parser.add_argument("--rounds", type=int, default=200, metavar="N", help="of --peers, in which all sides take turns (default 200)")
    parser.add_argument("--chains", action="store_true", help="with --data: note what each member answers on validation rows, for `pick --chain`")
    parser.add_argument("--json", action="store_true", help="print the measurements as one JSON object")


def _numbers(kind: type) -> Callable[[str], list]:
    def read(text: str) -> list:
        try:
            found = list(dict.fromkeys(kind(word) for word in text.split(",")))
        except ValueError:
            found = [0]
        if not all(0 < number < 10**6 for number in found):
            raise argparse.ArgumentTypeError(f"wanted numbers above 0, as in 1,8; got {text!r}")
        return found

    return read


def run(args: argparse.Namespace) -> int:
    from benchmarks.accuracy import measure_accuracy
    from benchmarks.measurements import append_rows, read_rows, same_measurement
    from benchmarks.peers import comparing as peers
    from benchmarks.timing.rows import time_bundles

    if args.samples < 1:
        raise UserError(f"--samples {args.samples}: wanted at least 1 image")
    if not 0 <= args.min_seconds < math.inf:
        raise UserError(f"--min-seconds {args.min_seconds:g}: wanted 0 or more")
    if args.chains and args.data is None:
        raise UserError("--chains wants --data DATASET, on whose validation rows members answer")
    dataset = _open_dataset(args)
    if args.chains:
        _check_chains(args, dataset)
    _check_place(args.out)
    if args.out.is_file():
        read_rows([args.out])  # or an error, before anything is timed
    peers.check(args, dataset)
    rows = time_bundles(args)
    rows = append_rows(args.out, rows, same_measurement)  # kept even if what follows fails
    if dataset:
        rows += measure_accuracy(args, dataset)
    if args.chains:
        _note_answers(args, dataset)
    if args.peers:
        rows += peers.measure(args, dataset)
    if args.json:
        json.dump({"rows": rows}, sys.stdout)
        print()
    else:
        _print_rows(rows, [row for row in read_rows([args.out]) if row["kind"] == "accuracy"])
        print(next_command("report", args.out, "--out", "report"))
    return 0


def _check_place(out: Path) -> None:
    """Refuse a place that no results can be written to, before anything is timed."""
    if out.is_dir():
        raise UserError(f"{out} is a folder; --out takes a file of results, as {out / 'results.jsonl'}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} can't be written: {error.strerror}") from error
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"{out} can't be written: {out.parent} is read-only")


def _check_chains(args: argparse.Namespace, dataset) -> None:
    """Refuse bundles of which no chain can be made, before anything is timed."""
    from benchmarks.chains.gathering import ANSWERED, check_cards
    from export.chain import is_chain
    from family.card import read_card

    check_cards([read_card(path) for path in args.bundles if not is_chain(path)])
    dataset.rows(ANSWERED)


def done(args: argparse.Namespace) -> bool:
    """Say whether every file of the bundles was measured so on this machine, and on the rows of --data."""
    from benchmarks.accuracy import is_judged, known_accuracies
    from benchmarks.machine import describe_machine
    from benchmarks.measurements import read_rows, scenario_of
    from benchmarks.peers import comparing as peers
    from benchmarks.timing.members import asked_for, settings_of
    from export.chain import identify_any, is_chain

    if not args.out.is_file():
        return False
    rows = read_rows([args.out])
    files = {(path, scheme): identify_any(path, scheme)[1] for path, scheme in asked_for(args)}
    here = describe_machine(args.machine)
    used = {asked: settings_of(*asked, args) for asked in files}
    timed = {(asked, *scenario_of(row)) for row in rows if row["kind"] == "latency" for asked, file in files.items()
             if row["model_sha256"] == file and _was_timed_so(row, args, here, used[asked])}  # fmt: skip
    scenarios = [("single-stream" if batch == 1 else "multi-stream", batch, None) for batch in args.batch] + [("server", 1, rate) for rate in args.rate]
    dataset = _open_dataset(args)
    right = known_accuracies(rows)
    compared = not args.peers or peers.done(args, rows, lambda row: _is_here(row, here), dataset)
    members = {file for (path, _), file in files.items() if not is_chain(path)}
    is_answered = not args.chains or (dataset is not None and _knows_answers(args.out, dataset, members))
    is_timed = {(asked, *scenario) for asked in files for scenario in scenarios} <= timed
    has_accuracies = dataset is None or all(is_judged(right, files, asked, dataset, args.split) for asked in files)
    return is_timed and has_accuracies and is_answered and compared


def _is_here(row: dict, here: dict) -> bool:
    return all(row["machine"].get(key) == here[key] for key in ("name", "cpu", "cores", "versions"))


def _was_timed_so(row: dict, args: argparse.Namespace, here: dict, used) -> bool:
    """Say whether a row needs no second time. One that is INVALID since the machine had other work stands, for whoever plans a whole family on it: whether
    it counts is for `report` and `pick` to say."""
    from benchmarks.boards import LEAST_AGREEMENT
    from benchmarks.measurements import SCHEMA, number_at
    from benchmarks.timing.statistics import MIN_SAMPLES

    n, agreement = number_at(row, "n") or 0, number_at(row, "agreement") or 0
    same_settings = row.get("threads") == used.n_threads and used.provider in ("auto", row.get("provider"))
    return _is_here(row, here) and same_settings and n >= max(args.samples, MIN_SAMPLES) and agreement >= LEAST_AGREEMENT and row["schema"] == SCHEMA


def _open_dataset(args: argparse.Namespace):
    """Open --data before anything is timed, so that a mistake is told at once."""
    from family.data.dataset import open_dataset

    if args.data is None:
        return None
    dataset = open_dataset(args.data)
    dataset.rows(args.split)
    return dataset


def _knows_answers(out: Path, dataset, files: set[str]) -> bool:
    """Say whether what these files answered on validation rows is beside the results."""
    from benchmarks.chains.gathering import ANSWERED
    from benchmarks.chains.picking import SUFFIX

    return files <= _answered(out.with_name(out.name + SUFFIX), {"digest": dataset.digest, "split": ANSWERED})


def _answered(place: Path, of: dict | None = None) -> set[str]:
    """Return the sha256 of each file whose answers, to the rows of a dataset, are at a place; of none, if nothing can be read there."""
    from benchmarks.chains.evidence import read_evidence

    try:
        evidence = read_evidence(place)
    except UserError:
        return set()
    is_of_it = all(evidence.dataset.get(key) == value for key, value in (of or {}).items())
    return {*evidence.generals, *evidence.submodels} if is_of_it else set()


def _note_answers(args: argparse.Namespace, dataset) -> None:
    """Write what each member answers on validation rows, beside the results, in the place of what was there: answers of other bundles, which may be of other
    verticals, are not joined with them."""
    from benchmarks.chains.evidence import write_evidence
    from benchmarks.chains.gathering import gather
    from benchmarks.chains.picking import SUFFIX
    from benchmarks.timing.members import asked_for, settings_of
    from export.chain import is_chain
    from export.opening import open_model
    from family.machine import n_cores

    n_threads = min(n_cores(), _MOST_THREADS)  # all models are open at once
    asked = [(path, scheme) for path, scheme in asked_for(args) if not is_chain(path)]
    models = [open_model(path, scheme, settings_of(path, scheme, args).provider, n_threads) for path, scheme in asked]
    place, evidence = args.out.with_name(args.out.name + SUFFIX), gather(models, dataset)
    gone = _answered(place) - {*evidence.generals, *evidence.submodels}
    write_evidence(place, evidence)
    if gone:
        print(f"warning: {place} no longer holds what {len(gone)} other files answered; chains are picked among bundles that are given together",
              file=sys.stderr)  # fmt: skip


def _told_scenario(row: dict) -> str:
    return f"of {row['rate']:g} requests/s" if row["scenario"] == "server" else f"of {row['batch']} images a query"


def _told_prediction(predicted_ms: dict, timed_ms: dict) -> str:
    """Say how far what `pick --chain` expected is from what was timed."""
    off = {key: timed_ms[key] / value - 1 for key, value in predicted_ms.items() if key != "upper" and timed_ms.get(key)}
    told = ", ".join(f"{key} {predicted_ms[key]:.2f} ms ({100 * share:+.0f} % when timed)" for key, share in off.items())
    slow = next((key for key in predicted_ms if key not in ("p50", "upper")), "p50")  # the percentile that it was picked by
    over = bool(predicted_ms.get("upper") and timed_ms.get(slow)) and timed_ms[slow] > predicted_ms["upper"]
    told += f", which was to be at most {predicted_ms['upper']:.2f}" if over else ""
    return f"  predicted {told}" + ("" if all(abs(share) <= 0.1 for share in off.values()) else ": more than 10 % off; measure its members again")


def _print_rows(rows: list[dict], known: list[dict]) -> None:
    """Print measurements; the accuracies of our files beside their peers may have been `known` before."""
    from benchmarks.peers import table as peer_table

    for row in rows:
        if row["kind"] == "latency":
            ms = row["latency_ms"]
            rates = [found["images_per_s"] for found in row.get("throughput", []) if found["valid"] and row["batch"] == 1]
            told = f"{max(rates):7.1f} images/s" if rates else _told_scenario(row)
            print(f"{row['member']:36} p50 {ms['p50']:7.2f} ms  p99 {ms['p99']:7.2f} ms  {told}  {row['size_mb']:6.1f} MB"
                  + ("" if row["valid"] else f"  INVALID: {row['invalid_because']}"))  # fmt: skip
            if row.get("predicted_ms"):
                print(_told_prediction(row["predicted_ms"], ms))
        elif row["kind"] == "accuracy":
            top1 = row["metrics"]["top1"]
            print(
                f"{row['member']:36} top-1 {top1['micro']:.1%} micro, {top1['macro']:.1%} macro on {row['n']} {row['dataset']['split']} images"
            )
    compared = [row for row in rows if row["kind"] == "peer"]
    for name, lines, conditions in peer_table.groups([*known, *compared]):
        print(f"{name}\n{peer_table.to_markdown(lines)}\n{conditions}")
