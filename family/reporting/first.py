"""The first page of an evaluation, for who looks after the categories: what goes without a person, what to change, what errors there are."""

from family import pages
from family.data.ontology import SEPARATOR
from family.evaluation.actions import MIN_LISTINGS
from family.evaluation.categories import told_apart
from family.evaluation.findings import Findings
from family.pages import escape, number, percent
from family.reporting.photos import N_ACTION, N_KIND_SHORT, by_kind, groups, singles
from family.reporting.words import between, counted, of_100

N_ACTIONS = 10  # that are found at most
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
    return "How many listings can be filed without a person"


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
        f"The model {about['member']}, measured on {counted(about['n_listings'], 'listing')} of the data set “{about['dataset']}”. "
        "These figures hold for listings like those; for others, measure again."
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
    told, wrong = [], min(departments, key=_reliability)
    if wrong["precision_leaf"] is not None:
        told.append(
            f"Least reliable is <strong>{escape(wrong['path'])}</strong>: of 100 of its listings that were filed, {of_100(wrong['precision_leaf'])} were right."
        )
    fewest = min(departments, key=lambda d: d["share_leaf"])
    told.append(f"Most is left to people in <strong>{escape(fewest['path'])}</strong>: {of_100(fewest['share_leaf'])} of 100 are filed.")
    return " ".join(told)


def first_page(findings: Findings, pictures: dict[str, bytes]) -> str:
    """Return the body of the first section."""
    body = (
        pages.heading("What can be filed without a person")
        + (_filing(findings) if "filing" in findings.metrics else pages.paragraph(NOT_FITTED))
        + pages.heading("What to merge, rename or relabel")
        + _actions(findings.actions, pictures)
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
    return pages.tiles(tiles) + _departments(findings)


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
        {"key": "range", "label": "likely\nrange"},
        {"key": "precision_leaf", "label": "right of 100\nof these", "text": _of_100, "high": True},
        {"key": "right_range", "label": "likely\nrange"},
        {"key": "share_backoff", "label": "at least into a\nbroader one, of 100", "text": _of_100, "high": True},
        {"key": "n_listings", "label": "listings\nlooked at", "text": number, "high": True},
    ]
    note = (
        "Without a person: into the final category. A broader one: a category above it. Likely range: with 95 % confidence. "
        "A listing is filed where the model is sure enough. How sure that is was set on other listings, as low as it could be with at least "
        f"{of_100(wanted)} of 100 filed right; where more are right anyway, the target holds nothing back."
    )
    caption = "Departments: how many listings can be filed without a person"
    step = N_DEPARTMENTS if len(rows) > N_DEPARTMENTS else 0
    return pages.table(rows, columns, caption=caption, step=step, file="departments.csv") + pages.paragraph(note, "note")


def _reliability(department: dict) -> tuple:
    """Return what departments are sorted by: the share right, those where few are filed, of which it says little, last."""
    right, n_filed = department["precision_leaf"], department["share_leaf"] * department["n_listings"]
    return right is None, n_filed < FEW_FILED, right, department["share_leaf"]


def _of_100(share: float | None) -> str:
    return pages.NOTHING if share is None else of_100(share)


# What to change


def _actions(actions: list[dict], pictures: dict[str, bytes]) -> str:
    if not actions:
        return pages.paragraph("No change stands out: no two categories are mixed up often enough, and few listings look misfiled.")
    worth = "1 change is" if len(actions) == 1 else f"{len(actions)} changes are"
    note = f"{worth} worth a look" + (", the most worthwhile first" if len(actions) > 1 else "")
    note += f"; nothing else concerns at least {MIN_LISTINGS} listings and a share of a category that is worth it." if len(actions) < N_ACTIONS else "."
    lacking = [name for name in TITLES if name not in {action["kind"] for action in actions}]
    note += f" There is nothing to {' or to '.join(lacking)}." if lacking else ""
    note += " Only a person can say whether a change is right: look at the photos first."
    cards = pages.cards([_action(action, pictures) for action in actions], ordered=True)
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


def _action(action: dict, pictures: dict[str, bytes]) -> str:
    paths = [category["path"] for category in action["categories"]]
    heading = f"{action['rank']}. {TITLES[action['kind']]} {' and '.join(told_apart(paths))}"
    parents = list(dict.fromkeys(path.rpartition(SEPARATOR)[0] for path in paths))
    where = (
        pages.paragraph("in " + " and ".join(parent.replace(SEPARATOR, f" {SEPARATOR} ") for parent in parents), "note")
        if all(parents)
        else ""
    )
    text = f"{action['why']} Listings concerned: {action['listings']:,}.{_gain(action)}"
    return f"<h4>{escape(heading)}</h4>{where}{pages.paragraph(text)}{groups(action['examples'][:N_ACTION], pictures)}"


def _gain(action: dict) -> str:
    """Say what an action would give, which for new labels is what it gives if the suspicion is right each time."""
    if action["gain_points"] is None:
        return ""
    most = "up to " if action["kind"] == "relabel" else ""
    return f" Estimated gain: {most}{_gain_points(action['gain_points'])} more of 100 photos right."


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
        *_promise(metrics.get("filing"), about["precision_wanted"]),
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


def _promise(filing: dict | None, wanted: float) -> list[str]:
    """Say whether as many were filed right as was wanted."""
    if not filing or filing["backoff"]["precision"] is None:
        return []
    low, high = filing["backoff"]["interval"]
    verdict = (
        "The promise was kept"
        if low >= wanted
        else "The promise was not kept"
        if high < wanted
        else "That may be a little more or less than promised"
    )
    return [f"Promised were {of_100(wanted)} right of 100 filed; on these listings it was {between((low, high))}. {verdict}."]
