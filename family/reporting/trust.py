"""How far a model's belief can be trusted, and what can be filed by it."""

from family import pages
from family.pages import percent, plain
from family.reporting.accuracy import NARROW_PX
from family.reporting.words import stricter

PICTURE_PX = 640


def calibration_section(calibration: dict) -> str:
    """Return the reliability picture, and beside it that at the fitted temperature where there is one."""
    figures = [_reliability(calibration, "As the model answers", calibration.get("ece_interval"))]
    after = calibration.get("after")
    if after:
        heading = f"At temperature {calibration['temperature']:.2f}, fitted on {plain(calibration['fitted_on'])}"
        figures.append(_reliability(after, heading, after.get("ece_interval")))
    note = "On the diagonal, the model is right as often as it says; below it, it believes too much. A mark's area grows with the number of answers."
    return pages.paragraph(note) + pages.multiples(figures)


def _reliability(found: dict, heading: str, interval: list | None) -> str:
    bins = [{**b, **{key: 100 * b[key] for key in ("low", "high", "confidence", "accuracy") if b[key] is not None}} for b in found["bins"]]
    known = interval and interval[0] is not None
    span = f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if known else ""
    caption = f"Expected calibration error {100 * found['ece']:.1f} points{span}, negative log-likelihood {found['nll']:.3f}."
    return pages.figure(pages.reliability(bins, title=f"Reliability: {heading}", width=NARROW_PX), caption, heading=heading)


def filing_section(filing: dict, wanted: float) -> str:
    """Return coverage against precision, and what is filed at each level."""
    spots = [{"x": 100 * point["share"], "y": 100 * point["precision"]} for point in filing["curve"] if point["precision"] is not None]
    wide, narrow = (
        pages.curve(
            sorted(spots, key=lambda spot: spot["x"]),
            title="Coverage against precision",
            x_label="filed without a person, % of listings",
            y_label="right of those filed, %",
            wanted=100 * wanted,
            wanted_label=f"wanted: {100 * wanted:g} %",
            marks=[{"x": 100 * p["share"], "y": 100 * p["precision"], "label": f"{percent(p['share'])} % filed"} for p in stricter(filing["curve"], wanted)],
            width=width,
        )
        for width in (PICTURE_PX, NARROW_PX)
    )
    caption = "One threshold for all final categories, from strict (left) to none (right), and what each would file."
    return pages.figure(wide, caption, narrow=narrow) + pages.heading("With a threshold for every category") + _levels(filing)


def _levels(filing: dict) -> str:
    """Return what is filed at each level by the thresholds of nodes, and what backing off does."""
    ended = {row["level"]: row for row in filing["backoff"]["by_depth"]}
    rows = [
        {"level": f"level {level}", **found, "span": _span(found["interval"]), "ended": ended.get(int(level), {}).get("share")}
        for level, found in filing["levels"].items()
    ]
    columns = [
        {"key": "level", "label": "filed at the level\nor deeper"},
        {"key": "share", "label": "share of\nlistings %", "text": percent, "bar": True, "high": True},
        {"key": "precision", "label": "right at\nthe level %", "text": percent, "high": True},
        {"key": "span", "label": "95 % interval"},
        {"key": "ended", "label": "filed there,\nno deeper %", "text": percent, "bar": True, "high": True},
    ]
    backoff = filing["backoff"]
    told = f"A listing is filed at the deepest level whose threshold it passes; {percent(backoff['share'])} % are filed"
    if backoff["precision"] is not None:
        told += f", {backoff['mean_depth']:.2f} levels deep on average, {percent(backoff['precision'])} % of them right"
    told += f". The thresholds were fitted on {plain(filing['fitted_on'])}."
    return pages.table(rows, columns, caption="What is filed at each level") + pages.paragraph(told, "note")


def _span(interval: list) -> str:
    return f"{percent(interval[0])} to {percent(interval[1])}"
