"""Which members of a table are made of a dataset: others are left out and named, and what would fail after hours is refused."""

from dataclasses import replace
from pathlib import Path

from family.card import FILE as CARD
from family.card import SCHEMES, read_card
from family.data.dataset import Dataset
from family.data.scopes import scope_subtrees
from family.data.splits import SPLITS
from family.errors import UserError, unknown_name
from family.models.carrying import plan_from_run
from family.models.sources import DOWNLOADS, NONE, check_knows, check_teacher, weights_path
from family.models.variants import variant
from family.plan.estimate import count_rows
from family.plan.members import Member, needs_file, published
from family.recipe import check_taught, read_recipe


def select(members: list[Member], dataset: Dataset, earlier: Path | None = None, mapping: Path | None = None) -> list[Member]:
    """Return the members that this dataset has a scope and rows for, that have weights to start from and teachers to learn from.

    Args:
        earlier: an earlier family's folder: members start from their namesakes' runs there, with the heads, unless they are made anew.
        mapping: `old,new` categories, for the heads.

    Raises:
        UserError: a member is not what it should be, the earlier family lacks its namesake, or none is left.
    """
    kept: list[Member] = []
    left_out: dict[str, list[str]] = {}
    for member in members:
        member = _started_from(member, earlier, mapping) if earlier and not member.anew else member
        _check(member)
        why = _why_not(member, dataset, {name for names in left_out.values() for name in names})
        if why:
            left_out.setdefault(why, []).append(member.folder)
        else:
            _check_teachers(member, dataset, {other.folder: other for other in kept})
            kept.append(member)
    for why, names in left_out.items():
        print(f"left out {', '.join(names)}: {why}")
    if not kept:
        raise UserError(f"no member of the table can be made of {dataset.folder}; see above")
    if earlier:
        _check_namesakes(kept, dataset, earlier, mapping)
    return kept


def _started_from(member: Member, earlier: Path, mapping: Path | None) -> Member:
    """Return the member with its namesake's run and head to start from; as it is where that is not there."""
    run = earlier / "runs" / member.folder
    return replace(member, weights=str(run), carry_head=str(mapping or "")) if (run / CARD).is_file() else member


def _check(member: Member) -> None:
    """Refuse what would fail only after hours.

    Raises:
        UserError: an unknown variant or scheme, weights that are not there, or a teacher without a recipe that learns from it.
    """
    variant(member.variant)
    for scheme in member.schemes.split(","):
        if scheme not in SCHEMES:
            raise unknown_name(f"scheme of {member.folder}", scheme, SCHEMES)
    if not member.parent and member.weights not in (NONE, *DOWNLOADS) and not weights_path(member.weights).is_file():
        raise UserError(f"{member.folder}: no weights at {weights_path(member.weights)}")
    try:
        check_taught(read_recipe(member.recipe, member.settings), bool(member.teacher))
    except UserError as error:
        raise UserError(f"{member.folder}: {error}") from error


def _why_not(member: Member, dataset: Dataset, left_out: set[str]) -> str:
    """Return why a member can't be made of a dataset, or ""."""
    if needs_file(member):
        return f"no library publishes {member.variant}'s weights; give --weights {published(member.variant)}=FILE"
    if member.parent in left_out:
        return f"{member.parent} is left out"
    absent = [teacher for teacher in member.teacher if teacher in left_out]
    if absent:
        return f"the teacher {absent[0]} is left out"
    scope_subtrees(member.scope)  # or an error: no such vertical, or a file that can't be read
    try:
        n_rows = count_rows(dataset, member.scope)
    except UserError as error:
        return str(error)
    missing = [split for split in SPLITS if not n_rows[split]]
    return f"{dataset.folder} has no {' and no '.join(missing)} rows in {member.scope}" if missing else ""


def _check_teachers(member: Member, dataset: Dataset, earlier: dict[str, Member]) -> None:
    """Refuse a teacher that does not know all that its student is to learn.

    Raises:
        UserError: names it.
    """
    leaves = dataset.scope(member.scope).leaves
    try:
        for teacher in member.teacher:
            if teacher in earlier:
                check_knows(teacher, dataset.scope(earlier[teacher].scope).leaves, leaves)
            else:
                check_teacher(Path(teacher), leaves)
    except UserError as error:
        raise UserError(f"{member.folder}: {error}") from error


def _check_namesakes(members: list[Member], dataset: Dataset, earlier: Path, mapping: Path | None) -> None:
    """Hold that every member has a namesake in the earlier family, whose head fits.

    Raises:
        UserError: one is missing or of another variant, or the head can't be carried.
    """
    wanted = [member for member in members if not member.anew]
    missing = [member.folder for member in wanted if member.carry_head is None]
    if missing:
        there = ", ".join(sorted(path.parent.name for path in earlier.glob(f"runs/*/{CARD}"))) or "none"
        raise UserError(f"--from {earlier} has no finished run of {', '.join(missing)} (its runs: {there}). Take a table without them, or give "
                        "them `anew = true` there: then they start as the table says")  # fmt: skip
    for member in wanted:
        made = read_card(Path(member.weights))["variant"]
        if made != member.variant:
            raise UserError(f"--from {earlier}: {member.weights} is a run of {made}, and {member.folder} is {member.variant}, which can't take its "
                            "head. Give the member another name, or `anew = true`")  # fmt: skip
        plan_from_run(Path(member.weights), member.variant, dataset.ontology, dataset.scope(member.scope).leaves, mapping)
