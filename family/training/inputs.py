"""What a run is a function of: another one with the same inputs is the same run."""

import argparse
import hashlib
from pathlib import Path

from family.data.dataset import Dataset
from family.data.scopes import scope_name, scope_subtrees
from family.models.carrying import HeadPlan, plan_from_run
from family.models.sources import weights_path
from family.recipe import Recipe, to_toml


def inputs_of(args: argparse.Namespace, dataset: Dataset, recipe: Recipe) -> dict:
    """Return a training's inputs by name: digests of data, tree, weights and teachers, and the recipe's fields."""
    # Not the ranks and not how often it saves: they don't change what comes out.
    fields = _fields(recipe)
    return {"command": "train", "dataset": dataset.digest, "ontology": dataset.ontology.digest, "variant": args.variant,
            "scope": scope_name(args.scope), "subtrees": scope_subtrees(args.scope), "weights": digest_weights(args.weights),
            "teachers": [digest_weights(str(teacher)) for teacher in args.teacher],
            "head": plan.digest if (plan := plan_head(args, dataset)) else None, **fields}  # fmt: skip


def _fields(recipe: Recipe) -> dict[str, str]:
    fields = {line.split(" = ")[0]: line.split(" = ", 1)[1] for line in to_toml(recipe).splitlines()}
    del fields["checkpoint_interval_s"], fields["checkpoints_kept"]
    return fields


def plan_head(args: argparse.Namespace, dataset: Dataset) -> HeadPlan | None:
    """Return where the head's rows come from; None where they are initialised."""
    if args.carry_head is None:
        return None
    mapping = Path(args.carry_head) if args.carry_head else None
    return plan_from_run(args.weights, args.variant, dataset.ontology, dataset.scope(args.scope).leaves, mapping)


def digest_weights(source: str) -> str:
    """Return the name of a download, or the sha256 of a file or of a run's weights: the same path may hold others tomorrow."""
    path = weights_path(source)
    if not path.is_file():
        return source
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# What a run stands for that an earlier version made, which knew fewer fields: new ones change nothing by default.
DEFAULTS = {**_fields(Recipe()), "teachers": [], "head": None}
