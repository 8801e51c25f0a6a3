"""`family produce`: the whole family of a dataset: train, export, evaluate, bench, report."""

import argparse
import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from family.data.dataset import open_dataset
from family.data.scopes import scope_ontology
from family.errors import Failure, UserError, unknown_name
from family.plan.steps import Step, run_steps

FOLDER = Path(__file__).parent.parent / "members"


@dataclass(frozen=True)
class Member:
    """A row of a members table."""

    variant: str
    scope: str = "general"
    recipe: str = "transfer"
    weights: str = "imagenet"
    start_from: str = ""  # the name of an earlier member whose trunk it starts from
    name: str = ""  # of its folders; default: variant-scope
    ranks: int = 1
    schemes: str = "fp32,int8"
    set: dict | None = None  # fields of the recipe

    @property
    def folder(self) -> str:
        return self.name or f"{self.variant}-{self.scope}"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="gets runs/, bundles/, evaluations/, results.jsonl and report/"
    )
    parser.add_argument("--members", default="quick", help=f"{', '.join(sorted(tables()))} or a TOML file (default quick)")
    parser.add_argument("--weights", help="for members that start from imagenet: an HDF5 file instead")
    parser.add_argument("--dry-run", action="store_true", help="print the command lines and end")


def run(args: argparse.Namespace) -> int:
    members = _in_tree(read_members(args.members, args.weights), args.dataset)
    steps = plan(args.dataset, args.out, members)
    print(f"{len(members)} members: {', '.join(member.folder for member in members)}; {len(steps)} steps")
    if args.dry_run:
        print("\n".join(map(str, steps)))
        return 0
    failed = run_steps(steps)
    print(f"next: family pick {args.out / 'results.jsonl'} --budget-ms 20 --copy-to best")
    print((args.out / "report" / "report.html").absolute())
    if failed:
        raise Failure("not everything could be made:\n  " + "\n  ".join(failed))
    return 0


def _in_tree(members: list[Member], dataset: Path) -> list[Member]:
    """Leave out, and name, members whose scope the dataset's tree does not have."""
    ontology = open_dataset(dataset).ontology
    kept = []
    for member in members:
        try:
            scope_ontology(ontology, member.scope)
        except UserError as error:
            print(f"left out {member.folder}: {error}")
            continue
        kept.append(member)
    if not kept:
        raise UserError(f"no member has a scope that is in the tree of {dataset}")
    return kept


def tables() -> dict[str, Path]:
    """Return name -> TOML of the members tables that ship."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def read_members(name: str, weights: str | None = None) -> list[Member]:
    """Read a members table by name or file.

    Raises:
        UserError: no such table, an unknown field, or two members of one name.
    """
    known = tables()
    path = Path(name) if name.endswith(".toml") else known.get(name)
    if path is None:
        raise unknown_name("members table", name, known)
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8")).get("member", [])
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    allowed = [field.name for field in fields(Member)]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: members are tables, each under [[member]]")
    for row in rows:
        _check_row(row, allowed, path)
    members = [
        Member(**{**row, **({"weights": weights} if weights and row.get("weights", "imagenet") == "imagenet" else {})}) for row in rows
    ]
    names = [member.folder for member in members]
    if not members or len(set(names)) < len(names):
        raise UserError(f"{path} holds {'no members' if not members else 'two members of one name; give them a `name`'}")
    for k, member in enumerate(members):
        if member.start_from and member.start_from not in names[:k]:
            raise UserError(f"{path}: {member.folder} starts from {member.start_from!r}, which is no earlier member")
    return members


def _check_row(row: dict, allowed: list[str], path: Path) -> None:
    kinds = {"ranks": int, "set": dict}
    for key, value in row.items():
        if key not in allowed:
            raise unknown_name(f"field of a member in {path}", key, allowed)
        if type(value) is not kinds.get(key, str):
            raise UserError(f"{path}: {key} takes a {kinds.get(key, str).__name__}; got {value!r}")
    if "variant" not in row:
        raise UserError(f"{path}: a member has no variant; see `family list variants`")
    if not re.fullmatch(r"[\w.-]*", row.get("name", "")):
        raise UserError(f"{path}: the name {row['name']!r} becomes a folder; letters, digits, '_', '-' and '.' are allowed")


def plan(dataset: Path, out: Path, members: list[Member]) -> list[Step]:
    """Return the steps that make the family: a pure function of its arguments."""
    done = "card.json"
    steps = []
    for member in members:
        run = out / "runs" / member.folder
        source = str(out / "runs" / member.start_from) if member.start_from else member.weights
        words = ["train", dataset, "--out", run, "--variant", member.variant, "--scope", member.scope, "--recipe", member.recipe]
        words += ["--weights", source, "--resume", *(["--ranks", member.ranks] if member.ranks > 1 else [])]
        for key, value in (member.set or {}).items():
            words += ["--set", f"{key}={str(value).lower() if isinstance(value, bool) else value}"]
        needs = (dataset / "dataset.json", *([Path(source) / done] if member.start_from else []))
        steps.append(_step(words, needs, alone=member.ranks > 1))
    for member in members:
        run, bundle = out / "runs" / member.folder, out / "bundles" / member.folder
        words = ["export", run, "--out", bundle, "--schemes", member.schemes, "--calibrate", dataset]
        steps.append(_step(words, (run / done,)))
    for member in members:
        bundle = out / "bundles" / member.folder
        words = ["evaluate", bundle, dataset, "--out", out / "evaluations" / member.folder]
        steps.append(_step(words, (bundle / done,)))
    results = out / "results.jsonl"
    bundles = {str(out / "bundles" / member.folder): out / "bundles" / member.folder / done for member in members}
    steps.append(_step(["bench", *bundles, "--out", results, "--data", dataset], uses=bundles))
    steps.append(_step(["report", results, "--out", out / "report"], (results,)))
    steps.append(_step(["show", results], (results,)))
    return steps


def _step(words: list, needs: tuple = (), uses: dict | None = None, alone: bool = False) -> Step:
    return Step(tuple(map(str, words)), needs, uses, alone)
