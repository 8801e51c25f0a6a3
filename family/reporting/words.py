"""Numbers and names as a category manager reads them; shares are 0 to 1."""

import math
import re

from family.data.ontology import SEPARATOR
from family.pages import NOTHING, plain


def of_100(share: float) -> str:
    """Say a share as a whole number of a hundred, without calling something nothing or everything."""
    shown = round(100 * share)
    if shown == 0 < share:
        return "fewer than 1"
    return "more than 99" if shown == 100 and share < 1 else str(shown)


def between(interval: tuple[float, float] | list[float], noun: str = "listings") -> str:
    """Say an interval in words, rounded outwards: "between 71 and 78 of 100 listings", or without a noun "between 71 and 78"."""
    low, high = max(0, math.floor(100 * interval[0] + 1e-9)), min(100, math.ceil(100 * interval[1] - 1e-9))
    told = f"about {low}" if low == high else f"between {low} and {high}"
    return f"{told} of 100 {noun}" if noun else told


def counted(n: int, noun: str) -> str:
    """Return a number with its noun: "1 photo", "2,345 photos"; "category" becomes "categories"."""
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{n:,} {noun if n == 1 else many}"


def stricter(curve: list[dict], wanted: float) -> list[dict]:
    """Return, for each of a few precisions above the wanted one that is reached, the point of a coverage curve that files the most."""
    found = {}
    for target in (0.9, 0.95, 0.98, 0.99):
        reaching = [point for point in curve if point["precision"] is not None and point["precision"] >= target > wanted]
        if reaching and target > curve[0]["precision"]:  # else nothing stricter is needed
            best = max(reaching, key=lambda point: point["share"])
            found[best["threshold"]] = best
    return list(found.values())


def metric_words(metric: str) -> str:
    """Say a metric's path in metrics.json as the page does: "levels.2.macro" is "level 2, mean of categories"; other text stays as it is."""
    known = re.fullmatch(r"(?:top(\d+)|levels\.(\d+))(\.summed)?\.(micro|macro)", metric)
    if not known:
        return metric
    k, level, summed, kind = known.groups()
    what = f"top-{k}" if k else f"level {level}"
    return f"{what}{', summed' if summed else ''}, {'photos' if kind == 'micro' else 'mean of categories'}"


def last_two(path: str) -> str:
    """Return the last two names of a path, which tell most categories apart."""
    return plain(" / ".join(path.split(SEPARATOR)[-2:]))


def words() -> dict[str, str]:
    """Return the words that the page uses, with their meanings."""
    return {
        "top-k": "the seller's category is among the model's k best guesses",
        "mean of categories": "the share right of each category, averaged over categories, so that rare ones count as much (macro)",
        "level": "1 is the broadest; a category that ends above a level stays itself there",
        "recall": "of a category's photos, the share that the model names right",
        "precision": "of the photos that the model puts in a category, the share that is right",
        "F1": "the harmonic mean of precision and recall",
        "threshold": "the model's belief from which on a listing is filed without a person",
        "filed": "the share of a category's listings that the model files without a person",
        NOTHING: "there was nothing to compute it from",
    }
