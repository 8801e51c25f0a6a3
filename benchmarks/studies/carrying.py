"""What carrying a head to a changed tree saves: epochs of the head phase, with the old rows and without them.

    python -m benchmarks.studies.carrying DATASET --weights FILE --out benchmarks/results/carrying.json

For each seed a twentieth of the categories is changed in five ways, an old head is trained on the old tree, and a new one on the new tree:
once from scratch, once from the old head's rows. The frozen trunk's features are computed once for all of them.
"""

import argparse
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.studies.heads import arguments
from benchmarks.studies.parts import exit_code_of
from family.data.ontology import SEPARATOR, Ontology, from_leaves
from family.errors import UserError

WITHIN = 0.002  # of the final accuracy from scratch, counts as having reached it
GROUP = 5  # new categories that one of each change makes: 1 renamed, 1 merged, 2 of a split, 1 new


@dataclass(frozen=True)
class Change:
    """Two versions of a tree, both made of the categories of a third, and the mapping file's rows between them."""

    old: Ontology
    new: Ontology
    old_labels: np.ndarray  # int32 [categories of the third]: the old class of each; -1: the old tree lacks it
    new_labels: np.ndarray
    mapping: list[tuple[str, str]]


def change_tree(base: Ontology, share: float, seed: int) -> Change:
    """Draw which categories change, the same number in each way, until `share` of the new ones are touched.

    A split is a pair of siblings that the old tree holds as one, so that its parts look different; a merge is a pair that the new tree does.

    Raises:
        UserError: the tree has too few leaves or siblings for that.
    """
    groups = max(1, round(share * len(base.leaves) / GROUP))
    draw = np.random.default_rng((seed, len(base.leaves)))
    pairs = _draw_pairs(base, 2 * groups, draw)
    in_pairs = {leaf for pair in pairs for leaf in pair}
    others = [leaf for leaf in base.leaves if leaf not in in_pairs]
    if len(pairs) < 2 * groups or len(others) < 2 * groups:
        raise UserError(f"{share:g} of {len(base.leaves)} categories is more than there are siblings for; wanted {2 * groups} pairs")
    chosen = [others[k] for k in draw.choice(len(others), 2 * groups, replace=False)]
    was_one, becomes_one, renamed, added = pairs[:groups], pairs[groups:], chosen[:groups], chosen[groups:]
    old = {leaf: (leaf, base.path_of[leaf]) for leaf in base.leaves if leaf not in added}
    new = {leaf: (leaf, base.path_of[leaf]) for leaf in base.leaves}
    new |= {leaf: (f"{leaf}-renamed", f"{base.path_of[leaf]}, renamed") for leaf in renamed}
    for joined, tree in ((was_one, old), (becomes_one, new)):
        for a, b in joined:
            tree[a] = tree[b] = (f"{a}-or-{b}", f"{base.path_of[a]} or {base.path_of[b].rpartition(SEPARATOR)[2]}")
    touched = [*renamed, *(leaf for pair in pairs for leaf in pair)]
    before, after = from_leaves(sorted(set(old.values()))), from_leaves(sorted(set(new.values())))
    return Change(
        before,
        after,
        np.array([before.class_of[old[leaf][0]] if leaf in old else -1 for leaf in base.leaves], np.int32),
        np.array([after.class_of[new[leaf][0]] for leaf in base.leaves], np.int32),
        [(old[leaf][0], new[leaf][0]) for leaf in touched],
    )


def _draw_pairs(base: Ontology, n: int, draw: np.random.Generator) -> list[tuple[str, str]]:
    """Draw up to n pairs of leaves of one parent, each parent once."""
    below: dict[str, list[str]] = {}
    for leaf in base.leaves:
        below.setdefault(base.path_of[leaf].rpartition(SEPARATOR)[0], []).append(leaf)
    families = [leaves for leaves in below.values() if len(leaves) > 1]
    chosen = draw.permutation(len(families))[:n]
    return [tuple(families[k][i] for i in sorted(draw.choice(len(families[k]), 2, replace=False))) for k in chosen]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.carrying", description=__doc__.splitlines()[0])
    arguments(parser)
    parser.add_argument("--share", type=float, default=0.05, help="of the categories that change (default 0.05)")
    args = parser.parse_args()
    return exit_code_of(lambda: measure(args))


def measure(args: argparse.Namespace) -> dict:
    """Measure all seeds and write the result."""
    from benchmarks.machine import describe_machine, now
    from benchmarks.studies.heads import freeze
    from benchmarks.training.command import training_versions
    from family.data.dataset import open_dataset
    from family.outputs import write_json
    from family.recipe import read_recipe

    dataset = open_dataset(args.dataset)
    recipe = read_recipe("transfer", [f"resolution_px={args.resolution}"])
    change_tree(dataset.ontology, args.share, 0)  # which refuses before the features are computed
    with nullcontext(args.features) if args.features else tempfile.TemporaryDirectory(prefix="family-carrying-") as folder:
        frozen = freeze(dataset, args.variant, args.weights, recipe, Path(folder))
    features, labels = frozen.features, frozen.labels
    seeds = []
    for seed in range(args.seeds):
        seeds.append(measure_seed(change_tree(dataset.ontology, args.share, seed), features, labels, replace(recipe, seed=seed)))
        print({key: value for key, value in seeds[-1].items() if key not in ("curves", "changed")}, flush=True)
    result = {
        "schema": 1,
        "kind": "carrying",
        "at": now(),
        "command": "python -m benchmarks.studies.carrying DATASET --weights FILE --out benchmarks/results/carrying.json",
        "dataset": {"name": dataset.about["name"], "digest": dataset.digest, **{split: len(found) for split, found in labels.items()}},
        "variant": args.variant,
        "resolution_px": args.resolution,
        "recipe": "transfer, head phase only",
        "share": args.share,
        "within": WITHIN,
        "summary": summarize(seeds),
        "seeds": seeds,
        "machine": describe_machine(),
        "versions": training_versions(),
    }
    write_json(args.out, result)
    print(result["summary"])
    return result


def measure_seed(change: Change, features: dict, labels: dict, recipe) -> dict:
    """Train an old head, then a new one from scratch and one from the old one's rows; return what each came to."""
    from benchmarks.studies.heads import SPLITS, new_head
    from family.models.carrying import plan_head

    plan = plan_head(list(change.old.leaves), [change.old.path_of[leaf] for leaf in change.old.leaves], change.new, change.mapping)
    n_features = features["train"].shape[1]
    known = {split: change.old_labels[labels[split]] >= 0 for split in SPLITS}
    old_labels = {split: change.old_labels[labels[split]][known[split]] for split in SPLITS}
    old = new_head(n_features, len(change.old.leaves), recipe)
    old_curve = train_curve(old, {split: features[split][known[split]] for split in SPLITS}, old_labels, change.old, recipe)
    new_labels = {split: change.new_labels[labels[split]] for split in SPLITS}
    scratch, carried = (new_head(n_features, len(change.new.leaves), recipe) for _ in range(2))
    rules = _without_training(plan, old.get_weights(), carried.get_weights(), features["test"], new_labels["test"])
    carried.set_weights(plan.rows(*old.get_weights(), *carried.get_weights()))
    curves = {
        name: train_curve(head, features, new_labels, change.new, recipe) for name, head in (("scratch", scratch), ("carried", carried))
    }
    about = {"seed": recipe.seed, "counts": plan.counts, "changed": change.mapping}
    about["old"] = {"epochs": len(old_curve) - 1, "test": old_curve[-1]["test"]}
    return {**about, **figures(curves), "without_training": rules, "curves": curves}


def figures(curves: dict[str, list[dict]]) -> dict:
    """Return what the two curves of a seed came to; the levels are those of the head from scratch, less `WITHIN`."""
    levels = {split: curves["scratch"][-1][split] - WITHIN for split in ("val", "test")}
    found = {"levels": levels}
    for name, curve in curves.items():
        found[name] = {f"epochs_to_{split}_level": epochs_to(curve, split, level) for split, level in levels.items()}
        found[name]["epochs_to_plateau"] = len(curve) - 1
        for when, k in (("before", 0), ("epoch_1", 1), ("final", -1)):
            found[name] |= {f"{split}_{when}": curve[k][split] for split in levels}
    return found


def train_curve(head, features: dict, labels: dict, ontology: Ontology, recipe) -> list[dict]:
    """Train a head and return {"val", "test"}, top-1 accuracies, before training and after each epoch, and "train" as it is counted
    while it trains."""
    from benchmarks.studies.heads import logits_of_head, train_head

    curve = []

    def note(train: float | None) -> None:
        found = {split: float((logits_of_head(head, features[split]).argmax(1) == labels[split]).mean()) for split in ("val", "test")}
        curve.append(found if train is None else {**found, "train": train})

    train_head(head, features["train"], labels["train"], ontology, recipe, note)
    return curve


def _without_training(plan, old: list, initial: list, features: np.ndarray, labels: np.ndarray) -> dict:
    """Return what the rules for merged rows give on the merged categories' own rows, before any training.

    "carried" is the rule that is used, "plain_mean" leaves out its logarithms, "exact" sums the old probabilities, which no row can.
    """
    logits = (features @ old[0] + old[1]).astype(np.float64)
    kernel, bias = plan.rows(*old, *initial)
    found = {rule: features @ kernel + bias for rule in ("carried", "plain_mean", "exact")}
    merged = [row for row, kind in enumerate(plan.kinds) if kind == "merged"]
    for row in merged:
        sources = list(plan.sources[row])
        found["plain_mean"][:, row] -= np.log(len(sources))
        found["exact"][:, row] = np.log(np.exp(logits[:, sources]).sum(1))
    own = np.isin(labels, merged)
    told = {}
    for name, values in found.items():
        powers = np.exp(values.astype(np.float64) - values.max(1, keepdims=True))
        probability = (powers / powers.sum(1, keepdims=True))[own, labels[own]]
        told[name] = {
            "n": int(own.sum()),
            "right": float((values[own].argmax(1) == labels[own]).mean()),
            "mean_p": float(probability.mean()),
        }
    return told


def epochs_to(curve: list[dict], split: str, level: float) -> int | None:
    """Return the first epoch whose accuracy on a split reaches a level, 0 before training; None if it never does."""
    return next((k for k, row in enumerate(curve) if row[split] >= level), None)


def summarize(seeds: list[dict]) -> dict:
    """Return mean, standard deviation and range over seeds of each figure, and of what carrying saves."""
    found = {f"{arm}.{key}": [row[arm][key] for row in seeds] for arm in ("scratch", "carried") for key in seeds[0][arm]}
    for key in ("epochs_to_val_level", "epochs_to_test_level", "epochs_to_plateau"):
        pairs = zip(found[f"scratch.{key}"], found[f"carried.{key}"], strict=True)
        found[f"saved.{key}"] = [None if None in pair else pair[0] - pair[1] for pair in pairs]
    found["gained.test_final"] = [b - a for a, b in zip(found["scratch.test_final"], found["carried.test_final"], strict=True)]
    return {name: _spread(values) for name, values in found.items()}


def _spread(values: list) -> dict:
    there = [value for value in values if value is not None]
    told = {"n": len(there), "never": len(values) - len(there)}
    if not there:
        return told
    sd = float(np.std(there, ddof=1)) if len(there) > 1 else None
    return {**told, "mean": float(np.mean(there)), "sd": sd, "min": min(there), "max": max(there)}


if __name__ == "__main__":
    sys.exit(main())
