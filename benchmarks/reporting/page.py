"""The report's page: pictures and tables of each board."""

from collections.abc import Callable, Sequence

from benchmarks.boards import INVALID, setting_of
from benchmarks.measurements import number_at, part_of
from benchmarks.peers import table as peer_table
from benchmarks.reporting import words
from benchmarks.reporting.conditions import TITLE as CONDITIONS
from benchmarks.reporting.conditions import conditions, in_short
from benchmarks.reporting.costs import cost_columns, cost_lines, costs_of
from benchmarks.reporting.headline import fits_budget, headline
from benchmarks.reporting.lines import columns_of, details, left_out, machines_of, published
from family import pages
from family.pages import plain

SCHEMES = ("fp32", "fp16", "int8")
LEVELS_NOTE = (
    "Members on the front, or where there is none all of them; six at most, the most accurate first. A "
    "mark's area grows with the number of category nodes at the level."
)
WIDE_PX, NARROW_PX = 1040, 358
N_BARS = 24
LONG = 30  # members: a longer table is unfolded step by step, can be searched, and is saved as it is filtered


def page(found: Sequence[dict], rows: Sequence[dict], budget_ms: float | None) -> str:
    lead = headline(found[0], budget_ms, pages.escape, ("<strong>", "</strong>"))
    figures, columns, note = published()
    origin = pages.table(figures, columns, caption="Published figures") + pages.paragraph(note, "note")
    plotted = [board for board in found if _spots(board)]
    sections = [
        ("Accuracy against latency", _scatters(plotted, budget_ms)),
        ("Members", "".join(_members(board, found, budget_ms) for board in found)),
        (CONDITIONS, "".join(pages.paragraph(text, "note") for text in conditions(found))),
        (words.MACHINES_TITLE, _side_by_side(found)),
        ("Accuracy by level", _by_level(found)),
        ("What quantization costs and gains", _quantized(found)),
        (peer_table.TITLE, peer_table.html(rows)),
        ("Where the time goes", _pictures(_one_of_each_machine(found), _time_bars, note=_bars_note)),
        ("Confusion at the top of the tree", _confusion(found[0])),
        (words.ORIGIN_TITLE, origin),
        ("Words", pages.definitions(words.WORDS) + pages.paragraph(left_out(rows), "note")),
    ]
    return pages.page(words.TITLE, f'<p class="lead">{lead}</p>\n', [section for section in sections if section[1]])


def _table(rows: Sequence[dict], columns: Sequence[dict], caption: str, file: str) -> str:
    """Return a table; one of many members shows the first of them and says how many there are."""
    more = {"find": "find a member", "step": LONG, "file": file} if len(rows) > LONG else {}
    return pages.table(rows, columns, caption=caption, **more)


def _where(board: dict) -> str:
    """Say in short what numbers hold for, with the way to the whole."""
    return pages.paragraph(in_short(board), "note", link=(CONDITIONS, "All conditions"))


def _scatters(found: Sequence[dict], budget_ms: float | None) -> str:
    """Draw boards against a budget, which can be moved where they are large."""

    def move(board: dict, picture: str) -> str:
        costs = [spot["x"] for spot in _spots(board)]
        return pages.budgeted(picture, min(costs) / 1.1, max(costs) * 1.1, budget_ms)

    return _pictures(found, lambda board, width: scatter(board, budget_ms, width, moves=_is_large(board, found)), move)


def _is_large(board: dict, found: Sequence[dict]) -> bool:
    return board["scope"] == "general" or board is found[0]


def _pictures(
    found: Sequence[dict],
    draw: Callable[[dict, int], str],
    wrap: Callable[[dict, str], str] = lambda board, picture: picture,
    note: Callable[[dict], str] = lambda board: "",
) -> str:
    """Draw boards: in full width the first and the general ones, wrapped; side by side the others; each with its conditions and a note."""
    large, small = "", []
    for board in found:
        narrow = draw(board, NARROW_PX)
        if not narrow:
            continue
        name, caption = words.name_of(board, found), f"{in_short(board)} {note(board)}".rstrip()
        if _is_large(board, found):
            large += wrap(board, pages.figure(draw(board, WIDE_PX), caption, heading=name, narrow=narrow))
        else:
            small.append(pages.figure(narrow, caption, heading=name))
    return large + pages.multiples(small)


def scatter(board: dict, budget_ms: float | None, width: int, moves: bool = False) -> str:
    return pages.scatter(
        _spots(board),
        title=f"Accuracy against latency, {plain(board['scope'])}",
        x_label="p99 at most, ms (log scale)",
        y_label="top-1 accuracy, %",
        width=width,
        log_x=True,
        y_max=100,
        budget=budget_ms,
        budget_label=f"budget {budget_ms:g} ms" if budget_ms and not moves else "budget",
        drags=moves,
        whiskers="95 % interval; p99 measured, to its bound",
    )


def _spots(board: dict) -> list[dict]:
    """Return the members that have both an accuracy and a latency, as points in the order of schemes."""
    spots = []
    for member in sorted(board["members"], key=_scheme_order):
        x_ms = member["upper_ms"] if member["upper_ms"] is not None else member["p99_ms"]
        if x_ms and member["top1"] is not None:
            hint = ", ".join([f"{member['member']}: {words.told_times(member)}", *member["remarks"]])
            spot = {"x": x_ms, "y": 100 * member["top1"], "label": words.short_name(member), "name": member["member"], "group": member["scheme"]}
            spot |= {"hint": hint, "front": member["front"], "quiet": not member["comparable"]}
            if member["front"]:
                right = member["top1_interval"]
                spot["y_ends"] = right and (100 * right[0], 100 * right[1])
                spot["x_ends"] = member["p99_ms"] and (member["p99_ms"], x_ms)
            spots.append(spot)
    return spots


def _scheme_order(member: dict) -> tuple:
    scheme = member["scheme"]
    return (SCHEMES.index(scheme) if scheme in SCHEMES else len(SCHEMES), scheme)


def _members(board: dict, found: Sequence[dict], budget_ms: float | None) -> str:
    rows = []
    for member in board["members"]:
        tags = [("front", "good")] if member["front"] else []
        tags += [(mark, "bad" if mark == INVALID else "plain") for mark in member["remarks"]]
        fits = fits_budget(member, budget_ms) if budget_ms else None
        rows.append({**member, "tags": tags, "fits": fits, "quiet": not member["comparable"]})
    name = words.name_of(board, found)
    table = _table(rows, columns_of(board, budget_ms), f"Members, {name}", "members.csv")
    return pages.heading(name) + table + pages.paragraph(details(board), "note") + _where(board)


def _side_by_side(found: Sequence[dict]) -> str:
    body = ""
    for scope in dict.fromkeys(board["scope"] for board in found):
        rows, columns = machines_of(found, scope)
        caption = f"{words.MACHINES_TITLE}, {plain(scope)}"
        body += pages.heading(f"Scope: {plain(scope)}") + _table(rows, columns, caption, "machines.csv") if rows else ""
    return pages.paragraph(words.MACHINES_NOTE) + body if body else ""


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
            if member[f"L{k}"] is not None and board["levels"][k] != 1
        ]
        if spots:
            series.append({"label": f"{words.short_name(member)} {member['scheme']}", "points": spots})
    if not series:
        return ""
    wide = width > 500
    return pages.lines(
        series,
        title=f"Accuracy by level, {plain(board['scope'])}",
        y_label="right at the level, % of images",
        x_names={k: f"level {k}\n{n} nodes" if wide else f"L{k}\n{n}" for k, n in board["levels"].items() if n != 1},
        width=width,
        y_max=100,
    )


def _quantized(found: Sequence[dict]) -> str:
    body = ""
    for board in found:
        if lines := cost_lines(board, costs_of(board)):
            name = words.name_of(board, found)
            table = _table(lines, cost_columns(board, lines), f"Quantized against fp32, {name}", "costs.csv")
            body += pages.heading(name) + table + _where(board)
    return pages.paragraph(words.COSTS_NOTE) + body if body else ""


def _one_of_each_machine(found: Sequence[dict]) -> list[dict]:
    """Return the first board of each machine and setting; the stages of other scopes would look the same."""
    firsts: dict[tuple, dict] = {}
    for board in found:
        if board["machine"]:
            firsts.setdefault(setting_of(board["machine"]), board)
    return list(firsts.values())


def _barred(board: dict) -> list[dict]:
    """Return the members of which stages are known, those of the front first, then the most accurate."""
    known = [m for m in board["members"] if part_of(m["latency"], "stages_ms", dict) and not m["invalid"]]
    return sorted(known, key=lambda m: not m["front"])


def _bars_note(board: dict) -> str:
    n = len(_barred(board))
    return f"{N_BARS} of {n:,} members: the front, then the most accurate. The stages of all are in the results." if n > N_BARS else ""


def _time_bars(board: dict, width: int) -> str:
    rows = []
    for member in sorted(_barred(board)[:N_BARS], key=lambda m: m["p50_ms"] or 0):
        stages = part_of(member["latency"], "stages_ms", dict)
        parts = {plain(name): value for name in stages if (value := number_at(stages, name)) is not None}
        if parts:
            rows.append({"label": f"{words.short_name(member)} {member['scheme']}", "parts": parts})
    title = f"Time by stage, {plain(board['scope'])}, {words.told_scenario(board['machine'])}"
    return pages.bars(rows, title=title, x_label="milliseconds a query", width=width) if rows else ""


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
                f"each category (column). {in_short(board)}"
            )
            return pages.figure(wide, caption, narrow=narrow)
    return ""
