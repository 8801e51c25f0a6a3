"""The report's page: pictures and tables of each board."""

from collections.abc import Callable, Sequence

from benchmarks.boards import INVALID, setting_of
from benchmarks.measurements import number_at, part_of
from benchmarks.peers import table as peer_table
from benchmarks.reporting import words
from benchmarks.reporting.lines import columns_of, cost_columns, costs_of, details, left_out, levels_of, machines_of, published
from family import pages
from family.pages import plain

SCHEMES = ("fp32", "fp16", "int8")
LEVELS_NOTE = (
    "Members on the front, or where there is none all of them; six at most, the most accurate first. A "
    "mark's area grows with the number of category nodes at the level."
)
WIDE_PX, NARROW_PX = 1040, 358


def page(found: Sequence[dict], rows: Sequence[dict], budget_ms: float | None) -> str:
    lead = words.headline(found[0], budget_ms, pages.escape, ("<strong>", "</strong>"))
    figures, columns, note = published()
    origin = pages.table(figures, columns, caption="Published figures") + pages.paragraph(note, "note")
    plotted = [board for board in found if _spots(board)]
    sections = [
        ("Accuracy against latency", _scatters(plotted, budget_ms)),
        ("Members", "".join(_members(board, found, budget_ms) for board in found)),
        (words.MACHINES_TITLE, _side_by_side(found)),
        ("Accuracy by level", _by_level(found)),
        ("What quantization costs and gains", _quantized(found)),
        (peer_table.TITLE, peer_table.html(rows)),
        ("Where the time goes", _pictures(_one_of_each_machine(found), _time_bars)),
        ("Confusion at the top of the tree", _confusion(found[0])),
        (words.ORIGIN_TITLE, origin),
        ("Words", pages.definitions(words.WORDS) + pages.paragraph(left_out(rows), "note")),
    ]
    return pages.page(words.TITLE, f'<p class="lead">{lead}</p>\n', [section for section in sections if section[1]])


def _scatters(found: Sequence[dict], budget_ms: float | None) -> str:
    """Draw boards against a budget, which can be moved where they are large."""

    def move(board: dict, picture: str) -> str:
        costs = [spot["x"] for spot in _spots(board)]
        return pages.budgeted(picture, min(costs) / 1.1, max(costs) * 1.1, budget_ms)

    return _pictures(found, lambda board, width: scatter(board, budget_ms, width, moves=_is_large(board, found)), move)


def _is_large(board: dict, found: Sequence[dict]) -> bool:
    return board["scope"] == "general" or board is found[0]


def _pictures(found: Sequence[dict], draw: Callable[[dict, int], str], wrap: Callable[[dict, str], str] = lambda board, picture: picture) -> str:
    """Draw boards: in full width the first and the general ones, wrapped; side by side the others."""
    large, small = "", []
    for board in found:
        narrow = draw(board, NARROW_PX)
        if not narrow:
            continue
        name, caption = words.name_of(board, found), words.in_short(board)
        if _is_large(board, found):
            large += wrap(board, pages.figure(draw(board, WIDE_PX), caption, heading=name, narrow=narrow))
        else:
            small.append(pages.figure(narrow, caption, heading=name))
    return large + pages.multiples(small)


def scatter(board: dict, budget_ms: float | None, width: int, moves: bool = False) -> str:
    return pages.scatter(
        _spots(board),
        title=f"Accuracy against latency, {plain(board['scope'])}",
        x_label="p99 ms, upper bound (log scale)",
        y_label="top-1 accuracy, %",
        width=width,
        log_x=True,
        y_max=100,
        budget=budget_ms,
        budget_label=f"budget {budget_ms:g} ms" if budget_ms and not moves else "budget",
        drags=moves,
    )


def _spots(board: dict) -> list[dict]:
    """Return the members that have both an accuracy and a latency, as points in the order of schemes."""
    spots = []
    for member in sorted(board["members"], key=_scheme_order):
        x_ms = member["upper_ms"] if member["upper_ms"] is not None else member["p99_ms"]
        if x_ms and member["top1"] is not None:
            hint = ", ".join([f"{member['member']}: {words.told_times(member)}", *member["remarks"]])
            spot = {"x": x_ms, "y": 100 * member["top1"], "label": words.short_name(member), "name": member["member"], "group": member["scheme"]}
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
        fits = words.fits_budget(member, budget_ms) if budget_ms else None
        rows.append({**member, "tags": tags, "fits": fits, "quiet": not member["comparable"]})
    name = words.name_of(board, found)
    table = pages.table(rows, columns_of(board, budget_ms), caption=f"Members, {name}")
    notes = pages.paragraph(details(board), "note") + pages.paragraph(words.conditions(board), "note")
    return pages.heading(name) + table + notes


def _side_by_side(found: Sequence[dict]) -> str:
    body = ""
    for scope in dict.fromkeys(board["scope"] for board in found):
        rows, columns = machines_of(found, scope)
        body += pages.heading(f"Scope: {plain(scope)}") + pages.table(rows, columns, caption=f"{words.MACHINES_TITLE}, {plain(scope)}") if rows else ""
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
            if member[f"L{k}"] is not None
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
        x_names={k: f"level {k}\n{n} nodes" if wide else f"L{k}\n{n}" for k, n in levels_of(board).items()},
        width=width,
        y_max=100,
    )


def _quantized(found: Sequence[dict]) -> str:
    body = ""
    for board in found:
        if costs := costs_of(board):
            name = words.name_of(board, found)
            table = pages.table(costs, cost_columns(board, costs), caption=f"Quantized against fp32, {name}")
            body += pages.heading(name) + table + pages.paragraph(words.conditions(board), "note")
    return pages.paragraph(words.COSTS_NOTE) + body if body else ""


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
                f"each category (column). {words.in_short(board)}"
            )
            return pages.figure(wide, caption, narrow=narrow)
    return ""
