"""What `family pick --chain` predicts, against the chain that it made: timed, and asked on test rows, at several budgets.

python -m benchmarks.studies.predicting RESULTS.jsonl DATASET --budgets 8,10,15 --work DIR --out benchmarks/results/chains-NAME.json

The chain is timed in turns with its members, so that there are two predictions: from their times in the same turns and the ways that the timed images go,
and from RESULTS and validation rows, which is what `pick` had; between the two lies what the machine did meanwhile, and which images they are. RESULTS are
of `family bench BUNDLE... --chains --data DATASET` on this machine, with nothing else running. A budget within which no submodel pays has no chain to time;
it is told too.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.chains.choosing import expect_again
from benchmarks.chains.picking import find_chain, tell_chosen
from benchmarks.measurements import number_at, read_rows
from benchmarks.pick import PERCENTILES, Wanted
from benchmarks.studies.parts import exit_code_of
from family.errors import Failure
from family.outputs import write_json
from family.plan.steps import Step, run_steps

N_SAMPLES = 2000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.predicting", description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, metavar="RESULTS.jsonl")
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="whose test rows the chains answer")
    parser.add_argument("--budgets", required=True, metavar="MS,...")
    parser.add_argument("--percentile", default="99", choices=PERCENTILES)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="for the chains and their measurements")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    args = parser.parse_args()
    return exit_code_of(lambda: measure(args))


def measure(args: argparse.Namespace) -> dict:
    """Make, time and ask the chain of each budget, and write how far predictions were off.

    Raises:
        Failure: a chain could not be made or timed.
        UserError: nothing fits a budget, or the results are no measurements.
    """
    from benchmarks.machine import now

    rows, name = read_rows([args.results]), f"p{args.percentile}"
    found = []
    for budget_ms in map(float, args.budgets.split(",")):
        wanted = Wanted(budget_ms=budget_ms, percentile=args.percentile)
        chosen, timed, evidence = find_chain(rows, [args.results], wanted)
        told = tell_chosen(chosen, timed, evidence, wanted)
        line = {"budget_ms": budget_ms, "chain": told["chain"], "asked": told["asked"], "predicted_ms": told["latency_ms"], "accuracy_val": told["accuracy"],
                "n_val": told["accuracy_on"]["n"], "alone": told["alone"]}  # fmt: skip
        if told["chain"]["verticals"]:
            new = _measure(args, budget_ms, told)
            chain = next(row for row in new if row["kind"] == "latency" and row["member"].startswith("chain-"))
            again = expect_again(chosen, [row for row in new if row["kind"] == "latency"], chain["asked"], chain["n"], float(args.percentile))
            alone = next(row for row in rows if row["kind"] == "accuracy" and row["model_sha256"] == chosen.beside.general)
            right = {row["model_sha256"]: row for row in new if row["kind"] == "accuracy"}
            line |= {
                "timed_ms": {"p50": chain["latency_ms"]["p50"], name: chain["latency_ms"][name], "upper": chain["latency_ms"]["uppers"][name]}, "n": chain["n"],
                "asked_when_timed": chain["asked"],
                "in_turns_ms": {"p50": again.p50_ms, name: again.percentile_ms},
                "valid": chain["valid"], "invalid_because": chain["invalid_because"],
                "accuracy_test": number_at(right[chain["model_sha256"]], "metrics", "top1", "micro"), "n_test": right[chain["model_sha256"]]["n"],
                "alone_test": number_at(alone, "metrics", "top1", "micro"),
            }  # fmt: skip
        found.append(line)
    machine = next(row["machine"] for row in rows if row["kind"] == "latency")
    result = {"schema": 1, "kind": "chain-predictions", "at": now(), "percentile": args.percentile, "chains": found, "machine": machine,
              "command": f"python -m benchmarks.studies.predicting RESULTS.jsonl DATASET --budgets {args.budgets} --work DIR --out FILE.json"}  # fmt: skip
    write_json(args.out, result)
    print(table(result))
    return result


def _measure(args: argparse.Namespace, budget_ms: float, told: dict) -> list[dict]:
    """Make a chain, and return the rows of it and of its members, timed in turns and asked on test rows."""
    place, out = args.work / f"within-{budget_ms:g}", args.work / f"within-{budget_ms:g}.jsonl"
    schemes = set(told["schemes"].values())
    pick = ["pick", args.results, "--chain", "--budget-ms", budget_ms, "--percentile", args.percentile, "--copy-to", place, "--fresh"]
    bench = ["bench", place / "chain.toml", *(place / name for name in told["bundles"]), "--out", out, "--data", args.dataset, "--samples", N_SAMPLES,
             "--machine", told["machine"], *(["--scheme", *schemes] if len(schemes) == 1 else [])]  # fmt: skip
    out.unlink(missing_ok=True)
    failed = run_steps([Step(tuple(map(str, words))) for words in (pick, bench)])
    if failed:
        raise Failure("not every chain could be timed:\n  " + "\n  ".join(failed))
    return read_rows([out])


def _off(predicted: float, timed: float) -> str:
    return f"{predicted:.2f} ({100 * (predicted / timed - 1):+.1f} %)"


def table(result: dict) -> str:
    """Return predictions beside what was timed as Markdown."""
    name = f"p{result['percentile']}"
    heads = ["within ms", "the chain", "submodels asked %, when timed", "p50 timed ms", "by members in turns", "when picked", f"{name} timed ms",
             "by members in turns", "when picked", "best alone", "validation rows won, lost", "test %, alone %"]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---:|---|" + "---:|" * 7 + "---|---:|---:|"]
    for line in result["chains"]:
        chain, predicted = line["chain"], line["predicted_ms"]
        parts = [f"{member} for {scope}" + (f" under {chain['thresholds'][scope]:.0%}" if scope in chain["thresholds"] else "")
                 for scope, member in chain["verticals"].items()]  # fmt: skip
        told = f"{chain['general']}, then {', '.join(parts)}" if parts else f"{chain['general']} alone: no submodel pays"
        cells = [f"{line['budget_ms']:g}", told, f"{100 * sum(line['asked'].values()):.1f}"]
        cells[-1] += f", {100 * sum(line['asked_when_timed'].values()):.1f}" if "timed_ms" in line else ""
        if "timed_ms" in line:
            mark = "" if line["valid"] else " INVALID"
            for key in ("p50", name):
                ms = line["timed_ms"][key]
                cells += [f"{ms:.2f}{mark}", _off(line["in_turns_ms"][key], ms), _off(predicted[key], ms)]
            alone = line["alone"]
            cells += [f"{alone['member']}, at most {alone['upper_ms']:.2f} ms", f"{alone['won']}, {alone['lost']}"]
            cells.append(f"{100 * line['accuracy_test']:.2f}, {100 * line['alone_test']:.2f}")
        else:
            cells += ["", "", f"{predicted['p50']:.2f}", "", "", f"{predicted[name]:.2f}", "", "", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
