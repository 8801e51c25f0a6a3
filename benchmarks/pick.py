"""`family pick`: the member that fits a latency budget, or surely reaches an accuracy, or the Pareto front.

`pick` is a pure function of rows; it needs neither a runtime nor TensorFlow.
"""

import argparse
import hashlib
import json
import math
import shutil
import sys
from pathlib import Path

from benchmarks.boards import boards
from benchmarks.measurements import number_at, read_rows
from family.errors import NothingFits, UserError
from family.progress import next_command

PERCENTILES = ("50", "90", "95", "99")
N_MISSES = 3


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS.jsonl")
    parser.add_argument("--budget-ms", type=float, metavar="MS", help="the most accurate member inside it")
    parser.add_argument("--min-accuracy", type=float, metavar="A", help="from 0 to 1; alone: the fastest member that reaches it")
    parser.add_argument("--percentile", default="99", choices=PERCENTILES, help="of latency that the budget holds for (default 99)")
    parser.add_argument("--metric", default="top1.micro", metavar="NAME", help="top1.micro (default), levels.2.macro, ...")
    parser.add_argument("--scope", default="general", help="general (default) or a vertical")
    parser.add_argument("--machine", metavar="NAME", help="where it must fit (default: the only one in the results)")
    parser.add_argument("--copy-to", type=Path, metavar="DIR", help="copy the bundle there, with the choice in its card")
    parser.add_argument("--fresh", action="store_true", help="move a DIR that is there aside")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    if args.budget_ms is not None and not args.budget_ms > 0:
        raise UserError(f"--budget-ms takes milliseconds above 0; got {args.budget_ms:g}")
    if args.min_accuracy is not None and not 0 <= args.min_accuracy <= 1:
        raise UserError(f"--min-accuracy is a share from 0 to 1; got {args.min_accuracy:g}")
    rows = read_rows(args.results)
    found = pick(rows, args.budget_ms, args.min_accuracy, args.percentile, args.scope, args.machine, args.metric)
    if args.copy_to:
        if "front" in found:
            raise UserError("--copy-to takes one member: give --budget-ms or --min-accuracy")
        _copy(found, args)
    if args.json:
        json.dump(found, sys.stdout)
        print()
    else:
        _print(found, args)
    return 0


def pick(
    rows: list[dict],
    budget_ms: float | None = None,
    min_accuracy: float | None = None,
    percentile: str = "99",
    scope: str = "general",
    machine: str | None = None,
    metric: str = "top1.micro",
) -> dict:
    """Choose a member. One that is not faster than the fp32 file of its own bundle under the same settings is left out: it gains nothing.

    Args:
        budget_ms: for p99, its upper bound must be inside; for other percentiles, the percentile itself.
        min_accuracy: of `metric`, which is a path in the metrics of `family evaluate`; its lower 95 % bound must reach it
            (of a macro metric, the lower end of its stored interval).

    Returns:
        {"member", "bundle", "scheme", "latency_ms", "accuracy", ...}; with neither budget nor accuracy {"front": [...]}.

    Raises:
        NothingFits: no member does; names the nearest misses.
        UserError: there is no such scope, or the machine must be named.
    """
    candidates = _candidates(rows, scope, machine, percentile, metric)
    if budget_ms is None and min_accuracy is None:
        return {"front": _front(candidates)}
    unsure = [c["member"] for c in candidates if c["accuracy_lower"] is None]
    if min_accuracy is not None and unsure:
        raise UserError(f"how sure {metric} of {', '.join(unsure[:3])} is was not measured: run `family bench ... --data DATASET` again, or ask for "
                        f"{metric.removesuffix('macro')}micro")  # fmt: skip
    fitting = [
        c
        for c in candidates
        if (budget_ms is None or c["cost_ms"] <= budget_ms) and (min_accuracy is None or c["accuracy_lower"] >= min_accuracy)
    ]
    if not fitting:
        raise NothingFits(_misses(candidates, budget_ms, min_accuracy, percentile))
    if budget_ms is not None:
        return min(fitting, key=lambda c: (-c["accuracy"], c["cost_ms"]))
    return min(fitting, key=lambda c: (c["cost_ms"], -c["accuracy"]))


def _candidates(rows: list[dict], scope: str, machine: str | None, percentile: str, metric: str) -> list[dict]:
    """Return the comparable members of the one board that was asked for."""
    found = boards(rows)
    scopes = sorted({board["scope"] for board in found})
    if scope not in scopes:
        raise UserError(f"the results hold no member of the scope {scope!r}; they hold {', '.join(scopes)}")
    found = [board for board in found if board["scope"] == scope and board["machine"]]
    names = sorted({board["machine"]["machine"].get("name") for board in found})
    if machine is None and len(names) > 1:
        raise UserError(f"the results come from several machines; choose with --machine: {', '.join(names)}")
    if machine is not None and machine not in names:
        raise UserError(f"no measurement of the machine {machine!r}; there are {', '.join(names) or 'none'}")
    found = [board for board in found if machine in (None, board["machine"]["machine"].get("name"))]
    members = [m for board in found for m in board["members"] if m["comparable"]]
    _refuse_other_rows(members)
    candidates = [_candidate(m, percentile, metric) for m in members if _is_worth_it(m, members)]
    if not candidates:
        why = sorted({f"{m['member']}: {', '.join(m['remarks'])}" for board in found for m in board["members"]})
        raise NothingFits(f"no member of the scope {scope!r} has a valid latency and an accuracy ({'; '.join(why) or 'no measurement'})")
    if all(c["accuracy"] is None for c in candidates):
        raise UserError(f"no member has the metric {metric!r}; it is a path in the metrics, as top1.macro or levels.2.micro")
    return [c for c in candidates if c["accuracy"] is not None]


def _refuse_other_rows(members: list[dict]) -> None:
    """Accuracies on different rows say nothing about which member is better."""
    measured = {tuple(str(m["accuracy"]["dataset"].get(key)) for key in ("name", "split", "digest")) for m in members}
    if len(measured) > 1:
        told = "; ".join(f"{name} {split} ({digest[:7]})" for name, split, digest in sorted(measured))
        raise UserError(f"accuracies were measured on different rows, which can't be compared: {told}; give results of one of them")


def _is_worth_it(member: dict, members: list[dict]) -> bool:
    """Say whether a member is faster than the fp32 file of its own bundle, which answers as its run did, in half of all cases; fp32 always is."""
    bundle = member["latency"].get("bundle")
    if member["scheme"] == "fp32" or bundle is None:
        return True
    same = ("bundle", "provider", "threads", "batch")
    fp32 = [other for other in members if other["scheme"] == "fp32" and all(other["latency"].get(key) == member["latency"].get(key) for key in same)]
    return all(member["p50_ms"] < other["p50_ms"] for other in fp32)


def _candidate(member: dict, percentile: str, metric: str) -> dict:
    latency = member["latency"]["latency_ms"]
    accuracy = number_at(member["accuracy"]["metrics"], *metric.split("."))
    cost_ms = number_at(latency, "upper" if percentile == "99" else f"p{percentile}")
    if cost_ms is None:
        raise UserError(f"{member['member']} was measured without p{percentile}; run `family bench` again")
    return {
        "member": member["member"],
        "bundle": member["latency"].get("bundle"),
        "scheme": member["scheme"],
        "latency_ms": {key: latency.get(key) for key in ("p50", "p99", "upper")},
        "accuracy": accuracy,
        "accuracy_lower": _surely(member["accuracy"], metric, accuracy),
        "cost_ms": cost_ms,
        "provider": member["latency"].get("provider"),
        "threads": member["latency"].get("threads"),
        "machine": member["latency"]["machine"].get("name"),
        "cpu": member["latency"]["machine"].get("cpu"),
        "measurement": hashlib.sha256(json.dumps(member["latency"], sort_keys=True).encode()).hexdigest(),
        "measured_at": member["latency"].get("at"),
        "model_sha256": member["model_sha256"],
    }


def _surely(measured: dict, metric: str, accuracy: float | None) -> float | None:
    """Return what the accuracy surely reaches; None where that is not known.

    A mean over categories is no share of rows: rare categories decide how sure it is, which `evaluate` measures and its interval tells.
    """
    metrics = measured["metrics"]
    if metric.endswith("macro"):
        *path, name = metric.split(".")
        for key in path:
            metrics = metrics.get(key) if isinstance(metrics, dict) else None
        interval = metrics.get(f"{name}_interval") if isinstance(metrics, dict) else None
        return interval[0] if isinstance(interval, list) and interval and isinstance(interval[0], float) else None
    return lower_bound(accuracy, int(number_at(metrics, "n_listings") or measured.get("n") or 0))


def lower_bound(share: float | None, n: int, z: float = 1.645) -> float | None:
    """Return Wilson's one-sided 95 % lower bound of a share of n independent rows.

    *Source*: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    if share is None or not n:
        return None
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n))


def _front(candidates: list[dict]) -> list[dict]:
    """Return the members that no other beats in both, the fastest first."""
    front = []
    for candidate in sorted(candidates, key=lambda c: (c["cost_ms"], -c["accuracy"])):
        if not front or candidate["accuracy"] > front[-1]["accuracy"]:
            front.append(candidate)
    return front


def _misses(candidates: list[dict], budget_ms: float | None, min_accuracy: float | None, percentile: str) -> str:
    asked = [f"p{percentile} within {budget_ms:g} ms"] if budget_ms is not None else []
    asked += [f"an accuracy of at least {min_accuracy:.1%}"] if min_accuracy is not None else []
    near = sorted(candidates, key=lambda c: c["cost_ms"] if budget_ms is not None else -c["accuracy"])[:N_MISSES]
    told = "; ".join(f"{c['member']} ({c['cost_ms']:.2f} ms, {c['accuracy']:.1%}{_told_surely(c)})" for c in near)
    enough = [c for c in candidates if min_accuracy is None or c["accuracy_lower"] >= min_accuracy]
    hint = f". A budget of {min(c['cost_ms'] for c in enough):.2f} ms would do" if budget_ms is not None and enough else ""
    return f"nothing fits {' and '.join(asked)}. Nearest: {told}{hint}"


def _told_surely(candidate: dict) -> str:
    return "" if candidate["accuracy_lower"] is None else f", surely {candidate['accuracy_lower']:.1%}"


def _copy(found: dict, args: argparse.Namespace) -> None:
    """Copy the picked bundle and write into its card how it is to be served."""
    from export.bundle import open_bundle
    from family.card import write_card
    from family.outputs import is_done, whole_folder

    source = _locate(found["bundle"], args.results)
    serve = {
        key: found[key]
        for key in ("scheme", "threads", "provider", "machine", "cpu", "measured_at", "latency_ms", "model_sha256", "measurement")
    }
    made_of = {"command": "pick", "member": found["member"], **serve}
    if is_done(args.copy_to, made_of, args.fresh):
        return
    bundle = open_bundle(source)
    bundle.model_path(found["scheme"])  # refuses a file that is not the one that was measured
    if bundle.schemes[found["scheme"]]["sha256"] != found["model_sha256"]:
        raise UserError(f"{source} was exported anew after it was measured; run `family bench` again")
    with whole_folder(args.copy_to, made_of) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        write_card(folder, {**bundle.card, "serve": serve})


def _locate(bundle: str | None, results: list[Path]) -> Path:
    """Find a bundle that the results name, from here or from where the results lie."""
    places = [*(path.parent / (bundle or "") for path in results), Path(bundle or "")]
    found = next((place for place in places if bundle and (place / "card.json").is_file()), None)
    if found is None:
        raise UserError(f"the bundle {bundle!r} is not here; --copy-to needs it")
    return found


def _print(found: dict, args: argparse.Namespace) -> None:
    for row in found.get("front", [found]):
        print(f"{row['member']}: {args.metric} {row['accuracy']:.1%}, p50 {row['latency_ms']['p50']:.2f} ms, "
              f"p99 {row['latency_ms']['p99']:.2f} ms (at most {row['latency_ms']['upper']:.2f}), {row['threads']} threads of {row['machine']}")  # fmt: skip
    if "front" not in found:
        copy = "" if args.copy_to else "  # after: family pick ... --copy-to best"
        print(f"{next_command('predict', args.copy_to or 'best', 'IMAGE')}{copy}")
