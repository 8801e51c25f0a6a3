"""The command lines that make a family: a pure function of its members."""

from pathlib import Path

from family.card import FILE as CARD
from family.plan.chaining import chain_step
from family.plan.members import ChainOf, Member, can_mix
from family.plan.sharing import FOLDER, sharing
from family.plan.steps import Step


def plan(dataset: Path, out: Path, members: list[Member], chains: list[ChainOf] = (), here: bool = True) -> list[Step]:
    """Return the steps that make the family: a pure function of its arguments.

    Args:
        chains: to be evaluated too, by the files of `write_chains`.
        here: members are trained one after the other, start the ranks that they want, and share features. On a cluster the ranks are
            there, and members run side by side: one that shares would hold its nodes while it waits for another to compute.
    """
    sharers = sharing(members) if here else {}
    steps = [_training(dataset, out, members, k, sharers, here) for k in range(1, len(members) + 1)]
    for k, member in enumerate(members, 1):
        run = out / "runs" / member.folder
        words = ["export", run, "--out", _bundle(out, member), "--schemes", member.schemes, "--calibrate", dataset]
        steps.append(_step(words, (run / CARD,), member=k))
    for k, member in enumerate(members, 1):
        words = ["evaluate", _bundle(out, member), dataset, "--out", out / "evaluations" / member.folder]
        steps.append(_step(words, (_bundle(out, member) / CARD,), member=k))
    steps += [chain_step(dataset, out, chain) for chain in chains]
    results = out / "results.jsonl"
    bundles = {str(_bundle(out, member)): _bundle(out, member) / CARD for member in members}
    answers = ["--chains"] if can_mix(members, chains) else []
    steps.append(_step(["bench", *bundles, "--out", results, "--data", dataset, *answers], uses=tuple(bundles.items())))
    steps.append(_step(["report", results, "--out", out / "report"], (results,), renews=True))
    return steps


def _training(dataset: Path, out: Path, members: list[Member], number: int, sharers: dict[str, str], here: bool) -> Step:
    """Return the step that trains a member. It needs the runs that it starts from and learns from."""
    member, runs = members[number - 1], out / "runs"
    source = runs / member.parent if member.parent else member.weights
    earlier = {other.folder for other in members[: number - 1]}
    teachers = [runs / teacher if teacher in earlier else Path(teacher) for teacher in member.teacher]
    ranks = member.ranks if here else 1
    words = ["train", dataset, "--out", runs / member.folder, "--variant", member.variant, "--scope", member.scope]
    words += ["--recipe", member.recipe]
    words += ["--weights", source]
    words += ["--carry-head", *filter(None, [member.carry_head])] if member.carry_head is not None else []
    words += ["--resume", *(["--ranks", ranks] if ranks > 1 else [])]
    words += [word for teacher in teachers for word in ("--teacher", teacher)]
    words += ["--features", out / FOLDER] if member.folder in sharers else []
    words += [word for setting in member.settings for word in ("--set", setting)]
    needed = [Path(source)] * (bool(member.parent) or member.carry_head is not None) + teachers
    return _step(words, (dataset / "dataset.json", *(run / CARD for run in needed)), alone=ranks > 1, member=number)


def _bundle(out: Path, member: Member) -> Path:
    return out / "bundles" / member.folder


def _step(words: list, needs: tuple = (), **more) -> Step:
    return Step(tuple(map(str, words)), needs, **more)
