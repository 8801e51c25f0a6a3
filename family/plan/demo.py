"""`family demo`: everything, on made-up listings, in minutes."""

import argparse
import time
from contextlib import nullcontext
from pathlib import Path

from family.errors import Failure
from family.outputs import MADE_OF, is_done, locked, write_json
from family.plan.chaining import write_chains
from family.plan.lines import plan
from family.plan.members import chains_of, read_members
from family.plan.steps import Step, run_steps

N_LISTINGS, N_CATEGORIES, SEED = 1200, 40, 0
BUDGETS_MS = (10, 100)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="(default demo)")
    parser.add_argument("--fresh", action="store_true", help="run anew; an old DIR is moved aside")


def run(args: argparse.Namespace) -> int:
    out, results = args.out, args.out / "results.jsonl"
    made_of = {"command": "demo", "listings": N_LISTINGS, "categories": N_CATEGORIES, "seed": SEED}
    failed: list[str] = []
    last = [Step(("show", str(results)), (results,))]
    for budget_ms in BUDGETS_MS:
        # A demo runs on whatever machine is at hand, often a busy one.
        last.append(Step(("pick", str(results), "--budget-ms", str(budget_ms), "--allow-invalid"), (results,)))
    with locked(out) if args.fresh and out.is_dir() else nullcontext():  # what somebody is at is not moved aside
        is_done(out, made_of, args.fresh)  # or an error: it holds something else
    with locked(out):
        if is_done(out, made_of) and (out / "finished.json").is_file():
            print(f"{out}: already done; `make demo FRESH=1` or `family demo --fresh` runs it anew")
        else:
            failed = _make(out, made_of)
        if results.is_file():
            run_steps(last)  # whose answer may be that no member fits
    page = out / "report" / "report.html"
    if failed:
        there = f"\nwhat there is of it is reported in {page.absolute()}" if page.is_file() else ""
        raise Failure("the demo is not complete:\n  " + "\n  ".join(failed) + there)
    print(page.absolute())
    return 0


def _make(out: Path, made_of: dict) -> list[str]:
    """Do every step that can be done; return which failed, a line each."""
    began = time.monotonic()
    write_json(out / MADE_OF, made_of)
    dataset = out / "dataset"
    words = ("data", "synth", str(dataset), "--listings", str(N_LISTINGS), "--categories", str(N_CATEGORIES), "--seed", str(SEED))
    members = read_members("demo")
    chains = chains_of(members, lambda scope: {scope})  # the verticals that ship have no leaf in common
    write_chains(out, chains)
    steps = [Step(words), *plan(dataset, out, members, chains)]
    failed = run_steps(steps)
    if not failed:
        spent_s = time.monotonic() - began
        write_json(out / "finished.json", {"s": round(spent_s)})
        print(f"\nthe demo took {spent_s / 60:.1f} minutes")
    return failed
