"""`family pick`: the member that fits a latency budget, or surely reaches an accuracy, or the Pareto front.

`pick` is a pure function of rows; it needs neither a runtime nor TensorFlow.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.candidates import candidates_of, needed_for, told
from benchmarks.measurements import read_rows, uncollected
from family.errors import NothingFits, UserError
from family.progress import next_command

PERCENTILES = ("50", "90", "95", "99")
N_MISSES, N_RUNNERS_UP, N_SHOWN = 3, 5, 12
_TINY, _HUGE = 1e-9, 1e12
_RANGES = {
    "budget_ms": (_TINY, _HUGE, "takes milliseconds above 0"),
    "min_accuracy": (0, 1, "is a share from 0 to 1"),
    "batch": (1, _HUGE, "takes 1 or more"),
    "max_memory_mb": (_TINY, _HUGE, "takes megabytes above 0"),
}


@dataclass(frozen=True)
class Wanted:
    """What is asked of a member; see `pick`."""

    budget_ms: float | None = None
    min_accuracy: float | None = None
    percentile: str = "99"
    scope: str = "general"
    machine: str | None = None
    metric: str = "top1.micro"
    batch: int = 1
    max_memory_mb: float | None = None
    allow_invalid: bool = False


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS.jsonl")
    parser.add_argument("--budget-ms", type=float, metavar="MS", help="the most accurate member inside it")
    parser.add_argument("--min-accuracy", type=float, metavar="A", help="from 0 to 1; alone: the fastest member that reaches it")
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
    if args.chain:
        return _pick_chain(args)
    wanted = _wanted(args)
    _check(wanted)  # before anything is read
    with uncollected():
        found = _pick(read_rows(args.results, needed_for(wanted)), wanted, are_checked=True)
    if args.copy_to:
        from benchmarks.copying import copy_picked

        if "front" in found:
            raise UserError("--copy-to takes one member: give --budget-ms or --min-accuracy")
        copy_picked(found, args.copy_to, args.results, args.fresh)
    if args.json:
        json.dump(found, sys.stdout)
        print()
    else:
        _print(found, args)
    return 0


def _wanted(args: argparse.Namespace) -> Wanted:
    return Wanted(**{field: getattr(args, field) for field in Wanted.__dataclass_fields__})


def _pick_chain(args: argparse.Namespace) -> int:
    from benchmarks.chains.picking import choose, copy_chain, tell

    wanted = _wanted(args)
    _check(wanted)
    found = choose(read_rows(args.results), args.results, wanted)
    place = copy_chain(found, args.copy_to, args.results, args.fresh) if args.copy_to else None
    if args.json:
        json.dump(found, sys.stdout)
        print()
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
        min_accuracy: of `metric`, which is a path in the metrics of `family evaluate`; its lower 95 % bound must reach it
            (of a macro metric, the lower end of its stored interval).
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
    return _pick(rows, Wanted(budget_ms, min_accuracy, str(percentile), scope, machine, metric, batch, max_memory_mb, allow_invalid))


def _pick(rows: Sequence[dict], wanted: Wanted, are_checked: bool = False) -> dict:
    _check(wanted)
    candidates, left_out = candidates_of(rows, wanted, are_checked)
    if wanted.budget_ms is None and wanted.min_accuracy is None:
        return {"front": [told(c) for c in front(candidates)], "left_out": left_out}
    unsure = [c["member"] for c in candidates if c["accuracy_lower"] is None]
    if wanted.min_accuracy is not None and unsure:
        raise UserError(f"how sure {wanted.metric} of {', '.join(unsure[:3])} is was not measured: run `family bench ... --data DATASET` again, or ask for "
                        f"{wanted.metric.removesuffix('macro')}micro")  # fmt: skip
    fitting = [c for c in candidates if not _misses_of(c, wanted)]
    if not fitting:
        raise NothingFits(_nearest(candidates, left_out, wanted))
    best = min(fitting, key=_by_accuracy if wanted.budget_ms is not None else _by_cost)
    return {**told(best), "runners_up": _runners_up(candidates, best, wanted) + left_out}


def _check(wanted: Wanted) -> None:
    if wanted.batch > 1 and wanted.max_memory_mb is not None:
        raise UserError("--max-memory-mb is of single images, the only queries whose memory is measured; leave out --batch or --max-memory-mb")
    if wanted.percentile not in PERCENTILES:
        raise UserError(f"--percentile is one of {', '.join(PERCENTILES)}; got {wanted.percentile}")
    for name, (low, high, told_range) in _RANGES.items():
        got = getattr(wanted, name)
        if got is not None and not low <= got <= high:
            raise UserError(f"--{name.replace('_', '-')} {told_range}; got {got:g}")


def _by_accuracy(c: dict) -> tuple:
    return -c["accuracy"], c["cost_ms"], -(c["images_per_s"] or 0), c["member"]


def _by_cost(c: dict) -> tuple:
    return c["cost_ms"], -c["accuracy"], -(c["images_per_s"] or 0), c["member"]


def _misses_of(c: dict, wanted: Wanted) -> list[str]:
    """Return what a candidate misses of what is wanted."""
    found = []
    if wanted.budget_ms is not None and c["cost_ms"] > wanted.budget_ms:
        found.append(f"p{wanted.percentile} may be {c['cost_ms']:.2f} ms, over {wanted.budget_ms:g}")
    if wanted.min_accuracy is not None and c["accuracy_lower"] < wanted.min_accuracy:
        found.append(f"surely {c['accuracy_lower']:.1%} alone, under {wanted.min_accuracy:.1%}")
    return found


def _runners_up(candidates: list[dict], best: dict, wanted: Wanted) -> list[dict]:
    """Say why others lost: the most accurate of them first, or, where an accuracy alone was asked for, the fastest."""
    order = _by_accuracy if wanted.budget_ms is not None else _by_cost
    others = sorted((c for c in candidates if c is not best), key=order)[:N_RUNNERS_UP]
    return [{"member": c["member"], "why": "; ".join(_misses_of(c, wanted)) or _why_worse(c, best, wanted)} for c in others]


def _why_worse(c: dict, best: dict, wanted: Wanted) -> str:
    if wanted.budget_ms is not None and c["accuracy"] < best["accuracy"]:
        return f"fits, and is {100 * (best['accuracy'] - c['accuracy']):.2f} points less accurate"
    if c["cost_ms"] > best["cost_ms"]:
        return f"fits, and may take {c['cost_ms'] - best['cost_ms']:.2f} ms longer"
    return f"as good; answers {c['images_per_s'] or 0:g} images/s, not {best['images_per_s'] or 0:g}"


def front(candidates: Sequence[dict]) -> list[dict]:
    """Return the members that no other beats in both, the fastest first."""
    found: list[dict] = []
    for candidate in sorted(candidates, key=_by_cost):
        if not found or candidate["accuracy"] > found[-1]["accuracy"]:
            found.append(candidate)
    return found


def _nearest(candidates: list[dict], left_out: list[dict], wanted: Wanted) -> str:
    asked = [f"p{wanted.percentile} within {wanted.budget_ms:g} ms"] if wanted.budget_ms is not None else []
    asked += [f"an accuracy of at least {wanted.min_accuracy:.1%}"] if wanted.min_accuracy is not None else []
    near = sorted(candidates, key=lambda c: c["cost_ms"] if wanted.budget_ms is not None else -c["accuracy"])[:N_MISSES]
    near_told = "; ".join(f"{c['member']} ({c['cost_ms']:.2f} ms, {c['accuracy']:.1%}{_told_surely(c)})" for c in near)
    enough = [c for c in candidates if wanted.min_accuracy is None or c["accuracy_lower"] >= wanted.min_accuracy]
    hint = f". A budget of {min(c['cost_ms'] for c in enough):.2f} ms would do" if wanted.budget_ms is not None and enough else ""
    others = "; ".join(f"{c['member']}: {c['why']}" for c in left_out[:N_MISSES])
    out = f". Left out: {others}" if others else ""
    return f"nothing fits {' and '.join(asked)}. Nearest: {near_told}{out}{hint}"


def _told_surely(candidate: dict) -> str:
    return "" if candidate["accuracy_lower"] is None else f", surely {candidate['accuracy_lower']:.1%}"


def _print(found: dict, args: argparse.Namespace) -> None:
    for row in found.get("front", [found]):
        images = f" of {args.batch} images" if args.batch > 1 else ""
        asked, cost, known = f"p{args.percentile}", row["cost_ms"], row["latency_ms"]
        bound = f"{asked} at most {cost:.2f} ms"
        if known.get(asked):
            bound = f"{asked} {known[asked]:.2f} ms ({f'at most {cost:.2f}' if cost > known[asked] else 'not bounded'})"
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
