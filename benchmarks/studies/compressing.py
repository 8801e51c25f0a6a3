"""What `family compress` does to runs, beside the export of the runs as they are: accuracy of fp32 and int8, and bytes, over seeds.

python -m benchmarks.studies.compressing DATASET --run RUN [--run RUN ...] --work DIR --out benchmarks/results/compressing-NAME.json [--seeds 3]

Killed, the same command goes on: what is trained, exported and evaluated in DIR is passed over.
"""

import argparse
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from benchmarks.studies.parts import exit_code_of
from family.card import read_card
from family.data.dataset import open_dataset
from family.errors import Failure
from family.evaluation.paired import count_differing, is_shown, micro_interval
from family.outputs import read_json, write_json
from family.plan.steps import Step, run_steps

SOURCE = "as trained"
# `longer` is `qat` without the roundings: what more training alone does.
ARMS = {"longer": {"compression": "", "label": "longer"}, "qat": {}, "prune": {}, "cluster": {}}
SCHEMES = ("fp32", "int8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.compressing", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("--run", type=Path, action="append", required=True, metavar="RUN", help="a trained run; several")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="for runs, bundles and evaluations")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--arms", default=",".join(ARMS), help=f"(default {','.join(ARMS)})")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="of the arms longer and qat; the others have one (default 3)")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="key=value", help="change a field in all trainings")
    args = parser.parse_args()
    return exit_code_of(lambda: measure(args))


def measure(args: argparse.Namespace) -> dict:
    """Compress, export and evaluate, and write what came out.

    Raises:
        Failure: a step failed; a scheme that an export refuses is told in the result.
    """
    from benchmarks.machine import describe_machine, now
    from benchmarks.training.command import training_versions

    dataset = open_dataset(args.dataset)
    names = {run: names_of(run, args) for run in args.run}
    told = run_steps(steps(args, names))
    bundles = [args.work / "bundles" / name for of in names.values() for seeds in of.values() for name in seeds]
    evaluate_bundles(args, bundles, told)
    members = {read_card(run)["name"]: {arm: [row(args.work, name, of[SOURCE][0]) for name in seeds] for arm, seeds in of.items()}
               for run, of in names.items()}  # fmt: skip
    result = {
        "schema": 1,
        "kind": "compressing",
        "at": now(),
        "command": f"python -m benchmarks.studies.compressing DATASET --run RUN ... --work DIR --out FILE.json --arms {args.arms} --seeds {args.seeds}"
        + "".join(f" --set {text}" for text in args.settings),
        "dataset": {"name": dataset.about["name"], "digest": dataset.digest},
        "members": members,
        "machine": describe_machine(),
        "versions": training_versions(),
    }
    write_json(args.out, result)
    for member, arms in members.items():
        print(f"\n{member}\n\n{table(arms)}")
    return result


def names_of(run: Path, args: argparse.Namespace) -> dict[str, list[str]]:
    """Return arm -> the names of its runs, one for each seed."""
    arms = [arm for arm in args.arms.split(",") if arm]
    seeds = {arm: range(args.seeds if arm in ("longer", "qat") else 1) for arm in arms}
    return {SOURCE: [run.name]} | {arm: [f"{run.name}-{arm}-{seed}" for seed in seeds[arm]] for arm in arms}


def steps(args: argparse.Namespace, names: dict[Path, dict[str, list[str]]]) -> list[Step]:
    """Return the command lines that train and export, stage after stage."""
    work, trainings, exports = args.work, [], []
    for run, of in names.items():
        for arm, of_arm in of.items():
            for seed, name in enumerate(of_arm):
                made = run if arm == SOURCE else work / "runs" / name
                if arm != SOURCE:
                    trainings.append(Step(_training(args, run, made, arm, seed), (run / "card.json",)))
                exports.append(exporting(args, made, work / "bundles" / name))
    return trainings + exports


def exporting(args: argparse.Namespace, run: Path, bundle: Path) -> Step:
    """Return the command line that exports a run."""
    words = ("export", str(run), "--out", str(bundle), "--schemes", ",".join(SCHEMES), "--calibrate", str(args.dataset))
    return Step(words, (run / "card.json",))


def evaluate_bundles(args: argparse.Namespace, bundles: list[Path], told: list[str]) -> None:
    """Evaluate every scheme that a bundle has; one that lacks int8 is what an export that refuses it leaves.

    Args:
        told: what failed before.

    Raises:
        Failure: a bundle is missing, or an evaluation failed.
    """
    if not all((bundle / "card.json").is_file() for bundle in bundles):
        raise Failure("not everything could be made:\n  " + "\n  ".join(told))
    if failed := run_steps([evaluation(args, bundle, scheme) for bundle in bundles for scheme in SCHEMES if scheme in read_card(bundle)["schemes"]]):
        raise Failure("not everything could be evaluated:\n  " + "\n  ".join(failed))


def evaluation(args: argparse.Namespace, bundle: Path, scheme: str) -> Step:
    """Return the command line that evaluates a file on the test rows."""
    out = args.work / "evaluations" / f"{bundle.name}-{scheme}"
    return Step(("evaluate", str(bundle), str(args.dataset), "--scheme", scheme, "--out", str(out)))


def _training(args: argparse.Namespace, run: Path, out: Path, arm: str, seed: int) -> tuple[str, ...]:
    """Return the command line of an arm; that of `longer` is spelt out, since nothing is compressed."""
    settings = [word for text in (f"seed={seed}", *args.settings) for word in ("--set", text)]
    if arm != "longer":
        return ("compress", str(run), str(args.dataset), "--out", str(out), "--method", arm, "--resume", *settings)
    card = read_card(run)
    label = ".".join(filter(None, (card.get("label"), ARMS[arm]["label"])))
    fields = {**ARMS[arm], "label": label, "resolution_px": card["resolution_px"], "aspect": card["preprocessing"]["aspect"],
              "activation": card.get("activation", "")}  # fmt: skip
    words = ("train", str(args.dataset), "--out", str(out), "--variant", card["variant"], "--scope", card["scope"], "--recipe", "qat", "--resume")
    return (*words, "--weights", str(run), "--carry-head", "--teacher", str(run), *(w for k, v in fields.items() for w in ("--set", f"{k}={v}")), *settings)


def row(work: Path, name: str, source: str) -> dict:
    """Return what came out of one run: for each scheme that was not refused its accuracies, bytes, and the difference from the source's int8."""
    card = read_card(work / "bundles" / name)
    found = {"compression": {key: value for key, value in card.get("compression", {}).items() if key != "ranges"},
             "s": sum(phase["s"] for phase in card["training"]["phases"])}  # fmt: skip
    for scheme in SCHEMES:
        if scheme not in card["schemes"]:
            found[scheme] = {"refused": card.get("refused", {}).get(scheme, {}).get("gate", {}).get("verdict", "no int8")}
            continue
        data = (work / "bundles" / name / card["schemes"][scheme]["file"]).read_bytes()
        metrics = read_json(work / "evaluations" / f"{name}-{scheme}" / "metrics.json")
        found[scheme] = {"top1": metrics["top1"], "levels": {k: {key: level[key] for key in ("micro", "macro")} for k, level in metrics["levels"].items()},
                         "mb": len(data) / 1e6, "zipped_mb": len(zlib.compress(data, 6)) / 1e6}  # fmt: skip
        if name != source and scheme in read_card(work / "bundles" / source)["schemes"]:
            found[scheme]["less_source"] = difference(*(_answers(work, f"{of}-{scheme}") for of in (name, source)))
    return found


def difference(ours: dict, theirs: dict) -> dict:
    """Return how many points of top-1 accuracy one way has over another on the same rows, with an interval by listing."""
    d = ours["right"].astype(int) - theirs["right"].astype(int)
    interval = micro_interval(d, ours["listings"])
    return {"points": float(100 * d.mean()), "interval": [100 * end for end in interval],
            "shown": is_shown(interval, count_differing(d, ours["listings"]))}  # fmt: skip


def _answers(work: Path, name: str) -> dict:
    table = pa.parquet.read_table(work / "evaluations" / name / "predictions.parquet", columns=["listing_id", "true_id", "top_ids"])
    right = np.array([top[0] == true for top, true in zip(table["top_ids"].to_pylist(), table["true_id"].to_pylist(), strict=True)])
    return {"right": right, "listings": np.unique(table["listing_id"].to_pylist(), return_inverse=True)[1]}


def table(arms: dict[str, list[dict]]) -> str:
    """Return two Markdown tables: an arm a line, means over seeds; and accuracies at each level of the tree."""
    lines = ["| | seeds | fp32 top-1 | int8 top-1 | int8 macro | int8 less the run's own | zeros | values of a kernel | fp32 zipped, MB | int8 zipped, MB |",
             "|---|---:|---:|---:|---:|---|---:|---:|---:|---:|"]  # fmt: skip
    for arm, rows in arms.items():
        whole = [one for one in rows if "top1" in one["int8"]]
        cells = [arm, str(len(rows)), _mean([one["fp32"]["top1"]["micro"] * 100 for one in rows]),
                 _mean([one["int8"]["top1"]["micro"] * 100 for one in whole]), _mean([one["int8"]["top1"]["macro"] * 100 for one in whole]),
                 "; ".join(_change(one["int8"]["less_source"]) for one in whole if "less_source" in one["int8"]),
                 _mean([100 * one["compression"]["sparsity"] for one in rows if "sparsity" in one["compression"]], " %", 0),
                 _mean([one["compression"]["most_values"] for one in rows if arm == "cluster"], "", 0)]  # fmt: skip
        cells += [_mean([one[scheme]["zipped_mb"] for one in rows if "zipped_mb" in one[scheme]], "", 1) for scheme in SCHEMES]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_by_level(arms)])


def _by_level(arms: dict[str, list[dict]]) -> list[str]:
    """Return the lines of a Markdown table: micro accuracies of each seed and the mean of the macro ones, of int8, or of fp32 where int8 was refused."""
    levels = list(next(iter(arms.values()))[0]["fp32"]["levels"])
    lines = [f"| | file | | {' | '.join(f'level {k}' for k in levels)} |", f"|---|---|---|{'---|' * len(levels)}"]
    for arm, rows in arms.items():
        scheme = "int8" if all("levels" in one["int8"] for one in rows) else "fp32"
        found = [one[scheme]["levels"] for one in rows]
        micro = [" ".join(f"{100 * one[k]['micro']:.2f}" for one in found) for k in levels]
        lines.append(f"| {arm} | {scheme} | micro | {' | '.join(micro)} |")
        lines.append(f"| | | macro | {' | '.join(_mean([100 * one[k]['macro'] for one in found]) for k in levels)} |")
    return lines


def _mean(values: list[float], unit: str = "", digits: int = 2) -> str:
    return f"{np.mean(values):.{digits}f}{unit}" if values else ""


def _change(found: dict) -> str:
    low, high = found["interval"]
    return f"{found['points']:+.2f} ({low:+.2f} to {high:+.2f}{'' if found['shown'] else ', not shown'})"


if __name__ == "__main__":
    sys.exit(main())
