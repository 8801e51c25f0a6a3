"""The first page of an evaluation, for who looks after the categories: what goes without a person, what to change, what errors there are."""

from family import pages
from family.data.ontology import SEPARATOR
from family.evaluation.actions import MIN_LISTINGS, MUTUAL, N_ACTIONS, ONE_SIDED
from family.evaluation.categories import told_apart
from family.evaluation.findings import Findings
from family.pages import escape, number, percent
from family.reporting.photos import N_ACTION, N_KIND_SHORT, by_kind, groups, singles
from family.reporting.words import between, counted, of_100, stricter

N_DEPARTMENTS = 12  # shown before the others are unfolded
KINDS = {
    "sibling mix-up": (
        "The model chose a neighbour: a category directly beside the seller's, under the same parent.",
        "Merge or rename the two, or say in the upload form what tells them apart.",
    ),
    "probably misfiled by the seller": (
        "The model is sure of another category and believes next to nothing of the seller's.",
        "Have a person look; where the model is right, correct the listing, not the model.",
    ),
    "the model's own mistake": (
        "What is left: the categories are no neighbours, and nothing says that the seller is wrong. Some of these may still be the seller's.",
        "Let a person file what looks like this, and show the model more photos of these categories.",
    ),
}
FEW_FILED = 30  # listings of a department
TITLES = {"merge": "Merge", "rename": "Rename", "relabel": "Check the labels of"}
LEARNED = ("that the model did not learn from", "that the model learned from, which flatters every figure here")
NOT_FITTED = "Nothing was held back to set the thresholds of filing without a person on, so this is not known."


def title(findings: Findings) -> str:
    """Return the name of the page."""
    return "How many listings can be filed without a person" if "filing" in findings.metrics else "How listings are filed, and what goes wrong"


def lead(findings: Findings) -> str:
    """Say in a few sentences what can be filed without a person, where least, what kind of error is the most frequent, and of what data that is."""
    filing, errors = findings.metrics.get("filing"), findings.metrics["errors"]
    sentences = [_filed(filing, findings.about["precision_wanted"]), _extremes(filing["departments"])] if filing else [NOT_FITTED]
    if errors["n"]:
        kind, n = max(errors["by_kind"].items(), key=lambda pair: pair[1])
        sentences.append(
            f"Over all photos, filed or not, there are {counted(errors['n'], 'error')}; {n:,} of them are of the kind <strong>{escape(kind)}</strong>."
        )
    about = findings.about
    source = (
        f"The model {about['member']}, measured on {counted(about['n_listings'], 'listing')} with {counted(about['n_images'], 'photo')} of the data set "
        f"“{about['dataset']}”; the “seller's category” is the one that a listing has there. These figures hold for listings like those. Before you rely on "
        "them for others, have this page made of at least a thousand of yours."
    )
    return f'<p class="lead">{" ".join(filter(None, sentences))}</p>\n' + pages.paragraph(source)


def _filed(filing: dict, wanted: float) -> str:
    leaf = filing["leaf"]
    right = (
        ""
        if leaf["precision"] is None
        else f" Of every 100 that were filed so, {of_100(leaf['precision'])} were right; the target was at least {of_100(wanted)}."
    )
    return (
        f"<strong>{of_100(leaf['share'])} of 100 listings</strong> ({between(leaf['share_interval'], '')}) can go into their final category "
        f"without a person.{right}"
    )


def _extremes(departments: list[dict]) -> str:
    """Name the department where the least of what is filed is right, and the one where the fewest are filed, where there are several."""
    if len(departments) < 2:
        return ""
    told = []
    known = sorted((d for d in departments if d["precision_leaf"] is not None and _n_filed(d) >= FEW_FILED), key=_reliability)
    if known:
        wrong, *others = known
        told.append(
            f"Least reliable is <strong>{escape(wrong['path'])}</strong>: of 100 of its listings that were filed, {of_100(wrong['precision_leaf'])} were right "
            f"({between(wrong['interval'], '')}){_as_low(wrong, others)}."
        )
    fewest = min(departments, key=lambda d: d["share_leaf"])
    told.append(f"Most is left to people in <strong>{escape(fewest['path'])}</strong>: {of_100(fewest['share_leaf'])} of 100 are filed.")
    return " ".join(told)


def _as_low(wrong: dict, others: list[dict]) -> str:
    """Name the other departments that may be as unreliable: whose own range holds the share of the least reliable one."""
    near = [escape(d["path"]) for d in others if d["interval"][0] <= wrong["precision_leaf"]]
    if not near:
        return ""
    return f"; {' and '.join(near) if len(near) <= 2 else f'{len(near)} others'} may be as low"


def first_page(findings: Findings, pictures: dict[str, bytes]) -> str:
    """Return the body of the first section."""
    body = (
        pages.heading("What can be filed without a person")
        + (_filing(findings) if "filing" in findings.metrics else pages.paragraph(NOT_FITTED))
        + pages.heading("What to merge, rename or relabel")
        + _actions(findings, pictures)
        + pages.heading("What kinds of errors there are")
        + _kinds(findings, pictures)
        + pages.heading("How sure these numbers are")
        + pages.bullets(sureness(findings))
    )
    return f'<div class="own-page">{body}</div>\n'


# What goes without a person


def _filing(findings: Findings) -> str:
    filing = findings.metrics["filing"]
    leaf, backoff = filing["leaf"], filing["backoff"]
    tiles = [
        (f"{of_100(leaf['share'])} of 100", f"listings can go into their final category without a person: {between(leaf['share_interval'])}"),
        (f"{of_100(backoff['share'] - leaf['share'])} of 100 more", "can go into a broader category, where the model is not sure of the final one"),
        (f"{of_100(1 - backoff['share'])} of 100", "need a person from the start"),
    ]
    if backoff["precision"] is not None:
        tiles.append((f"{of_100(backoff['precision'])} of 100", f"of all that is filed, final or broader, is right: {between(backoff['interval'])}"))
    return pages.tiles(tiles) + _stricter(filing) + _departments(findings)


def _stricter(filing: dict) -> str:
    """Say how many could be filed with more of them right, and with one bar for all categories."""
    told = [f"{of_100(p['share'])} of 100 with {of_100(p['precision'])} of these right" for p in stricter(filing["curve"], filing["precision_wanted"])]
    text = f"Stricter, with one bar for all categories, this many could go into their final category: {'; '.join(told)}."
    return pages.paragraph(text, "note") if told else ""


def _departments(findings: Findings) -> str:
    """Return the table of departments, the least reliable first."""
    wanted, rows = findings.about["precision_wanted"], []
    for d in sorted(findings.metrics["filing"]["departments"], key=_reliability):
        surely_below = d["precision_leaf"] is not None and d["interval"][1] < wanted
        tags = [(f"below {of_100(wanted)} % right", "bad")] if surely_below else []
        right_range = between(d["interval"], "") if d["precision_leaf"] is not None else pages.NOTHING
        rows.append({**d, "range": between(d["share_leaf_interval"], ""), "right_range": right_range, "tags": tags})
    columns = [
        {"key": "path", "label": "department"},
        {"key": "share_leaf", "label": "without a person,\nof 100", "text": _of_100, "high": True},
        {"key": "precision_leaf", "label": "right of 100\nof these", "text": _of_100, "high": True},
        {"key": "range", "label": "likely range:\nwithout a person"},
        {"key": "right_range", "label": "likely range:\nright"},
        {"key": "share_backoff", "label": "at least into a\nbroader one, of 100", "text": _of_100, "high": True},
        {"key": "n_listings", "label": "listings\nlooked at", "text": number, "high": True},
    ]
    if all(of_100(row["share_backoff"]) == of_100(row["share_leaf"]) for row in rows):
        columns = [column for column in columns if column["key"] != "share_backoff"]
    note = (
        "Without a person: into the final category. A broader one: a category above it. Likely range: with 95 % confidence. "
        "A listing is filed where the model is sure enough. How sure that is was set on other listings, so that the most are filed while at least "
        f"{of_100(wanted)} of 100 are right there; where nearly all are right, nearly all are filed."
    )
    caption = "Departments: how many listings can be filed without a person"
    step = N_DEPARTMENTS if len(rows) > N_DEPARTMENTS else 0
    return pages.table(rows, columns, caption=caption, step=step, file="departments.csv") + pages.paragraph(note, "note")


def _reliability(department: dict) -> tuple:
    """Return what departments are sorted by: the share right, those where few are filed, of which it says little, last."""
    right = department["precision_leaf"]
    return right is None, _n_filed(department) < FEW_FILED, right, department["share_leaf"]


def _n_filed(department: dict) -> float:
    return department["share_leaf"] * department["n_listings"]


def _of_100(share: float | None) -> str:
    return pages.NOTHING if share is None else of_100(share)


# What to change


def _actions(findings: Findings, pictures: dict[str, bytes]) -> str:
    actions = findings.actions
    if not actions:
        return pages.paragraph(
            f"No change stands out: no {MUTUAL:.0%} of two categories are taken for each other, no {ONE_SIDED:.0%} of one for another, "
            f"by at least {MIN_LISTINGS} listings, and no category has as many that look misfiled."
        )
    worth = "1 change is" if len(actions) == 1 else f"{len(actions)} changes are"
    note = f"{worth} worth a look" + (", the most worthwhile first" if len(actions) > 1 else "")
    if len(actions) < N_ACTIONS:
        note += f"; nothing else concerns at least {MIN_LISTINGS} listings and {MUTUAL:.0%} of both categories, or {ONE_SIDED:.0%} of one"
    note += "."
    lacking = [name for name in TITLES if name not in {action["kind"] for action in actions}]
    note += f" There is no whole category to {' or to '.join(lacking)}; single errors stand below." if lacking else ""
    note += " Only a person can say whether a change is right: look at the photos first."
    n = findings.about["n_images"]
    cards = pages.cards([_action(action, pictures, n) for action in actions], ordered=True)
    return pages.paragraph(note, "note") + cards + pages.details("the same as a table", _actions_table(actions))


def _actions_table(actions: list[dict]) -> str:
    rows = [{**action, "what": TITLES[action["kind"]], "paths": " and ".join(c["path"] for c in action["categories"])} for action in actions]
    columns = [
        {"key": "rank", "label": "rank"},
        {"key": "what", "label": "what to do", "wrap": True},
        {"key": "paths", "label": "categories", "wrap": True},
        {"key": "listings", "label": "listings\nconcerned", "text": number, "high": True},
        {"key": "gain_points", "label": "estimated gain,\nof 100 photos", "text": _gain_points, "high": True},
        {"key": "why", "label": "why", "wrap": True},
    ]
    return pages.table(rows, columns, caption="What to merge, rename or relabel", file="actions.csv")


def _action(action: dict, pictures: dict[str, bytes], n_images: int) -> str:
    paths = [category["path"] for category in action["categories"]]
    heading = f"{action['rank']}. {TITLES[action['kind']]} {' and '.join(told_apart(paths))}"
    parents = list(dict.fromkeys(path.rpartition(SEPARATOR)[0] for path in paths))
    where = (
        pages.paragraph("in " + " and ".join(parent.replace(SEPARATOR, f" {SEPARATOR} ") for parent in parents), "note")
        if all(parents)
        else ""
    )
    text = f"{action['why']} Listings concerned: {action['listings']:,}.{_gain(action, n_images)}"
    return f"<h4>{escape(heading)}</h4>{where}{pages.paragraph(text)}{groups(action['examples'][:N_ACTION], pictures)}"


def _gain(action: dict, n_images: int) -> str:
    """Say what an action would give, which for new labels is what it gives if the suspicion is right each time."""
    if action["gain_points"] is None:
        return ""
    bound = "up to" if action["kind"] == "relabel" else "at least"
    n = round(action["gain_points"] * n_images / 100)
    return f" Estimated gain: {bound} {n:,} more of {n_images:,} photos right ({_gain_points(action['gain_points'])} of 100)."


def _gain_points(gain: float | None) -> str:
    return pages.NOTHING if gain is None else f"{gain:.2f}"


# What errors there are


def _kinds(findings: Findings, pictures: dict[str, bytes]) -> str:
    counts, n = findings.metrics["errors"]["by_kind"], findings.metrics["errors"]["n"]
    if not n:
        return pages.paragraph("There is no error.")
    intro = (
        f"{counted(n, 'photo')} got another category than the seller's. Each is counted once, by rule: what is probably the seller's mistake "
        "counts as that, even where the two categories are neighbours."
    )
    examples, bodies, rules = by_kind(findings.errors), [], findings.metrics["errors"]["rules"]
    for kind, count in sorted(counts.items(), key=lambda pair: -pair[1]):
        meaning, advice = KINDS[kind]
        share = f"<p><strong>{count:,} of {counted(n, 'error')}</strong> ({percent(count / n)} %)</p>"
        told = share + pages.paragraph(meaning) + pages.paragraph(f"What helps: {advice}")
        told += pages.paragraph(f"The rule: {rules[kind]}", "note")
        bodies.append(f"<h4>{escape(kind.capitalize())}</h4>{told}{singles(examples.get(kind, [])[:N_KIND_SHORT], pictures)}")
    note = "Each error stands with its reason under “Errors one by one”, and with the numbers behind it in errors.csv beside this page."
    return pages.paragraph(intro) + pages.cards(bodies, small=True) + pages.paragraph(note, "note")


# How sure


def sureness(findings: Findings) -> list[str]:
    """Return what the numbers rest on, and what they do not say, a sentence or two each."""
    about, metrics = findings.about, findings.metrics
    top1, small = metrics["top1"], metrics["macro_over"]["under_5_rows"]
    told = [
        f"They come from {counted(about['n_listings'], 'listing')} with {counted(about['n_images'], 'photo')} {LEARNED[about['split'] == 'train']} "
        f"({about['dataset']}, {about['split']}). At its first guess it names the seller's category for {of_100(top1['micro'])} of 100 photos, "
        f"{between(top1['micro_interval'], 'photos')}. “Between” always means: 95 of 100 such ranges hold the true value.",
        *_target(metrics.get("filing"), about["precision_wanted"]),
        _calibration(metrics["calibration"]),
        "The seller's category counts as right. Where sellers misfile, the model is better than it looks here, or worse where it learned to repeat them.",
        "Kinds of errors and gains are estimates by rule, not the verdict of a person who looked.",
    ]
    if small:
        told.append(
            f"{counted(small, 'category')} of {metrics['macro_over']['categories']:,} have fewer than five photos here: "
            "what is said of a single one of these is little more than chance."
        )
    return told + about["notes"]


def _calibration(calibration: dict) -> str:
    """Say how far the model's own percentages are off, and to which side on the whole."""
    n = sum(one["n"] for one in calibration["bins"])
    surplus = sum(one["n"] * (one["confidence"] - one["accuracy"]) for one in calibration["bins"] if one["n"])
    side = "too high" if surplus > 0 else "too low"
    off = f"about {100 * calibration['ece']:.1f} points of 100 off, on the whole {side}" if n else "not known"
    return (
        f"The model's own percentages are {off} (see Calibration). They decide which listings are filed, by limits that were set on other listings; "
        "how many of these were right was counted."
    )


def _target(filing: dict | None, wanted: float) -> list[str]:
    """Say whether as many were filed right as was wanted."""
    if not filing or filing["backoff"]["precision"] is None:
        return []
    low, high = filing["backoff"]["interval"]
    verdict = (
        "The target was reached"
        if low >= wanted
        else "The target was missed"
        if high < wanted
        else "That may be a little more or less than the target"
    )
    return [
        f"The target was {of_100(wanted)} right of 100 filed, which the limits reach on the listings that they were set on; on these it was "
        f"{between((low, high))}. {verdict}."
    ]
