"""The report of results: which member is how fast and how right, where, and under which conditions."""

import argparse
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks import peer_table
from benchmarks.boards import INVALID, boards, setting_of
from benchmarks.measurements import REQUIRED, number_at, part_of, read_rows
from family import pages
from family.errors import UserError
from family.outputs import MADE_OF, read_json, whole_file, write_json
from family.pages import NOTHING, amount, percent, plain
from family.progress import next_command

TITLE = "Accuracy and latency of the family"
SCHEMES = ("fp32", "fp16", "int8")
ORIGIN = Path(__file__).parent / "results" / "origin.json"
WORDS = {
    "member": "a trained model in one scheme, named variant-resolution-scope-scheme, with the recipe's label after the scope",
    "scope": "what a member knows: general is the whole tree, a vertical is one part of it; each is measured on its own rows",
    "scheme": "how the numbers in the model file are stored: fp32, fp16 or int8",
    "p50, p99": "half, and 99 of 100, of the images took at most this long, from JPEG bytes to answer, one at a time",
    "upper": "with 95 % confidence the true p99 is not above this; a budget is compared with it",
    "top-k": "the right category was among the k best guesses, in per cent of images",
    "macro": "top-1 averaged over categories instead of images, so that rare categories count as much",
    "L1, L2, ...": "the guess was right at this level of the tree (1 is the broadest), in per cent of images",
    "Pareto front": "the members for which no other is both faster (by upper) and more accurate (by top-1)",
}
ORIGIN_TITLE = "The system that this project follows"
LEVELS_NOTE = (
    "Members on the front, or where there is none all of them; six at most, the most accurate first. A "
    "mark's area grows with the number of category nodes at the level."
)
COSTS_NOTE = (
    "Each member against the fp32 member of the same run. A speed of 2.00× is half the p50; points are percentage points of accuracy."
)
CSV_FIELDS = [
    *("scope", "machine", "provider", "threads", "batch", "dataset", "split", "digest", "n_images", "member"),
    *("variant", "resolution_px", "label", "scheme", "model_sha256", "size_mb", "n_parameters", "n_classes"),
    *("p50_ms", "p99_ms", "upper_ms", "images_per_s", "throughput_batch", "top1", "top3", "top5", "macro"),
]
WIDE_PX, NARROW_PX = 1040, 358


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS.jsonl", help="measurements, one a line")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the report")
    parser.add_argument("--budget-ms", type=float, metavar="MS", help="mark what answers within this, at p99")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a path")


def run(args: argparse.Namespace) -> int:
    """Write the report and print its path."""
    if args.budget_ms is not None and not 0 < args.budget_ms < math.inf:
        raise UserError(f"--budget-ms is {args.budget_ms:g}; give milliseconds above 0, such as 20")
    made_of = _made_of(args)  # before they are read: what is added meanwhile is not in the page
    path = write_report(read_rows(args.results), args.out, args.budget_ms)
    write_json(path.parent / MADE_OF, made_of)
    if args.json:
        print(json.dumps({"report": str(path), "folder": str(path.parent)}))
        return 0
    print(next_command("pick", *args.results, *(["--budget-ms", f"{args.budget_ms:g}"] if args.budget_ms else [])))
    print(path)
    return 0


def done(args: argparse.Namespace) -> bool:
    """Say whether the page is there, of these results."""
    there = [args.out / name for name in ("report.html", MADE_OF)]
    return all(path.is_file() for path in there) and read_json(there[1]) == _made_of(args)


def _made_of(args: argparse.Namespace) -> dict:
    texts = [path.read_bytes() if path.is_file() else b"" for path in args.results]
    digests = [hashlib.sha256(text).hexdigest() for text in texts]
    return {"command": "report", "results": digests, "budget_ms": args.budget_ms}


def write_report(rows: list[dict], out: Path, budget_ms: float | None = None) -> Path:
    """Write report.html, report.md, table.csv and accuracy-latency.svg to a folder; return the page's path.

    Each file is replaced whole, the page last; other files in the folder stay.

    Raises:
        UserError: there is nothing to report, a row cannot be read, or the folder cannot be written.
    """
    found = boards(rows)
    chart = _scatter(found[0], budget_ms, WIDE_PX)
    files = {
        "accuracy-latency.svg": pages.standalone(chart),
        "table.csv": _csv(found),
        "report.md": _markdown(found, rows, budget_ms),
        "report.html": _page(found, rows, budget_ms),
    }
    out = Path(out).absolute()
    try:
        for name, text in files.items():
            with whole_file(out / name) as partial:
                partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from error
    return out / "report.html"


def markdown_tables(rows: list[dict], budget_ms: float | None = None) -> str:
    """Return a Markdown table for each board, with the conditions of its numbers under it."""
    found = boards(rows)
    return "\n\n".join(_markdown_board(board, found, budget_ms) for board in found) + "\n"


# Words and numbers


def _headline(board: dict, budget_ms: float | None, safe: Callable[[str], str], bold: Sequence[str]) -> str:
    """Say in one sentence what is most accurate, what is fastest and what fits.

    `safe` escapes a name for the kind of text; `bold` holds what stands before and after a bold one.
    """
    members = board["members"]
    kind = "general " if board["scope"] == "general" else ""
    of = _counted(len(members), f"{kind}member") + ("" if kind else f" for {safe(board['scope'])}")
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
            f"Of {of}, {strong(fastest)} is the fastest ({_told(fastest)}); none is trained and "
            "has both an accuracy and a valid latency yet."
        )
    best = max(usable, key=_merit)
    second = "" if best is fastest else f" {strong(fastest)}"
    text = (
        f"Of {of}, {strong(best)} is the most accurate ({percent(best['top1'])} % of images filed "
        f"right at the first guess, p99 at most {amount(best['upper_ms'])} ms) and{second} the fastest"
    )
    text += f" ({_told(fastest)})" if second else ""
    if budget_ms is None:
        return f"{text}."
    inside = [m for m in usable if _fits(m, budget_ms)]
    if not inside:
        return f"{text}; none with a known accuracy fits {budget_ms:g} ms."
    choice = max(inside, key=_merit)
    return f"{text}; within {budget_ms:g} ms {strong(choice)} is the most accurate ({_told(choice)})."


def _merit(member: dict) -> tuple[float, float]:
    return member["top1"], -member["upper_ms"]


def _told(member: dict) -> str:
    known = f"{percent(member['top1'])} %, " if member["top1"] is not None else ""
    return f"{known}p99 at most {amount(member['upper_ms'])} ms"


def _fits(member: dict, budget_ms: float) -> bool | None:
    if member["upper_ms"] is None or member["invalid"]:
        return None
    return member["upper_ms"] <= budget_ms


def _conditions(board: dict) -> str:
    """Say on what, with what and when the numbers of a board were measured."""
    timed = [m["latency"] for m in board["members"] if m["latency"]]
    judged = [m["accuracy"] for m in board["members"] if m["accuracy"]]
    return plain(" ".join([*_latency_conditions(timed), *_accuracy_conditions(judged)]))


def _latency_conditions(rows: Sequence[dict]) -> list[str]:
    if not rows:
        return []
    row, machine = rows[0], rows[0]["machine"]
    facts = [machine.get("cpu"), _counted(machine.get("cores"), "core"), machine.get("gpu")]
    facts += [*part_of(machine, "features", list), machine.get("system")]
    facts.append(f"{machine['memory_gb']} GB of memory" if machine.get("memory_gb") else None)
    facts += sorted({f"{k} {v}" for r in rows for k, v in part_of(r["machine"], "versions", dict).items()})
    return [
        f"Latency on {machine.get('name')}: {', '.join(str(fact) for fact in facts if fact)}.",
        f"Provider {row.get('provider')}, {_counted(row.get('threads'), 'thread')},",
        f"batch {row.get('batch')}; {_span(r.get('n') for r in rows)} images for each member",
        f"after {_span(r.get('warmup') for r in rows)} to warm up, on {_dates(rows)}.",
        "Rate: the best of the batch sizes measured.",
    ]


def _accuracy_conditions(rows: Sequence[dict]) -> list[str]:
    if not rows:
        return []
    data, n_listings = rows[0]["dataset"], number_at(rows[0]["metrics"], "n_listings")
    listings = f" of {n_listings:,} listings" if n_listings else ""
    return [
        f"Accuracy on {data.get('name')}, split {data.get('split')}, digest {str(data.get('digest'))[:12]}:",
        f"{_span(r.get('n') for r in rows)} images{listings}, on {_dates(rows)}.",
    ]


def _in_short(board: dict) -> str:
    """Say a board's conditions in one line, for under a picture."""
    parts = []
    if board["machine"]:
        row = board["machine"]
        parts += [row["machine"].get("name"), row.get("provider"), _counted(row.get("threads"), "thread")]
    if board["dataset"]:
        row = board["dataset"]
        parts += [row["dataset"].get("name"), row["dataset"].get("split"), f"{_span([row.get('n')])} images"]
    return plain(", ".join(str(part) for part in parts if part) + ".")


def _counted(n: object, noun: str) -> str:
    return "" if n is None else f"{n} {noun}{'' if n == 1 else 's'}"


def _span(values: Iterable) -> str:
    known = sorted({value for value in values if isinstance(value, int)})
    if not known:
        return "an unknown number of"
    return f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,} to {known[-1]:,}"


def _dates(rows: Sequence[dict]) -> str:
    days = sorted({str(row.get("at"))[:10] for row in rows})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _name(board: dict, found: Sequence[dict]) -> str:
    """Name a board by its scope, and by its machine and data where the report has several."""
    parts = [f"Scope: {board['scope']}"]
    row = board["machine"]
    if row and len({setting_of(b["machine"]) for b in found if b["machine"]}) > 1:
        parts += [row["machine"].get("name"), row.get("provider"), _counted(row.get("threads"), "thread")]
    row = board["dataset"]
    if row and len({setting_of(b["dataset"])[:3] for b in found if b["dataset"]}) > 1:
        parts.append(row["dataset"].get("name"))
    return plain(" · ".join(str(part) for part in parts if part))


def _short(member: dict) -> str:
    """Name a member where its scope and scheme are told elsewhere."""
    return plain("-".join(str(member[key]) for key in ("variant", "resolution_px", "label") if member[key]))


def _levels(board: dict) -> dict[int, int | None]:
    """Return the levels that a board has, each with its number of categories."""
    found = {}
    for member in board["members"]:
        for level in member["levels"]:
            found.setdefault(level, number_at(member["accuracy"]["metrics"], "levels", str(level), "nodes"))
    return dict(sorted(found.items()))


def _columns(board: dict, budget_ms: float | None) -> list[dict]:
    """Return the columns of a board's table, without those that hold nothing."""
    columns = [{"key": "size_mb", "label": "size\nMB", "text": amount}]
    columns += [{"key": f"{key}_ms", "label": f"{key}\nms", "text": amount} for key in ("p50", "p99", "upper")]
    if budget_ms and board["machine"]:
        columns.append({"key": "fits", "label": f"fits\n{budget_ms:g} ms", "text": _yes, "high": True})
    columns.append({"key": "images_per_s", "label": "rate\nimages/s", "text": amount, "high": True})
    rates = [("top1", "top-1"), ("top3", "top-3"), ("top5", "top-5"), ("macro", "macro")]
    columns += [{"key": key, "label": f"{label}\n%", "text": percent, "high": True} for key, label in rates]
    for level, n in _levels(board).items():
        hint = f"level {level}, {_counted(n, 'category node')}"
        columns.append({"key": f"L{level}", "label": f"L{level}\n%", "text": percent, "high": True, "help": hint})
    held = _held(columns, [*board["members"], {"fits": budget_ms}])
    return [{"key": "member", "label": "member"}, *held]


def _held(columns: Sequence[dict], rows: Sequence[dict]) -> list[dict]:
    """Return the columns in which some row has a value."""
    return [column for column in columns if any(row.get(column["key"]) is not None for row in rows)]


def _yes(value: bool | None) -> str:
    return NOTHING if value is None else "yes" if value else "no"


def _details(board: dict) -> str:
    """Say why members are marked, where the mark alone does not."""
    told = [f"{m['member']}: {mark}, {why}." for m in board["members"] for mark, why in m["remarks"].items() if why]
    return plain(" ".join(told))


def _costs(board: dict) -> list[dict]:
    """Compare each quantized member with the fp32 member of the same run, in ratios and in points."""
    full = {_run_of(member): member for member in board["members"] if member["scheme"] == "fp32"}
    rows = []
    for member in board["members"]:
        base = full.get(_run_of(member))
        if member["scheme"] == "fp32" or base is None:
            continue
        row = {"member": member["member"], "size": _ratio(member["size_mb"], base["size_mb"])}
        if not (member["invalid"] or base["invalid"]):
            row["speed"] = _ratio(base["p50_ms"], member["p50_ms"])
        for key in ("top1", *(f"L{level}" for level in _levels(board))):
            if member.get(key) is not None and base.get(key) is not None:
                row[key] = 100 * (member[key] - base[key])
        rows.append(row)
    return rows


def _run_of(member: dict) -> tuple:
    """Return what the schemes of one run share."""
    bundle = (member["latency"] or {}).get("bundle")
    return tuple(map(str, [bundle, *(member[key] for key in ("variant", "resolution_px", "scope", "label"))]))


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def _times(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}×"


def _cost_columns(board: dict, costs: Sequence[dict]) -> list[dict]:
    columns = [
        {"key": "member", "label": "member"},
        {"key": "size", "label": "size", "text": _times, "help": "over the size of fp32"},
        {"key": "speed", "label": "speed", "text": _times, "high": True, "help": "p50 of fp32 over p50"},
    ]
    for key, label in [("top1", "top-1"), *((f"L{level}", f"L{level}") for level in _levels(board))]:
        columns.append({"key": key, "label": f"{label}\npoints", "text": pages.points, "high": True})
    return _held(columns, costs)


def _origin() -> tuple[list[dict], list[dict], str]:
    """Return the published figures of the system that this project follows: rows, columns and a note."""
    origin = json.loads(ORIGIN.read_text(encoding="utf-8"))
    status = origin["status"].replace(", ", ",\n")
    columns = [{"key": "measure", "label": "measure"}, {"key": "percent", "label": f"published %\n{status}"}]
    note = f"Source: {origin['source']}, {origin['data']}. They are {origin['status']}, so they cannot be compared with the tables above."
    return origin["figures"], columns, note


def _left_out(rows: Sequence[dict]) -> str:
    kinds = sorted({plain(row["kind"]) for row in rows if row["kind"] not in (*REQUIRED, "peer")})
    return f"Rows of other kinds are not shown: {', '.join(kinds)}." if kinds else ""


# The page


def _page(found: Sequence[dict], rows: Sequence[dict], budget_ms: float | None) -> str:
    lead = _headline(found[0], budget_ms, pages.escape, ("<strong>", "</strong>"))
    figures, columns, note = _origin()
    origin = pages.table(figures, columns, caption="Published figures") + pages.paragraph(note, "note")
    plotted = [board for board in found if _spots(board)]
    sections = [
        ("Accuracy against latency", _pictures(plotted, lambda b, width: _scatter(b, budget_ms, width))),
        ("Members", "".join(_members(board, found, budget_ms) for board in found)),
        ("Accuracy by level", _by_level(found)),
        ("What quantization costs and gains", _quantized(found)),
        (peer_table.TITLE, peer_table.html(rows)),
        ("Where the time goes", _pictures(_one_of_each_machine(found), _time_bars)),
        ("Confusion at the top of the tree", _confusion(found[0])),
        (ORIGIN_TITLE, origin),
        ("Words", pages.definitions(WORDS) + pages.paragraph(_left_out(rows), "note")),
    ]
    return pages.page(TITLE, f'<p class="lead">{lead}</p>\n', [section for section in sections if section[1]])


def _pictures(found: Sequence[dict], draw: Callable[[dict, int], str]) -> str:
    """Draw boards: in full width the first and the general ones, side by side the others."""
    large, small = "", []
    for board in found:
        narrow = draw(board, NARROW_PX)
        if not narrow:
            continue
        name, caption = _name(board, found), _in_short(board)
        if board["scope"] == "general" or board is found[0]:
            large += pages.figure(draw(board, WIDE_PX), caption, heading=name, narrow=narrow)
        else:
            small.append(pages.figure(narrow, caption, heading=name))
    return large + pages.multiples(small)


def _scatter(board: dict, budget_ms: float | None, width: int) -> str:
    return pages.scatter(
        _spots(board),
        title=f"Accuracy against latency, {plain(board['scope'])}",
        x_label="p99 ms per image, upper bound (log scale)",
        y_label="top-1 accuracy, %",
        width=width,
        log_x=True,
        y_max=100,
        budget=budget_ms,
        budget_label=f"budget {budget_ms:g} ms" if budget_ms else "",
    )


def _spots(board: dict) -> list[dict]:
    """Return the members that have both an accuracy and a latency, as points in the order of schemes."""
    spots = []
    for member in sorted(board["members"], key=_scheme_order):
        x_ms = member["upper_ms"] if member["upper_ms"] is not None else member["p99_ms"]
        if x_ms and member["top1"] is not None:
            hint = ", ".join([f"{member['member']}: {_told(member)}", *member["remarks"]])
            spot = {"x": x_ms, "y": 100 * member["top1"], "label": _short(member), "group": member["scheme"]}
            spots.append({**spot, "hint": hint, "front": member["front"], "quiet": not member["comparable"]})
    return spots


def _scheme_order(member: dict) -> tuple:
    scheme = member["scheme"]
    return (SCHEMES.index(scheme) if scheme in SCHEMES else len(SCHEMES), scheme)


def _members(board: dict, found: Sequence[dict], budget_ms: float | None) -> str:
    rows = []
    for member in board["members"]:
        tags = [("front", "good")] if member["front"] else []
        tags += [(mark, "bad" if mark == INVALID else "plain") for mark in member["remarks"]]
        fits = _fits(member, budget_ms) if budget_ms else None
        rows.append({**member, "tags": tags, "fits": fits, "quiet": not member["comparable"]})
    name = _name(board, found)
    table = pages.table(rows, _columns(board, budget_ms), caption=f"Members, {name}")
    notes = pages.paragraph(_details(board), "note") + pages.paragraph(_conditions(board), "note")
    return pages.heading(name) + table + notes


def _by_level(found: Sequence[dict]) -> str:
    """Draw accuracy by level once for each scope and its rows; it is the same on every machine."""
    firsts: dict[tuple, dict] = {}
    for board in found:
        if board["dataset"]:
            firsts.setdefault((board["scope"], setting_of(board["dataset"])), board)
    pictures = _pictures(list(firsts.values()), _level_lines)
    return pages.paragraph(LEVELS_NOTE) + pictures if pictures else ""


def _level_lines(board: dict, width: int) -> str:
    """Draw accuracy by level for up to six members: those of the front where there is one."""
    known = [m for m in board["members"] if m["levels"] and "untrained" not in m["remarks"]]
    series = []
    for member in ([m for m in known if m["front"]] or known)[:6]:
        levels = member["accuracy"]["metrics"]["levels"]
        spots = [
            {"x": k, "y": 100 * member[f"L{k}"], "n": number_at(levels, str(k), "nodes") or 0}
            for k in member["levels"]
            if member[f"L{k}"] is not None
        ]
        if spots:
            series.append({"label": f"{_short(member)} {member['scheme']}", "points": spots})
    if not series:
        return ""
    wide = width > 500
    return pages.lines(
        series,
        title=f"Accuracy by level, {plain(board['scope'])}",
        y_label="right at the level, % of images",
        x_names={k: f"level {k}\n{n} nodes" if wide else f"L{k}\n{n}" for k, n in _levels(board).items()},
        width=width,
        y_max=100,
    )


def _quantized(found: Sequence[dict]) -> str:
    body = ""
    for board in found:
        if costs := _costs(board):
            name = _name(board, found)
            table = pages.table(costs, _cost_columns(board, costs), caption=f"Quantized against fp32, {name}")
            body += pages.heading(name) + table + pages.paragraph(_conditions(board), "note")
    return pages.paragraph(COSTS_NOTE) + body if body else ""


def _one_of_each_machine(found: Sequence[dict]) -> list[dict]:
    """Return the first board of each machine and setting; the stages of other scopes would look the same."""
    firsts: dict[tuple, dict] = {}
    for board in found:
        if board["machine"]:
            firsts.setdefault(setting_of(board["machine"]), board)
    return list(firsts.values())


def _time_bars(board: dict, width: int) -> str:
    rows = []
    for member in sorted(board["members"], key=lambda m: m["p50_ms"] or 0):
        stages = part_of(member["latency"], "stages_ms", dict)
        parts = {plain(name): value for name in stages if (value := number_at(stages, name)) is not None}
        if parts and not member["invalid"]:
            rows.append({"label": f"{_short(member)} {member['scheme']}", "parts": parts})
    title = f"Time per image by stage, {plain(board['scope'])}"
    return pages.bars(rows, title=title, x_label="milliseconds per image", width=width) if rows else ""


def _confusion(board: dict) -> str:
    """Draw the confusion of the most accurate trained member that has one."""
    for member in board["members"]:
        confusion = member["accuracy"] and member["accuracy"]["metrics"].get("confusion")
        if confusion and "untrained" not in member["remarks"]:
            about = f"{member['member']}, level {confusion.get('level')}"
            wide, narrow = (
                pages.heatmap(confusion["ids"], confusion["matrix"], title=f"Confusion of {about}", width=width)
                for width in (760, NARROW_PX)
            )
            caption = (
                f"{about}: of the images of each true category (row), the per cent that were filed under "
                f"each category (column). {_in_short(board)}"
            )
            return pages.figure(wide, caption, narrow=narrow)
    return ""


# Markdown and comma-separated values


def _markdown(found: Sequence[dict], rows: Sequence[dict], budget_ms: float | None) -> str:
    parts = [f"# {TITLE}", _headline(found[0], budget_ms, pages.markdown, ("**", "**"))]
    parts += ["![Accuracy against latency](accuracy-latency.svg)", "## Members"]
    parts += [_markdown_board(board, found, budget_ms) for board in found]
    costs = [(board, _costs(board)) for board in found]
    if any(rows for _, rows in costs):
        parts += ["## What quantization costs and gains", COSTS_NOTE]
    for board, lines in costs:
        if lines:
            parts += [f"### {pages.markdown(_name(board, found))}"]
            parts += [
                pages.markdown_table(lines, _cost_columns(board, lines)),
                pages.markdown(_conditions(board)),
            ]
    if tables := peer_table.markdown(rows):
        parts += [f"## {peer_table.TITLE}", peer_table.NOTE, tables]
    figures, columns, note = _origin()
    parts += [f"## {ORIGIN_TITLE}", pages.markdown_table(figures, columns), note]
    parts += ["## Words", "\n".join(f"- **{word}**: {meaning}" for word, meaning in WORDS.items())]
    return "\n\n".join([*parts, pages.markdown(_left_out(rows))]).rstrip() + "\n"


def _markdown_board(board: dict, found: Sequence[dict], budget_ms: float | None) -> str:
    rows = []
    for member in board["members"]:
        marks = ["front"] if member["front"] else []
        name = ", ".join([member["member"], *marks, *member["remarks"]])
        rows.append({**member, "member": name, "fits": _fits(member, budget_ms) if budget_ms else None})
    columns = [column for column in _columns(board, budget_ms) if budget_ms or column["key"] != "upper_ms"]
    table = pages.markdown_table(rows, columns)
    notes = [pages.markdown(text) for text in (_details(board), _conditions(board)) if text]
    return "\n\n".join([f"### {pages.markdown(_name(board, found))}", table, *notes])


def _csv(found: Sequence[dict]) -> str:
    levels = sorted({level for board in found for level in _levels(board)})
    rows = []
    for member in (member for board in found for member in board["members"]):
        latency, accuracy = member["latency"] or {}, member["accuracy"] or {}
        row = {**member, **{key: latency.get(key) for key in ("provider", "threads", "batch")}}
        row["machine"] = latency.get("machine", {}).get("name")
        row |= {key: accuracy.get("dataset", {}).get(key) for key in ("split", "digest")}
        row |= {"dataset": accuracy.get("dataset", {}).get("name"), "n_images": accuracy.get("n")}
        row["remarks"] = "; ".join(f"{mark}: {why}" if why else mark for mark, why in member["remarks"].items())
        rows.append(row)
    return pages.csv_table(rows, [*CSV_FIELDS, *(f"L{level}" for level in levels), "front", "remarks"])
