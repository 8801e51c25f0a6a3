"""Scopes: the whole tree (`general`) and the verticals, each a set of subtrees in one TOML."""

import tomllib
from pathlib import Path

from family.data.ontology import Ontology
from family.errors import UserError, unknown_name

GENERAL = "general"
FOLDER = Path(__file__).parent.parent / "verticals"


def verticals() -> dict[str, dict]:
    """Return name -> {"subtrees", ...} of every vertical that ships."""
    return {path.stem: read_vertical(path) for path in sorted(FOLDER.glob("*.toml"))}


def read_vertical(path: Path) -> dict:
    """Read a vertical's TOML: `subtrees`, a list of category paths."""
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    subtrees = fields.get("subtrees")
    if not isinstance(subtrees, list) or not subtrees or not all(isinstance(s, str) for s in subtrees):
        raise UserError(f'{path}: `subtrees` must be a list of category paths, as in subtrees = ["Electronics"]')
    return fields


def scope_ontology(ontology: Ontology, scope: str) -> Ontology:
    """Return the part of a tree that a scope covers; `scope` is `general`, a vertical's name or its TOML file.

    Raises:
        UserError: no such vertical, or none of its subtrees is in the tree.
    """
    subtrees = scope_subtrees(scope)
    return ontology.subset(subtrees) if subtrees else ontology


def scope_subtrees(scope: str) -> list[str] | None:
    """Return the category paths that a scope covers; None for all."""
    if scope == GENERAL:
        return None
    if scope.endswith(".toml"):
        return read_vertical(Path(scope))["subtrees"]
    known = verticals()
    if scope not in known:
        raise unknown_name("scope", scope, [GENERAL, *known])
    return known[scope]["subtrees"]


def scope_name(scope: str) -> str:
    """Return the name of a scope given by name or by file."""
    return Path(scope).stem if scope.endswith(".toml") else scope
