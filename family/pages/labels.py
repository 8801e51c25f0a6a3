"""Labels that stay clear of each other and of what a chart draws.

A place is compared with what is near it alone, so that a chart of thousands of marks takes little longer than one of ten.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from family.pages.axes import FONT_PX, Box, text_width

CELL_PX = 32


class _Grid:
    """Boxes by the squares of the picture that they touch."""

    def __init__(self, boxes: Iterable[Box]):
        self._cells: defaultdict[tuple[int, int], list[Box]] = defaultdict(list)
        for box in dict.fromkeys(boxes):  # marks of equal members lie on each other
            self.add(box)

    def add(self, box: Box) -> None:
        for cell in _cells(box):
            self._cells[cell].append(box)

    def near(self, box: Box) -> Iterator[Box]:
        """Yield the boxes that may share area with one; some more than once."""
        return (other for cell in _cells(box) for other in self._cells.get(cell, ()))


def _cells(box: Box) -> Iterator[tuple[int, int]]:
    left, top, right, bottom = (int(end // CELL_PX) for end in box)
    return ((i, j) for i in range(left, right + 1) for j in range(top, bottom + 1))


def overlap(a: Box, b: Box) -> float:
    """Return the area that two boxes share, in square pixels."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def place_labels(labels: Sequence[dict], taken: Sequence[Box], inside: Box) -> list[Box | None]:
    """Find a place for each label `{"x", "y", "text"}` beside its point; earlier ones choose first.

    A place is clear of `taken`, of the labels placed before, and lies `inside`. Near places come first, then
    farther ones, whose way to the point must be clear too; where none is free the label is left out (None), or, with
    `"must": True`, stands where it covers least, and no other label if that can be.
    """
    marks, texts = _Grid(taken), _Grid(())
    placed: list[Box | None] = []
    for label in labels:
        found = next((box for box in _places(label) if _is_free(box, (marks, texts), inside) and _is_reached(label, box, (marks, texts))), None)
        if found is None and label.get("must"):
            found = min((_moved_inside(box, inside) for box in _places(label)), key=lambda box: (_covered(box, texts), _covered(box, marks)))
        if found:
            texts.add(found)
        placed.append(found)
    return placed


def nearest(box: Box, x: float, y: float) -> tuple[float, float]:
    """Return the point of a box that is nearest to x, y."""
    return min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])


def _covered(box: Box, grid: _Grid) -> float:
    return sum(overlap(box, other) for other in set(grid.near(box)))


def _moved_inside(box: Box, inside: Box) -> Box:
    right, down = (max(inside[k] - box[k], 0.0) - max(box[k + 2] - inside[k + 2], 0.0) for k in (0, 1))
    return box[0] + right, box[1] + down, box[2] + right, box[3] + down


def _is_free(box: Box, grids: Sequence[_Grid], inside: Box) -> bool:
    within = box[0] >= inside[0] and box[1] >= inside[1] and box[2] <= inside[2] and box[3] <= inside[3]
    return within and not any(overlap(box, other) for grid in grids for other in grid.near(box))


def _is_reached(label: dict, box: Box, grids: Sequence[_Grid]) -> bool:
    """Say whether the way from a point to its label is clear, from 10 pixels off the point."""
    x, y = label["x"], label["y"]
    to_x, to_y = nearest(box, x, y)
    length = math.hypot(to_x - x, to_y - y)
    for along in range(10, int(length), 3):
        at_x, at_y = x + (to_x - x) * along / length, y + (to_y - y) * along / length
        spot = (at_x, at_y, at_x, at_y)
        if any(b[0] <= at_x <= b[2] and b[1] <= at_y <= b[3] for grid in grids for b in grid.near(spot)):
            return False
    return True


def _places(label: dict) -> list[Box]:
    x, y = label["x"], label["y"]
    width, height = text_width(label["text"]), FONT_PX + 3
    boxes = []
    for gap in (10, 22, 36, 52, 70):
        slant = max(gap, 13)  # nearer, it would touch its own mark
        for left, middle in (
            (x + gap, y),
            (x - gap - width, y),
            (x + slant - 4, y - slant - 4),
            (x + slant - 4, y + slant + 4),
            (x - slant + 4 - width, y - slant - 4),
            (x - slant + 4 - width, y + slant + 4),
            (x - width / 2, y - gap - 6),
            (x - width / 2, y + gap + 6),
        ):
            boxes.append((left, middle - height / 2, left + width, middle + height / 2))
    return boxes
