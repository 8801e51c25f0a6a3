"""Chain files: a TOML that names a general model and the submodels of verticals, and how rows are routed to them."""

import json
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from family.errors import UserError, unknown_name
from family.outputs import whole_file

ROUTINGS = {
    "hard": "the vertical with the largest summed probability answers, its submodel runs on its rows alone",
    "soft": "every submodel runs on every row and answers with the vertical's probability times its own",
}
_KEYS = ("general", "routing", "verticals", "thresholds")
_MAX_BYTES = 2**20
_NONE: Mapping = MappingProxyType({})
RESERVED = ("general", "all", "outside", "pooled")  # beside verticals, in digests and tables


@dataclass(frozen=True)
class ChainFile:
    """What a chain file says. Folders are runs or bundles, from the current folder on."""

    general: Path
    verticals: dict[str, Path]
    routing: str
    thresholds: dict[str, float]  # of some verticals, see `family.evaluation.routing`

    @property
    def members(self) -> dict[str, Path]:
        """The folders of all members by name, the general model first."""
        return {"general": self.general, **self.verticals}


def read_chain(path: Path) -> ChainFile:
    """Read a chain file; its paths are relative to it.

    Raises:
        UserError: it can't be read, a key is unknown or missing, or holds something else than it should.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise UserError(f"{path} is larger than {_MAX_BYTES // 2**20} MB, so it is no chain")
        fields = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no TOML: {error}") from error
    for key in fields:
        if key not in _KEYS:
            raise unknown_name(f"key in {path}", key, _KEYS)
    routing = fields.get("routing", "hard")
    if not isinstance(routing, str) or routing not in ROUTINGS:
        raise unknown_name(f"routing in {path}", str(routing), ROUTINGS)
    verticals = fields.get("verticals")
    if not isinstance(verticals, dict) or not verticals:
        raise UserError(f'{path}: [verticals] names at least one submodel, as in animals = "bundles/v2-b0-animals"; got {verticals!r}')
    for name in verticals:
        _check_name(name, path)
    thresholds = fields.get("thresholds", {})
    check_thresholds(thresholds, verticals, routing, path)
    general = _folder(path, "general", fields.get("general"))
    return ChainFile(general, {name: _folder(path, f"verticals.{name}", value) for name, value in verticals.items()}, routing, thresholds)


def check_thresholds(thresholds: object, verticals: Collection[str], routing: str, path: Path) -> None:
    """Refuse what a chain file can't hold as thresholds.

    Raises:
        UserError: says what is wrong.
    """
    if not isinstance(thresholds, dict):
        raise UserError(f"{path}: [thresholds] holds a probability for a vertical, as in animals = 0.9; got {thresholds!r}")
    if thresholds and routing != "hard":
        raise UserError(f"{path}: [thresholds] say when a submodel is asked, and with {routing} routing each always is; use hard routing")
    for name, value in thresholds.items():
        if name not in verticals:
            raise unknown_name(f"vertical in [thresholds] of {path}", name, list(verticals))
        if isinstance(value, bool) or not isinstance(value, float | int) or not 0 < value <= 1:
            raise UserError(f"{path}: thresholds.{name} is a probability above 0, at most 1; got {value!r}")


def is_name(text: str) -> bool:
    """Say whether a text can name a vertical in a chain file."""
    return re.fullmatch(r"[\w.-]+", text) is not None


def _check_name(name: str, path: Path) -> None:
    if name in RESERVED:
        raise UserError(f"{path}: {name!r} stands for other rows or models in what is told of a chain; give the vertical another name")
    if not is_name(name):
        raise UserError(f"{path}: {name!r} is no name of a vertical; letters, digits, '_', '-' and '.' are allowed")


def _folder(path: Path, key: str, value: object) -> Path:
    """Return a member's folder; that it is one is seen when it is opened."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise UserError(f"{path}: {key} takes the path of a run or a bundle; got {value!r}")
    if os.path.isabs(value):
        raise UserError(f"{path}: {key} = {value!r} is absolute; paths are relative to the folder of the chain")
    folder = path.parent / value
    if not os.path.isdir(folder):
        raise UserError(f"{path}: {key}: there is no folder {folder}")
    return folder


def write_chain(path: Path, general: Path, verticals: dict[str, Path], routing: str = "hard", thresholds: Mapping[str, float] = _NONE) -> None:
    """Write a chain file, whole or not at all."""
    text = chain_text(path, general, verticals, routing, thresholds)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def chain_text(path: Path, general: Path, verticals: dict[str, Path], routing: str = "hard", thresholds: Mapping[str, float] = _NONE) -> str:
    """Return what a chain file holds. The members need not be there yet; their paths become relative to the file.

    Raises:
        UserError: no vertical, a name or a path that a chain file can't hold, or no such routing.
    """
    path = Path(path)
    if routing not in ROUTINGS:
        raise unknown_name("routing", routing, ROUTINGS)
    if not verticals:
        raise UserError(f"{path}: a chain needs the submodel of one vertical at least")
    for name in verticals:
        _check_name(name, path)
    check_thresholds(dict(thresholds), verticals, routing, path)
    lines = [f"general = {_quoted_path(general, path)}", f'routing = "{routing}"', "", "[verticals]"]
    lines += [f'"{name}" = {_quoted_path(folder, path)}' for name, folder in verticals.items()]
    lines += ["", "[thresholds]", *(f'"{name}" = {float(value)!r}' for name, value in thresholds.items())] if thresholds else []
    return "\n".join(lines) + "\n"


def _quoted_path(folder: Path, path: Path) -> str:
    relative = os.path.relpath(os.path.realpath(folder), os.path.realpath(path.parent))  # "link/.." is not the folder that holds the link
    if not relative.isprintable():
        raise UserError(f"{relative!r} can't stand in {path}; rename the folder")
    return json.dumps(relative, ensure_ascii=False)  # a printable JSON string is a basic string of TOML
