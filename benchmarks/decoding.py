"""Lines of results, decoded for one question: what picking looks at becomes objects and is checked as `read_rows` does, and the rest, most of a file, is
passed over as JSON. Lines of another scope, as most of a results file may be, are not looked into, where they begin as `lean` writes them.

What this can't take as it is, it leaves to the plain way, which takes it or says what is wrong: a test holds the two together.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec

from benchmarks.measurements import SCENARIOS, SCHEMA, WHOLE

_Schema = Annotated[int, msgspec.Meta(le=SCHEMA)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=10**12)] | None
_LeastOne = Annotated[int, msgspec.Meta(ge=1, lt=10**9)] | None
_Amount = Annotated[float, msgspec.Meta(ge=0, lt=1e15)] | None
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)] | None
_MACHINE = ("name", "cpu", "cores", "gpu", "features", "memory_gb", "versions")
_REQUIRED = {"schema": _Schema, "member": str, "variant": str, "scope": str, "scheme": str, "model_sha256": str}
_OPTIONAL = {"at": Any, "resolution_px": Any, "label": Any, "trained": Any, "bundle": str | None, "provider": str | None, "n": _Count,
             "batch": _LeastOne, "threads": _LeastOne}  # fmt: skip
_BEGIN = re.compile(rb'\{"schema":\d+,"kind":"\w+","scope":"[^"\\]*",')  # of a line, as `lean` has it


def decoder_for(metric: str, scope: str) -> Callable[[bytes], dict | None]:
    """Return what takes a line to the part of its row that picking by a metric in a scope looks at, or to None where the plain way is to read it."""
    decoders = {kind: msgspec.json.Decoder(type_) for kind, type_ in (("latency", _latency_type()), ("accuracy", _accuracy_type(metric)))}
    other = msgspec.json.Decoder(TypedDict("Other", {"schema": _Schema, "kind": Literal["latency", "accuracy"], "scope": str}))
    beginnings: dict[bytes, dict] = {}  # what they say: there are few

    def look_at(line: bytes) -> dict:
        begin = _BEGIN.match(line)
        if not begin or not line.endswith((b"}\n", b"}")):
            return other.decode(line)
        about = beginnings.get(begin[0])
        if about is None:
            about = beginnings[begin[0]] = other.decode(begin[0][:-1] + b"}")
        return about

    def decode(line: bytes) -> dict | None:
        try:
            about = look_at(line)
            kind = about["kind"]
            if about["scope"] != scope:
                return about
            row = decoders[kind].decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if row["scope"] != scope or (kind == "latency" and not _is_right_latency(row)):
            return None
        if kind == "latency":
            row[WHOLE] = line
        return row

    return decode


def _latency_type() -> type:
    times = _some({**dict.fromkeys(("p50", "p90", "p95", "p99", "upper"), _Amount), "uppers": Any})
    optional = {**_OPTIONAL, "against_fp32": Any, "peak_memory_mb": _Amount, "agreement": _Share, "rate": Any, "scenario": Any, "valid": Any,
                "invalid_because": Any, "throughput": Any}  # fmt: skip
    return _type_of({"kind": Literal["latency"], **_REQUIRED, "machine": _some(dict.fromkeys(_MACHINE, Any)), "latency_ms": times}, optional)


def _accuracy_type(metric: str) -> type:
    sure = _some({"micro": _Share, "macro": _Share, "micro_interval": Any, "macro_interval": Any, "summed": Any})
    shares = {"top1": sure, "top3": sure, "top5": sure, "levels": dict[str, sure]}
    asked = metric.partition(".")[0]
    metrics = _some({"top1": sure, "n_listings": Any, asked: shares.get(asked, Any)})
    dataset = _some(dict.fromkeys(("name", "digest", "split"), Any))
    return _type_of({"kind": Literal["accuracy"], **_REQUIRED, "dataset": dataset, "metrics": metrics},
                    {**_OPTIONAL, "against_fp32": _some({"model_sha256": Any, metric: Any})})  # fmt: skip


def _some(fields: dict[str, Any]) -> type:
    return TypedDict("Part", fields, total=False)


def _type_of(required: dict[str, Any], optional: dict[str, Any]) -> type:
    return TypedDict("Row", {**required, **{key: NotRequired[kind] for key, kind in optional.items()}})


def _is_right_latency(row: dict) -> bool:
    if not isinstance(row["machine"].get("name"), str) or row.get("scenario") not in (None, *SCENARIOS):
        return False
    rate = row.get("rate")
    return rate is None if row.get("scenario") != "server" else type(rate) in (int, float) and 0 < rate < 1e9
