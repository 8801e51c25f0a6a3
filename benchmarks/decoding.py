"""Lines of results, decoded for one question: the whole line is checked as `read_rows` does, and only what picking looks at becomes objects.

Most of a results file are curves and metrics that one question does not ask for. What this can't take as it is, it leaves to the plain way, which takes it or
says what is wrong: a test holds the two together. One thing it lets pass: a number too large for a float (1e999) where nobody looks.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec

from benchmarks.measurements import SCENARIOS, SCHEMA, WHOLE

_Schema = Annotated[int, msgspec.Meta(le=SCHEMA)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=10**12)] | None
_LeastOne = Annotated[int, msgspec.Meta(ge=1, lt=10**9)] | None
_Amount = Annotated[float, msgspec.Meta(ge=0, lt=1e15)] | None
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)] | None


class _Checked(msgspec.Struct, gc=False):
    """Shares that are checked and dropped: a quarter of the time that a dictionary takes."""

    micro: _Share = None
    macro: _Share = None


class _Confusion(msgspec.Struct, gc=False):
    ids: list[Any]
    matrix: list[list[int]]


class _Sure(TypedDict, total=False):
    micro: _Share
    macro: _Share
    micro_interval: Any
    macro_interval: Any
    summed: Any


# What is asked of metrics is decoded as it stands, the rest is checked.
_METRICS = {"levels": dict[str, _Checked], "top1": _Sure, "top3": _Checked, "top5": _Checked, "n_listings": Any, "confusion": _Confusion}
_ASKED = {"levels": dict[str, _Sure], "top3": _Sure, "top5": _Sure}
_MEMBER = {"schema": _Schema, "member": str, "variant": str, "scope": str, "scheme": str, "model_sha256": str}
_OPTIONAL = {"at": Any, "resolution_px": Any, "label": Any, "trained": Any, "bundle": str | None, "provider": str | None, "n": _Count,
             "batch": _LeastOne, "threads": _LeastOne}  # fmt: skip


def decoder_for(metric: str, scope: str) -> Callable[[bytes], dict | None]:
    """Return what takes a line to the part of its row that picking by a metric in a scope looks at, or to None where the plain way is to read it."""
    latency = msgspec.json.Decoder(_latency_type())
    accuracy = msgspec.json.Decoder(_accuracy_type(metric))
    dropped = {"levels", "top3", "top5", "confusion"} - {metric.partition(".")[0]}

    def decode(line: bytes) -> dict | None:
        if not line.isascii():  # of what is passed over, the encoding isn't looked at
            return None
        decoder = latency if b'"latency_ms"' in line else accuracy
        try:
            row = decoder.decode(line)
        except (msgspec.MsgspecError, RecursionError):
            return None
        if not (_is_right_latency(row) if decoder is latency else _is_square(row["metrics"].get("confusion"))):
            return None
        if row["scope"] != scope:
            return {"kind": row["kind"], "scope": row["scope"]}
        if decoder is latency:
            row.pop("stages_ms", None)
            row[WHOLE] = line
        else:
            for key in dropped:
                row["metrics"].pop(key, None)
        return row

    return decode


def _latency_type() -> type:
    times = TypedDict("Times", {**dict.fromkeys(("p50", "p90", "p95", "p99", "upper", "mean"), _Amount), "uppers": Any}, total=False)
    optional = {**_OPTIONAL, "against_fp32": Any, "size_mb": _Amount, "peak_memory_mb": _Amount, "agreement": _Share, "rate": Any, "scenario": Any,
                "valid": Any, "invalid_because": Any, "throughput": Any, "stages_ms": dict[str, _Amount]}  # fmt: skip
    return _type_of({"kind": Literal["latency"], **_MEMBER, "machine": dict[str, Any], "latency_ms": times}, optional)


def _accuracy_type(metric: str) -> type:
    asked = metric.partition(".")[0]
    metrics = TypedDict("Metrics", {**_METRICS, asked: _ASKED.get(asked) or _METRICS.get(asked, Any)}, total=False)
    against = TypedDict("Against", {"model_sha256": Any, metric: Any}, total=False)
    return _type_of({"kind": Literal["accuracy"], **_MEMBER, "dataset": dict[str, Any], "metrics": metrics}, {**_OPTIONAL, "against_fp32": against})


def _type_of(required: dict[str, Any], optional: dict[str, Any]) -> type:
    return TypedDict("Row", {**required, **{key: NotRequired[kind] for key, kind in optional.items()}})


def _is_square(confusion: _Confusion | None) -> bool:
    return confusion is None or 0 < len(confusion.ids) == len(confusion.matrix) and all(len(line) == len(confusion.ids) for line in confusion.matrix)


def _is_right_latency(row: dict) -> bool:
    if not isinstance(row["machine"].get("name"), str) or row.get("scenario") not in (None, *SCENARIOS):
        return False
    rate = row.get("rate")
    return rate is None if row.get("scenario") != "server" else type(rate) in (int, float) and 0 < rate < 1e9
