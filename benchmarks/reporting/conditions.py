"""The conditions of a report's numbers: once for each machine with its setting and each data set, and in one line under what they hold for."""

from collections.abc import Iterable, Sequence

from benchmarks.boards import setting_of
from benchmarks.measurements import number_at, part_of, scenario_of
from benchmarks.reporting.words import counted, told_scenario
from benchmarks.timing.gpu import PROVIDERS as GPU_PROVIDERS
from family.pages import plain

TITLE = "Conditions"


def conditions(found: Sequence[dict]) -> list[str]:
    """Say on what, with what and when numbers were measured: a paragraph for each machine and setting, then for each data set."""
    timed, judged = {}, {}
    for board in found:
        for member in board["members"]:
            if member["latency"]:
                timed.setdefault(setting_of(member["latency"]), {})[member["model_sha256"]] = member["latency"]
            if member["accuracy"]:
                judged.setdefault(setting_of(member["accuracy"])[:3], {})[member["model_sha256"]] = member["accuracy"]
    told = [_latency_conditions(list(rows.values())) for rows in timed.values()]
    told += [_accuracy_conditions(list(rows.values())) for rows in judged.values()]
    return [plain(" ".join(sentences)) for sentences in told]


def in_short(board: dict) -> str:
    """Say a board's conditions in one line."""
    parts = []
    if board["machine"]:
        row = board["machine"]
        parts += [row["machine"].get("name"), row.get("provider"), counted(row.get("threads"), "thread"), told_scenario(row)]
    if board["dataset"]:
        row = board["dataset"]
        parts += [row["dataset"].get("name"), row["dataset"].get("split"), f"{_span([row.get('n')])} images{_listings(row)}"]
    return plain(", ".join(str(part) for part in parts if part) + ".")


def _listings(row: dict) -> str:
    n_listings = number_at(row["metrics"], "n_listings")
    return f" of {n_listings:,} listings" if n_listings else ""


def _latency_conditions(rows: Sequence[dict]) -> list[str]:
    row, machine = rows[0], rows[0]["machine"]
    facts = [machine.get("cpu"), counted(machine.get("cores"), "core"), machine.get("gpu")]
    facts += [*part_of(machine, "features", list), machine.get("system")]
    facts.append(f"{machine['memory_gb']} GB of memory" if machine.get("memory_gb") else None)
    facts += sorted({f"{k} {v}" for r in rows for k, v in part_of(r["machine"], "versions", dict).items()})
    return [
        f"Latency on {machine.get('name')}: {', '.join(str(fact) for fact in facts if fact)}.",
        f"Provider {row.get('provider')}, {counted(row.get('threads'), 'thread')},",
        f"{told_scenario(row)}; {_span(r.get('n') for r in rows)} queries for each member",
        f"after {_span(r.get('warmup') for r in rows)} to warm up, on {_dates(rows)}.",
        *(["Rate: the best of the batch sizes measured, of the model alone, on pixels; from bytes: with decoding, resizing and telling the answer."]
          if any(r.get("throughput") for r in rows) else []),
        *_bounds(rows),
        *_meanwhile(rows),
    ]


def _bounds(rows: Sequence[dict]) -> list[str]:
    """Say what the bounds of percentiles take samples for."""
    if scenario_of(rows[0])[0] == "server":
        return ["Bounds count as many waiting times as are independent."]
    n_told = sum(row.get("turns") is not None for row in rows)
    if n_told == len(rows):
        return ["Bounds allow for turns that differed."]
    return ["Bounds take queries of all turns to be alike" + (", but for newer rows, which allow for turns that differed." if n_told else ".")]


def _meanwhile(rows: Sequence[dict]) -> list[str]:
    """Say what else the machine did, where rows tell it."""

    def most(*keys: str) -> float | None:
        return max((value for row in rows if (value := number_at(row, *keys)) is not None), default=None)

    others, apart, overhead = most("conditions", "others_cores"), most("conditions", "spread"), most("overhead_ms")
    if apart is None:
        return []
    facts = [f"other processes used at most {others:.2f} cores" if others is not None else "what other processes used is not told"]
    facts += [f"medians of turns lay at most {apart:.0%} apart"]
    facts += [f"the harness itself takes {1000 * overhead:.1f} µs a query"] if overhead is not None else []
    if any(row.get("provider") in GPU_PROVIDERS for row in rows):
        clocks = [mhz for row in rows if (mhz := number_at(row, "conditions", "gpu", "least_sm_mhz")) is not None]
        least, hot = min(clocks, default=None), most("conditions", "gpu", "most_celsius")
        facts += ["what the GPU's clock did is not told" if least is None else f"the GPU's clock was at least {least:.0f} MHz, at most {hot or 0:.0f} °C"]
    clock = rows[0]["machine"].get("governor")
    facts += [f"the clock's governor was {clock}" if clock else "the clock's governor is not told"]
    return [f"Meanwhile {', '.join(facts)}."]


def _accuracy_conditions(rows: Sequence[dict]) -> list[str]:
    data = rows[0]["dataset"]
    scopes: dict[str, list[dict]] = {}
    for row in rows:
        scopes.setdefault(row["scope"], []).append(row)
    told = [f"{f'{scope} ' if len(scopes) > 1 else ''}{_span(r.get('n') for r in own)} images{_listings(own[0])}" for scope, own in scopes.items()]
    return [
        f"Accuracy on {data.get('name')}, split {data.get('split')}, digest {str(data.get('digest'))[:12]}:",
        f"{', '.join(told)}, on {_dates(rows)}.",
    ]


def _span(values: Iterable) -> str:
    known = sorted({value for value in values if isinstance(value, int)})
    if not known:
        return "an unknown number of"
    return f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,} to {known[-1]:,}"


def _dates(rows: Sequence[dict]) -> str:
    days = sorted({str(row.get("at"))[:10] for row in rows})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
