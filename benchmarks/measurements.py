"""Measurements: rows of JSON lines under a schema. Latency and accuracy are separate rows, joined by the model file's sha256."""

import gc
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from family.errors import UserError

_CHUNK = 2**20  # bytes read at once
_BEGIN = ("schema", "kind", "scope")  # of a line of results
_DIGITS = 6  # of numbers in results
_WHOLE, _NUMBERS = (int,), (int, float)  # not bool, which is an int too
_WHOLES = frozenset((int, bool))
WHOLE = b"whole"  # of a part of a row: all of it, or its line; no key of JSON
SCHEMA = 2  # 1 knew single images one after another alone
REQUIRED = {
    "latency": {"machine": dict, "latency_ms": dict},
    "accuracy": {"dataset": dict, "metrics": dict},
}
SCENARIOS = ("single-stream", "multi-stream", "server")
# What fields hold that are there and not null: text, or a number of these types from the first limit to below the second.
_TEXTS = {"latency": ("bundle", "provider", "scenario"), "accuracy": ("bundle", "provider"), "peer": ("bundle",)}
_COUNT = (_WHOLE, 0, 10**12, "a whole number, 0 or more,")
_LEAST_ONE = (_WHOLE, 1, 10**9, "a whole number, 1 or more,")
_AMOUNT = (_NUMBERS, 0, 1e15, "a number, 0 or more,")
_SHARE = (_NUMBERS, 0, math.nextafter(1, 2), "a share from 0 to 1")
_CHECKS = {
    "latency": {
        "n": _COUNT, "batch": _LEAST_ONE, "threads": _LEAST_ONE, "rate": (_NUMBERS, math.ulp(0), 1e9, "a number above 0"), "agreement": _SHARE,
        "peak_memory_mb": _AMOUNT, "size_mb": _AMOUNT,
    },
    "accuracy": {"n": _COUNT, "batch": _LEAST_ONE, "threads": _LEAST_ONE},
    "peer": {"rounds": _COUNT, "threads": _LEAST_ONE},
}  # fmt: skip
_TIMES = ("latency_ms", "stages_ms")
PEER = {"machine": dict, "against": dict, "versions": dict}  # of the kind "peer", which stands on no board
_NAMES = ("member", "variant", "scope", "scheme", "model_sha256")
_FIELDS = {kind: dict.fromkeys(_NAMES, str) | fields for kind, fields in {**REQUIRED, "peer": PEER}.items()}


@contextmanager
def uncollected() -> Iterator[None]:
    """Let the garbage collector rest: many rows are many objects without a cycle, which it looks through again and again, a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_rows(
    paths: Iterable[Path], keep: Callable[[dict, bytes], dict | None] | None = None, decode: Callable[[bytes], dict | None] | None = None
) -> list[dict]:  # fmt: skip
    """Read measurements from JSON lines. Each line is parsed and checked as a whole, but for what `decode` takes.

    Args:
        keep: returns what is kept of a row that was checked, given its line too, or None; by default all of it. What is not kept leaves its memory to
            the next line, which saves more time than it takes.

        decode: returns what is kept of a line, of which it may check that alone, or None where the line is to be read as a whole.

    Raises:
        UserError: a file is missing, or a line is no measurement that this version reads; names both.
    """
    rows = []
    for path in paths:
        try:
            with open(path, "rb", buffering=_CHUNK) as file:
                for number, line in enumerate(file, 1):
                    if not line.isspace():
                        row = decode and decode(line)
                        if row is None:
                            row = _read_line(line, path, number)
                            row = keep(row, line) if keep else row
                        if row is not None:
                            rows.append(row)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; give a file that `family bench` wrote") from error
    return rows


def _read_line(line: bytes, path: Path, number: int) -> dict:
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as broken:
            raise UserError(f"{path} is not UTF-8 text; give a file that `family bench` wrote") from broken
        raise UserError(f"{path}, line {number}: not a JSON object ({_why_not_json(text) or error}); remove the line or measure again") from error
    check_row(row, f"{path}, line {number}")
    return row


def _why_not_json(line: str) -> str:
    """Return what Python's own reader says, which names what it met."""
    try:
        json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return str(error)
    return ""


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def check_row(row: object, where: str) -> None:
    """Refuse a row that this version cannot read.

    Raises:
        UserError: names the place, what was got and what is read.
    """
    if not isinstance(row, dict) or not isinstance(row.get("schema"), int):
        raise UserError(f'{where}: not a measurement; one is a JSON object with "schema" and "kind"')
    if row["schema"] > SCHEMA:
        raise UserError(f"{where}: schema {row['schema']}; this version reads up to {SCHEMA}; update it")
    if not isinstance(row.get("kind"), str):
        raise UserError(f'{where}: "kind" is missing; latency and accuracy are read')
    if row["kind"] not in _FIELDS:
        return
    for field, type_ in _FIELDS[row["kind"]].items():
        if not isinstance(row.get(field), type_):
            kind = "text" if type_ is str else "an object"
            raise UserError(f"{where}: {field!r} is {row.get(field)!r}; a {row['kind']} row has {kind} there")
    wrong = next(_wrong_fields(row), None)
    if wrong:
        raise UserError(f"{where}: {wrong[0]} is {str(wrong[1])[:60]!r}; a {row['kind']} row has {wrong[2]} there")
    confusion = row["kind"] == "accuracy" and row["metrics"].get("confusion")
    if confusion and not _is_square(confusion):
        raise UserError(f"{where}: the confusion matrix is not as long and as wide as its ids")


def _wrong_fields(row: dict) -> Iterator[tuple[str, object, str]]:
    """Yield (field, what it holds, what it should) of fields that are there, not null, and hold something else than they should: what reads rows counts on
    these alone."""
    kind = row["kind"]
    for name in _TEXTS.get(kind, ()):
        value = row.get(name)
        if value is not None and type(value) is not str:
            yield name, value, "text"
    for name, (types, least, end, wanted) in _CHECKS.get(kind, {}).items():
        value = row.get(name)
        if value is not None and not (type(value) in types and least <= value < end):
            yield name, value, wanted
    if kind == "latency":
        yield from _wrong_times(row)
    if kind == "accuracy":
        yield from _wrong_shares(row["metrics"])


def _wrong_times(row: dict) -> Iterator[tuple[str, object, str]]:
    _, least, end, wanted = _AMOUNT
    for name in _TIMES:
        for key, value in part_of(row, name, dict).items():
            if type(value) in _NUMBERS and not least <= value < end:
                yield f"{name}.{key}", value, wanted
    if not isinstance(row["machine"].get("name"), str):
        yield "machine.name", row["machine"].get("name"), "text"
    if row.get("scenario") not in (None, *SCENARIOS):
        yield "scenario", row["scenario"], f"one of {', '.join(SCENARIOS)}"
    if (row.get("scenario") == "server") != (row.get("rate") is not None):
        yield "rate", row.get("rate"), "requests a second, of the scenario server alone,"


def _wrong_shares(metrics: dict) -> Iterator[tuple[str, object, str]]:
    levels = part_of(metrics, "levels", dict)
    for above, parts, keys in (("", metrics, ("top1", "top3", "top5")), ("levels.", levels, levels)):
        for key in keys:
            found = parts.get(key)
            for kind in ("micro", "macro") if type(found) is dict else ():
                value = found.get(kind)
                if value is not None and type(value) in _NUMBERS and not 0 <= value <= 1:
                    yield f"metrics.{above}{key}.{kind}", value, _SHARE[3]


def _is_square(confusion: object) -> bool:
    ids, matrix = part_of(confusion, "ids", list), part_of(confusion, "matrix", list)
    n = len(ids)
    return 0 < n == len(matrix) and all(type(line) is list and len(line) == n and _WHOLES.issuperset(map(type, line)) for line in matrix)


def identify_bundle(bundle, scheme: str, kind: str) -> dict:
    """Return the fields that say which member a row is of."""
    from family.card import member_name

    return identify(bundle.card, scheme, kind, member_name(bundle.card, scheme), bundle.schemes[scheme]["sha256"])


def identify(card: dict, scheme: str, kind: str, member: str, sha256: str) -> dict:
    """Return the fields that say which member a row is of; of a chain, the card is its general model's."""
    from benchmarks.machine import now

    return {
        "schema": SCHEMA,
        "kind": kind,
        "at": now(),
        "member": member,
        **{key: card.get(key) for key in ("variant", "resolution_px", "scope", "label")},
        "scheme": scheme,
        "model_sha256": sha256,
        "trained": card.get("training", {}).get("trained", True),
    }


def scenario_of(row: dict) -> tuple[str, int, float | None]:
    """Return how requests came: (scenario, images of a query, requests a second of the scenario "server")."""
    return row.get("scenario", "single-stream"), row.get("batch") or 1, row.get("rate")


def whole_of(row: dict) -> dict:
    """Return all of a row of which a part was kept, or the row."""
    whole = row.get(WHOLE, row)
    try:
        return msgspec.json.decode(whole) if isinstance(whole, bytes) else whole
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # of a line of which a part was decoded
        raise UserError(f"the row of {row['member']} can't be read whole ({error}); remove the line or measure again") from error


def number_at(row: dict | None, *keys: str) -> float | None:
    """Return the number at a path of keys, or None."""
    value: object = row
    for key in keys:
        if type(value) is not dict:
            return None
        value = value.get(key)
    return value if type(value) in _NUMBERS and -1e15 < value < 1e15 else None  # as `usable`, without a call: this is asked most


def usable(value: object) -> float | None:
    """Return a value where it is a number to reckon with, else None."""
    return value if type(value) in _NUMBERS and -1e15 < value < 1e15 else None


def part_of(row: object, key: str, type_: type) -> list | dict:
    """Return the list or object at a key, or an empty one."""
    value = row.get(key) if isinstance(row, dict) else None
    return value if isinstance(value, type_) else type_()


def append_rows(path: Path, rows: list[dict], replaces) -> list[dict]:
    """Add rows to a results file, whole or not at all, and nobody else's are lost; rows for which `replaces(old, new)` holds give way. Return them as they
    were written: `lean`."""
    from family.outputs import one_at_a_time, whole_file

    rows = [lean(row) for row in rows]
    path = path.resolve()  # what a link names is written, not the link
    path.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(path):
        old = read_rows([path]) if path.is_file() else []
        kept = [row for row in old if not any(replaces(row, new) for new in rows)]
        with whole_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in [*kept, *rows])
            file.flush()
            os.fsync(file.fileno())
    return rows


def lean(row: dict) -> dict:
    """Return a row as results hold it, in about half of the bytes: of latency and accuracy, numbers have six digits, far below what measuring anew changes, and
    the curve of calibration is left to `evaluate`, which draws it."""
    if row["kind"] not in REQUIRED:
        return row
    begin = {key: row[key] for key in _BEGIN}  # by which a line tells whether a question is about it
    rounded = _rounded({**begin, **row, "metrics": _without_curve(row["metrics"])} if row["kind"] == "accuracy" else {**begin, **row})
    return {**rounded, "rate": row["rate"]} if "rate" in row else rounded  # what was asked for is told exactly: `bench` finds it again


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value


def _without_curve(metrics: dict) -> dict:
    calibration = part_of(metrics, "calibration", dict)
    if not calibration:
        return metrics
    after = part_of(calibration, "after", dict)
    kept = {**calibration, **({"after": _without_bins(after)} if after else {})}
    return {**metrics, "calibration": _without_bins(kept)}


def _without_bins(calibration: dict) -> dict:
    return {key: value for key, value in calibration.items() if key != "bins"}


def same_measurement(old: dict, new: dict) -> bool:
    """Say whether a new row measures what an old one did; a file that was exported anew replaces the old one's row. An accuracy is the same one, whichever
    machine and settings found it."""

    def key(row: dict) -> tuple:
        where = row["machine"] if row["kind"] == "latency" else row["dataset"]
        wanted = ("name", "digest", "split") if row["kind"] == "accuracy" else ("name", "cpu", "cores", "versions")
        fixed = [row.get(field) for field in ("kind", "bundle", "member", "scheme")]
        fixed += [row.get("provider"), row.get("threads"), *scenario_of(row)] if row["kind"] == "latency" else []
        return (*map(str, fixed), *(str(where.get(field)) for field in wanted))

    return old["kind"] in ("latency", "accuracy") and old["member"] == new.get("member") and key(old) == key(new)
