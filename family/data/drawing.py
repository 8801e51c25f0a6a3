"""Draw a made-up item: a category's look follows from its path, so that near categories look alike."""

import colorsys
import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from family.data.shapes import COMMON, EXTRAS, FORMS, LABELS, PATTERNS

# Indexes of the palette in which an item is drawn; 0 is what the item does not cover.
ROLES = ("none", "body", "dark", "light", "accent", "glass", "pattern", "outline")
ROLE_INDEX = {name: i for i, name in enumerate(ROLES)}
STRETCHES = (0.72, 1.0, 1.35)
TAPERS = (-0.28, 0.0, 0.28)
LEANS = (-0.3, 0.0, 0.3)
COUNTS = (2, 3, 4, 6)
OVERSAMPLING = 2
# An item may lack a part of the structure, any of its category's marks, or the pattern.
P_MISSING_PART, P_MISSING_MARK, P_PLAIN = 0.15, 0.12, 0.12
_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 20, endpoint=False)), np.sin(np.linspace(0, 2 * np.pi, 20, endpoint=False))], axis=1)


@dataclass(frozen=True)
class Part:
    """A polygon, or a polyline where `width` is above 0, in the item's square from -1 to 1."""

    role: str
    points: np.ndarray  # [n, 2]
    width: float = 0.0


@dataclass(frozen=True)
class Look:
    """What all items of a category share."""

    parts: tuple[Part, ...]
    removable: tuple[int, ...]  # the parts of the branch's structure that an item may lack
    marks: tuple[frozenset[int], ...]  # the parts of the department's habit, and of each extra
    pattern: tuple[np.ndarray, ...]
    favourite_hue: float


@dataclass(frozen=True)
class Item:
    """One thing for sale: a category's look in its own colours and condition."""

    look: Look
    palette: tuple[tuple[int, int, int], ...]  # a colour for each of ROLES
    missing_parts: frozenset[int]
    plain: bool
    build: tuple[float, float]  # how much wider and taller than its category


@lru_cache(maxsize=4096)
def look_of(path: str) -> Look:
    """Return a category's look: level 1 sets the plan, 2 the structure, deeper levels ever smaller traits."""
    names = path.split("/")
    department = _named_or_drawn(FORMS, names[0], names[0])
    branch = _named_or_drawn(FORMS[department], names[1] if len(names) > 1 else "", "/".join(names[:2]))
    extras: list[str] = []
    stretch, taper, lean, pattern, fine, count = 1.0, 0.0, 0.0, "plain", False, 3
    if len(names) > 2:
        pattern, stretch, extra = _pick(names[:3], PATTERNS, STRETCHES, EXTRAS[department])
        extras.append(extra)
    if len(names) > 3:
        others = [extra for extra in EXTRAS[department] if extra not in extras]
        count, taper, extra = _pick(names[:4], COUNTS, TAPERS, others)
        extras.append(extra)
    if len(names) > 4:
        fine, lean, label = _pick(names[:5], (False, True), LEANS, LABELS)
        extras.append(label)
    if len(names) > 5:
        pattern, label = _pick(names[:6], PATTERNS, [label for label in LABELS if label not in extras])
        extras[-1] = label
    common = _parse(COMMON[department], count) if department in COMMON else []
    parts = common + _parse(FORMS[department][branch], count)
    removable = tuple(k for k, part in enumerate(parts) if k >= len(common) and part.role != "body")
    marks = [frozenset(range(len(common)))]
    for extra in extras:
        added = _parse(extra, count)
        marks.append(frozenset(range(len(parts), len(parts) + len(added))))
        parts += added
    warped = tuple(Part(part.role, _warp(part.points, stretch, taper, lean), part.width) for part in parts)
    return Look(warped, removable, tuple(marks), _pattern(pattern, fine), _digest(names) % 997 / 997)


def make_item(path: str, rng: np.random.Generator) -> Item:
    """Draw the colours and the condition of one item of a category."""
    look = look_of(path)
    # A weak preference only: colour must not give the category away.
    hue = look.favourite_hue + rng.normal(0, 0.08) if rng.random() < 0.2 else rng.random()
    value = rng.uniform(0.35, 0.95)
    saturation = 0.8 * rng.random() ** 1.5
    pattern_value = value - 0.32 if value > 0.6 else value + 0.34
    colours = {
        "body": (hue, saturation, value),
        "pattern": (hue + rng.normal(0, 0.06), saturation * 0.9, pattern_value),
        "dark": (rng.random(), rng.uniform(0, 0.4), rng.uniform(0.08, 0.25)),
        "light": (rng.random(), rng.uniform(0, 0.25), rng.uniform(0.8, 1.0)),
        "accent": (hue + rng.uniform(0.3, 0.7), rng.uniform(0.5, 1.0), rng.uniform(0.55, 0.95)),
        "glass": (rng.uniform(0.45, 0.65), rng.uniform(0.1, 0.5), rng.uniform(0.2, 0.65)),
        "outline": (hue, saturation * 0.6, 0.12),
    }
    palette = tuple(_rgb(*colours.get(role, colours["body"])) for role in ROLES)
    missing = {int(rng.choice(look.removable))} if rng.random() < P_MISSING_PART else set()
    missing.update(k for mark in look.marks if rng.random() < P_MISSING_MARK for k in mark)
    width, height = rng.normal(1.0, 0.05, 2)
    plain = bool(rng.random() < P_PLAIN)
    return Item(look, palette, frozenset(missing), plain, (float(width), float(height)))


def render_item(item: Item, size_px: tuple[int, int], placement: np.ndarray) -> tuple[Image.Image, Image.Image]:
    """Return the item's colours (RGB) and its coverage (L), both of `size_px` (width, height).

    `placement` is the affine map [2, 3] from the item's square to pixels.
    """
    matrix = placement[:, :2] * np.array(item.build) * OVERSAMPLING
    offset = placement[:, 2] * OVERSAMPLING
    canvas_size = (size_px[0] * OVERSAMPLING, size_px[1] * OVERSAMPLING)
    scale = float(np.sqrt(abs(np.linalg.det(matrix))))
    indexes = Image.new("L", canvas_size)
    pen = ImageDraw.Draw(indexes)
    outline_px = max(1, round(scale * 0.03))
    for k, part in enumerate(item.look.parts):
        if k not in item.missing_parts:
            _draw_part(pen, part, _flat(part.points @ matrix.T + offset), scale, outline_px)
    if item.look.pattern and not item.plain:
        is_body = indexes.point(_lookup("body"))
        stencil = Image.new("L", canvas_size)
        pen = ImageDraw.Draw(stencil)
        for points in item.look.pattern:
            pen.polygon(_flat(points @ matrix.T + offset), fill=255)
        indexes.paste(ROLE_INDEX["pattern"], mask=ImageChops.multiply(is_body, stencil))
    coverage = indexes.point(_lookup("none", inverse=True)).reduce(OVERSAMPLING)
    indexes.putpalette([channel for colour in item.palette for channel in colour])
    return indexes.convert("RGB").reduce(OVERSAMPLING), coverage


def _draw_part(pen: ImageDraw.ImageDraw, part: Part, xy: list[float], scale: float, outline_px: int) -> None:
    role = ROLE_INDEX[part.role]
    if part.width:
        pen.line(xy, fill=role, width=max(2, round(part.width * scale)), joint="curve")
        return
    pen.polygon(xy, fill=role)
    pen.line(xy + xy[:2], fill=ROLE_INDEX["outline"], width=outline_px)


def _flat(points: np.ndarray) -> list[float]:
    return points.ravel().tolist()


@lru_cache(maxsize=16)
def _lookup(role: str, inverse: bool = False) -> list[int]:
    """Return the table that maps a role's index to 255 and any other to 0, or the other way round."""
    return [255 if (i == ROLE_INDEX[role]) != inverse else 0 for i in range(256)]


def _box(x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=float)
    return corners * (half_width, half_height) + (x, y)


def _row(x0: float, x1: float, y: float, half_w: float, half_h: float, count: int) -> list[np.ndarray]:
    return [_box(x, y, half_w, half_h) for x in np.linspace(x0, x1, count)]


# Each shape turns its numbers and the category's count into a list of polygons.
SHAPES = {
    "box": lambda numbers, count: [_box(*numbers)],
    "disc": lambda numbers, count: [_CIRCLE * (numbers[2], numbers[-1]) + numbers[:2]],
    "poly": lambda numbers, count: [np.array(numbers).reshape(-1, 2)],
    "line": lambda numbers, count: [np.array(numbers[1:]).reshape(-1, 2)],
    "row": lambda numbers, count: _row(*numbers, count),
}


def _parse(text: str, count: int) -> list[Part]:
    """Return the parts that a line of the tables in `shapes` describes."""
    parts = []
    for words in (entry.split() for entry in text.split(";")):
        shape = words[1].rstrip("*")
        numbers = [float(word) for word in words[2:]]
        width = numbers[0] if shape == "line" else 0.0
        polygons = SHAPES[shape](numbers, count)
        if words[1].endswith("*"):
            polygons = polygons + [points * (-1, 1) for points in polygons]
        parts.extend(Part(words[0], points, width) for points in polygons)
    return parts


def _warp(points: np.ndarray, stretch: float, taper: float, lean: float) -> np.ndarray:
    """Stretch, taper and lean points of the item's square, keeping it about as large."""
    x, y = points[:, 0], points[:, 1]
    root = np.sqrt(stretch)
    return np.stack([x * root * (1 + taper * y) + lean * y, y / root], axis=1)


def _bars(n: int, vertical: bool) -> list[np.ndarray]:
    half = 1.3 / (2 * n)
    centres = np.linspace(-1.3, 1.3, 2 * n + 1)[1::2]
    return [_box(c, 0, half, 1.6) if vertical else _box(0, c, 1.6, half) for c in centres]


def _pattern(name: str, fine: bool) -> tuple[np.ndarray, ...]:
    """Return the polygons of a body's pattern."""
    n = 8 if fine else 5
    grid = np.linspace(-1.2, 1.2, n + 2)
    polygons = {
        "plain": lambda: [],
        "stripes": lambda: _bars(n, vertical=True),
        "bands": lambda: _bars(n, vertical=False),
        "dots": lambda: [_CIRCLE[::2] * (0.75 / n) + (x, y) for x in grid for y in grid],
        "checks": lambda: [_box(x, y, 1.2 / (n + 1), 1.2 / (n + 1)) for i, x in enumerate(grid) for j, y in enumerate(grid) if (i + j) % 2],
        "halves": lambda: [np.array([(-1.6, 0.1), (1.6, 0.1), (1.6, 1.6), (-1.6, 1.6)])],
    }
    return tuple(polygons[name]())


def _digest(names: list[str]) -> int:
    # Not hash(): it differs from process to process.
    return int.from_bytes(hashlib.blake2b("/".join(names).encode(), digest_size=8).digest(), "big")


def _pick(names: list[str], *choices) -> list:
    """Return one of each of the choices, by the digest of the node's path alone."""
    number, picked = _digest(names), []
    for options in choices:
        number, k = divmod(number, len(options))
        picked.append(options[k])
    return picked


def _named_or_drawn(table: dict, name: str, path: str) -> str:
    """Return the name if the table has it, else one of its names by the digest of the path."""
    return name if name in table else _pick([path], sorted(table))[0]


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    channels = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return tuple(round(255 * channel) for channel in channels)
