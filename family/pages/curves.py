"""Charts of how far a probability can be trusted, and of differences with their intervals; inline SVG like `charts`.

Shares come in per cent, 0 to 100; differences in the unit that is shown.
"""

from collections.abc import Sequence

from family.pages import axes
from family.pages.axes import marker, stroke, word
from family.pages.charts import svg
from family.pages.labels import place_labels
from family.pages.text import escape, plain, points

STRIP_PX = 64  # the height of the histogram under a reliability picture


def curve(
    spots: Sequence[dict],
    *,
    title: str,
    x_label: str,
    y_label: str,
    wanted: float | None = None,
    wanted_label: str = "",
    marks: Sequence[dict] = (),
    width: int = 640,
) -> str:
    """Draw y against x, both in per cent, as a line through `{"x", "y"}` in the order given.

    Args:
        wanted: a value of y, drawn as a line across.
        marks: `{"x", "y", "label"}` each, points that the text speaks of; one without room is not labelled.
    """
    entries = [(stroke(-8, 0, 8, 0, "budget"), wanted_label)] if wanted is not None else []
    key, top = axes.legend(entries, 4, width - 8, 42)
    box = (44.0, top + 6.0, width - 20.0, top + 150 + 0.25 * width)
    known = [spot["y"] for spot in [*spots, *marks]] + ([wanted] if wanted is not None else [])
    low, high = axes.span(known)
    y_ends = (max(low, 0.0), min(high, 100.0)) if high > low else (0.0, 100.0)
    to_x, to_y = axes.scale((0, 100), (box[0], box[2])), axes.scale(y_ends, (box[3], box[1]))
    parts = [word(4, 16, y_label, "strong"), *key, *_axes(box, to_x, to_y, y_ends, x_label)]
    path = " ".join(f"{to_x(spot['x']):.1f},{to_y(spot['y']):.1f}" for spot in spots)
    parts.append(f'<polyline points="{path}" class="c1 line"/>')
    if wanted is not None:
        parts.append(stroke(box[0], to_y(wanted), box[2], to_y(wanted), "budget"))
    placed = [{"x": to_x(m["x"]), "y": to_y(m["y"]), "text": plain(m["label"])} for m in marks]
    taken = [(to_x(s["x"]) - 3, to_y(s["y"]) - 3, to_x(s["x"]) + 3, to_y(s["y"]) + 3) for s in spots]
    taken += [(m["x"] - 7, m["y"] - 7, m["x"] + 7, m["y"] + 7) for m in placed]
    if wanted is not None:
        taken.append((box[0], to_y(wanted) - 2, box[2], to_y(wanted) + 2))
    for place, (mark, label) in enumerate(zip(placed, place_labels(placed, taken, box), strict=True)):
        hint = f"{mark['text']}: x {marks[place]['x']:.1f}, y {marks[place]['y']:.1f}"
        parts.append(f"<g><title>{escape(hint)}</title>{marker(mark['x'], mark['y'], 6, place + 1, 'c2 ring')}</g>")
        if label:
            parts.append(word(label[0], label[3] - 4, mark["text"], "strong halo"))
    told = "; ".join(f"{plain(m['label'])}: {m['y']:.1f} at {m['x']:.1f}" for m in marks)
    return svg(parts, width, box[3] + 48, title, f"{y_label} against {x_label}. {told}.")


def reliability(bins: Sequence[dict], *, title: str, width: int = 640) -> str:
    """Draw how often answers are right against what the model says, and under it how many answers say so.

    A bin is `{"low", "high", "n", "confidence", "accuracy"}`, the mean probability and the share that is right, in per cent.
    """
    held = [b for b in bins if b["n"]]
    n_most = max((b["n"] for b in held), default=1)
    entries = [
        (marker(0, 0, 5, 0, "c1"), "what happened"),
        (stroke(-8, 0, 8, 0, "axis"), "as often as the model says"),
        (stroke(-8, 0, 8, 0, "budget"), "how far off"),
    ]
    key, top = axes.legend(entries, 4, width - 8, 42)
    box = (44.0, top + 6.0, width - 20.0, top + 6 + min(0.62 * width, 330))
    to_x, to_y = axes.scale((0, 100), (box[0], box[2])), axes.scale((0, 100), (box[3], box[1]))
    y_label, x_label = "right, % of answers", "probability that the model gives, %"
    parts = [word(4, 16, y_label, "strong"), *key, *_axes(box, to_x, to_y, (0, 100), x_label)]
    parts.append(stroke(to_x(0), to_y(0), to_x(100), to_y(100), "axis"))
    floor = box[3] + 66 + STRIP_PX
    parts += [word(4, box[3] + 60, "answers", "strong"), stroke(box[0], floor, box[2], floor, "axis")]
    for b in held:
        x, y = to_x(b["confidence"]), to_y(b["accuracy"])
        hint = escape(f"{b['low']:.0f} to {b['high']:.0f} %: says {b['confidence']:.1f}, is right {b['accuracy']:.1f} (n = {b['n']})")
        spot = marker(x, y, 3 + 6 * (b["n"] / n_most) ** 0.5, 0, "c1 ring")
        parts.append(f"<g><title>{hint}</title>{stroke(x, to_y(b['confidence']), x, y, 'budget')}{spot}</g>")
        left, right, height = to_x(b["low"]) + 1, to_x(b["high"]) - 1, STRIP_PX * b["n"] / n_most
        bar = f'<rect x="{left:.1f}" y="{floor - height:.1f}" width="{max(right - left, 1):.1f}" height="{height:.1f}" class="c1 cell"/>'
        parts.append(f"<g><title>{hint}</title>{bar}</g>")
    told = "; ".join(f"says {b['confidence']:.0f}, is right {b['accuracy']:.0f} ({b['n']} answers)" for b in held)
    return svg(parts, width, floor + 8, title, f"{y_label} against {x_label}: {told}.")


def differences(rows: Sequence[dict], *, title: str, x_label: str, width: int = 1040) -> str:
    """Draw differences with their intervals around zero, one a line; those that are not shown to be one are hollow.

    A row is `{"label", "value", "low", "high", "shown"}`.
    """
    labels = [plain(row["label"]) for row in rows]
    told = [_difference_text(row) for row in rows]
    above = width < 500  # a phone has no room for names beside the lines
    left = 16.0 if above else max((axes.text_width(label) for label in labels), default=0) + 14
    right = 16.0 if above else max((axes.text_width(text) for text in told), default=0) + 18
    step, drop = (44, 30) if above else (28, 14)
    box = (left, 30.0, width - right, 30.0 + step * len(rows) + 4)
    most = max((abs(end) for row in rows for end in (row["low"], row["high"])), default=1.0) * 1.08 or 1.0
    to_x = axes.scale((-most, most), (box[0], box[2]))
    parts = [word(4, 16, x_label, "strong")]
    for value in axes.ticks((-most, most), max(2, round((box[2] - box[0]) / 90))):
        parts.append(stroke(to_x(value), box[1], to_x(value), box[3], "axis" if value == 0 else "grid"))
        parts.append(word(to_x(value), box[3] + 16, points(value), "quiet", "middle"))
    for i, (row, label, text) in enumerate(zip(rows, labels, told, strict=True)):
        y = box[1] + drop + step * i
        if above:
            name = axes.shorten(label, width - 12 - axes.text_width(text))
            parts.append(word(4, y - 12, f"{name}  {text}", "halo"))
        else:
            parts += [word(left - 10, y + 4, label, "", "end"), word(box[2] + 10, y + 4, text, "quiet")]
        kind = "c1 ring" if row["shown"] else "hollow"
        whisker = stroke(to_x(row["low"]), y, to_x(row["high"]), y, "c1 line" if row["shown"] else "axis")
        parts.append(f"<g><title>{escape(f'{label}: {text}')}</title>{whisker}{marker(to_x(row['value']), y, 5.5, 0, kind)}</g>")
    return svg(parts, width, box[3] + 26, title, f"{x_label}. " + "; ".join(f"{a}: {b}" for a, b in zip(labels, told, strict=True)) + ".")


def _difference_text(row: dict) -> str:
    return f"{points(row['value'])} ({points(row['low'])} to {points(row['high'])})" + ("" if row["shown"] else ", not shown")


def _axes(box: axes.Box, to_x, to_y, y_ends: tuple[float, float], x_label: str) -> list[str]:
    x_ticks = [(to_x(v), f"{v:g}") for v in axes.ticks((0, 100), round((box[2] - box[0]) / 60))]
    y_ticks = [(to_y(v), f"{v:g}") for v in axes.ticks(y_ends, 6)]
    return [*axes.frame(box, x_ticks, y_ticks), word(box[2], box[3] + 38, x_label, "strong", "end")]
