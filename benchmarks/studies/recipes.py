"""What a recipe's fields do in whole trainings, head phase and all: pairs of arms over seeds, by our own command lines.

python -m benchmarks.studies.recipes distill DATASET --weights v2-b0=FILE --weights b0=FILE --work DIR --out benchmarks/results/recipes-distill.json
python -m benchmarks.studies.recipes tail DATASET --weights v2-b0=FILE --work DIR --out benchmarks/results/recipes-tail.json
python -m benchmarks.studies.recipes tree DATASET --weights v2-b0=FILE --work DIR --out benchmarks/results/recipes-tree.json

Killed, the same command goes on: what is trained and evaluated in DIR is passed over.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from benchmarks.studies.ablation import long_tail, summarize, table, tail_figures, tree_figures
from benchmarks.studies.parts import exit_code_of, write_part
from family.data.dataset import Dataset, open_dataset
from family.errors import Failure, UserError
from family.outputs import is_done, read_json, whole_folder, write_json
from family.plan.members import published
from family.plan.steps import Step, run_steps

# bfloat16 trains V2-B0 1.2 times as fast, where the processor has it, and B0, whose depthwise convolutions fill it, half as fast.
TEACHER = {"variant": "v2-b0", "fields": {"finetune_epochs": 4, "precision": "mixed_bfloat16"}}
# Lite starts from B0's convolutions, whose BatchNorm statistics don't hold without squeeze-and-excite: one phase, BatchNorm learns.
_LITE = {"head_epochs": 0, "batchnorm": "train", "finetune_rate": 0.008, "batchnorm_momentum": 0.95}


@dataclass(frozen=True)
class Comparison:
    """Students (or single members) and the arms that each is trained with; the first arm is what the others are compared with."""

    members: dict[str, dict]  # variant -> fields of its recipe, in all arms
    arms: dict[str, dict]
    taught: tuple[str, ...] = ()  # the arms with a teacher
    seeds: int = 1
    is_long_tailed: bool = False  # trained on a long-tailed copy


COMPARISONS = {
    "distill": Comparison(
        members={"b0": {}, "lite0": _LITE},
        arms={"labels": {}, "distilled": {"label": "distilled", "distill_weight": 0.8, "label_smoothing": 0.0}},
        taught=("distilled",),
        seeds=3,
    ),
    "tail": Comparison({"v2-b0": {}}, {"plain": {}, "logit_adjustment 1": {"logit_adjustment": 1.0}}, is_long_tailed=True),
    "tree": Comparison({"v2-b0": {}}, {"plain": {}, "tree_weight 2": {"tree_weight": 2.0}}),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.recipes", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=sorted(COMPARISONS))
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("--weights", action="append", required=True, metavar="VARIANT=FILE", help="the pretrained trunk of a variant")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="for runs, evaluations and features")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--resolution", type=int, default=128, metavar="PX")
    parser.add_argument("--epochs", type=int, default=4, metavar="N", help="of the second phase (default 4)")
    parser.add_argument("--seeds", type=int, metavar="N", help="(default: 3 of distill, 1 of the others)")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="key=value", help="change a field in all trainings")
    args = parser.parse_args()
    args.work = args.work / args.what  # arms of two comparisons may have one name
    return exit_code_of(lambda: measure(args))


def measure(args: argparse.Namespace) -> dict:
    """Train and evaluate all arms with all seeds and write what came out.

    Raises:
        Failure: a training or an evaluation failed.
    """
    from benchmarks.machine import describe_machine, now
    from benchmarks.training.command import training_versions

    comparison, dataset = COMPARISONS[args.what], open_dataset(args.dataset)
    seeds = range(args.seeds or comparison.seeds)
    datasets = {seed: _dataset_of(comparison, dataset, args.work, seed) for seed in seeds}
    failed = run_steps(steps(args, comparison, datasets))
    if failed:
        raise Failure("not everything could be trained:\n  " + "\n  ".join(failed))
    figures = {
        variant: [{arm: _figures(args, comparison, datasets[seed], _name(variant, arm, seed)) for arm in comparison.arms} for seed in seeds]
        for variant in comparison.members
    }
    result = {
        "schema": 1,
        "kind": f"recipes-{args.what}",
        "at": now(),
        "command": f"python -m benchmarks.studies.recipes {args.what} DATASET --weights VARIANT=FILE ... --work DIR --out FILE.json "
        f"--resolution {args.resolution} --epochs {args.epochs} --seeds {len(seeds)}" + "".join(f" --set {text}" for text in args.settings),
        "dataset": {"name": dataset.about["name"], "digest": dataset.digest},
        "rows": "a long-tailed copy for each seed, all test rows" if comparison.is_long_tailed else "all",
        "resolution_px": args.resolution,
        "epochs": args.epochs,
        "members": comparison.members,
        "arms": comparison.arms,
        "teacher": {**TEACHER, **_teacher_figures(args)} if comparison.taught else None,
        "summary": {variant: summarize(of_seeds) for variant, of_seeds in figures.items()},
        "seeds": figures,
        "train_s": {variant: [[_train_s(args, _name(variant, arm, seed)) for arm in comparison.arms] for seed in seeds]
                    for variant in comparison.members},
        "machine": describe_machine(),
        "versions": training_versions(),
    }  # fmt: skip
    write_json(args.out, result)
    for variant, summary in result["summary"].items():
        print(f"\n{variant}\n{table(summary)}")
    return result


def steps(args: argparse.Namespace, comparison: Comparison, datasets: dict[int, Path]) -> list[Step]:
    """Return the command lines: a pure function. The teacher first, then trainings, then evaluations, so that TensorFlow starts once for each."""
    files = dict(text.split("=", 1) for text in args.weights if "=" in text)
    trainings, evaluations = [], []

    def train(name: str, dataset: Path, variant: str, fields: dict, *more: str) -> None:
        run = args.work / "runs" / name
        source = files.get(variant) or files.get(published(variant))
        if source is None:
            raise UserError(f"--weights {published(variant)}=FILE is wanted for {variant}")
        fields = {"resolution_px": args.resolution, "finetune_epochs": args.epochs, **fields}
        words = ["train", str(dataset), "--out", str(run), "--variant", variant, "--weights", source, "--resume"]
        words += ["--features", str(args.work / "features"), *more]
        words += [word for setting in (*(f"{key}={value}" for key, value in fields.items()), *args.settings) for word in ("--set", setting)]
        trainings.append(Step(tuple(words)))
        evaluations.append(Step(("evaluate", str(run), str(dataset), "--out", str(args.work / "evaluations" / name)), (run / "card.json",)))

    if comparison.taught:
        train("teacher", args.dataset, TEACHER["variant"], TEACHER["fields"])
    for seed, dataset in datasets.items():
        for variant, shared in comparison.members.items():
            for arm, fields in comparison.arms.items():
                taught = ("--teacher", str(args.work / "runs" / "teacher")) if arm in comparison.taught else ()
                train(_name(variant, arm, seed), dataset, variant, {**shared, **fields, "seed": seed}, *taught)
    return trainings + evaluations


def _name(variant: str, arm: str, seed: int) -> str:
    return f"{variant}-{arm.replace(' ', '-')}-{seed}"


def _dataset_of(comparison: Comparison, dataset: Dataset, work: Path, seed: int) -> Path:
    """Return the folder of the dataset that a seed trains on: the given one, or a long-tailed copy of it, made when it is not there."""
    if not comparison.is_long_tailed:
        return dataset.folder
    folder, made_of = work / f"long-tail-{seed}", {"command": "long tail", "dataset": dataset.digest, "seed": seed}
    if not is_done(folder, made_of):
        with whole_folder(folder, made_of) as partial:
            write_long_tail(dataset, partial, seed)
    return folder


def write_long_tail(dataset: Dataset, folder: Path, seed: int) -> None:
    """Write a dataset whose training rows are a long-tailed part of another's."""
    rows = dataset.rows("train")
    kept = set(rows.images[long_tail(rows.labels, seed)].tolist())
    table = zip(dataset.table["split"].to_pylist(), dataset.table["image"].to_pylist(), strict=True)
    write_part(dataset, folder, [split != "train" or image in kept for split, image in table], f"long-tail-{seed}")


def _figures(args: argparse.Namespace, comparison: Comparison, folder: Path, name: str) -> dict[str, float]:
    """Return a run's figures on the test rows, from its predictions."""
    dataset = open_dataset(folder)
    ontology, train = dataset.ontology, dataset.rows("train")
    answered = pa.parquet.read_table(args.work / "evaluations" / name / "predictions.parquet", columns=["true_id", "top_ids"])
    labels = np.array([ontology.class_of[true] for true in answered["true_id"].to_pylist()])
    answers = np.array([ontology.class_of[top[0]] for top in answered["top_ids"].to_pylist()])
    counts = np.bincount(train.labels, minlength=len(ontology.leaves))
    tail, tree = tail_figures(counts, labels, answers), tree_figures(ontology, labels, answers)
    return tail if comparison.is_long_tailed else {"top1": tail["top1"], "macro": tail["macro"], **tree}


def _teacher_figures(args: argparse.Namespace) -> dict[str, float]:
    top1 = read_json(args.work / "evaluations" / "teacher" / "metrics.json")["top1"]
    return {"top1": top1["micro"], "macro": top1["macro"]}


def _train_s(args: argparse.Namespace, name: str) -> float:
    return round(sum(phase["s"] + phase.get("features_s", 0) for phase in read_json(args.work / "runs" / name / "card.json")["training"]["phases"]), 1)


if __name__ == "__main__":
    sys.exit(main())
