"""What losses and sampling do for long tails, and what the tree in the loss does for mistakes: heads on frozen features, over seeds.

python -m benchmarks.studies.ablation tail DATASET --weights FILE --out benchmarks/results/ablation-tail.json
python -m benchmarks.studies.ablation tree DATASET --weights FILE --out benchmarks/results/ablation-tree.json
"""

import argparse
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.studies.heads import arguments
from benchmarks.studies.parts import exit_code_of

# Each arm: its fields of the recipe. The first is what the others are compared with.
ARMS = {
    "tail": {
        "plain": {},
        "sampling_power 0.5": {"sampling_power": 0.5},
        "sampling_power 0": {"sampling_power": 0.0},
        "class_balance 0.9": {"class_balance": 0.9},
        "class_balance 0.99": {"class_balance": 0.99},
        "logit_adjustment 0.5": {"logit_adjustment": 0.5},
        "logit_adjustment 1": {"logit_adjustment": 1.0},
    },
    "tree": {
        "plain": {},
        "tree_weight 0.25": {"tree_weight": 0.25},
        "tree_weight 0.5": {"tree_weight": 0.5},
        "tree_weight 1": {"tree_weight": 1.0},
        "tree_weight 2": {"tree_weight": 2.0},
        "tree_weight 4": {"tree_weight": 4.0},
    },
}
LONGEST, RATIO = 150, 50  # rows of the largest class of a long-tailed copy, and how many times those of the smallest


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.ablation", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=sorted(ARMS))
    arguments(parser)
    args = parser.parse_args()
    return exit_code_of(lambda: measure(args))


def measure(args: argparse.Namespace) -> dict:
    """Train all arms with all seeds and write what came out."""
    from benchmarks.machine import describe_machine, now
    from benchmarks.studies.heads import freeze
    from benchmarks.training.command import training_versions
    from family.data.dataset import open_dataset
    from family.outputs import write_json
    from family.recipe import read_recipe

    dataset, arms = open_dataset(args.dataset), ARMS[args.what]
    recipe = read_recipe("transfer", [f"resolution_px={args.resolution}"])
    with nullcontext(args.features) if args.features else tempfile.TemporaryDirectory(prefix="family-ablation-") as folder:
        frozen = freeze(dataset, args.variant, args.weights, recipe, Path(folder))
    seeds = []
    for seed in range(args.seeds):
        of_seed = {}
        for name, fields in arms.items():
            of_seed[name] = measure_arm(args.what, frozen, replace(recipe, seed=seed, **fields))
            print(f"seed {seed}, {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in of_seed[name].items()), flush=True)
        seeds.append(of_seed)
    result = {
        "schema": 1,
        "kind": f"ablation-{args.what}",
        "at": now(),
        "command": f"python -m benchmarks.studies.ablation {args.what} DATASET --weights FILE --out benchmarks/results/ablation-{args.what}.json",
        "dataset": {"name": dataset.about["name"], "digest": dataset.digest},
        "rows": f"a long-tailed copy: {LONGEST} training rows of the largest class, {RATIO} times those of the smallest; all test rows"
        if args.what == "tail" else "all",
        "variant": args.variant,
        "resolution_px": args.resolution,
        "recipe": "transfer, head phase only",
        "arms": arms,
        "summary": summarize(seeds),
        "seeds": seeds,
        "machine": describe_machine(),
        "versions": training_versions(),
    }  # fmt: skip
    write_json(args.out, result)
    print(table(result["summary"]))
    return result


def measure_arm(what: str, frozen, recipe) -> dict[str, float]:
    """Train one head and return its figures on the test rows."""
    from benchmarks.studies.heads import logits_of_head, new_head, train_head

    rows, labels = frozen.rows["train"], frozen.labels
    kept = long_tail(labels["train"], recipe.seed) if what == "tail" else np.arange(len(rows))
    head = new_head(frozen.features["train"].shape[1], len(rows.ontology.leaves), recipe)
    epochs = train_head(head, frozen.features["train"][kept], labels["train"][kept], rows.ontology, recipe)
    answers = logits_of_head(head, frozen.features["test"]).argmax(1)
    counts = np.bincount(labels["train"][kept], minlength=len(rows.ontology.leaves))
    figures = tail_figures(counts, labels["test"], answers) if what == "tail" else tree_figures(rows.ontology, labels["test"], answers)
    return {**figures, "epochs": epochs}


def long_tail(labels: np.ndarray, seed: int) -> np.ndarray:
    """Draw rows so that classes, from the largest to the smallest, get LONGEST to LONGEST / RATIO rows, or what they have.

    *Source*: the exponential profile of Cui et al. 2019 (1901.05555), section 5.1.
    """
    draw = np.random.default_rng((seed, len(labels)))
    counts = np.bincount(labels)
    order = np.argsort(-counts, kind="stable")
    wanted = np.maximum(1, np.rint(LONGEST * RATIO ** (-np.arange(len(order)) / max(1, len(order) - 1)))).astype(int)
    kept = [draw.permutation(np.flatnonzero(labels == label))[:n] for label, n in zip(order, wanted, strict=True)]
    return np.sort(np.concatenate(kept))


def tail_figures(counts: np.ndarray, labels: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    """Return top-1 micro, macro, and macro over the third of the classes with the most and with the fewest training rows.

    Args:
        counts: int [n_classes], training rows.
    """
    right = answers == labels
    present = np.bincount(labels, minlength=len(counts))
    of_class = np.bincount(labels, weights=right, minlength=len(counts)) / np.maximum(1, present)
    thirds = np.array_split([k for k in np.argsort(-counts, kind="stable") if present[k]], 3)
    return {"top1": float(right.mean()), "macro": float(of_class[present > 0].mean()), "head_third": float(of_class[thirds[0]].mean()),
            "tail_third": float(of_class[thirds[2]].mean())}  # fmt: skip


def tree_figures(ontology, labels: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    """Return top-1, accuracy at level 1, and severity: the mean over mistakes, and over all rows (right ones count 0)."""
    from family.evaluation.severity import severities

    node_of = ontology.level(1)[1]
    found = severities(ontology, labels, answers)
    wrong = answers != labels
    return {"top1": float(1 - wrong.mean()), "level_1": float((node_of[answers] == node_of[labels]).mean()),
            "severity_of_mistakes": float(found[wrong].mean()), "severity_of_rows": float(found.mean())}  # fmt: skip


def summarize(seeds: list[dict]) -> dict:
    """Return for each arm and figure the mean and spread over seeds, and the same of its difference from the first arm's, by seed.

    A difference is "shown" where its interval (mean +- t x standard error over seeds, 95 %) leaves out 0.
    """
    base = next(iter(seeds[0]))
    told = {}
    for arm in seeds[0]:
        told[arm] = {}
        for figure in seeds[0][arm]:
            values = np.array([row[arm][figure] for row in seeds])
            less = values - [row[base][figure] for row in seeds]
            half = float(t_975(len(seeds) - 1) * less.std(ddof=1) / len(seeds) ** 0.5) if len(seeds) > 1 else None
            told[arm][figure] = {"mean": float(values.mean()), "min": float(values.min()), "max": float(values.max()),
                                 "difference": float(less.mean()), "half_width": half,
                                 "shown": half is not None and bool(abs(less.mean()) > half)}  # fmt: skip
    return told


def t_975(df: int) -> float:
    """Return Student's t quantile for two-sided 95 %. *Source*: any table, for instance Fisher and Yates 1938."""
    quantiles = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
    return quantiles[df - 1] if df <= len(quantiles) else 2.228


def table(summary: dict) -> str:
    """Return the summary as Markdown: means, and differences with their intervals over seeds."""
    figures = list(next(iter(summary.values())))
    lines = ["| | " + " | ".join(figures) + " |", "|---" * (len(figures) + 1) + "|"]
    for n, (arm, found) in enumerate(summary.items()):
        cells = []
        for figure in figures:
            one = found[figure]
            scale, digits = (1, 1) if figure == "epochs" else (1, 3) if figure.startswith("severity") else (100, 2)
            change = f" ({_change(one, scale, digits)})" if n else ""
            cells.append(f"{one['mean'] * scale:.{digits}f}{change}")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _change(one: dict, scale: int, digits: int) -> str:
    """Say a difference from the first arm with the half width of its interval; of one seed there is none."""
    told = f"{one['difference'] * scale:+.{digits}f}"
    if one["half_width"] is None:
        return f"{told}, one seed"
    return f"{told} ± {one['half_width'] * scale:.{digits}f}" + ("" if one["shown"] else ", not shown")


if __name__ == "__main__":
    sys.exit(main())
