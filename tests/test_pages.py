"""The page shell and the charts: nothing hostile gets through, nothing overlaps, every mark is inside."""

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from family import pages
from family.pages import axes, style
from family.pages.fronts import N_LABELLED
from family.pages.labels import overlap, place_labels

HOSTILE = "<script>alert('1')</script>\"&\n\x00\x1b\ud800\u202e|x`y"
SVG = "{http://www.w3.org/2000/svg}"


def chart(kind: str, name: str = "one", width: int = 1040) -> str:
    """Draw each kind of chart with a name in every place that takes one."""
    points = [
        {"x": 3.0, "y": 54.0, "label": name, "group": name, "front": True, "hint": name},
        {"x": 30.0, "y": 72.0, "label": f"{name} b", "group": "int8", "front": True},
        {"x": 31.0, "y": 60.0, "label": f"{name} c", "group": name, "quiet": True},
    ]
    steps = [{"x": 1, "y": 90.0, "n": 7}, {"x": 2, "y": 80.0, "n": 70}]
    if kind == "scatter":
        return pages.scatter(
            points,
            title=name,
            x_label=name,
            y_label=name,
            log_x=True,
            budget=20,
            budget_label=name,
            width=width,
        )
    if kind == "lines":
        series = [{"label": name, "points": steps}, {"label": f"{name} b", "points": steps}]
        return pages.lines(series, title=name, y_label=name, x_names={1: f"{name}\n7", 2: "two"}, width=width)
    if kind == "heatmap":
        return pages.heatmap([name, "b"], [[5, 1], [0, 4]], title=name, width=width)
    rows = [{"label": name, "parts": {name: 1.0, "model": 2.0}}, {"label": "b", "parts": {"model": 0.0}}]
    return pages.bars(rows, title=name, x_label=name, width=width)


KINDS = ("scatter", "lines", "heatmap", "bars")


@pytest.mark.parametrize("width", [358, 1040])
@pytest.mark.parametrize("kind", KINDS)
def test_chart_is_wellformed_named_and_escaped(kind, width):
    root = ElementTree.fromstring(chart(kind, HOSTILE, width))
    assert root.get("role") == "img"
    assert root.find(f"{SVG}title").text and root.find(f"{SVG}desc").text
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "title", "desc", "g", "text", "line", "circle", "polygon", "polyline", "rect")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_standalone_chart_needs_no_page(kind):
    text = pages.standalone(chart(kind))
    assert "var(--" not in text and style.LIGHT["bg"] in text and style.DARK["bg"] in text
    assert ElementTree.fromstring(text).find(f"{SVG}rect").get("class") == "backdrop"


@pytest.mark.parametrize("width", [358, 1040])
def test_marks_lie_inside_the_picture(width):
    for kind in KINDS:
        root = ElementTree.fromstring(chart(kind, width=width))
        height = float(root.get("height"))
        for mark in root.iter(f"{SVG}circle"):
            x, y = float(mark.get("cx")), float(mark.get("cy"))
            in_legend = (x, y) == (0, 0)
            assert in_legend or (0 < x < width and 0 < y < height)


def test_empty_and_equal_points_are_drawn():
    none = pages.scatter([], title="t", x_label="x", y_label="y", budget=20, log_x=True)
    assert "nothing to show" in none
    same = [
        {"x": 5.0, "y": 70.0, "label": "a", "front": True},
        {"x": 5.0, "y": 70.0, "label": "b", "front": True},
    ]
    for log in (False, True):
        assert "nan" not in pages.scatter(same, title="t", x_label="x", y_label="y", log_x=log)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(60, 940), st.floats(60, 340), st.text("abc-0", min_size=1, max_size=28)),
        min_size=1,
        max_size=24,
    )
)
def test_labels_never_overlap(spots):
    labels = [{"x": x, "y": y, "text": text} for x, y, text in spots]
    marks = [(x - 7, y - 7, x + 7, y + 7) for x, y, _ in spots]
    inside = (40.0, 40.0, 1000.0, 400.0)
    boxes = [box for box in place_labels(labels, marks, inside) if box]
    for i, box in enumerate(boxes):
        assert not any(overlap(box, other) for other in [*boxes[:i], *marks])
        assert inside[0] <= box[0] and box[2] <= inside[2] and inside[1] <= box[1] and box[3] <= inside[3]


def test_a_label_that_must_be_there_covers_no_other():
    inside, line = (40.0, 40.0, 300.0, 200.0), (40.0, 40.0, 300.0, 200.0)
    labels = [{"x": x, "y": 120.0, "text": "a long name", "must": True} for x in (60.0, 70.0)] + [{"x": 200.0, "y": 100.0, "text": "b"}]
    first, second, other = place_labels(labels, [line], inside)  # everything is taken
    assert other is None and overlap(first, second) == 0
    assert all(inside[0] <= box[0] and box[2] <= inside[2] and inside[1] <= box[1] and box[3] <= inside[3] for box in (first, second))


@pytest.mark.parametrize("width", [358, 1040])
def test_the_ends_of_the_front_are_labelled_and_at_most_so_many_others(width):
    front = [{"x": 2.0 + k, "y": 50.0 + k, "label": f"front{k}", "front": True} for k in range(30)]
    front = [{**p, "y_ends": (p["y"] - 10, p["y"] + 10), "x_ends": (p["x"] - 1, p["x"])} for p in front]
    others = [{"x": 3.0 + k % 50, "y": 10.0 + k % 37, "label": f"other{k}"} for k in range(2000)]
    root = ElementTree.fromstring(pages.scatter([*others, *front], title="t", x_label="x", y_label="y", width=width, log_x=True, whiskers="95 %"))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"front0", "front29", "95 %"} <= set(texts) and sum(text.startswith("other") for text in texts) <= N_LABELLED
    assert len([g for g in root.iter(f"{SVG}g") if g.find(f"{SVG}title") is not None]) == 2030
    ends = [float(line.get(f"y{end}")) for line in root.iter(f"{SVG}line") if line.get("class") == "whisker" for end in (1, 2)]
    assert all(-10 <= y <= float(root.get("height")) for y in ends)


@given(st.floats(1e-3, 1e6), st.floats(1.001, 1e4), st.integers(3, 12), st.booleans())
def test_ticks_are_few_and_inside(low, ratio, n_most, log):
    ends = axes.span([low, low * ratio], log=log)
    found = axes.ticks(ends, n_most, log=log)
    slack = 1e-6 * abs(ends[1])
    assert 1 <= len(found) <= n_most + 2
    assert all(ends[0] - slack <= value <= ends[1] + slack for value in found)


def test_heatmap_draws_the_smallest_together():
    counts = np.diag([50, 1, 40, 2, 30])
    counts[1, 0] = 3
    root = ElementTree.fromstring(pages.heatmap("abcde", counts, title="t", n_most=4))
    hints = [title.text for title in root.iter(f"{SVG}title")]
    assert "2 others filed as 2 others: 3 of 6" in hints and "2 others filed as a: 3 of 6" in hints


class Cells(HTMLParser):
    """Collect the tags and the text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def test_table_escapes_and_can_be_sorted_by_keyboard():
    columns = [
        {"key": "name", "label": HOSTILE},
        {"key": "n", "label": "n", "text": pages.amount, "high": True},
    ]
    rows = [{"name": HOSTILE, "n": 1.5, "tags": [(HOSTILE, "good")]}, {"name": "b", "n": None, "quiet": True}]
    found = Cells(pages.table(rows, columns, caption=HOSTILE))
    tags = [tag for tag, _ in found.tags]
    assert "script" not in tags and tags.count("button") == 2
    values = [attrs["data-value"] for tag, attrs in found.tags if tag == "td"]
    assert values == ["1.5", ""]


def test_page_runs_only_its_own_script_and_loads_nothing():
    text = pages.page(HOSTILE, "<p>lead</p>", [(HOSTILE, pages.figure(chart("scatter", HOSTILE), HOSTILE))])
    text.encode("utf-8")
    found = Cells(text)
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert not [attrs for _, attrs in found.tags if "src" in attrs or "onclick" in attrs]
    assert set(re.findall(r"\w+://[^\s\"<]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text


def test_colours_are_told_apart_from_their_background():
    for colours in (style.LIGHT, style.DARK):
        for name, value in colours.items():
            if name in ("bg", "panel", "rule"):
                continue
            wanted = 3.0 if re.fullmatch(r"c\d", name) else 4.5
            assert contrast(value, colours["bg"]) >= wanted, name


def contrast(a: str, b: str) -> float:
    """Return the contrast ratio of two #rrggbb colours. Source: WCAG 2.2, relative luminance."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("value", "shown"), [(None, "–"), (0.123, "0.12"), (8.12, "8.1"), (99.94, "99.9"), (1234.5, "1,234")])
def test_amounts_have_sensible_digits(value, shown):
    assert pages.amount(value) == shown


def test_points_have_a_sign_unless_zero():
    assert [pages.points(v) for v in (1.26, -0.04, -2.0, None)] == ["+1.3", "0.0", "−2.0", "–"]


def test_markdown_and_spreadsheets_show_text_as_it_is():
    columns = [{"key": "name", "label": "name"}, {"key": "n", "label": "n"}]
    lines = pages.markdown_table([{"name": HOSTILE, "n": 3}], columns).split("\n")
    assert len(lines) == 3 and "<script>" not in lines[2] and lines[2].count(" | ") == 1
    assert pages.csv_table([{"name": "=1+1"}], ["name"]) == "name\n'=1+1\n"
