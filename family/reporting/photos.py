"""The photos of an evaluation's page: which are shown, and how each is told; their number is bounded whatever the dataset."""

from collections.abc import Iterable, Sequence

from family import pages
from family.evaluation.categories import told_apart
from family.evaluation.findings import Findings
from family.pages import escape
from family.reporting.words import counted, last_two

N_ACTION = 6  # photos of an action
N_SIDE = 4  # photos each way of a pair
N_PAIRS, N_PAIRS_OPEN = 30, 8
N_KIND, N_KIND_SHORT = 6, 3  # errors of a kind: in the gallery, and on the first page
N_RIGHT = 24


def images_shown(findings: Findings) -> list[str]:
    """Return the images that the page shows, each once, the first page's first: at most about 400 whatever the findings hold."""
    rows = [row for action in findings.actions for row in action["examples"][:N_ACTION]]
    rows += [row for kind in by_kind(findings.errors).values() for row in kind[:N_KIND]]
    rows += [row for pair in findings.pairs[:N_PAIRS] for side in sides(pair) for row in side]
    rows += findings.right[:N_RIGHT]
    return list(dict.fromkeys(row["image"] for row in rows))


def by_kind(errors: Iterable[dict]) -> dict[str, list[dict]]:
    """Return errors by their kind, in the order given."""
    found: dict[str, list[dict]] = {}
    for row in errors:
        found.setdefault(row["kind"], []).append(row)
    return found


def sides(pair: dict) -> tuple[list[dict], list[dict]]:
    """Return a pair's examples that are of its first category, and those of its second, a few of each."""
    ids = pair["a"]["id"], pair["b"]["id"]
    first, second = ([row for row in pair["examples"] if row["true_id"] == i][:N_SIDE] for i in ids)
    return first, second


def picture(row: dict, pictures: dict[str, bytes]) -> str:
    """Return a row's photo, with words that say what it is of."""
    alt = f"Photo of listing {row['listing_id']}, filed in {row['true_path']}; the model says {row['answer_path']}"
    return pages.photo(pictures.get(row["image"]), alt)


def groups(rows: Sequence[dict], pictures: dict[str, bytes]) -> str:
    """Return photos side by side, those of the same mistake together under what it is."""
    found: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        found.setdefault((row["true_path"], row["answer_path"]), []).append(row)
    parts = []
    for members in found.values():
        filed, said = _two(members[0])
        photos = pages.photos([(picture(row, pictures), row["listing_id"]) for row in members])
        parts.append(f"<div><p>filed in <strong>{escape(filed)}</strong>, the model says <strong>{escape(said)}</strong></p>{photos}</div>")
    return f'<div class="groups">{"".join(parts)}</div>' if parts else ""


def singles(rows: Sequence[dict], pictures: dict[str, bytes]) -> str:
    """Return photos side by side, each with its own mistake under it."""
    return pages.photos([(picture(row, pictures), "filed in {}, the model says {}".format(*_two(row))) for row in rows])


def _two(row: dict) -> list[str]:
    return told_apart((row["true_path"], row["answer_path"]))


def pairs_section(pairs: Sequence[dict], pictures: dict[str, bytes]) -> str:
    """Return the worst confusions, the photos of both sides side by side; those after the first few are folded."""
    shown = [_pair(pair, pictures) for pair in pairs[:N_PAIRS]]
    first, rest = pages.cards(shown[:N_PAIRS_OPEN]), pages.cards(shown[N_PAIRS_OPEN:])
    note = "Two categories that are taken for one another, the pair with the most such photos first. Buyers may not tell them apart either."
    return pages.paragraph(note) + first + pages.details(f"show {counted(len(shown) - N_PAIRS_OPEN, 'more pair')}", rest) if shown else ""


def _pair(pair: dict, pictures: dict[str, bytes]) -> str:
    a, b = told_apart((pair["a"]["path"], pair["b"]["path"]))
    where = f"Both are in {pair['lca_path'].replace('/', ' / ')}." if pair["lca_path"] else "They are in different departments."
    text = (
        f"{a} answered as {b}: {pair['n_ab']:,} of {counted(pair['n_a'], 'photo')}. {b} answered as {a}: {pair['n_ba']:,} of {pair['n_b']:,}."
    )
    first, second = sides(pair)
    note = pages.paragraph(where, "note")
    return f"<h3>{escape(a)} and {escape(b)}</h3>{note}{pages.paragraph(text)}{groups([*first, *second], pictures)}"


def gallery_section(findings: Findings, pictures: dict[str, bytes]) -> str:
    """Return examples of wrong answers by kind, and of right ones, with the five best answers of each."""
    body, examples = "", by_kind(findings.errors)
    for kind, n in findings.metrics["errors"]["by_kind"].items():
        rows = examples.get(kind, [])[:N_KIND]
        if rows:
            body += pages.heading(f"Wrong: {kind} ({len(rows)} of {n:,})") + pages.gallery([_told(row, pictures) for row in rows])
    right = findings.right[:N_RIGHT]
    if right:
        body += pages.heading(f"Right ({len(right)}, drawn at random)") + pages.gallery([_told(row, pictures) for row in right])
    return body


def _told(row: dict, pictures: dict[str, bytes]) -> tuple[str, str]:
    top = [(last_two(answer["path"]), answer["probability"], _remark(answer["path"], row)) for answer in row["top"]]
    why = pages.paragraph(row.get("why", ""), "note")
    filed = f"<p>{escape(row['listing_id'])}, filed in {pages.path(row['true_path'])}</p>"
    return picture(row, pictures), filed + why + pages.answers(top)


def _remark(path: str, row: dict) -> str:
    return "← filed here" if path == row["true_path"] else ""
