"""`family produce`: the whole family of a dataset: train, export, evaluate, bench, report; here, or as arrays on a cluster."""

import argparse
import os
import shlex
import shutil
import time
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

from family import cli
from family.card import SCHEMES
from family.chains import ROUTINGS, chain_text
from family.data.dataset import Dataset, open_dataset
from family.data.scopes import scope_subtrees
from family.errors import Failure, OtherOutput, UserError, unknown_name
from family.models.sources import DOWNLOADS, NONE, weights_path
from family.models.variants import variant
from family.outputs import locked, move_aside, whole_file
from family.plan import cluster
from family.plan.estimate import LOG, Clock, count_rows, room_bytes, size, span, with_times, work_of
from family.plan.members import ChainOf, Member, chains_of, needs_file, published, read_members, tables
from family.plan.steps import Step, run_steps, standing

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
    parser.add_argument("--only", metavar="STAGES", help=f"of {','.join(STAGES)} (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="say what there is to do, print the command lines and end")
    parser.add_argument("--fresh", action="store_true", help="make everything anew; an old DIR is moved aside")
    cluster.arguments(parser)


def run(args: argparse.Namespace) -> int:
    stages = _stages(args.only)
    cluster.check(args)
    dataset = open_dataset(args.dataset)
    members, works = _startable(read_members(args.members, args.weights), dataset)
    if args.fresh and args.out.exists() and not args.dry_run:
        with locked(args.out):  # or an error: somebody is at it
            print(f"moved the old {args.out} to {move_aside(args.out)}")
    on_cluster = args.cluster is not None
    chains = chains_of(members, lambda scope: dataset.scope(scope).leaves)
    planned = plan(args.dataset, args.out, members, [] if on_cluster else chains, not on_cluster)
    steps = with_times([_renewed(step, args.out, chains) for step in planned if step.stage in stages], members, works)
    found = [_standing(step) for step in steps]
    left = [step for step, what in zip(steps, found, strict=True) if not what]
    clock = Clock(steps, len(members), args.out / LOG, time.monotonic)
    clock.expect(left)
    _say(members, steps, left, clock, on_cluster)
    _check_room(args.out, room_bytes(left, members, works))
    if on_cluster:
        if not args.dry_run:
            write_chains(args.out, chains)
        for chain in chains:
            print(f"not among the jobs; when they are over: {_chain_step(args.dataset, args.out, chain)}")
        return cluster.hand_over(args, members, left)
    if args.dry_run:
        print("\n".join(map(str, left)))
        return 0
    with locked(args.out):
        write_chains(args.out, chains)
        failed = run_steps(steps, clock)
    _end(args)
    if failed:
        raise Failure("not everything could be made:\n  " + "\n  ".join(failed))
    return 0


def _stages(text: str | None) -> tuple[str, ...]:
    wanted = text.split(",") if text else STAGES
    for name in wanted:
        if name not in STAGES:
            raise unknown_name("stage", name, STAGES)
    return tuple(wanted)


def _startable(members: list[Member], dataset: Dataset) -> tuple[list[Member], list]:
    """Return the members that this dataset has a scope for and that have weights to start from, with their work; name the others."""
    kept, works, left_out = [], [], {}
    for member in members:
        _check(member)
        why = _why_not(member, dataset, {name for names in left_out.values() for name in names})
        if why:
            left_out.setdefault(why, []).append(member.folder)
        else:
            works.append(work_of(member, dataset, len(os.sched_getaffinity(0))))
            kept.append(member)
    for why, names in left_out.items():
        print(f"left out {', '.join(names)}: {why}")
    if not kept:
        raise UserError(f"no member of the table can be made of {dataset.folder}; see above")
    return kept, works


def _check(member: Member) -> None:
    """Refuse what would fail only after hours.

    Raises:
        UserError: an unknown variant or scheme, or weights that are not there.
    """
    variant(member.variant)
    for scheme in member.schemes.split(","):
        if scheme not in SCHEMES:
            raise unknown_name(f"scheme of {member.folder}", scheme, SCHEMES)
    if not member.start_from and member.weights not in (NONE, *DOWNLOADS) and not weights_path(member.weights).is_file():
        raise UserError(f"{member.folder}: no weights at {weights_path(member.weights)}")


def _why_not(member: Member, dataset: Dataset, left_out: set[str]) -> str:
    """Return why a member can't be made of a dataset, or ""."""
    if needs_file(member):
        return f"no library publishes {member.variant}'s weights; give --weights {published(member.variant)}=FILE"
    if member.start_from in left_out:
        return f"{member.start_from} is left out"
    scope_subtrees(member.scope)  # or an error: no such vertical, or a file that can't be read
    try:
        n_rows = count_rows(dataset, member.scope)
    except UserError as error:
        return str(error)
    missing = [split for split in ("train", "val", "test") if not n_rows[split]]
    return f"{dataset.folder} has no {' and no '.join(missing)} rows in {member.scope}" if missing else ""


def _standing(step: Step) -> str:
    """Return how a step stands.

    Raises:
        UserError: its place holds what was made of other inputs; nothing was begun.
    """
    try:
        return standing(step)
    except OtherOutput as error:
        raise UserError(f"{error}. For `produce`, --fresh moves all of its DIR aside") from error


def _say(members: list[Member], steps: list[Step], left: list[Step], clock: Clock, on_cluster: bool) -> None:
    stages = Counter(step.stage for step in steps)
    counted = ", ".join(f"{n} {stage}" for stage, n in stages.items())
    print(f"{len(members)} members: {', '.join(member.folder for member in members)}")
    print(f"{len(steps)} steps: {counted}; {len(steps) - len(left)} are done")
    if left:
        by = "corrected by what members took here" if clock.is_corrected else (
            "from one measured machine and the variants' multiply-adds; corrected when the first member is trained"
        )  # fmt: skip
        print(f"about {span(clock.left_s())} on the {len(os.sched_getaffinity(0))} cores here (rough: {by})")
        if on_cluster:
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


def _end(args: argparse.Namespace) -> None:
    results = args.out / "results.jsonl"
    if results.is_file():
        cli.main(["show", str(results)])
        print(f"next: family pick {shlex.quote(str(results))} --budget-ms 20 --copy-to best")
    if (args.out / "report" / "report.html").is_file():
        print((args.out / "report" / "report.html").absolute())


def plan(dataset: Path, out: Path, members: list[Member], chains: list[ChainOf] = (), starts_ranks: bool = True) -> list[Step]:
    """Return the steps that make the family: a pure function of its arguments.

    Args:
        chains: to be evaluated too, by the files of `write_chains`.
        starts_ranks: members of several ranks start them; on a cluster the ranks are there.
    """
    done = "card.json"
    steps = []
    for k, member in enumerate(members, 1):
        run = out / "runs" / member.folder
        source = str(out / "runs" / member.start_from) if member.start_from else member.weights
        ranks = member.ranks if starts_ranks else 1
        words = ["train", dataset, "--out", run, "--variant", member.variant, "--scope", member.scope, "--recipe", member.recipe]
        words += ["--weights", source, "--resume", *(["--ranks", ranks] if ranks > 1 else [])]
        words += [word for setting in member.settings for word in ("--set", setting)]
        needs = (dataset / "dataset.json", *([Path(source) / done] if member.start_from else []))
        steps.append(_step(words, needs, alone=ranks > 1, member=k))
    for k, member in enumerate(members, 1):
        run, bundle = out / "runs" / member.folder, out / "bundles" / member.folder
        words = ["export", run, "--out", bundle, "--schemes", member.schemes, "--calibrate", dataset]
        steps.append(_step(words, (run / done,), member=k))
    for k, member in enumerate(members, 1):
        bundle = out / "bundles" / member.folder
        words = ["evaluate", bundle, dataset, "--out", out / "evaluations" / member.folder]
        steps.append(_step(words, (bundle / done,), member=k))
    steps += [_chain_step(dataset, out, chain) for chain in chains]
    results = out / "results.jsonl"
    bundles = {str(out / "bundles" / member.folder): out / "bundles" / member.folder / done for member in members}
    steps.append(_step(["bench", *bundles, "--out", results, "--data", dataset], uses=tuple(bundles.items())))
    steps.append(_step(["report", results, "--out", out / "report"], (results,)))
    return steps


def _chain_step(dataset: Path, out: Path, chain: ChainOf) -> Step:
    words = ["evaluate", _chain_file(out, chain), dataset, "--out", out / "evaluations" / chain.name]
    return _step(words, tuple(out / "bundles" / member.folder / "card.json" for member in (chain.general, *chain.verticals.values())))


def _renewed(step: Step, out: Path, chains: list[ChainOf]) -> Step:
    """Let a chain be evaluated anew where its members are others than those that were: it is made of them alone, and costs little."""
    chain = next((chain for chain in chains if step == _chain_step(Path(step.words[2]), out, chain)), None)
    if chain is None:
        return step
    anew = replace(step, words=(*step.words, "--fresh"))
    path = _chain_file(out, chain)
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != _chain_text(out, chain):
        return anew
    try:
        standing(step)
    except OtherOutput:
        return anew
    return step


def write_chains(out: Path, chains: list[ChainOf]) -> None:
    """Write the chains' files, which name bundles that need not be there yet. A file keeps the routing that somebody gave it."""
    for chain in chains:
        with whole_file(_chain_file(out, chain)) as partial:
            partial.write_text(_chain_text(out, chain), encoding="utf-8")


def _chain_text(out: Path, chain: ChainOf) -> str:
    verticals = {scope: out / "bundles" / member.folder for scope, member in chain.verticals.items()}
    path = _chain_file(out, chain)
    return chain_text(path, out / "bundles" / chain.general.folder, verticals, _routing_there(path))


def _routing_there(path: Path) -> str:
    """Return the routing of a chain file, which somebody may have changed; the default where there is none that can be read."""
    try:
        routing = tomllib.loads(path.read_text(encoding="utf-8")).get("routing")
    except (OSError, ValueError):
        return "hard"
    return routing if routing in ROUTINGS else "hard"


def _chain_file(out: Path, chain: ChainOf) -> Path:
    return out / "chains" / f"{chain.general.folder}.toml"


def _step(words: list, needs: tuple = (), **more) -> Step:
    return Step(tuple(map(str, words)), needs, **more)
