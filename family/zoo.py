"""`family list`: what there is, with sizes."""

import argparse
from pathlib import Path

from family.card import SCHEMES
from family.data.scopes import verticals
from family.errors import unknown_name
from family.models.variants import VARIANTS
from family.plan.members import read_members, tables
from family.recipe import recipes

CLUSTERS = Path(__file__).parent.parent / "slurm/clusters"  # read, never imported: nothing here knows SLURM


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=sorted(_LISTS), metavar="WHAT", help=", ".join(sorted(_LISTS)))


def run(args: argparse.Namespace) -> int:
    if args.what not in _LISTS:
        raise unknown_name("list", args.what, _LISTS)
    rows = _LISTS[args.what]()
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _variants() -> list[tuple[str, ...]]:
    rows = [
        ("variant", "resolution", "parameters", "multiply-adds", "features", "source (parameters and multiply-adds with 1,000 classes)")
    ]
    for v in VARIANTS.values():
        sizes = (f"{v.resolution_px} px", f"{v.n_parameters / 1e6:.2f} M", f"{v.multiply_adds / 1e9:.2f} B", f"{v.n_features:,}")
        rows.append((v.name, *sizes, v.source))
    return rows


def _recipes() -> list[tuple[str, ...]]:
    rows = [("recipe", "what it is")]
    for name, path in recipes().items():
        rows.append((name, path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")))
    return rows


def _scopes() -> list[tuple[str, ...]]:
    rows = [("scope", "subtrees"), ("general", "the whole tree")]
    return rows + [(name, ", ".join(fields["subtrees"])) for name, fields in verticals().items()]


def _schemes() -> list[tuple[str, ...]]:
    return [("scheme", "what it is"), *SCHEMES.items()]


def _members() -> list[tuple[str, ...]]:
    rows = [("members", "variants and scopes")]
    for name, path in tables().items():
        variants: dict[str, list[str]] = {}
        for member in read_members(str(path)):
            variants.setdefault(member.variant, []).append(member.scope)
        rows.append((name, "; ".join(f"{variant} {', '.join(scopes)}" for variant, scopes in variants.items())))
    return rows


def _clusters() -> list[tuple[str, ...]]:
    rows = [("cluster", "what it is; a copy of one is yours")]
    for path in sorted(CLUSTERS.glob("*.toml")):
        rows.append((path.stem, path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")))
    return rows


_LISTS = {"clusters": _clusters, "variants": _variants, "recipes": _recipes, "scopes": _scopes, "schemes": _schemes, "members": _members}
