"""Points and the front through them as inline SVG, like `charts`: what each cost buys, with a budget that the reader moves."""

from collections.abc import Callable, Sequence

from family.pages import axes
from family.pages.axes import marker, stroke, word
from family.pages.charts import series_class, svg
from family.pages.labels import nearest, place_labels
from family.pages.text import escape, plain

N_LABELLED = 40  # of the points that are not on the front; the others are named on hover
CAP_PX = 3


def scatter(
    points: Sequence[dict],
    *,
    title: str,
    x_label: str,
    y_label: str,
    width: int = 1040,
    height: int = 0,
    log_x: bool = False,
    y_max: float = float("inf"),
    budget: float | None = None,
    budget_label: str = "",
    drags: bool = False,
    whiskers: str = "",
) -> str:
    """Draw points, the front through those that are on it, and where wanted the budget as a vertical line, which `shell.budgeted` lets the reader move.

    A point is `{"x", "y", "label"}` with, where wanted, `"group"` (its colour and shape), `"front": True`,
    `"quiet": True` (hollow, unlabelled), `"hint"` (shown on hover), and `"y_ends"` and `"x_ends"`, pairs in which the true values
    lie, drawn of the front alone. Points on the front are labelled first, its two ends always, then at most `N_LABELLED` others;
    another label without room is left out.

    Args:
        whiskers: what the legend says of those pairs.
        drags: tell the page's script what it needs to move the budget; points that are not quiet can be chosen.
    """
    groups = list(dict.fromkeys(p["group"] for p in points if p.get("group") and not p.get("quiet")))
    known = [p["x"] for p in points] + ([budget] if budget and points else [])
    front = [p for p in points if p.get("front")]
    known += [end for p in front for end in p.get("x_ends") or ()]
    x_ends = axes.span(known, log=log_x)
    y_ends = axes.span([*(p["y"] for p in points), *(end for p in front for end in p.get("y_ends") or ())])
    y_ends = (y_ends[0], min(y_ends[1], y_max))
    key, top = axes.legend(_scatter_key(points, groups, budget, budget_label, whiskers), 4, width - 8, 42)
    tall = (height or round(200 + 0.25 * width)) if points else 100
    box = (44.0, top + 6.0, width - 16.0, top + tall - 42)
    to_x, to_y = axes.scale(x_ends, (box[0], box[2]), log=log_x), axes.scale(y_ends, (box[3], box[1]))
    parts = [word(4, 16, y_label, "strong"), *key]
    if not points:
        parts.append(word((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, "nothing to show", "quiet", "middle"))
        return svg(parts, width, box[3] + 44, title, "No points.")
    x_ticks = [(to_x(v), f"{v:g}") for v in axes.ticks(x_ends, round(width / 75), log=log_x)]
    y_ticks = [(to_y(v), f"{v:g}") for v in axes.ticks(y_ends, 6)]
    parts += [*axes.frame(box, x_ticks, y_ticks), word(box[2], box[3] + 38, x_label, "strong", "end")]
    if budget or drags:
        x = to_x(budget or x_ends[1])
        hidden = "" if budget else ' visibility="hidden"'
        parts.append(f'<g class="budget-line"{hidden}>{stroke(x, box[1], x, box[3], "budget")}</g>')
    spots = [{**p, "ms": p["x"], "gain": p["y"], "x": to_x(p["x"]), "y": to_y(p["y"])} for p in sorted(points, key=_importance)]
    steps = _steps([s for s in spots if s.get("front")])
    crosses = dict.fromkeys(cross for spot in spots if spot.get("front") for cross in _whiskers(spot, to_x, to_y))  # equal ones once
    parts += [stroke(*step, "front") for step in steps] + [stroke(*cross, "whisker") for cross in crosses]
    parts += [_spot(spot, groups, drags) for spot in reversed(spots)]
    parts += _spot_labels(spots, [*steps, *crosses], box, to_x(budget) if budget else None)
    told = f"{len(points)} points, {y_label} against {x_label}."
    told += f" On the front: {', '.join(plain(p.get('hint') or p['label']) for p in front)}." if front else ""
    ends = f' data-low="{x_ends[0]:g}" data-high="{x_ends[1]:g}" data-left="{box[0]:g}" data-right="{box[2]:g}"' if drags else ""
    return svg(parts, width, box[3] + 48, title, told).replace("<svg", f"<svg{ends}", 1)


def _importance(point: dict) -> tuple:
    """Sort the front first, from the left, then the other points from the top, then the quiet ones."""
    quiet, front = bool(point.get("quiet")), bool(point.get("front"))
    return (quiet, not front, point["x"] if front else -point["y"])


def _scatter_key(points: Sequence[dict], groups: Sequence[str], budget: float | None, budget_label: str, whiskers: str) -> list:
    entries = [(marker(0, 0, 5, i, series_class(i)), plain(group)) for i, group in enumerate(groups)]
    if any(p.get("front") for p in points):
        entries.append((stroke(-8, 0, 8, 0, "front"), "Pareto front"))
    if any(p.get("front") and (p.get("x_ends") or p.get("y_ends")) for p in points):
        entries.append((stroke(-7, 0, 7, 0, "whisker") + stroke(0, -7, 0, 7, "whisker"), whiskers))
    if budget and points:
        entries.append((stroke(-8, 0, 8, 0, "budget"), budget_label or f"budget {budget:g}"))
    if any(p.get("quiet") for p in points):
        entries.append((marker(0, 0, 5, 0, "hollow"), "not comparable, see the table"))
    return entries


def _steps(front: Sequence[dict]) -> list[tuple[float, float, float, float]]:
    """Return the front as steps (left to right, then up): what accuracy each latency buys."""
    steps = []
    for here, there in zip(front, front[1:], strict=False):
        steps += [
            (here["x"], here["y"], there["x"], here["y"]),
            (there["x"], here["y"], there["x"], there["y"]),
        ]
    return steps


def _whiskers(spot: dict, to_x: Callable, to_y: Callable) -> list[tuple[float, float, float, float]]:
    """Return the lines between the ends that a point's values lie in, with a cap at each end."""
    x, y, lines = spot["x"], spot["y"], []
    if spot.get("x_ends"):
        left, right = map(to_x, spot["x_ends"])
        lines += [(left, y, right, y), *((end, y - CAP_PX, end, y + CAP_PX) for end in (left, right))]
    if spot.get("y_ends"):
        bottom, top = map(to_y, spot["y_ends"])
        lines += [(x, top, x, bottom), *((x - CAP_PX, end, x + CAP_PX, end) for end in (top, bottom))]
    return lines


def _spot(spot: dict, groups: Sequence[str], drags: bool) -> str:
    place = groups.index(spot["group"]) if spot.get("group") in groups else 0
    kind = "hollow" if spot.get("quiet") else f"{series_class(place)} ring"
    radius = 6.5 if spot.get("front") else 5
    hint = escape(spot.get("hint") or spot["label"])
    told = f' data-ms="{spot["ms"]:g}" data-gain="{spot["gain"]:g}"' if drags else ""
    told += f' data-name="{escape(plain(spot.get("name") or spot["label"]))}"' if drags and not spot.get("quiet") else ""
    return f"<g{told}><title>{hint}</title>{marker(spot['x'], spot['y'], radius, place, kind)}</g>"


def _spot_labels(spots: Sequence[dict], lines: Sequence[tuple], box: axes.Box, budget_x: float | None) -> list[str]:
    taken = [(s["x"] - 7, s["y"] - 7, s["x"] + 7, s["y"] + 7) for s in spots]
    taken += [(min(a, c) - 2, min(b, d) - 2, max(a, c) + 2, max(b, d) + 2) for a, b, c, d in lines]
    if budget_x is not None:
        taken.append((budget_x - 3, box[1], budget_x + 3, box[3]))
    parts = []
    named = _named(spots, is_narrow=box[2] - box[0] < 400)
    for spot, place in zip(named, place_labels(named, taken, box), strict=True):
        if place is None:
            continue
        near_x, near_y = nearest(place, spot["x"], spot["y"])
        if abs(near_x - spot["x"]) + abs(near_y - spot["y"]) > 19:
            parts.append(stroke(spot["x"], spot["y"], near_x, near_y, "lead"))
        kind = "strong halo" if spot.get("front") else "quiet halo"
        parts.append(word(place[0], place[3] - 4, spot["text"], kind))
    return parts


def _named(spots: Sequence[dict], is_narrow: bool) -> list[dict]:
    """Return what is to be labelled, from what comes first: the ends of the front, its other points, some of the others."""
    spots = list({(s["x"], s["y"]): s for s in reversed(spots)}.values())[::-1]  # of those at one place, the first
    front = [s for s in spots if s.get("front")]
    others = [] if is_narrow else [s for s in spots if not (s.get("front") or s.get("quiet"))][:N_LABELLED]
    ends = [{**s, "must": True} for s in [*front[:1], *front[1:][-1:]]]
    return [{**s, "text": plain(s["label"])} for s in [*ends, *front[1:-1], *others]]
