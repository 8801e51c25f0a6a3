"""Tables of members: rows of one member each, and matrices of variants x scopes that expand to rows."""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from family.chains import RESERVED, is_name
from family.data.scopes import GENERAL, scope_name, verticals
from family.errors import UserError, unknown_name

FOLDER = Path(__file__).parent.parent / "members"
VERTICALS = "verticals"  # among the scopes of a matrix: every vertical that ships
_DOWNLOADED = "imagenet"
_KINDS = {"ranks": int, "set": dict, "variants": list, "scopes": list, "teacher": list, "anew": bool}
_LITE = re.compile(r"lite(\d)")


@dataclass(frozen=True)
class Member:
    """A row of a members table."""

    variant: str
    scope: str = GENERAL
    recipe: str = "transfer"
    weights: str = _DOWNLOADED
    start_from: str = ""  # the name of an earlier member whose trunk it starts from
    teacher: tuple[str, ...] = ()  # earlier members by their names, or folders of finished runs, whose answers it learns from
    anew: bool = False  # it starts as the table says where the others start from their namesakes of an earlier family
    name: str = ""  # of its folders; default: variant-scope
    ranks: int = 1
    schemes: str = "fp32,int8"
    set: dict | None = None  # fields of the recipe
    carry_head: str | None = None  # no field of a table (`produce --from`): the head of the run that `weights` is, by this mapping or ""

    @property
    def parent(self) -> str:
        """The member of this family whose trunk it starts from, or ""."""
        return self.start_from if self.carry_head is None else ""

    @property
    def folder(self) -> str:
        return self.name or f"{self.variant}-{scope_name(self.scope)}"

    @property
    def settings(self) -> list[str]:
        """The recipe's changed fields, as `--set` takes them."""
        return [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in (self.set or {}).items()]


_OF_A_MEMBER = tuple(field.name for field in fields(Member) if field.name != "carry_head")
_OF_A_MATRIX = ("variants", "scopes", *(name for name in _OF_A_MEMBER if name not in ("variant", "scope", "start_from")))


@dataclass(frozen=True)
class ChainOf:
    """A general member and the members of verticals that start from it, which answer as one model."""

    general: Member
    verticals: dict[str, Member]  # by the name of their scope

    @property
    def name(self) -> str:
        return f"chain-{self.general.folder}"


def chains_of(members: list[Member], leaves_of: Callable[[str], Iterable[str]]) -> list[ChainOf]:
    """Return the chains that a table's members make: verticals that share a leaf make none.

    Args:
        leaves_of: scope -> its leaves.
    """
    found = []
    for general in members:
        parts = [member for member in members if member.start_from == general.folder and member.scope != GENERAL]
        if general.scope != GENERAL or not parts:
            continue
        why = _no_chain(parts, leaves_of)
        if why:
            print(f"no chain of {general.folder} is evaluated: {why}")
        else:
            found.append(ChainOf(general, {scope_name(member.scope): member for member in parts}))
    return found


def can_mix(members: list[Member], chains: list[ChainOf]) -> bool:
    """Say whether any submodel may stand behind any general model: no two of the verticals share a leaf, which one chain that has them all shows."""
    scopes = {scope_name(member.scope) for member in members if member.scope != GENERAL}
    return any(set(chain.verticals) == scopes for chain in chains)


def _no_chain(parts: list[Member], leaves_of: Callable[[str], Iterable[str]]) -> str:
    """Return why members of verticals can't be parts of one chain, or ""."""
    owner: dict[str, Member] = {}
    for member in parts:
        name = scope_name(member.scope)
        if not is_name(name) or name in RESERVED:
            return f"{name!r} can't name a vertical in a chain file"
        for leaf in leaves_of(member.scope):
            if leaf in owner:
                return f"{owner[leaf].folder} and {member.folder} share the category {leaf!r}"
            owner[leaf] = member
    return ""


def tables() -> dict[str, Path]:
    """Return name -> TOML of the members tables that ship."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def read_members(name: str, weights: list[str] = ()) -> list[Member]:
    """Read a members table by name or file.

    A `[[matrix]]` has `variants`, `scopes` (default: general; `verticals` stands for all that ship) and the fields of a member;
    in its `name` and `teacher`, {variant} and {scope} are replaced. A vertical of it starts from the trunk of the last general member of its
    variant, where there is one.

    Args:
        weights: FILE, or VARIANT=FILE, in the place of downloads. EfficientNet-Lite, which no library publishes, takes the file
            of the B variant of its number: same layers, same shapes.

    Raises:
        UserError: no such table, an unknown field, two members of one name, a member that starts from or learns from what is neither
            an earlier one nor a run, or weights that don't say whose they are.
    """
    known = tables()
    path = Path(name) if name.endswith(".toml") else known.get(name)
    if path is None:
        raise unknown_name("members table", name, known)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    members = _in_order(_members_of(table, path), path)
    names = [member.folder for member in members]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not members or twice:
        raise UserError(f"{path} holds {f'two members named {twice[0]}; give them a `name`' if twice else 'no members'}")
    for k, member in enumerate(members):
        if member.start_from and member.start_from not in names[:k]:
            raise UserError(f"{path}: {member.folder} starts from {member.start_from!r}, which is no other member")
        for teacher in member.teacher:
            if teacher not in names[:k] and not (Path(teacher) / "card.json").is_file():
                close = "".join(f"; did you mean {name!r}?" for name in difflib.get_close_matches(teacher, names[:k], n=1))
                raise UserError(
                    f"{path}: {member.folder} has the teacher {teacher!r}, which is no other member and no finished run{close}"
                )
    return _give_weights(members, list(weights))


def _members_of(table: dict, path: Path) -> list[Member]:
    """Return the members in the order of the file's rows and matrices."""
    unknown = [key for key in table if key not in ("member", "matrix")]
    if unknown:
        raise unknown_name(f"table in {path}", unknown[0], ("member", "matrix"))
    members = []
    for kind, rows in table.items():  # TOML keeps the order of the first of each kind
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{path}: members are tables, each under [[member]] or [[matrix]]")
        for row in rows:
            _check_row(row, _OF_A_MEMBER if kind == "member" else _OF_A_MATRIX, kind, path)
            members += [_member(row)] if kind == "member" else _expand(row, members)
    return members


def _in_order(members: list[Member], path: Path) -> list[Member]:
    """Return the members so that each comes after those that it starts from and learns from, and otherwise as they stand in the table.

    Raises:
        UserError: some wait for one another.
    """
    waiting, placed = list(members), []
    while waiting:
        left = {member.folder for member in waiting}
        ready = next((m for m in waiting if not left - {m.folder} & {m.start_from, *m.teacher}), None)
        if ready is None:
            raise UserError(f"{path}: {', '.join(sorted(left))} start from or learn from one another")
        placed.append(ready)
        waiting.remove(ready)
    return placed


def _member(row: dict) -> Member:
    return Member(**{**row, "teacher": tuple(row.get("teacher", ()))})


def _expand(row: dict, earlier: list[Member]) -> list[Member]:
    """Return the members of a matrix, variant by variant, the general one first."""
    shared = {key: value for key, value in row.items() if key not in ("variants", "scopes", "name", "teacher")}
    wanted = row.get("scopes", [GENERAL])
    scopes = [name for scope in wanted for name in (verticals() if scope == VERTICALS else [scope])]
    members = []
    for variant in row["variants"]:
        for scope in sorted(scopes, key=lambda scope: scope != GENERAL):
            name, *teacher = (text.replace("{variant}", variant).replace("{scope}", scope_name(scope)) for text in
                              (row.get("name", ""), *row.get("teacher", ())))  # fmt: skip
            generals = [m.folder for m in [*earlier, *members] if (m.variant, m.scope) == (variant, GENERAL)]
            start_from = generals[-1] if generals and scope != GENERAL else ""
            members.append(
                _member({**shared, "variant": variant, "scope": scope, "name": name, "start_from": start_from, "teacher": teacher})
            )
    return members


def _check_row(row: dict, allowed: tuple[str, ...], kind: str, path: Path) -> None:
    for key, value in row.items():
        if key not in allowed:
            raise unknown_name(f"field of a {kind} in {path}", key, allowed)
        if type(value) is not _KINDS.get(key, str):
            raise UserError(f"{path}: {key} takes a {_KINDS.get(key, str).__name__}; got {value!r}")
    for key in ("variants", "scopes", "teacher"):
        if key in row and not (row[key] and all(isinstance(name, str) for name in row[key])):
            raise UserError(f'{path}: {key} takes a list of names, such as ["b0"]; got {row[key]!r}')
    if not {"variant", "variants"} & row.keys():
        raise UserError(f"{path}: a {kind} has no {'variant' if kind == 'member' else 'variants'}; see `family list variants`")
    name = row.get("name", "").replace("{variant}", "v").replace("{scope}", "s")
    if not re.fullmatch(r"(\w[\w.-]*)?", name):
        raise UserError(
            f"{path}: the name {row['name']!r} becomes a folder; it begins with a letter or digit, and letters, digits, '_', '-' and '.' are allowed"
        )
    if row.get("ranks", 1) < 1:
        raise UserError(f"{path}: ranks = {row['ranks']}; wanted at least 1")


def needs_file(member: Member) -> bool:
    """Say whether a member starts from weights that no library publishes: EfficientNet-Lite takes those of B, from a file."""
    return bool(_LITE.fullmatch(member.variant)) and member.weights == _DOWNLOADED and not member.start_from


def _give_weights(members: list[Member], given: list[str]) -> list[Member]:
    """Let members that would start from a download start from the files that were given."""
    takers = dict.fromkeys(m.variant for m in members if m.weights == _DOWNLOADED and not m.start_from)
    allowed = {*(m.variant for m in members), *map(published, takers)}
    files: dict[str, str] = {}
    for text in given:
        variant, equals, file = text.partition("=")
        if not equals:
            variant, file = "", text
            if len(takers) > 1 and (Path(file).is_file() or file.endswith((".h5", ".hdf5"))):
                raise UserError(f"--weights {file} fits one variant, and the table has {', '.join(takers)}: give {_example(takers)}")
        elif variant not in allowed:
            raise unknown_name("variant of --weights VARIANT=FILE", variant, allowed)
        files[variant] = file
    return [replace(m, weights=_file_of(m.variant, files)) if m.weights == _DOWNLOADED else m for m in members]


def _file_of(variant: str, files: dict[str, str]) -> str:
    for name in (variant, published(variant), ""):
        if name in files:
            return files[name]
    return _DOWNLOADED


def published(variant: str) -> str:
    """Return the variant whose published weights fit."""
    return _LITE.sub(r"b\1", variant)


def _example(takers) -> str:
    return " ".join(f"--weights {name}=FILE" for name in dict.fromkeys(map(published, takers)))
