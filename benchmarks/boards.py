"""Boards: latency joined with accuracy, split by what may be compared.

Only what was measured under the same conditions stands on one board: one scope, one machine with one setting, and one set of
rows. Fronts never cross boards.
"""

import math
from collections.abc import Sequence

from benchmarks.measurements import REQUIRED, check_row, number_at, part_of
from family.errors import UserError
from family.pages import plain

INVALID = "INVALID"
_LEVELS = {str(level) for level in range(1, 100)}


def boards(rows: Sequence[dict]) -> list[dict]:
    """Join latency with accuracy and split by what may be compared.

    Returns:
        `{"scope", "machine", "dataset", "members"}` each, general scope first. `machine` is any latency row
        and `dataset` any accuracy row of the board, for what all of its rows share, or None. A member that
        lacks one kind of measurement stands in each board that has its other kind.

    Raises:
        UserError: there is no latency and no accuracy row, or one cannot be read.
    """
    files: dict[str, dict] = {}
    for number, row in enumerate(rows, 1):
        check_row(row, f"row {number}")
        if row["kind"] in REQUIRED:
            kinds = files.setdefault(row["model_sha256"], {"latency": {}, "accuracy": {}})
            known = kinds[row["kind"]].get(setting_of(row))
            if known is None or str(row.get("at")) >= str(known.get("at")):
                kinds[row["kind"]][setting_of(row)] = row
    if not files:
        raise UserError("no latency or accuracy measurements to report; `family bench` writes them")
    scopes = sorted({_any_row(kinds)["scope"] for kinds in files.values()}, key=lambda s: (s != "general", s))
    return [board for scope in scopes for board in _boards_of(scope, files)]


def setting_of(row: dict) -> tuple:
    """Return what must be equal for two rows of a kind to be compared."""
    if row["kind"] == "accuracy":
        return (*(str(row["dataset"].get(key)) for key in ("name", "digest", "split")), str(row.get("n")))
    machine = row["machine"]
    where = [machine.get(key) for key in ("name", "cpu", "cores", "gpu", "features")]
    how = [row.get(key) for key in ("provider", "threads", "batch")]
    return tuple(map(str, [*where, part_of(machine, "versions", dict).get("onnxruntime"), *how]))


def _any_row(kinds: dict) -> dict:
    return next(iter([*kinds["latency"].values(), *kinds["accuracy"].values()]))


def _boards_of(scope: str, files: dict[str, dict]) -> list[dict]:
    mine = [kinds for kinds in files.values() if _any_row(kinds)["scope"] == scope]
    pairs = list(dict.fromkeys((a, b) for kinds in mine for a in kinds["latency"] for b in kinds["accuracy"]))
    for kinds in mine:
        if not kinds["accuracy"]:
            pairs += [(a, None) for a in kinds["latency"] if a not in {pair[0] for pair in pairs}]
        if not kinds["latency"]:
            pairs += [(None, b) for b in kinds["accuracy"] if b not in {pair[1] for pair in pairs}]
    return [_board(scope, mine, latency, accuracy) for latency, accuracy in pairs]


def _board(scope: str, mine: Sequence[dict], latency: tuple | None, accuracy: tuple | None) -> dict:
    members = [
        _member(kinds["latency"].get(latency), kinds["accuracy"].get(accuracy))
        for kinds in mine
        if (latency in kinds["latency"] or not kinds["latency"]) and (accuracy in kinds["accuracy"] or not kinds["accuracy"])
    ]
    names = [member["member"] for member in members]
    for member in members:
        if names.count(member["member"]) > 1:
            member["member"] += f" ({member['model_sha256'][:7]})"
    comparable = [m for m in members if m["comparable"]]
    fronts = pareto([(m["upper_ms"], m["top1"]) for m in comparable])
    for member, front in zip(comparable, fronts, strict=True):
        member["front"] = front
    members.sort(key=lambda m: (-(m["top1"] if m["top1"] is not None else -1), m["upper_ms"] or math.inf))
    return {
        "scope": scope,
        "machine": next((m["latency"] for m in members if m["latency"]), None),
        "dataset": next((m["accuracy"] for m in members if m["accuracy"]), None),
        "members": members,
    }


def _member(latency: dict | None, accuracy: dict | None) -> dict:
    """Return one line of a board; accuracies are fractions."""
    row = latency or accuracy
    rates = [r for r in part_of(latency, "throughput", list) if number_at(r, "images_per_s")]
    best = max(rates, key=lambda r: r["images_per_s"], default={})
    metrics = part_of(accuracy, "metrics", dict)
    levels = sorted(int(key) for key in part_of(metrics, "levels", dict) if key in _LEVELS)
    member = {key: row.get(key) for key in ("member", "variant", "resolution_px", "scope", "label", "scheme")}
    member |= {key: number_at(latency, key) for key in ("size_mb", "n_parameters", "n_classes")}
    member |= {f"{key}_ms": number_at(latency, "latency_ms", key) for key in ("p50", "p99", "upper")}
    member |= {key: number_at(metrics, key, "micro") for key in ("top1", "top3", "top5")}
    member |= {
        "model_sha256": row["model_sha256"], "latency": latency, "accuracy": accuracy, "front": False,
        "images_per_s": number_at(best, "images_per_s"), "throughput_batch": best.get("batch"),
        "macro": number_at(metrics, "top1", "macro"), "levels": levels,
    }  # fmt: skip
    member |= {f"L{k}": number_at(metrics, "levels", str(k), "micro") for k in levels}
    member["remarks"] = _remarks(member)
    member["comparable"] = not member["remarks"]
    member["invalid"] = INVALID in member["remarks"]
    return member


def _remarks(member: dict) -> dict[str, str]:
    """Return what keeps a member from being compared, with the details where there are any."""
    latency, accuracy = member["latency"], member["accuracy"]
    found = {}
    if latency and not latency.get("valid", True):
        found[INVALID] = plain(latency.get("invalid_because") or "no reason given")
    elif latency and member["upper_ms"] is None:
        found["no bound"] = "too few images to bound p99"
    if not all(row.get("trained", True) for row in (latency, accuracy) if row):
        found["untrained"] = ""
    if not latency:
        found["no latency"] = ""
    if member["top1"] is None:
        found["no accuracy"] = ""
    return found


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Say of each (cost, gain) whether no other point is as good in both and better in one."""
    return [not any(cost <= point[0] and gain >= point[1] and (cost, gain) != point for cost, gain in points) for point in points]
