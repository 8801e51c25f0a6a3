"""`family produce`: the whole family of a dataset: train, export, evaluate, bench, report; here, or as arrays on a cluster."""

import argparse
import shutil
import time
from collections import Counter
from pathlib import Path

from family import cli
from family.card import FILE as CARD
from family.data.dataset import open_dataset
from family.errors import Failure, OtherOutput, UserError, unknown_name
from family.machine import n_cores
from family.outputs import locked, move_aside
from family.plan import cluster
from family.plan.chaining import chain_step, renewed, write_chains
from family.plan.estimate import LOG, Clock, output_of, room_bytes, size, span, with_times, works_of
from family.plan.lines import plan
from family.plan.members import Member, chains_of, read_members, tables
from family.plan.selection import select
from family.plan.sharing import FOLDER as FEATURES
from family.plan.steps import Step, run_steps, standing
from family.progress import next_command

STAGES = ("train", "export", "evaluate", "bench", "report")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="gets runs/, bundles/, evaluations/, results.jsonl and report/"
    )
    parser.add_argument("--members", default="quick", help=f"{', '.join(sorted(tables()))} or a TOML file (default quick)")
    parser.add_argument(
        "--weights", action="append", default=[], metavar="[VARIANT=]FILE",
        help="an HDF5 file for members that start from imagenet; may be given for each variant (lite0 takes that of b0)",
    )  # fmt: skip
    parser.add_argument("--from", dest="earlier", type=Path, metavar="DIR",
                        help="an earlier family, of another version of the tree: each member starts from its namesake's run, with its head")  # fmt: skip
    parser.add_argument("--mapping", type=Path, metavar="MAPPING.csv", help="with --from: the categories that changed (old,new), as `train "
                        "--carry-head` takes them")  # fmt: skip
    parser.add_argument("--only", metavar="STAGES", help=f"of {','.join(STAGES)} (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="say what there is to do, print the command lines and end")
    parser.add_argument("--fresh", action="store_true", help="make everything anew; an old DIR is moved aside")
    cluster.arguments(parser)


def run(args: argparse.Namespace) -> int:
    stages = _stages(args.only)
    _check_earlier(args)
    cluster.check(args, stages)
    dataset, here = open_dataset(args.dataset), args.cluster is None
    members = select(read_members(args.members, args.weights), dataset, args.earlier, args.mapping)
    works = works_of(members, dataset, n_cores(), here)
    if args.fresh and args.out.exists() and not args.dry_run:
        with locked(args.out):  # or an error: somebody is at it
            print(f"moved the old {args.out} to {move_aside(args.out)}")
    chains = chains_of(members, lambda scope: dataset.scope(scope).leaves)
    planned = plan(args.dataset, args.out, members, chains if here else [], here)
    steps = with_times([renewed(step, args.out, chains) for step in planned if step.stage in stages], members, works)
    found = [_standing(step) for step in steps]
    left = [step for step, what in zip(steps, found, strict=True) if not what]
    clock = Clock(steps, len(members), args.out / LOG, time.monotonic)
    clock.expect(left)
    _say(members, steps, left, clock, here)
    _check_room(args.out, room_bytes(left, members, works, here))
    if not here:
        for chain in chains:
            print(f"not among the jobs; when they are over: {chain_step(args.dataset, args.out, chain)}")
    if args.dry_run:
        if here:
            print("\n".join(map(str, left)))
            return 0
        return cluster.hand_over(args, members, left)
    with locked(args.out):
        write_chains(args.out, chains)
        if not here:
            return cluster.hand_over(args, members, left)
        failed = run_steps(steps, clock)
        _drop_features(args.out, planned)
    _end(args)
    if failed:
        raise Failure("not everything could be made:\n  " + "\n  ".join(failed))
    return 0


def _check_earlier(args: argparse.Namespace) -> None:
    """Refuse an earlier family that is none, or this one.

    Raises:
        UserError: says so.
    """
    if args.earlier is None:
        if args.mapping:
            raise UserError(f"--mapping {args.mapping}: for --from DIR, which is not given")
        return
    if args.earlier.resolve() == args.out.resolve():
        raise UserError(f"--from and --out are the same folder, {args.out}; a new version of the tree makes a family of its own")
    if not (args.earlier / "runs").is_dir():
        raise UserError(f"--from {args.earlier} is no family (it has no runs/); wanted the DIR of an earlier `family produce --out DIR`")


def _stages(text: str | None) -> tuple[str, ...]:
    wanted = text.split(",") if text else STAGES
    for name in wanted:
        if name not in STAGES:
            raise unknown_name("stage", name, STAGES)
    return tuple(wanted)


def _standing(step: Step) -> str:
    """Return how a step stands.

    Raises:
        UserError: its place holds what was made of other inputs; nothing was begun.
    """
    try:
        return standing(step)
    except OtherOutput as error:
        raise UserError(f"{error}. For `produce`, --fresh moves all of its DIR aside") from error


def _say(members: list[Member], steps: list[Step], left: list[Step], clock: Clock, here: bool) -> None:
    stages = Counter(step.stage for step in steps)
    counted = ", ".join(f"{n} {stage}" for stage, n in stages.items())
    print(f"{len(members)} members: {', '.join(member.folder for member in members)}")
    print(f"{len(steps)} steps: {counted}; {len(steps) - len(left)} are done")
    if left:
        by = "corrected by what members took here" if clock.is_corrected else (
            "from one measured machine and the variants' multiply-adds; corrected when the first member is trained"
        )  # fmt: skip
        print(f"about {span(clock.left_s())} on the {n_cores()} cores here (rough: {by})")
        if not here:
            print("`family forecast` tells of other machines")


def _check_room(out: Path, wanted_bytes: float) -> None:
    """Say how much disk is wanted and free.

    Raises:
        UserError: it cannot fit.
    """
    place = next(path for path in [out.absolute(), *out.absolute().parents] if path.exists())
    free_bytes = shutil.disk_usage(place).free
    print(f"about {size(wanted_bytes)} of disk at most; {size(free_bytes)} are free", flush=True)
    if wanted_bytes > free_bytes:
        raise UserError(f"{out}: about {size(wanted_bytes)} are wanted and {size(free_bytes)} are free; make room, or choose another --out "
                        "or fewer members")  # fmt: skip


def _drop_features(out: Path, planned: list[Step]) -> None:
    """Remove what members shared, unless one of them is still to be trained."""
    if all((output_of(step) / CARD).is_file() for step in planned if "--features" in step.words):
        shutil.rmtree(out / FEATURES, ignore_errors=True)


def _end(args: argparse.Namespace) -> None:
    results = args.out / "results.jsonl"
    if results.is_file():
        cli.main(["show", str(results)])
        print(next_command("pick", results, "--budget-ms", 20, "--copy-to", "best"))
    if (args.out / "report" / "report.html").is_file():
        print((args.out / "report" / "report.html").absolute())
