"""Does splitting into verticals pay? Five ways to answer the same rows, compared with the first one by paired intervals."""

from collections.abc import Sequence

import numpy as np

from family.data.dataset import Rows
from family.evaluation.metrics import find_hits, micro_macro, put
from family.evaluation.paired import METHOD, count_differing, is_shown, macro_intervals, micro_interval
from family.evaluation.predictions import Answers, concatenate, level_maps, summarize
from family.evaluation.routing import NONE, answer_hard, answer_soft, place, restrict, route

WAYS = {
    "general": "the general model over all categories",
    "restricted": "the general model over the vertical's leaves alone, renormalized",
    "submodel": "the vertical's submodel, the vertical known",
    "hard": "the chain with hard routing",
    "soft": "the chain with soft routing",
}
_EVERYWHERE = ("general", "hard", "soft")  # what answers a row of no vertical


class Comparison:
    """Gathers the five ways' answers batch by batch; of the probabilities it keeps no more than `Answers` do."""

    def __init__(self, rows: Rows, parts: dict[str, np.ndarray], thresholds: Sequence[float] | None = None):
        """`rows` have the general model's classes; `parts` are int [k], the classes of each vertical in its submodel's order; `thresholds` are of hard
        routing, see `family.evaluation.routing`."""
        self.rows, self.parts, self._thresholds = rows, parts, thresholds
        self._levels = level_maps(rows.ontology)
        self._owner_of = np.full(len(rows.ontology.leaves), NONE)
        for k, part in enumerate(parts.values()):
            self._owner_of[part] = k
        self._n = 0
        self._routes: list[np.ndarray] = []
        self._answers: dict[str, list[Answers]] = {way: [] for way in WAYS}

    def add(self, general: np.ndarray, subs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Take the next rows' probabilities, float [n, n_classes] and [n, k] of each vertical; return those of "hard" and "soft"."""
        labels = self.rows.labels[self._n : self._n + len(general)]
        self._n += len(general)
        parts, owners = list(self.parts.values()), self._owner_of[labels]
        self._routes.append(route(general, parts, self._thresholds))
        own = {way: np.zeros(general.shape) for way in ("restricted", "submodel")}
        for k, (name, part) in enumerate(self.parts.items()):
            own["restricted"][owners == k] = restrict(general[owners == k], part)
            own["submodel"][owners == k] = place(subs[name][owners == k], part, general.shape[1])
        names = list(self.parts)
        chained = {
            "hard": answer_hard(general, parts, lambda k, rows: subs[names[k]][rows], self._thresholds),
            "soft": answer_soft(general, parts, lambda k, rows: subs[names[k]][rows]),
        }
        for way, found in {"general": general, **own, **chained}.items():
            self._answers[way].append(summarize(found, labels, self._levels))
        return chained

    def finish(self) -> dict:
        """Return the comparison of all rows: `verticals`, each on its own rows; `pooled`, their rows together; `outside`; `all`."""
        ontology = self.rows.ontology
        hits = {way: find_hits(ontology, concatenate(found)) for way, found in self._answers.items()}
        listings = np.unique(self.rows.listing_ids, return_inverse=True)[1]
        owners = self._owner_of[self.rows.labels]
        inside = {name: owners == k for k, name in enumerate(self.parts)}
        return {
            "schema": 1,
            "ways": WAYS,
            "method": METHOD,
            "routing": self._count_routes(owners),
            "verticals": {name: compare(hits, rows, listings, tuple(WAYS)) for name, rows in inside.items()},
            "pooled": compare(hits, owners != NONE, listings, tuple(WAYS)),
            "outside": compare(hits, owners == NONE, listings, _EVERYWHERE),
            "all": compare(hits, np.ones(len(owners), bool), listings, _EVERYWHERE),
        }

    def _count_routes(self, owners: np.ndarray) -> dict:
        """Return for each vertical, and for "none of them" last, the rows of it, and of it and of others the rows routed to it."""
        routes = np.concatenate(self._routes)
        found = []
        for k in (*range(len(self.parts)), NONE):
            own = owners == k
            found.append({"n": int(own.sum()), "routed": int((own & (routes == k)).sum()), "others": int((~own & (routes == k)).sum())})
        return {"verticals": dict(zip(self.parts, found[:-1], strict=True)), "outside": found[-1]}


def compare(hits: dict[str, dict], chosen: np.ndarray, listings: np.ndarray, ways: tuple[str, ...]) -> dict:
    """Compare ways with the general model on some of the rows.

    Args:
        hits: of each way what `find_hits` returns.
        chosen: bool [n].
        listings: int [n].
        ways: of WAYS, the general model first.

    Returns:
        `n` images, `n_listings`, `n_categories` and `ways`; under a way's name each metric by its path, with `micro` and `macro`, each with
        its `share` and, for other ways than the general model, `points` of difference, its 95 % `interval` in points and `shown`.
    """
    if not chosen.any():
        return {"n": 0, "n_listings": 0, "n_categories": 0, "ways": {}}
    listings = np.unique(listings[chosen], return_inverse=True)[1]
    chosen_hits = {way: {path: (right[chosen], truth[chosen]) for path, (right, truth) in hits[way].items()} for way in ways}
    general = chosen_hits["general"]
    differences = {
        (way, path): right.astype(np.int8) - general[path][0] for way in ways[1:] for path, (right, _) in chosen_hits[way].items()
    }
    groups = {_group_of((None, path)): truth for path, (_, truth) in general.items()}
    macro = macro_intervals(differences, groups, _group_of, listings)
    found: dict = {way: {} for way in ways}
    for way in ways:
        for path, (right, truth) in chosen_hits[way].items():
            shares = micro_macro(right, truth)
            values: dict = {kind: {"share": share} for kind, share in shares.items()}
            if way != "general":
                intervals = {"micro": micro_interval(differences[way, path], listings), "macro": macro[way, path]}
                n_differing = count_differing(differences[way, path], listings)
                values["n_differing"] = n_differing
                for kind, base in micro_macro(*general[path]).items():
                    values[kind] |= _difference(shares[kind] - base, intervals[kind], n_differing)
            put(found[way], path, values)
    return {"n": int(chosen.sum()), "n_listings": int(listings.max()) + 1, "n_categories": len(np.unique(groups[("leaf",)])), "ways": found}


def _group_of(key: tuple) -> tuple:
    """Return what the true categories of a way's metric are called: metrics of one level share them."""
    path = key[1]
    return path[:2] if path[0] == "levels" else ("leaf",)


def _difference(share: float, interval: tuple[float, float], n_differing: int) -> dict:
    return {"points": 100 * share, "interval": [100 * end for end in interval], "shown": is_shown(interval, n_differing)}


def to_table(found: dict) -> str:
    """Return a comparison as one Markdown table, shares in %; `*` marks a difference at a level that is shown."""
    depth = max(len(way.get("levels", {})) for way in found["all"]["ways"].values())
    header = ["rows", "way", "top-1", "less general, points", "macro", "less general, points", *(f"L{k + 1}" for k in range(depth))]
    named = {**found["verticals"], "pooled": found["pooled"], "outside of all": found["outside"], "all rows": found["all"]}
    lines = [header]
    for name, part in named.items():
        label = f"{name}: {part['n']} images, {part['n_categories']} categories"
        lines += [[label, "no rows", *[""] * (len(header) - 2)]] if not part["n"] else []
        for way, metrics in part["ways"].items():
            cells = [text for kind in ("micro", "macro") for text in _with_difference(metrics["top1"][kind])]
            levels = [_level(metrics["levels"][str(k + 1)]) for k in range(depth)]
            lines.append([label if way == "general" else "", way, *cells, *levels])
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines)


def _with_difference(value: dict) -> tuple[str, str]:
    share = f"{100 * value['share']:.1f}"
    if "points" not in value:
        return share, ""
    low, high = value["interval"]
    return share, f"{value['points']:+.1f} ({low:+.1f} to {high:+.1f})" + ("" if value["shown"] else ", not shown")


def _level(metrics: dict) -> str:
    return " / ".join(f"{100 * metrics[kind]['share']:.1f}" + "*" * metrics[kind].get("shown", False) for kind in ("micro", "macro"))
