"""Measurements: rows of JSON lines under a schema. Latency and accuracy are separate rows, joined by the model file's sha256."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from family.errors import UserError
from family.outputs import whole_file

SCHEMA = 1
REQUIRED = {
    "latency": {"machine": dict, "latency_ms": dict},
    "accuracy": {"dataset": dict, "metrics": dict},
}
PEER = {"machine": dict, "against": dict, "versions": dict}  # of the kind "peer", which stands on no board
_NAMES = ("member", "variant", "scope", "scheme", "model_sha256")


def read_rows(paths: Iterable[Path]) -> list[dict]:
    """Read measurements from JSON lines.

    Raises:
        UserError: a file is missing, or a line is no measurement that this version reads; names both.
    """
    rows = []
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; give a file that `family bench` wrote") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 text; give a file that `family bench` wrote") from error
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                rows.append(_read_line(line, f"{path}, line {number}"))
    return rows


def _read_line(line: str, where: str) -> dict:
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not a JSON object ({error}); remove the line or measure again") from error
    check_row(row, where)
    return row


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
    known = {**REQUIRED, "peer": PEER}
    if row["kind"] not in known:
        return
    wanted = dict.fromkeys(_NAMES, str) | known[row["kind"]]
    for field, type_ in wanted.items():
        if not isinstance(row.get(field), type_):
            kind = "text" if type_ is str else "an object"
            raise UserError(f"{where}: {field!r} is {row.get(field)!r}; a {row['kind']} row has {kind} there")
    confusion = row["kind"] == "accuracy" and row["metrics"].get("confusion")
    if confusion and not _is_square(confusion):
        raise UserError(f"{where}: the confusion matrix is not as long and as wide as its ids")


def _is_square(confusion: object) -> bool:
    ids, matrix = part_of(confusion, "ids", list), part_of(confusion, "matrix", list)
    return 0 < len(ids) == len(matrix) and all(
        isinstance(line, list) and len(line) == len(ids) and all(isinstance(n, int) for n in line) for line in matrix
    )


def number_at(row: dict | None, *keys: str) -> float | None:
    """Return the number at a path of keys, or None."""
    value: object = row
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
    return value if usable else None


def part_of(row: object, key: str, type_: type) -> list | dict:
    """Return the list or object at a key, or an empty one."""
    value = row.get(key) if isinstance(row, dict) else None
    return value if isinstance(value, type_) else type_()


def append_rows(path: Path, rows: list[dict], replaces) -> None:
    """Add rows to a results file, whole or not at all; rows for which `replaces(old, new)` holds give way."""
    old = read_rows([path]) if path.is_file() else []
    kept = [row for row in old if not any(replaces(row, new) for new in rows)]
    with whole_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in [*kept, *rows])
        file.flush()
        os.fsync(file.fileno())
