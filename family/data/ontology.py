"""The tree of categories: nodes with ids and paths, leaves at different depths, and the level of each leaf."""

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from family.errors import UserError

SEPARATOR = "/"


@dataclass(frozen=True)
class Ontology:
    """Every node of a tree, sorted by path; `leaves` is the order of a model's classes."""

    ids: tuple[str, ...]
    paths: tuple[str, ...]

    @cached_property
    def path_of(self) -> dict[str, str]:
        return dict(zip(self.ids, self.paths, strict=True))

    @cached_property
    def id_of(self) -> dict[str, str]:
        return dict(zip(self.paths, self.ids, strict=True))

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        """Ids of the leaves, sorted by path."""
        parents = {path.rpartition(SEPARATOR)[0] for path in self.paths}
        return tuple(i for i, path in zip(self.ids, self.paths, strict=True) if path not in parents)

    @cached_property
    def class_of(self) -> dict[str, int]:
        """Leaf id to class index."""
        return {leaf: k for k, leaf in enumerate(self.leaves)}

    @cached_property
    def depth(self) -> int:
        """The number of levels; level 1 holds the departments."""
        return max(path.count(SEPARATOR) + 1 for path in self.paths)

    @cached_property
    def digest(self) -> str:
        """sha256 of ids and paths: two trees with the same digest mean the same classes."""
        text = "\n".join(f"{i}\t{p}" for i, p in zip(self.ids, self.paths, strict=True))
        return hashlib.sha256(text.encode()).hexdigest()

    def level(self, level: int) -> tuple[tuple[str, ...], np.ndarray]:
        """Collapse the leaves to one level; a leaf above that level stays itself.

        Returns:
            The nodes' ids, sorted by path, and int32 [n_leaves]: the node of each leaf.
        """
        cut = [SEPARATOR.join(self.path_of[leaf].split(SEPARATOR)[:level]) for leaf in self.leaves]
        nodes = sorted(set(cut), key=_sort_key)
        index = {path: k for k, path in enumerate(nodes)}
        return tuple(self.id_of[path] for path in nodes), np.array([index[p] for p in cut], np.int32)

    def subset(self, subtrees: Iterable[str]) -> "Ontology":
        """Return the tree of the leaves below the given paths (with the nodes above them)."""
        roots = [root.strip(SEPARATOR) for root in subtrees]
        kept = [
            self.path_of[leaf]
            for leaf in self.leaves
            if any((self.path_of[leaf] + SEPARATOR).startswith(root + SEPARATOR) for root in roots)
        ]
        if not kept:
            top = ", ".join(sorted({path.split(SEPARATOR)[0] for path in self.paths}))
            raise UserError(f"no category lies below {', '.join(map(repr, roots))}; the tree's departments: {top}")
        return from_leaves([(self.id_of[path], path) for path in kept], ids=self.id_of)

    def write(self, path: Path) -> None:
        """Write `category_id,path` rows of every node."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["category_id", "path"])
            writer.writerows(zip(self.ids, self.paths, strict=True))


def from_leaves(rows: Iterable[tuple[str, str]], ids: dict[str, str] | None = None) -> Ontology:
    """Build a tree of (category_id, path) rows; nodes above them that have no row get their path as id.

    Args:
        ids: known ids of inner nodes by path.

    Raises:
        UserError: an id or a path twice, an empty id, or an empty name in a path.
    """
    given: dict[str, str] = {}
    owner: dict[str, str] = {}
    for category_id, path in rows:
        path = clean_path(path)
        if not category_id or any(ord(letter) < 32 for letter in category_id):
            raise UserError(f"{category_id!r} is no id for {path!r}; wanted text of one line, as in 1234 or laptops")
        if path in given:
            raise UserError(f"the path {path!r} stands twice in the ontology ({given[path]!r} and {category_id!r})")
        if category_id in owner:
            raise UserError(f"the category {category_id!r} stands twice in the ontology ({owner[category_id]!r} and {path!r})")
        given[path], owner[category_id] = category_id, path
    if not given:
        raise UserError("the ontology has no category")
    nodes = dict(given)
    for path in given:
        parts = path.split(SEPARATOR)
        for depth in range(1, len(parts)):
            node = SEPARATOR.join(parts[:depth])
            nodes.setdefault(node, (ids or {}).get(node, node))
            if owner.get(nodes[node], node) != node:
                raise UserError(f"the id {nodes[node]!r} names {owner[nodes[node]]!r} and is wanted for the node {node!r}")
    paths = tuple(sorted(nodes, key=_sort_key))
    return Ontology(ids=tuple(nodes[path] for path in paths), paths=paths)


def read_ontology(path: Path) -> Ontology:
    """Read a `category_id,path` table."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"category_id", "path"} - set(reader.fieldnames or [])
            if missing:
                raise UserError(f"{path}: no column {', '.join(sorted(missing))}; wanted: category_id,path")
            return from_leaves([((row["category_id"] or "").strip(), row["path"] or "") for row in reader])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: {error}") from error


def clean_path(path: str) -> str:
    """Strip the spaces around a path's names; refuse a path with an empty name."""
    names = [name.strip() for name in path.split(SEPARATOR)]
    if not all(names) or any(ord(letter) < 32 for letter in path):
        raise UserError(f"{path!r} is no category path; wanted names joined by {SEPARATOR!r}, as in Electronics/Computers/Laptops")
    return SEPARATOR.join(names)


def _sort_key(path: str) -> list[str]:
    # By name, not by character: "A/B" comes before "A B/C" whatever '/' sorts as.
    return path.split(SEPARATOR)
