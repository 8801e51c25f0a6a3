"""What charts are drawn on: scales, ticks and the frame.

Lengths and positions are pixels from the top left; a box is (left, top, right, bottom).
"""

import math
import unicodedata
from collections.abc import Callable, Sequence

from family.pages.text import escape

FONT_PX = 12
Box = tuple[float, float, float, float]


def text_width(text: str, font_px: float = FONT_PX) -> float:
    """Estimate the width of text, on the wide side, since the reader's font is unknown."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return font_px * (0.6 * (len(text) - wide) + 1.05 * wide)


def shorten(text: str, width_px: float) -> str:
    """Cut text to a width, with an ellipsis."""
    if text_width(text) <= width_px:
        return text
    while text and text_width(text + "…") > width_px:
        text = text[:-1]
    return text.rstrip() + "…"


def span(values: Sequence[float], *, log: bool = False, pad: float = 0.08) -> tuple[float, float]:
    """Return the ends of an axis that holds the values with some room (a share of the range) at both ends."""
    low, high = (min(values), max(values)) if values else (1.0, 10.0)
    if log:
        low, high = math.log10(max(low, 1e-9)), math.log10(max(high, 1e-9))
    room = max((high - low) * pad, 0.05 if log else 0.5 if high == low else 0.0)
    low, high = low - room, high + room
    return (10**low, 10**high) if log else (low, high)


def scale(ends: tuple[float, float], pixels: tuple[float, float], *, log: bool = False) -> Callable[[float], float]:
    """Return the function from a value to its pixel."""
    turn = (lambda value: math.log10(max(value, 1e-9))) if log else float
    low, high = turn(ends[0]), turn(ends[1])
    return lambda value: pixels[0] + (turn(value) - low) / (high - low) * (pixels[1] - pixels[0])


def ticks(ends: tuple[float, float], n_most: int, *, log: bool = False) -> list[float]:
    """Return at most about `n_most` round values between the ends."""
    return _log_ticks(ends, n_most) if log else _linear_ticks(ends, n_most)


def _linear_ticks(ends: tuple[float, float], n_most: int) -> list[float]:
    rough = (ends[1] - ends[0]) / max(n_most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.ceil(ends[0] / step - 1e-9), math.floor(ends[1] / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _log_ticks(ends: tuple[float, float], n_most: int) -> list[float]:
    decades = range(math.floor(math.log10(ends[0])), math.ceil(math.log10(ends[1])) + 1)
    found: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7), tuple(range(1, 10))):
        values = [round(digit * 10.0**decade, 10) for decade in decades for digit in digits]
        inside = [value for value in values if ends[0] <= value <= ends[1]]
        if len(inside) > n_most:
            break
        found = inside
    return found if len(found) > 1 else _linear_ticks(ends, n_most)


def word(x: float, y: float, text: object, kind: str = "", anchor: str = "start") -> str:
    """Return one piece of text; `anchor` is start, middle or end."""
    class_ = f' class="{kind}"' if kind else ""
    side = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{class_}{side}>{escape(text)}</text>'


def stroke(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Return one straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def marker(x: float, y: float, radius: float, shape: int, kind: str) -> str:
    """Return a mark of about equal area in one of four shapes: circle, square, diamond, triangle."""
    if shape % 4 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="{kind}"/>'
    corners = {
        1: [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        2: [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        3: [(0, -1.25), (1.2, 0.95), (-1.2, 0.95)],
    }[shape % 4]
    points = " ".join(f"{x + radius * dx:.1f},{y + radius * dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" class="{kind}"/>'


def frame(box: Box, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]]) -> list[str]:
    """Return grid lines and tick labels; a tick is (pixel, text); a newline in it starts a second line."""
    left, top, right, bottom = box
    parts = []
    for y, text in y_ticks:
        parts += [stroke(left, y, right, y, "grid"), word(left - 8, y + 4, text, "quiet", "end")]
    for x, text in x_ticks:
        parts.append(stroke(x, bottom, x, bottom + 4, "axis"))
        parts += [word(x, bottom + 18 + 15 * i, part, "quiet", "middle") for i, part in enumerate(text.split("\n"))]
    return [*parts, stroke(left, bottom, right, bottom, "axis")]


def legend(entries: Sequence[tuple[str, str]], left: float, right: float, y: float) -> tuple[list[str], float]:
    """Lay out a legend from entries (mark drawn around 0,0; text), in as many rows as the width needs.

    Returns its parts and the y below it.
    """
    parts, x = [], left
    for mark, text in entries:
        width = 22 + text_width(text) + 14
        if x > left and x + width - 14 > right:
            x, y = left, y + 20
        parts.append(f'<g transform="translate({x + 8:.1f},{y:.1f})">{mark}</g>')
        parts.append(word(x + 22, y + 4, text, "quiet"))
        x += width
    return parts, y + 20 if entries else y
