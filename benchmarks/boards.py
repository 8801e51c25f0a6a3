"""Boards: latency joined with accuracy, split by what may be compared.

Only what was measured under the same conditions stands on one board: one scope, one machine with one setting, and one set of
rows. Fronts never cross boards.
"""

import math
from collections import Counter
from collections.abc import Sequence

from benchmarks.measurements import REQUIRED, check_row, number_at, part_of, scenario_of, usable
from family.errors import UserError

INVALID, NO_GAIN, WRONG = "INVALID", "no gain", "wrong answers"
LEAST_AGREEMENT = 0.99  # of a bundle's stored inputs, that get the stored answer


def boards(rows: Sequence[dict], are_checked: bool = False) -> list[dict]:
    """Join latency with accuracy and split by what may be compared.

    Args:
        are_checked: `read_rows` gave them, which has looked at each.

    Returns:
        `{"scope", "machine", "dataset", "members"}` each, general scope first. `machine` is any latency row
        and `dataset` any accuracy row of the board, for what all of its rows share, or None. A member that
        lacks one kind of measurement stands in each board that has its other kind.

    Raises:
        UserError: there is no latency and no accuracy row, or one cannot be read.
    """
    files: dict[str, dict] = {}
    settings: dict[tuple, tuple] = {}
    for number, row in enumerate(rows, 1):
        if not are_checked:
            check_row(row, f"row {number}")
        if row["kind"] in REQUIRED:
            kinds = files.setdefault(row["model_sha256"], {"latency": {}, "accuracy": {}})
            setting = setting_of(row)
            setting = settings.setdefault(setting, setting)  # one object for all rows of a setting: compared at once
            known = kinds[row["kind"]].get(setting)
            if known is None or str(row.get("at")) >= str(known.get("at")):
                kinds[row["kind"]][setting] = row
    if not files:
        raise UserError("no latency or accuracy measurements to report; `family bench` writes them")
    scopes = sorted({_any_row(kinds)["scope"] for kinds in files.values()}, key=lambda s: (s != "general", s))
    return [board for scope in scopes for board in _boards_of(scope, files)]


def setting_of(row: dict) -> tuple:
    """Return what must be equal for two rows of a kind to be compared."""
    if row["kind"] == "accuracy":
        return (*(str(row["dataset"].get(key)) for key in ("name", "digest", "split")), str(row.get("n")))
    return (*state_of(row), *map(str, (row.get("provider"), row.get("threads"), *scenario_of(row))))


def state_of(latency: dict) -> tuple:
    """Return what a machine was like when it timed a row: an upgrade makes another one of it, and a name may be given twice."""
    machine = latency["machine"]
    versions = part_of(machine, "versions", dict)
    # Rows of schema 1 have no time for telling the answer.
    where = [*map(machine.get, ("name", "cpu", "cores", "gpu", "features")), versions.get("pillow"), latency["schema"], versions.get("onnxruntime")]
    return tuple(map(str, where))


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
    boards_ = [_board(scope, mine, latency, accuracy) for latency, accuracy in pairs]
    return sorted(boards_, key=lambda board: scenario_of(board["machine"])[:2] != ("single-stream", 1) if board["machine"] else False)


def _board(scope: str, mine: Sequence[dict], latency: tuple | None, accuracy: tuple | None) -> dict:
    members = [
        _member(kinds["latency"].get(latency), kinds["accuracy"].get(accuracy))
        for kinds in mine
        if (latency in kinds["latency"] or not kinds["latency"]) and (accuracy in kinds["accuracy"] or not kinds["accuracy"])
    ]
    _mark_what_gains_nothing(members)
    names = Counter(member["member"] for member in members)
    for member in members:
        if names[member["member"]] > 1:
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
    """Return what is compared of a member: accuracies are fractions."""
    row = latency or accuracy
    times = part_of(latency, "latency_ms", dict)
    best = max(((rate, r.get("batch")) for r in part_of(latency, "throughput", list) if (rate := number_at(r, "images_per_s")) and r.get("valid", True)),
               key=lambda found: found[0], default=(None, None))  # fmt: skip
    member = {
        "member": row["member"], "scheme": row["scheme"], "scope": row["scope"], "model_sha256": row["model_sha256"], "latency": latency, "accuracy": accuracy,
        "front": False, "p50_ms": usable(times.get("p50")), "p99_ms": usable(times.get("p99")), "upper_ms": usable(times.get("upper")),
        "images_per_s": best[0], "throughput_batch": best[1], "top1": number_at(accuracy, "metrics", "top1", "micro"),
    }  # fmt: skip
    member["remarks"] = _remarks(member)
    member["comparable"] = not member["remarks"]
    member["invalid"] = INVALID in member["remarks"]
    return member


def _mark_what_gains_nothing(members: Sequence[dict]) -> None:
    """Mark a scheme that is not faster, in half of all rounds, than the fp32 of its own bundle, whose answers it approximates; where both were not timed
    in rounds, in p50."""
    full = {m["latency"].get("bundle"): m for m in members if m["latency"] and m["scheme"] == "fp32"}
    for member in members:
        base = full.get(member["latency"].get("bundle")) if member["latency"] and member["scheme"] != "fp32" else None
        speed = number_at(member["latency"], "against_fp32", "ratio")
        if base and speed is None and base["latency"].get("bundle") and base["p50_ms"] and member["p50_ms"] and INVALID not in base["remarks"]:
            speed = base["p50_ms"] / member["p50_ms"]
        if base and speed is not None and speed <= 1:
            member["remarks"][NO_GAIN] = f"not faster than {base['member']}, whose answers it approximates"
            member["comparable"] = False


def _remarks(member: dict) -> dict[str, str]:
    """Return what keeps a member from being compared, with the details where there are any."""
    latency, accuracy = member["latency"], member["accuracy"]
    found = {}
    if latency and not latency.get("valid", True):
        found[INVALID] = str(latency.get("invalid_because") or "no reason given")
    elif latency and member["upper_ms"] is None:
        found["no bound"] = "too few independent samples to bound p99: more --samples"
    if latency and (number_at(latency, "agreement") or 1) < LEAST_AGREEMENT:
        found[WRONG] = ""
    if not all(row.get("trained", True) for row in (latency, accuracy) if row):
        found["untrained"] = ""
    if not latency:
        found["no latency"] = ""
    if member["top1"] is None:
        found["no accuracy"] = ""
    return found


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Say of each (cost, gain) whether no other point is as good in both and better in one."""
    best, kept = -math.inf, set()
    for cost, gain in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if gain > best:
            best = gain
            kept.add((cost, gain))
    return [tuple(point) in kept for point in points]
