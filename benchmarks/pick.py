"""`family pick`: the member that fits a latency budget, or surely reaches an accuracy, or the Pareto front.

`pick` is a pure function of rows; it needs neither a runtime nor TensorFlow.
"""

import argparse
import json
import math
import sys
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path

from benchmarks.answers import by_accuracy, by_cost, misses_of, nearest_of, runners_up, tell_nothing
from benchmarks.candidates import NoMember, candidates_of, lower_of, needed_for, told
from benchmarks.decoding import decoder_for
from benchmarks.measurements import check_row, read_rows, uncollected
from family.errors import NothingFits, UserError
from family.progress import next_command

PERCENTILES = ("50", "90", "95", "99")
N_SHOWN = 12
_TINY, _HUGE = 1e-9, 1e9
_RANGES = {
    "budget_ms": (_TINY, _HUGE, "takes milliseconds above 0, up to 1,000,000,000"),
    "min_accuracy": (0, 1, "is a share from 0 to 1"),
    "batch": (1, _HUGE, "takes 1 or more, up to 1,000,000,000"),
    "max_memory_mb": (_TINY, _HUGE, "takes megabytes above 0, up to 1,000,000,000"),
}


_DEFAULTS = {"budget_ms": None, "min_accuracy": None, "percentile": "99", "scope": "general", "machine": None, "metric": "top1.micro", "batch": 1,
             "max_memory_mb": None, "allow_invalid": False}  # fmt: skip
# What is asked of a member; see `pick`. The module of dataclasses takes as long to load as all of ours.
Wanted = namedtuple("Wanted", _DEFAULTS, defaults=_DEFAULTS.values())


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS.jsonl")
    parser.add_argument("--budget-ms", type=float, metavar="MS", help="the most accurate member inside it")
    parser.add_argument("--min-accuracy", type=float, metavar="A", help="from 0 to 1, which the one-sided 95 %% lower bound must reach; alone: the "
                        "fastest member that does")  # fmt: skip
    parser.add_argument("--percentile", default="99", choices=PERCENTILES, help="of latency that the budget holds for (default 99)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images of a query (default 1), as `family bench --batch` timed them")
    parser.add_argument("--metric", default="top1.micro", metavar="NAME", help="top1.micro (default), levels.2.macro, ...")
    parser.add_argument("--scope", default="general", help="general (default) or a vertical")
    parser.add_argument("--machine", metavar="NAME", help="where it must fit (default: the only one in the results)")
    parser.add_argument("--max-memory-mb", type=float, metavar="MB", help="that the process which answers may hold at once")
    parser.add_argument("--allow-invalid", action="store_true", help="take INVALID measurements too; what is picked by one is marked")
    parser.add_argument("--chain", action="store_true", help="the chain inside the budget, of a general model and submodels: `family bench --chains`")
    parser.add_argument("--copy-to", type=Path, metavar="DIR", help="copy the bundle there, with the choice in its card")
    parser.add_argument("--fresh", action="store_true", help="move a DIR that is there aside")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    try:
        return _pick_chain(args) if args.chain else _pick_member(args)
    except NothingFits as nothing:
        if args.json:
            _print_json(_nothing(nothing))
        raise


def _pick_member(args: argparse.Namespace) -> int:
    wanted = _wanted(args)
    _check(wanted)  # before anything is read
    with uncollected():
        found = _pick(read_rows(args.results, needed_for(wanted), decoder_for(wanted.metric, wanted.scope)), wanted)
    if args.copy_to:
        from benchmarks.copying import copy_picked

        if "front" in found:
            raise UserError("--copy-to takes one member: give --budget-ms or --min-accuracy")
        copy_picked(found, args.copy_to, args.results, args.fresh)
    if args.json:
        _print_json(found)
    else:
        _print(found, args)
    return 0


def _print_json(found: dict) -> None:
    json.dump(found, sys.stdout)
    print()


def _nothing(nothing: NothingFits) -> dict:
    """Return what --json prints when nothing fits: the keys of a choice, empty, why, and the nearest misses."""
    empty = dict.fromkeys(("member", "bundle", "scheme", "latency_ms", "accuracy"))
    return {**empty, "why": str(nothing), "nearest": getattr(nothing, "nearest", []), "left_out": getattr(nothing, "left_out", [])}


def _wanted(args: argparse.Namespace) -> Wanted:
    return Wanted(**{field: getattr(args, field) for field in Wanted._fields})


def _pick_chain(args: argparse.Namespace) -> int:
    from benchmarks.chains.picking import choose, copy_chain, tell

    wanted = _wanted(args)
    _check(wanted)
    with uncollected():
        rows = read_rows(args.results, lambda row, _: row if row["kind"] == "latency" else None)
    found = choose(rows, args.results, wanted)
    place = copy_chain(found, args.copy_to, args.results, args.fresh) if args.copy_to else None
    if args.json:
        _print_json(found)
    else:
        print(tell(found, wanted.percentile, wanted.metric))
        if place is None:
            print("# --copy-to DIR makes its file, which `family bench` times")
        elif found["chain"]["verticals"]:
            print(next_command("bench", place, "--out", args.results[0], "--threads", found["threads"], "--provider", found["provider"], "--machine",
                               found["machine"]))  # fmt: skip
        else:
            print(next_command("predict", place, "IMAGE"))
    return 0


def pick(
    rows: Sequence[dict],
    budget_ms: float | None = None,
    min_accuracy: float | None = None,
    percentile: str = "99",
    scope: str = "general",
    machine: str | None = None,
    metric: str = "top1.micro",
    batch: int = 1,
    max_memory_mb: float | None = None,
    allow_invalid: bool = False,
) -> dict:
    """Choose a member. One that is not faster than the fp32 file of its own bundle under the same settings is left out: it gains nothing.

    Args:
        budget_ms: that the percentile's one-sided 95 % bound must be inside.
        min_accuracy: of `metric`, which is a path in the metrics of `family evaluate`; its one-sided 95 % lower bound must reach it.
        batch: images of a query; a budget is that of all of them.
        max_memory_mb: that the process which answers may have held at once; one whose memory was not measured is left out.
        allow_invalid: take INVALID measurements too.

    Returns:
        {"member", "bundle", "scheme", "latency_ms", "accuracy", "runners_up", ...}, where runners-up are {"member", "why"};
        with neither budget nor accuracy {"front": [...]}.

    Raises:
        NothingFits: no member does; names the nearest misses.
        UserError: there is no such scope, or the machine must be named.
    """
    wanted = Wanted(budget_ms, min_accuracy, str(percentile), scope, machine, metric, batch, max_memory_mb, allow_invalid)
    _check(wanted)
    for number, row in enumerate(rows, 1):
        check_row(row, f"row {number}")
    keep = needed_for(wanted)
    kept = [keep(dict(row), row) for row in rows]
    return _pick([row for row in kept if row is not None], wanted)


def _pick(rows: Sequence[dict], wanted: Wanted) -> dict:
    candidates, left_out = candidates_of(rows, wanted)
    unsure = [c["member"] for c in candidates if lower_of(c, wanted) is None] if wanted.min_accuracy is not None else []
    if unsure:
        raise UserError(f"how sure {wanted.metric} of {', '.join(unsure[:3])} is was not measured: run `family bench ... --data DATASET` again, or ask for "
                        f"{wanted.metric.removesuffix('macro')}micro")  # fmt: skip
    missed = [misses_of(c, wanted) for c in candidates]
    fitting = [c for c, misses in zip(candidates, missed, strict=True) if not misses]
    if not fitting:
        nearest = nearest_of(candidates, wanted)
        text = tell_nothing(candidates, nearest, left_out, wanted)
        raise NoMember(text, [{**told(c, wanted), "why": "; ".join(misses_of(c, wanted).values())} for c in nearest], left_out)
    if wanted.budget_ms is None and wanted.min_accuracy is None:
        over = [{"member": c["member"], "why": "; ".join(misses.values())} for c, misses in zip(candidates, missed, strict=True) if misses]
        return {"front": [told(c, wanted) for c in front(fitting)], "left_out": over + left_out}
    best = min(fitting, key=by_accuracy if wanted.budget_ms is not None else by_cost)
    return {**told(best, wanted), "runners_up": runners_up(candidates, best, wanted) + left_out}


def _check(wanted: Wanted) -> None:
    if wanted.percentile not in PERCENTILES:
        raise UserError(f"--percentile is one of {', '.join(PERCENTILES)}; got {wanted.percentile}")
    for name, (low, high, told_range) in _RANGES.items():
        got = getattr(wanted, name)
        if got is not None and not low <= got <= high:
            raise UserError(f"--{name.replace('_', '-')} {told_range}; got {got:.6g}")


def front(candidates: Sequence[dict]) -> list[dict]:
    """Return the members that no other beats in both, the fastest first."""
    found: list[dict] = []
    for candidate in sorted(candidates, key=by_cost):
        if not found or candidate["accuracy"] > found[-1]["accuracy"]:
            found.append(candidate)
    return found


def _print(found: dict, args: argparse.Namespace) -> None:
    for row in found.get("front", [found]):
        images = f" of {args.batch} images" if args.batch > 1 else ""
        asked, cost, known = f"p{args.percentile}", row["cost_ms"], row["latency_ms"]
        bound = f"at most {cost:.2f}" if row["is_bounded"] else "not bounded"
        bound = f"{asked} {bound} ms" if row["is_bounded"] and not known.get(asked) else f"{asked} {known.get(asked) or cost:.2f} ms ({bound})"
        times = (bound if asked == "p50" else f"p50 {known['p50'] or math.nan:.2f} ms, {bound}") + images
        print(f"{row['member']}: {args.metric} {row['accuracy']:.1%}, {times}, {row['threads']} threads of {row['machine']}"
              + (f"  INVALID: {row['invalid_because']}" if row["invalid_because"] else ""))  # fmt: skip
    others = found.get("runners_up", found.get("left_out", []))
    for other in others[:N_SHOWN]:
        print(f"  not {other['member']}: {other['why']}")
    if len(others) > N_SHOWN:
        print(f"  nor {len(others) - N_SHOWN} more; --json has all of them")
    if "front" not in found:
        copy = "" if args.copy_to else "  # after: family pick ... --copy-to best"
        print(f"{next_command('predict', args.copy_to or 'best', 'IMAGE')}{copy}")
