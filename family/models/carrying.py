"""A head carried from one version of the ontology to the next, row by row. No TensorFlow here.

A category's row is its column of the `logits` kernel and its bias. In the old model an old category i has the probability
exp(z_i) / Z. A new category that takes from several should have the sum of their shares: log(sum over i of exp(z_i) / ways_i), where ways_i
is how many new categories share i. That is no linear function of the features, and a row has to be. We take its tangent plane where
the shares are equal: the mean of the rows, plus log(k) for k sources, less the mean of log(ways_i). By Jensen's inequality the tangent
is never above the exact value, and equal to it where the sources agree. So

- kept and renamed rows answer exactly as before;
- the new categories of a split share the old probability evenly, and sum to it exactly (copies without -log(k) would hold k times it);
- merged rows never answer more than the old ones did together, and exactly that where those agreed (the plain mean of the biases
  would answer 1/k of it there); a split that is merged again is what it was;
- the biases' logsumexp instead of their mean would count the biases as if the kernels were equal, and would break the bound.

A new category keeps its initial row, whose logits are near 0. Carried rows are not centred there (AdamW and decay move their mean: on
Caltech-101 the mean logit is -1.3 and the best one 5), so a new category begins with half a percent of the probability.
"""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from family.card import read_card
from family.data.ontology import SEPARATOR, Ontology
from family.errors import UserError, unknown_name

KINDS = ("kept", "renamed", "merged", "split", "new")  # of new categories; old ones that none takes from are dropped
NOTHING = -1


@dataclass(frozen=True)
class HeadPlan:
    """Which old rows each new row is made of."""

    kinds: tuple[str, ...]  # of each new category, in the order of classes
    sources: tuple[tuple[int, ...], ...]  # the old classes that each takes from
    ways: tuple[int, ...]  # how many new categories, of the whole tree, take from each old class

    @cached_property
    def counts(self) -> dict[str, int]:
        """{"kept", "renamed", "merged", "split", "new"} of new categories, and {"dropped"} of old ones."""
        used = {source for sources in self.sources for source in sources}
        return {**{kind: self.kinds.count(kind) for kind in KINDS}, "dropped": len(self.ways) - len(used)}

    @cached_property
    def digest(self) -> str:
        """sha256 of what is taken from where: a mapping written otherwise that says the same has the same."""
        return hashlib.sha256(json.dumps([self.sources, self.ways]).encode()).hexdigest()

    def rows(self, kernel: np.ndarray, bias: np.ndarray, new_kernel: np.ndarray, new_bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the new head.

        Args:
            kernel, bias: the old head, float [d, n_old] and [n_old].
            new_kernel, new_bias: the new head as it is initialised, float [d, n_new] and [n_new]; new categories keep it.
        """
        new_kernel, new_bias = new_kernel.copy(), new_bias.copy()
        shared = bias - np.log(np.array(self.ways).clip(1))
        for row, sources in enumerate(self.sources):
            if sources:
                new_kernel[:, row] = kernel[:, list(sources)].mean(axis=1)
                new_bias[row] = shared[list(sources)].mean() + np.log(len(sources))
        return new_kernel, new_bias


def plan_from_run(run: Path, variant: str, ontology: Ontology, leaves: Iterable[str], mapping: Path | None) -> HeadPlan:
    """Plan how the head of a run is carried to a model of this variant for these leaves of a tree.

    Raises:
        UserError: no finished run, of another variant, a mapping that can't be used, or nothing in common.
    """
    if not Path(run).is_dir():
        raise UserError(f"--carry-head takes the head of a run, so it needs --weights RUN; got --weights {run}")
    card = read_card(run)
    if card["variant"] != variant:
        raise UserError(f"{run} is a run of {card['variant']}; its head means nothing on the features of {variant}. Leave --carry-head out")
    edges = read_mapping(mapping) if mapping else []
    try:
        plan = plan_head(card["classes"], card["paths"], ontology, edges, leaves)
    except UserError as error:
        raise UserError(f"{mapping or run}: {error}") from error
    if not any(plan.sources):
        raise UserError(
            f"{run} knows none of the {len(plan.sources)} categories by id or path; give a mapping (old,new), or start without its head"
        )
    return plan


def read_mapping(path: Path) -> list[tuple[str, str]]:
    """Read an `old,new` table: a row for each old category that a new one takes from; one side may be empty (ends; begins).

    Raises:
        UserError: it can't be read, lacks a column, or a row is empty.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            missing = {"old", "new"} - set(reader.fieldnames or [])
            if missing:
                raise UserError(f"{path}: no column {', '.join(sorted(missing))}; wanted: old,new")
            rows = []
            for row in reader:
                pair = ((row["old"] or "").strip(), (row["new"] or "").strip())
                if None in row or not any(pair):
                    raise UserError(
                        f"{path}, line {reader.line_num}: wanted old,new with at least one of them; names with commas stand in quotes"
                    )
                rows.append(pair)
            return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: {error}") from error


def plan_head(
    old_ids: list[str], old_paths: list[str], ontology: Ontology, mapping: list[tuple[str, str]], leaves: Iterable[str] | None = None
) -> HeadPlan:
    """Decide where each new category's row comes from.

    A category that the mapping names goes where its rows say and nowhere else; the others go to the category of the same id, else of the
    same path.

    Args:
        old_ids, old_paths: the old model's classes.
        ontology: the whole new tree, which the mapping may name any leaf of.
        mapping: (old, new) pairs of ids or paths; "" for nothing.
        leaves: the new model's classes, where they are a part of the tree.

    Raises:
        UserError: an unknown or ambiguous name, a pair twice, or a change that the mapping tells only half of.
    """
    old = _Leaves("old", old_ids, old_paths)
    new = _Leaves("new", list(ontology.leaves), [ontology.path_of[leaf] for leaf in ontology.leaves])
    told = _resolve(mapping, old, new)
    edges = [edge for edge in told if NOTHING not in edge]
    edges += _unchanged(old, new, {i for i, _ in told}, {j for _, j in told})
    takes: dict[int, list[int]] = {}
    for i, j in sorted(edges):
        takes.setdefault(j, []).append(i)
    ways = [0] * len(old_ids)
    for i, _ in edges:
        ways[i] += 1
    wanted = range(len(new.ids)) if leaves is None else [new.of_id[leaf] for leaf in leaves]
    sources = tuple(tuple(takes.get(j, ())) for j in wanted)
    kinds = tuple(_kind(old, new, own, j, ways) for own, j in zip(sources, wanted, strict=True))
    return HeadPlan(kinds, sources, tuple(ways))


def _kind(old: "_Leaves", new: "_Leaves", sources: tuple[int, ...], j: int, ways: list[int]) -> str:
    if len(sources) != 1:
        return "merged" if sources else "new"
    (i,) = sources
    if ways[i] > 1:
        return "split"
    return "kept" if old.ids[i] == new.ids[j] or old.paths[i] == new.paths[j] else "renamed"


class _Leaves:
    """The leaves of one version of the tree, found by id or path."""

    def __init__(self, version: str, ids: list[str], paths: list[str]):
        self.version, self.ids, self.paths = version, ids, paths
        self.of_id = {name: k for k, name in enumerate(ids)}
        self.of_path = {name: k for k, name in enumerate(paths)}

    def find(self, name: str) -> int:
        if not name:
            return NOTHING
        found = {table[name] for table in (self.of_id, self.of_path) if name in table}
        if len(found) == 1:
            return found.pop()
        if found:
            raise UserError(f"{name!r} is the id of one {self.version} category and the path of another; name it by the other of the two")
        below = [path for path in self.paths if path.startswith(name + SEPARATOR)]
        if below:
            raise UserError(
                f"{name!r} is no leaf of the {self.version} tree; below it are {', '.join(below[:5])}{' ...' * (len(below) > 5)}"
            )
        raise unknown_name(f"{self.version} category", name, {*self.ids, *self.paths})


def _resolve(mapping: list[tuple[str, str]], old: _Leaves, new: _Leaves) -> list[tuple[int, int]]:
    """Return the pairs as classes; refuse a pair that stands twice, and nothing beside something."""
    edges: dict[tuple[int, int], tuple[str, str]] = {}
    for a, b in mapping:
        edge = old.find(a), new.find(b)
        if edge in edges:
            raise UserError(f"the row {a},{b} stands twice" + (f", also as {','.join(edges[edge])}" if edges[edge] != (a, b) else ""))
        edges[edge] = a, b
    n_old, n_new = Counter(i for i, _ in edges), Counter(j for _, j in edges)
    for (i, j), (a, b) in edges.items():
        if (j == NOTHING and n_old[i] > 1) or (i == NOTHING and n_new[j] > 1):
            raise UserError(
                f"the row {a},{b} says that {a or b!r} {'ends' if a else 'begins from nothing'}, and another row says otherwise"
            )
    return list(edges)


def _unchanged(old: _Leaves, new: _Leaves, told_old: set[int], told_new: set[int]) -> list[tuple[int, int]]:
    """Return the pairs of the same id, else of the same path, that the mapping leaves alone."""
    by_id = {old.of_id[name]: j for name, j in new.of_id.items() if name in old.of_id}
    by_path = {old.of_path[name]: j for name, j in new.of_path.items() if name in old.of_path}
    has_row = set(by_id.values())
    pairs = by_id | {i: j for i, j in by_path.items() if i not in by_id and j not in has_row}
    for i, j in pairs.items():
        if (i in told_old) != (j in told_new):
            _refuse_half(old.ids[i], new.ids[j], old.paths[i], i in told_old)
    kept = {i: j for i, j in pairs.items() if i not in told_old}
    was_at = {j: i for i, j in by_path.items()}
    for i, j in kept.items():
        if by_path.get(i, j) != j or was_at.get(j, i) != i:
            at, moved_to = old.paths[i], new.paths[j]
            other = f"{at!r} is now {new.ids[by_path[i]]!r}" if by_path.get(i, j) != j else f"{moved_to!r} was {old.ids[was_at[j]]!r}"
            raise UserError(
                f"ids and paths disagree: {old.ids[i]!r} was {at!r} and is now {moved_to!r}, while {other}. Say in a mapping (old,new) "
                f"which goes where: the row {old.ids[i]},{new.ids[j]} goes by the id"
            )
    return list(kept.items())


def _refuse_half(old_id: str, new_id: str, path: str, old_is_told: bool) -> None:
    if old_is_told:
        raise UserError(
            f"the mapping sends {old_id!r} ({path}) elsewhere, and the new tree still has {new_id!r}; "
            f"add the row {old_id},{new_id} if it goes on there too, or ,{new_id} if that is another category now"
        )
    raise UserError(
        f"the mapping gives {new_id!r} ({path}) the rows of others, and the old tree has {old_id!r} too; "
        f"add the row {old_id},{new_id} if it goes on there, or {old_id}, if it ends"
    )
