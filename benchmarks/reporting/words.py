"""What a report says of a board in words: the headline, names, and the conditions under each table."""

from collections.abc import Callable, Iterable, Sequence

from benchmarks.boards import setting_of
from benchmarks.measurements import number_at, part_of, scenario_of
from benchmarks.timing.gpu import PROVIDERS as GPU_PROVIDERS
from family.pages import amount, percent, plain

TITLE = "Accuracy and latency of the family"
ORIGIN_TITLE = "The system that this project follows"
WORDS = {
    "member": "a trained model in one scheme, named variant-resolution-scope-scheme, with the recipe's label after the scope",
    "scope": "what a member knows: general is the whole tree, a vertical is one part of it; each is measured on its own rows",
    "scheme": "how the numbers in the model file are stored: fp32, fp16 or int8",
    "p50, p99": "half, and 99 of 100, of the queries took at most this long, from encoded bytes to answer",
    "upper": "with about 95 % confidence the true p99 is not above this, also where turns differed; a budget is compared with it",
    "top-k": "the right category was among the k best guesses, in per cent of images",
    "macro": "top-1 averaged over categories instead of images, so that rare categories count as much",
    "L1, L2, ...": "the guess was right at this level of the tree (1 is the broadest), in per cent of images",
    "Pareto front": "the members for which no other is both faster (by upper) and more accurate (by top-1)",
}
MACHINES_TITLE = "Machines and settings side by side"
MACHINES_NOTE = "The same files; conditions stand under each one's own table."
COSTS_NOTE = (
    "Each member against the fp32 member of the same run. A speed of 2.00× is half the time, the median of rounds in which both took turns, with its "
    "95 % interval; without one, of p50s that were measured apart. Points are percentage points of accuracy, with the paired 95 % interval of the same images "
    "where family bench --data had both answer them; * marks a difference that is shown: it does not hold 0, and at least six "
    "listings differ."
)


def headline(board: dict, budget_ms: float | None, safe: Callable[[str], str], bold: Sequence[str]) -> str:
    """Say in one sentence what is most accurate, what is fastest and what fits.

    `safe` escapes a name for the kind of text; `bold` holds what stands before and after a bold one.
    """
    members = board["members"]
    kind = "general " if board["scope"] == "general" else ""
    of = counted(len(members), f"{kind}member") + ("" if kind else f" for {safe(board['scope'])}")
    of += f" on {safe(board['machine']['machine'].get('name'))}" if board["machine"] else ""
    timed = [m for m in members if m["upper_ms"] is not None and not m["invalid"]]
    usable = [m for m in members if m["comparable"]]
    if not timed:
        return f"Of {of}, none has a valid latency measurement yet."

    def strong(member: dict) -> str:
        return f"{bold[0]}{safe(member['member'])}{bold[1]}"

    fastest = min(timed, key=lambda m: m["upper_ms"])
    if not usable:
        return (
            f"Of {of}, {strong(fastest)} is the fastest ({told_times(fastest)}); none is trained and "
            "has both an accuracy and a valid latency yet."
        )
    best = max(usable, key=_merit)
    second = "" if best is fastest else f" {strong(fastest)}"
    text = (
        f"Of {of}, {strong(best)} is the most accurate ({percent(best['top1'])} % of images filed "
        f"right at the first guess, p99 at most {amount(best['upper_ms'])} ms) and{second} the fastest"
    )
    text += f" ({told_times(fastest)})" if second else ""
    if budget_ms is None:
        return f"{text}."
    inside = [m for m in usable if fits_budget(m, budget_ms)]
    if not inside:
        return f"{text}; none with a known accuracy fits {budget_ms:g} ms."
    choice = max(inside, key=_merit)
    return f"{text}; within {budget_ms:g} ms {strong(choice)} is the most accurate ({told_times(choice)})."


def _merit(member: dict) -> tuple[float, float]:
    return member["top1"], -member["upper_ms"]


def told_times(member: dict) -> str:
    known = f"{percent(member['top1'])} %, " if member["top1"] is not None else ""
    return f"{known}p99 at most {amount(member['upper_ms'])} ms"


def fits_budget(member: dict, budget_ms: float) -> bool | None:
    if member["upper_ms"] is None or member["invalid"]:
        return None
    return member["upper_ms"] <= budget_ms


def conditions(board: dict) -> str:
    """Say on what, with what and when the numbers of a board were measured."""
    timed = [m["latency"] for m in board["members"] if m["latency"]]
    judged = [m["accuracy"] for m in board["members"] if m["accuracy"]]
    return plain(" ".join([*_latency_conditions(timed), *_accuracy_conditions(judged)]))


def _latency_conditions(rows: Sequence[dict]) -> list[str]:
    if not rows:
        return []
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
        *_meanwhile(rows),
    ]


def told_scenario(row: dict) -> str:
    """Say how requests came."""
    scenario, batch, rate = scenario_of(row)
    if scenario == "server":
        return f"{rate or 0:g} requests/s at random times, {counted(row.get('workers'), 'worker')}"
    return "single images" if batch == 1 else f"{batch} images a query"


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
    if not rows:
        return []
    data, n_listings = rows[0]["dataset"], number_at(rows[0]["metrics"], "n_listings")
    listings = f" of {n_listings:,} listings" if n_listings else ""
    return [
        f"Accuracy on {data.get('name')}, split {data.get('split')}, digest {str(data.get('digest'))[:12]}:",
        f"{_span(r.get('n') for r in rows)} images{listings}, on {_dates(rows)}.",
    ]


def in_short(board: dict) -> str:
    """Say a board's conditions in one line, for under a picture."""
    parts = []
    if board["machine"]:
        row = board["machine"]
        parts += [row["machine"].get("name"), row.get("provider"), counted(row.get("threads"), "thread")]
    if board["dataset"]:
        row = board["dataset"]
        parts += [row["dataset"].get("name"), row["dataset"].get("split"), f"{_span([row.get('n')])} images"]
    return plain(", ".join(str(part) for part in parts if part) + ".")


def counted(n: object, noun: str) -> str:
    return "" if n is None else f"{n} {noun}{'' if n == 1 else 's'}"


def _span(values: Iterable) -> str:
    known = sorted({value for value in values if isinstance(value, int)})
    if not known:
        return "an unknown number of"
    return f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,} to {known[-1]:,}"


def _dates(rows: Sequence[dict]) -> str:
    days = sorted({str(row.get("at"))[:10] for row in rows})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def name_of(board: dict, found: Sequence[dict]) -> str:
    """Name a board by its scope, and by its machine and data where the report has several."""
    parts = [f"Scope: {board['scope']}"]
    row = board["machine"]
    if row and len({setting_of(b["machine"]) for b in found if b["machine"]}) > 1:
        parts += [row["machine"].get("name"), row.get("provider"), counted(row.get("threads"), "thread"), told_scenario(row)]
        parts += ["an older harness"] if row.get("schema") == 1 else []
    row = board["dataset"]
    if row and len({setting_of(b["dataset"])[:3] for b in found if b["dataset"]}) > 1:
        parts.append(row["dataset"].get("name"))
    return plain(" · ".join(str(part) for part in parts if part))


def short_name(member: dict) -> str:
    """Name a member where its scope and scheme are told elsewhere."""
    return plain("-".join(str(member[key]) for key in ("variant", "resolution_px", "label") if member[key]))
