"""Charts as inline SVG text. Values come in the unit that is shown: per cent as 0 to 100, ms as ms.

Every chart takes a `width` in pixels, so that a page can hold one for a desk and one for a phone; both keep
the same letter size.
"""

from collections.abc import Sequence

import numpy as np

from family.pages import axes, style
from family.pages.axes import marker, stroke, word
from family.pages.text import amount, escape, plain


def lines(
    series: Sequence[dict],
    *,
    title: str,
    y_label: str,
    x_names: dict[float, str],
    width: int = 1040,
    y_max: float = float("inf"),
) -> str:
    """Draw lines over named places on x, each labelled at its end; marks grow with what they stand for.

    A series is `{"label", "points"}`; a point is `{"x", "y", "n"}`, where `n` (categories, rows) gives its
    mark an area. `x_names` maps each x to its name; a newline in it starts a second line.
    """
    points = [p for s in series for p in s["points"]]
    n_most = max((p["n"] for p in points), default=1) or 1
    y_ends = axes.span([p["y"] for p in points])
    y_ends = (y_ends[0], min(y_ends[1], y_max))
    room = min(max((axes.text_width(plain(s["label"])) for s in series), default=0) + 26, width * 0.45)
    box = (44.0, 34.0, width - room, round(170 + 0.2 * width))
    to_x = axes.scale(axes.span(list(x_names), pad=0.06), (box[0], box[2]))
    to_y = axes.scale(y_ends, (box[3], box[1]))
    parts = [word(4, 16, y_label, "strong")]
    y_ticks = [(to_y(v), f"{v:g}") for v in axes.ticks(y_ends, 6)]
    parts += axes.frame(box, [(to_x(x), name) for x, name in x_names.items()], y_ticks)
    ends = []
    for i, s in enumerate(series):
        spots = [(to_x(p["x"]), to_y(p["y"]), 3 + 6 * (p["n"] / n_most) ** 0.5, p) for p in s["points"]]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in spots)
        dash = ("", "6 3", "2 3", "9 3 2 3")[i % 4]
        parts.append(f'<polyline points="{path}" class="{series_class(i)} line" stroke-dasharray="{dash or "none"}"/>')
        for x, y, radius, p in spots:
            hint = f"{plain(s['label'])}: {p['y']:.1f} at {plain(x_names[p['x']])} (n = {p['n']})"
            mark = marker(x, y, radius, 0, f"{series_class(i)} ring")
            parts.append(f"<g><title>{escape(hint)}</title>{mark}</g>")
        ends.append(spots[-1][:2])
    parts += _end_labels(series, ends, box, room)
    n_rows = max((name.count("\n") + 1 for name in x_names.values()), default=1)
    told = "; ".join(f"{plain(s['label'])}: " + ", ".join(f"{p['y']:.1f}" for p in s["points"]) for s in series)
    return svg(parts, width, box[3] + 12 + 15 * n_rows, title, f"{y_label}. {told}.")


def heatmap(names: Sequence[str], counts: Sequence[Sequence[int]], *, title: str, width: int = 760, n_most: int = 24) -> str:
    """Draw a confusion matrix: rows are true, columns predicted, shaded and numbered in per cent of a row.

    Past `n_most` categories, or as many as fit the width, the ones with the fewest rows are drawn together.
    """
    n_most = min(n_most, int(width * 0.7 / 16))
    names, table = _merge_smallest([plain(name) for name in names], np.asarray(counts), n_most)
    totals = table.sum(axis=1)
    share = table / np.maximum(totals, 1)[:, None]
    left = min(max(axes.text_width(name) for name in names) + 14, width * 0.3)
    upright = (width - left) / len(names) < 60
    cell = min((width - left - (0 if upright else 40)) / len(names), 64)
    room = left - 14
    top = 30 + (room if upright else room * 0.72 + 8)
    parts = [word(left, 14, "predicted", "quiet"), word(left - 10, top - 8, "true", "quiet", "end")]
    for i, name in enumerate(names):
        middle = (i + 0.5) * cell
        x, turn = left + middle + (4 if upright else 0), -90 if upright else -45
        spin = f'<g transform="translate({x:.1f},{top - 6:.1f}) rotate({turn})">'
        parts.append(f"{spin}{word(0, 0, axes.shorten(name, room))}</g>")
        parts.append(word(left - 10, top + middle + 4, axes.shorten(name, room), "", "end"))
        for j, other in enumerate(names):
            hint = f"{name} filed as {other}: {table[i, j]} of {totals[i]}"
            x, y = left + j * cell, top + i * cell
            parts.append(_cell(x, y, cell, share[i, j], hint))
    wrong = share - np.diag(np.diag(share))
    i, j = np.unravel_index(int(wrong.argmax()), wrong.shape)
    told = f"{len(names)} categories, true in rows and predicted in columns, in per cent of the row."
    if wrong[i, j] > 0:
        told += f" The most frequent confusion: {names[i]} filed as {names[j]}, {100 * wrong[i, j]:.1f} %."
    return svg(parts, width, top + cell * len(names) + 6, title, told)


def bars(rows: Sequence[dict], *, title: str, x_label: str, width: int = 1040) -> str:
    """Draw horizontal bars from `{"label", "parts": {name: value}}`: parts end to end, and their sum."""
    names = list(dict.fromkeys(name for row in rows for name in row["parts"]))
    kinds = {name: f"{series_class(i + 4)} cell" for i, name in enumerate(names)}
    labels, sums = [plain(row["label"]) for row in rows], [sum(row["parts"].values()) for row in rows]
    entries = [(marker(0, 0, 5, 1, kind), plain(name)) for name, kind in kinds.items()]
    key, top = axes.legend(entries if len(names) > 1 else [], 4, width - 8, 42)
    above = width < 500  # a phone has no room for names beside the bars
    left = 4.0 if above else max((axes.text_width(label) for label in labels), default=0) + 14
    step, drop = (44, 22) if above else (24, 6)
    box = (left, top - 8, width - 64.0, top - 2 + step * len(rows))
    ends = (0.0, max(sums, default=1) or 1)
    to_x = axes.scale(ends, (box[0], box[2]))
    parts = [word(4, 16, x_label, "strong"), *key]
    for value in axes.ticks(ends, max(2, round((box[2] - box[0]) / 90))):
        parts += [stroke(to_x(value), box[1], to_x(value), box[3], "grid")]
        parts += [word(to_x(value), box[3] + 16, f"{value:g}", "quiet", "middle")]
    for i, (row, label, total) in enumerate(zip(rows, labels, sums, strict=True)):
        y, start = box[1] + drop + step * i, 0.0
        parts.append(word(4, y - 6, label, "halo") if above else word(left - 10, y + 13, label, "", "end"))
        for name, value in row["parts"].items():
            hint = f"{label}: {name} {amount(value)}"
            parts.append(_bar(to_x(start), to_x(start + value), y, kinds[name], hint))
            start += value
        parts.append(word(to_x(total) + 8, y + 13, amount(total), "quiet halo"))
    told = "; ".join(f"{label}: {amount(total)}" for label, total in zip(labels, sums, strict=True))
    return svg(parts, width, box[3] + 26, title, f"{x_label}. {told}.")


def standalone(svg: str) -> str:
    """Return a chart as the text of an .svg file, with its own background and colours for light and dark."""
    opening, rest = svg.split(">", 1)
    look = f'<style>{style.chart_css()}</style><rect width="100%" height="100%" class="backdrop"/>'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{opening}>{look}{rest}\n'


def svg(parts: Sequence[str], width: float, height: float, title: str, told: str) -> str:
    """Return a picture of parts with its name, and what it shows in words."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
        f"<title>{escape(title)}</title><desc>{escape(told)}</desc>\n" + "\n".join(parts) + "\n</svg>"
    )


def series_class(i: int) -> str:
    """Return the colour of a series, by its number."""
    return f"c{i % style.N_SERIES + 1}"


def _end_labels(series: Sequence[dict], ends: Sequence[tuple], box: axes.Box, room: float) -> list[str]:
    """Name each line at its end, moved apart where ends are close, with a line back to the end."""
    order = sorted(range(len(series)), key=lambda i: ends[i][1])
    heights: list[float] = []
    for i in order:
        heights.append(max(ends[i][1], heights[-1] + 16 if heights else box[1] + 6))
    over = max(0.0, heights[-1] - box[3]) if heights else 0.0
    parts = []
    for i, height in zip(order, heights, strict=True):
        x, y = ends[i]
        y_text = height - over
        parts.append(stroke(x + 9, y, box[2] + 6, y_text, "lead"))
        label = axes.shorten(plain(series[i]["label"]), room - 22)
        parts.append(marker(box[2] + 11, y_text, 4, 0, series_class(i)))
        parts.append(word(box[2] + 19, y_text + 4, label))
    return parts


def _merge_smallest(names: list[str], counts: np.ndarray, n_most: int) -> tuple[list[str], np.ndarray]:
    if len(names) <= n_most:
        return names, counts
    order = np.argsort(-counts.sum(axis=1), kind="stable")
    keep, rest = np.sort(order[: n_most - 1]), order[n_most - 1 :]
    slot = np.empty(len(names), int)
    slot[keep], slot[rest] = np.arange(len(keep)), len(keep)
    merged = np.zeros((n_most, n_most), counts.dtype)
    np.add.at(merged, (slot[:, None], slot[None, :]), counts)
    return [*(names[i] for i in keep), f"{len(rest)} others"], merged


def _bar(left: float, right: float, y: float, kind: str, hint: str) -> str:
    shape = f'<rect x="{left:.1f}" y="{y:.1f}" width="{right - left:.1f}" height="16" class="{kind}"/>'
    return f"<g><title>{escape(hint)}</title>{shape}</g>"


def _cell(x: float, y: float, size: float, share: float, hint: str) -> str:
    shade = f'<rect x="{x:.1f}" y="{y:.1f}" width="{size - 1:.1f}" height="{size - 1:.1f}" '
    empty = f'{shade}class="c1 cell" fill-opacity="{0.03 + 0.55 * share:.2f}"/>'
    text = ""
    if size >= 20 and share >= 0.0005:
        number = f"{100 * share:.0f}" if size < 34 else f"{100 * share:.1f}"
        text = word(x + size / 2, y + size / 2 + 4, number, "", "middle")
    return f"<g><title>{escape(hint)}</title>{empty}{text}</g>"
