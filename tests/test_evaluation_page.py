"""The page of an evaluation: whole, safe, bounded, readable by machines and people, and what its script does in a browser."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_findings import KINDS, made_comparison, made_findings, made_pictures

from family.evaluation.categories import told_apart
from family.evaluation.findings import Findings
from family.reporting.categories import N_ERRORS
from family.reporting.first import FEW_FILED
from family.reporting.page import evaluation_page
from family.reporting.photos import images_shown
from family.reporting.thumbnails import MOST_BYTES, MOST_PICTURES
from family.reporting.words import between, counted, metric_words, of_100

HOSTILE = "<script>alert('1')</script>\"&\n\x00\x1b\ud800\u202e|x`y"
ORIGIN = json.loads((Path(__file__).parent.parent / "benchmarks/results/origin.json").read_text(encoding="utf-8"))
VOID = {"meta", "input", "img", "br", "link", "hr"}


class Page(HTMLParser):
    """Read a page: its elements with their attributes and text, and whether what is opened is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[dict] = []
        self.open: list[dict] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", "inside": [e["tag"] for e in self.open], **dict(attrs)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append({"tag": tag, "text": "", "inside": [e["tag"] for e in self.open], **dict(attrs)})

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, *tags: str) -> list[dict]:
        return [element for element in self.elements if element["tag"] in tags]


def whole_page(findings, **options) -> str:
    return evaluation_page(findings, made_pictures(images_shown(findings)), **options)


@pytest.fixture(scope="module")
def small() -> str:
    return whole_page(made_findings(), origin=ORIGIN, compared=made_comparison())


@pytest.fixture(scope="module")
def large_findings():
    return made_findings(3_000, 80_000, n_departments=34)


def test_page_is_a_document_that_a_screen_reader_can_follow(small):
    page = Page(small)
    levels = [int(heading["tag"][1]) for heading in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below - above <= 1 for above, below in zip(levels, levels[1:], strict=False))
    assert all(heading["text"].strip() for heading in page.all("h1", "h2", "h3", "h4"))
    assert len(page.all("caption")) == len(page.all("table")) and all(caption["text"] for caption in page.all("caption"))
    assert all(cell["scope"] in ("col", "row") for cell in page.all("th"))
    assert all(image["alt"].strip() for image in page.all("img"))
    assert all("svg" in title["inside"] or "head" in title["inside"] for title in page.all("title"))
    assert all("label" in field["inside"] for field in page.all("input", "select"))
    ids = [element["id"] for element in page.elements if "id" in element]
    links = [link["href"].removeprefix("#") for link in page.all("a")]
    assert len(ids) == len(set(ids)) and links and set(links) <= set(ids)


def test_page_loads_nothing_and_runs_only_its_own_script(small):
    page = Page(small)
    assert set(re.findall(r"\w+://[^\s\"'<)]+", small)) == {"http://www.w3.org/2000/svg"}
    assert len(page.all("script")) == 1 and not page.all("link", "iframe", "object")
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert not [e for e in page.elements if any(name.startswith("on") for name in e)]


def hostile(value):
    """Return findings' data with every text of a category, a listing or a reason replaced."""
    if isinstance(value, dict):
        kept = ("kind", "third", "image", "true_id", "answer_id", "id", "fitted_on")
        return {key: inner if key in kept else hostile(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hostile(inner) for inner in value]
    return f"{HOSTILE}/{value}" if isinstance(value, str) else value


def test_hostile_names_do_nothing():
    findings = made_findings()
    findings = Findings(**{name: hostile(value) for name, value in vars(findings).items()})
    findings.metrics["by"] = {HOSTILE: {HOSTILE: {**findings.metrics, "n_listings": 3}}}
    compared = made_comparison()
    compared["other"] = compared["differences"][0]["metric"] = HOSTILE
    text = whole_page(findings, origin=hostile(ORIGIN), compared=compared)
    text.encode("utf-8")
    page = Page(text)
    assert len(page.all("script")) == 1 and "<script>alert" not in text and "\x00" not in text and "\u202e" not in text
    assert [e for e in page.elements if "alert" in e["text"]]


@pytest.mark.parametrize(("n_categories", "n_listings"), [(1, 5), (2, 40), (10, 600)])
def test_small_trees_have_a_page(n_categories, n_listings):
    findings = made_findings(n_categories, n_listings, n_departments=1, seed=n_listings)
    text = whole_page(findings)
    Page(text)
    assert "nan" not in re.sub(r"base64,[^\"]+", "", text) and ">None" not in text


def test_a_model_without_errors_has_a_page():
    findings = made_findings(accuracy=1.1)
    assert not findings.errors and "There is no error." in Page(whole_page(findings)).all("body")[0]["text"]


def test_page_of_three_thousand_categories_is_bounded(large_findings):
    images = images_shown(large_findings)
    largest = {image: bytes(MOST_BYTES) for image in images}
    n_errors = large_findings.metrics["errors"]["n"]
    assert n_errors > 15_000 and len(images) <= MOST_PICTURES
    text = evaluation_page(large_findings, largest, ORIGIN, made_comparison())
    assert len(text.encode()) < 10_000_000
    page = Page(text)
    assert 3_000 + N_ERRORS < sum("tbody" in row["inside"] for row in page.all("tr")) < 3_000 + N_ERRORS + 500
    assert f"{N_ERRORS:,} of {n_errors:,}; errors.csv beside this page has all." in text


def test_every_image_that_is_asked_for_is_shown_and_no_other():
    findings = made_findings()
    pictures = {image: image.encode() for image in images_shown(findings)}
    shown = {image["src"] for image in Page(evaluation_page(findings, pictures)).all("img")}
    assert len(shown) == len(pictures)
    without = Page(evaluation_page(findings, {}))
    empty = [e for e in without.elements if e.get("class") == "photo"]
    assert not without.all("img") and empty and all(e["aria-label"] for e in empty)


def test_first_page_answers_what_a_manager_asks():
    findings = made_findings(seed=3)
    text = re.sub(r"\s+", " ", Page(whole_page(findings)).all("section")[0]["text"])
    departments = findings.metrics["filing"]["departments"]
    n = sum(d["n_listings"] for d in departments)
    filed = sum(d["share_leaf"] * d["n_listings"] for d in departments) / n
    assert findings.metrics["filing"]["leaf"]["share"] == pytest.approx(filed)
    assert f"{round(100 * filed)} of 100listings can go into their final category without a person" in text
    assert all(d["path"] in text for d in departments)
    counts = findings.metrics["errors"]["by_kind"]
    for action in findings.actions:
        assert action["why"] in text and all(c["path"].split("/")[-1] in text for c in action["categories"])
    for kind in KINDS:
        assert f"The rule: {findings.metrics['errors']['rules'][kind]}" in text
        assert f"{kind.capitalize()}{counts[kind]:,} of {sum(counts.values()):,} errors" in text
    assert "How sure these numbers are" in text and "between" in text and f"{findings.about['n_listings']:,} listings" in text


def test_worst_department_is_named_in_the_lead():
    findings = made_findings(seed=3)
    departments = findings.metrics["filing"]["departments"]
    many = [d for d in departments if d["share_leaf"] * d["n_listings"] >= FEW_FILED]
    assert len(many) > 0
    worst, fewest = min(many, key=lambda d: d["precision_leaf"]), min(departments, key=lambda d: d["share_leaf"])
    (lead,) = [p for p in Page(whole_page(findings)).all("p") if p.get("class") == "lead"]
    assert f"Least reliable is {worst['path']}: of 100 of its listings that were filed, {of_100(worst['precision_leaf'])} were right (between" in lead["text"]
    assert f"left to people in {fewest['path']}: {of_100(fewest['share_leaf'])} of 100 are filed" in lead["text"]


def figures_table(text: str) -> tuple[list[str], dict[str, list[str]]]:
    """Return the headings, and the cells of each row by its name, of the table of all figures."""
    table = text.split("<caption>All figures</caption>")[1].split("</table>")[0]
    heads = re.findall(r'data-key="(\w+)"', table)
    rows = re.findall(r"<tr>(.*?)</tr>", table.split("<tbody>")[1])
    return heads, {re.findall(r">([^<]*)</th>", row)[0]: re.findall(r">([^<>]*)</td>", row) for row in rows}


def test_published_figures_stand_in_a_column_of_their_own():
    findings = made_findings()
    pictures = made_pictures(images_shown(findings))
    heads, alone = figures_table(evaluation_page(findings, pictures))
    more_heads, beside = figures_table(evaluation_page(findings, pictures, ORIGIN))
    assert "published" not in heads and more_heads == [*heads, "published"]
    assert {name: cells[:-1] for name, cells in beside.items()} == alone  # ours are the same with and without
    published = {name.split(" (")[0]: cells[-1] for name, cells in beside.items()}
    assert published == {
        **{"top-1": "62.5", "top-3": "80.4", "top-5": "85.6"},
        **{"level 1": "–", "level 2": "85 (micro), 84 (macro)", "level 3": "76"},
    }
    text = evaluation_page(findings, pictures, ORIGIN)
    assert "not reproduced" in text and "private data" in text


def test_published_measures_that_we_lack_keep_their_row():
    findings = made_findings()
    del findings.metrics["levels"]["3"], findings.metrics["listings"]["levels"]["3"], findings.metrics["filing"]["levels"]["3"]
    _, rows = figures_table(whole_page(findings, origin=ORIGIN))
    assert rows["level 3"] == ["–", "–", "–", "–", "–", "76"]


def test_a_difference_that_may_be_chance_is_not_shown(small):
    table = small.split("<caption>Compared with lite0-160-general-int8</caption>")[1].split("</table>")[0]
    rows = [re.findall(r">([^<>]*)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", table.split("<tbody>")[1])]
    assert rows[0] == ["top-1, photos", "75.0", "72.0", "+3.0", "+1.2", "+4.7", "yes"]
    assert [(row[0], row[-1]) for row in rows[1:]] == [("top-1, mean of categories", "not shown"), ("level 1, summed, photos", "not shown")]
    assert "1 of 3 differences are shown" in small
    assert "Compared with" not in whole_page(made_findings())


def test_by_column_has_a_table_for_each():
    findings = made_findings()
    part = {**findings.metrics, "n": 40, "n_listings": 30}
    findings.metrics["by"] = {"lang": {"de": part, "fr": part}, "seller_type": {"shop": part}}
    captions = [caption["text"] for caption in Page(whole_page(findings)).all("caption")]
    assert {"Accuracy by lang", "Accuracy by seller_type"} <= set(captions)


# Words


@pytest.mark.parametrize(("share", "told"), [(0.0, "0"), (0.001, "fewer than 1"), (0.634, "63"), (0.9951, "more than 99"), (1.0, "100")])
def test_shares_are_told_of_a_hundred(share, told):
    assert of_100(share) == told


def test_intervals_are_told_rounded_outwards():
    assert between((0.712, 0.778)) == "between 71 and 78 of 100 listings"
    assert between((0.71, 0.78), "photos") == "between 71 and 78 of 100 photos"
    assert between((0.5, 0.5)) == "about 50 of 100 listings"
    assert between((-0.1, 1.2)) == "between 0 and 100 of 100 listings"


@pytest.mark.parametrize(
    ("metric", "told"),
    [("top5.micro", "top-5, photos"), ("levels.12.macro", "level 12, mean of categories"), ("levels.1", "levels.1"), ("severity", "severity")],
)
def test_metrics_are_told_in_words(metric, told):
    assert metric_words(metric) == told


def test_names_that_are_alike_get_more_of_their_path():
    assert told_apart(["A/Parts", "B/Parts"]) == ["A / Parts", "B / Parts"]
    assert told_apart(["A/Phones", "A/Tablets"]) == ["Phones", "Tablets"]
    assert told_apart(["A", "A"]) == ["A", "A"]
    assert counted(1, "category") == "1 category" and counted(2_345, "category") == "2,345 categories"


# In a browser

PRESS = """
const box = [...document.querySelectorAll(".tabled")].find((one) => one.querySelector("caption").textContent === "Categories");
download = (name, text) => { root.dataset.file = name; root.dataset.csv = JSON.stringify(text); };
const type = (field, value) => { field.value = value; field.dispatchEvent(new Event("input")); };
root.dataset.unfolded = [...box.querySelectorAll("tbody tr")].filter((row) => !row.hidden).length;
type(box.querySelector("input[type=search]"), "FIND");
[...box.querySelectorAll("th button")].find((button) => button.textContent.startsWith("photos")).click();
type(box.querySelector("input[type=number]"), "LEAST");
box.querySelector(".save").click();
root.dataset.found = box.querySelector("output").textContent;
root.dataset.ready = "yes";
"""


def test_script_filters_sorts_unfolds_and_saves(tmp_path, open_page):
    findings = made_findings(120, 3_000, n_departments=4)
    text = whole_page(findings, origin=ORIGIN)
    department = findings.categories[0]["path"].split("/")[0]
    press = PRESS.replace("FIND", department.lower()).replace("LEAST", "5")
    pressed = tmp_path / "pressed.html"
    text = text.replace('root.dataset.ready = "yes";', press)
    pressed.write_text(re.sub(r"script-src '[^']+'", "script-src 'unsafe-inline'", text), encoding="utf-8")
    (html,) = Page(open_page(pressed)).all("html")
    assert html["data-ready"] == "yes" and "data-error" not in html
    wanted = [c for c in findings.categories if department in c["path"] + (c["worst"] or {"path": ""})["path"] and c["support"] >= 5]
    assert html["data-unfolded"] == "25" and html["data-file"] == "categories.csv"
    assert f"{len(wanted)} found, 120 in all" in html["data-found"]
    head, *lines = json.loads(html["data-csv"]).splitlines()
    assert head.split(",")[:4] == ["path", "third", "train_rows", "support"]
    supports = [int(line.split(",")[3]) for line in lines]
    assert supports == sorted((c["support"] for c in wanted), reverse=True)


def test_page_opens_without_an_error(tmp_path, open_page, small):
    path = tmp_path / "report.html"
    path.write_text(small, encoding="utf-8")
    (html,) = Page(open_page(path)).all("html")
    assert html["data-ready"] == "yes" and "data-error" not in html
