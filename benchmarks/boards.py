"""Boards: latency joined with accuracy, split by what may be compared.

Only what was measured under the same conditions stands on one board: one scope, one machine with one setting, and one set of
rows. Fronts never cross boards.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from benchmarks.measurements import REQUIRED, check_row, number_at, part_of, scenario_of, usable, whole_of
from family.errors import UserError

INVALID, NO_GAIN, WRONG = "INVALID", "no gain", "wrong answers"
UNCLEAR = "unclear gain"
LEAST_AGREEMENT = 0.99  # of a bundle's stored inputs, that get the stored answer
# What `setting_of` looks at.
_DECIDES = {"latency": ("machine", "schema", "provider", "threads", "scenario", "batch", "rate"), "accuracy": ("dataset", "n")}


def boards(rows: Sequence[dict], are_checked: bool = False) -> list[dict]:
    """Join latency with accuracy and split by what may be compared.

    Args:
        are_checked: `read_rows` gave them, which has looked at each.

    Returns:
        `{"scope", "machine", "dataset", "members"}` each, general scope first. `machine` is any latency row
        and `dataset` any accuracy row of the board, for what all of its rows share, or None. A member that
        lacks one kind of measurement stands in each board that has its other kind. Of two rows of one file,
        kind and setting the newer one counts. Of a member, `base` is the fp32 member of its own bundle, or None;
        `base_unclear` says why it isn't known.

    Raises:
        UserError: there is no latency and no accuracy row, or one cannot be read.
    """
    files: dict[str, dict] = {}
    find_setting = _remembering()
    for number, row in enumerate(rows, 1):
        if not are_checked:
            check_row(row, f"row {number}")
        if row["kind"] in REQUIRED:
            kinds = files.setdefault(row["model_sha256"], {"latency": {}, "accuracy": {}})[row["kind"]]
            setting = find_setting(row)
            known = kinds.get(setting)
            if known is None or is_newer(row, known):
                kinds[setting] = row
    if not files:
        raise UserError("no latency or accuracy measurements to report; `family bench` writes them")
    by_scope: dict[str, list[dict]] = {}
    for kinds in files.values():
        by_scope.setdefault(_any_row(kinds)["scope"], []).append(kinds)
    scopes = sorted(by_scope, key=lambda s: (s != "general", s))
    return [board for name in scopes for board in _boards_of(name, by_scope[name])]


def is_newer(row: dict, known: dict) -> bool:
    at, before = str(row.get("at") or ""), str(known.get("at") or "")
    return at > before or (at == before and _text(row) >= _text(known))  # of one second: one of them, whatever the order


def _text(row: dict) -> str:
    return json.dumps(whole_of(row), sort_keys=True, default=str)


def _remembering() -> Callable[[dict], tuple]:
    """Return `setting_of` for many rows of few settings: it gives one object for all rows of a setting, compared at once, and works each out once."""
    known: dict[tuple, tuple] = {}
    by_text: dict[bytes, tuple] = {}

    def find(row: dict) -> tuple:
        try:
            text = msgspec.json.encode([row.get(key) for key in _DECIDES[row["kind"]]])
        except (TypeError, ValueError, OverflowError):  # what no JSON holds, as a function may be given
            return setting_of(row)
        setting = by_text.get(text)
        if setting is None:
            setting = setting_of(row)
            by_text[text] = setting = known.setdefault(setting, setting)
        return setting

    return find


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
    return next(iter((kinds["latency"] or kinds["accuracy"]).values()))


def _boards_of(scope: str, mine: Sequence[dict]) -> list[dict]:
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
    best, of_batch = None, None
    for found in part_of(latency, "throughput", list):
        rate = number_at(found, "images_per_s")
        if rate and found.get("valid", True) and (best is None or rate > best):
            best, of_batch = rate, found.get("batch")
    member = {
        "member": row["member"], "scheme": row["scheme"], "scope": row["scope"], "model_sha256": row["model_sha256"], "latency": latency, "accuracy": accuracy,
        "front": False, "p50_ms": usable(times.get("p50")), "p99_ms": usable(times.get("p99")), "upper_ms": usable(times.get("upper")),
        "images_per_s": best, "throughput_batch": of_batch, "top1": number_at(accuracy, "metrics", "top1", "micro"),
    }  # fmt: skip
    member["remarks"] = _remarks(member)
    member["comparable"] = not member["remarks"]
    member["invalid"] = INVALID in member["remarks"]
    return member


def _find_bases(members: Sequence[dict]) -> dict[str, list[dict]]:
    """Note the fp32 member of each other member's own bundle in its `base`: found by the file's digest where its rows hold that, else by the bundle's name,
    where one file alone has it. Return those that may be it, by the member's digest: more than one where names don't tell."""
    full = [member for member in members if member["scheme"] == "fp32"]
    by_file, by_name = {member["model_sha256"]: member for member in full}, {}
    for member in full:
        by_name.setdefault(_run_of(member), []).append(member)
    found = {}
    for member in members:
        member["base"], member["base_unclear"] = None, ""
        if member["scheme"] == "fp32":
            continue
        digest = _digest_of_base(member["latency"]) or _digest_of_base(member["accuracy"])
        bases = [by_file[digest]] if digest in by_file else [] if digest else by_name.get(_run_of(member), [])
        found[member["model_sha256"]] = bases
        if len(bases) == 1:
            member["base"] = bases[0]
        elif bases:
            told = ", ".join(sorted(base["model_sha256"][:7] for base in bases))
            member["base_unclear"] = f"{len(bases)} fp32 files have the name of its bundle ({told}), and its rows do not tell which is its own: measure again"
    return found


def _digest_of_base(row: dict | None) -> str | None:
    digest = part_of(row, "against_fp32", dict).get("model_sha256")
    return digest if isinstance(digest, str) else None


def _run_of(member: dict) -> tuple | None:
    """Return what the files of one run share."""
    row = member["latency"] or member["accuracy"]
    return tuple(map(str, map(row.get, ("bundle", "variant", "resolution_px", "scope", "label"))))


def _mark_what_gains_nothing(members: Sequence[dict]) -> None:
    """Mark a scheme that is not faster, in half of all rounds, than the fp32 of its own bundle, whose answers it approximates; where both were not timed
    in rounds, in p50."""
    bases_of = _find_bases(members)
    for member in members:
        bases = [base for base in bases_of.get(member["model_sha256"], []) if base["latency"]] if member["latency"] else []
        ratio = number_at(member["latency"], "against_fp32", "ratio")
        speeds = _speeds(member, bases) if ratio is None else [ratio] if bases else []
        slower = [speed <= 1 for speed in speeds]
        if slower and all(slower):
            name = member["base"]["member"] if member["base"] else "any fp32 of its bundle's name" if ratio is None else "the fp32 of its own bundle"
            member["remarks"][NO_GAIN] = f"not faster than {name}, whose answers it approximates"
        elif any(slower):
            member["remarks"][UNCLEAR] = member["base_unclear"]
        member["comparable"] = not member["remarks"]


def _speeds(member: dict, bases: Sequence[dict]) -> list[float]:
    """Return how many times as fast as each base a member is, in p50, where both are known."""
    return [base["p50_ms"] / member["p50_ms"] for base in bases if base["p50_ms"] and member["p50_ms"] and INVALID not in base["remarks"]]


def _remarks(member: dict) -> dict[str, str]:
    """Return what keeps a member from being compared, with the details where there are any."""
    latency, accuracy = member["latency"], member["accuracy"]
    found = {}
    if latency and not latency.get("valid", True):
        found[INVALID] = str(latency.get("invalid_because") or "no reason given")
    elif latency and member["upper_ms"] is None:
        found["no bound"] = "too few independent samples to bound p99: more --samples"
    if not agrees(latency):
        found[WRONG] = ""
    if not all(row.get("trained", True) for row in (latency, accuracy) if row):
        found["untrained"] = ""
    if not latency:
        found["no latency"] = ""
    if member["top1"] is None:
        found["no accuracy"] = ""
    return found


def agrees(latency: dict | None) -> bool:
    """Say whether a file gave its bundle's stored answers when it was timed; older rows don't tell, and are taken."""
    agreement = number_at(latency, "agreement")
    return agreement is None or agreement >= LEAST_AGREEMENT


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Say of each (cost, gain) whether no other point is as good in both and better in one."""
    best, kept = -math.inf, set()
    for cost, gain in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if gain > best:
            best = gain
            kept.add((cost, gain))
    return [tuple(point) in kept for point in points]
