"""The report as Markdown and as comma-separated values."""

from collections.abc import Sequence

from benchmarks.peers import table as peer_table
from benchmarks.reporting import words
from benchmarks.reporting.conditions import TITLE as CONDITIONS
from benchmarks.reporting.conditions import conditions, in_short
from benchmarks.reporting.costs import cost_columns, cost_lines, costs_of
from benchmarks.reporting.headline import fits_budget, headline
from benchmarks.reporting.lines import columns_of, details, left_out, machines_of, published
from family import pages

CSV_FIELDS = [
    *("scope", "machine", "provider", "threads", "scenario", "batch", "rate", "dataset", "split", "digest", "n_images", "member"),
    *("variant", "resolution_px", "label", "scheme", "model_sha256", "size_mb", "n_parameters", "n_classes"),
    *("p50_ms", "p99_ms", "upper_ms", "images_per_s", "throughput_batch", "from_bytes_per_s", "top1", "top3", "top5", "macro"),
    *("top1_low", "top1_high", "macro_low", "macro_high"),
]


def markdown(found: Sequence[dict], rows: Sequence[dict], budget_ms: float | None) -> str:
    parts = [f"# {words.TITLE}", headline(found[0], budget_ms, pages.markdown, ("**", "**"))]
    parts += ["![Accuracy against latency](accuracy-latency.svg)", "## Members"]
    parts += [markdown_board(board, found, budget_ms) for board in found]
    parts += [f"## {CONDITIONS}", markdown_conditions(found)]
    for scope in dict.fromkeys(board["scope"] for board in found):
        lines, columns = machines_of(found, scope)
        parts += [f"## {words.MACHINES_TITLE}: {pages.markdown(scope)}", words.MACHINES_NOTE, pages.markdown_table(lines, columns)] if lines else []
    costs = [(board, cost_lines(board, costs_of(board))) for board in found]
    if any(lines for _, lines in costs):
        parts += ["## What quantization costs and gains", words.COSTS_NOTE]
    for board, lines in costs:
        if lines:
            table = pages.markdown_table(lines, cost_columns(board, lines))
            parts += [f"### {pages.markdown(words.name_of(board, found))}", table, _where(board)]
    if tables := peer_table.markdown(rows):
        parts += [f"## {peer_table.TITLE}", peer_table.NOTE, tables]
    figures, columns, note = published()
    parts += [f"## {words.ORIGIN_TITLE}", pages.markdown_table(figures, columns), note]
    parts += ["## Words", "\n".join(f"- **{word}**: {meaning}" for word, meaning in words.WORDS.items())]
    return "\n\n".join([*parts, pages.markdown(left_out(rows))]).rstrip() + "\n"


def markdown_board(board: dict, found: Sequence[dict], budget_ms: float | None) -> str:
    rows = []
    for member in board["members"]:
        marks = ["front"] if member["front"] else []
        name = ", ".join([member["member"], *marks, *member["remarks"]])
        rows.append({**member, "member": name, "fits": fits_budget(member, budget_ms) if budget_ms else None})
    table = pages.markdown_table(rows, columns_of(board, budget_ms))
    notes = [pages.markdown(text) for text in filter(None, [details(board)])]
    return "\n\n".join([f"### {pages.markdown(words.name_of(board, found))}", table, *notes, _where(board)])


def _where(board: dict) -> str:
    return f"{pages.markdown(in_short(board))} [{CONDITIONS}](#{CONDITIONS.lower()})"


def markdown_conditions(found: Sequence[dict]) -> str:
    """Return what boards' short lines refer to."""
    return "\n\n".join(map(pages.markdown, conditions(found)))


def csv_text(found: Sequence[dict]) -> str:
    levels = sorted({level for board in found for level in board["levels"]})
    rows = []
    for member in (member for board in found for member in board["members"]):
        latency, accuracy = member["latency"] or {}, member["accuracy"] or {}
        row = {**member, **{key: latency.get(key) for key in ("provider", "threads", "scenario", "batch", "rate")}}
        row["machine"] = latency.get("machine", {}).get("name")
        row |= {key: accuracy.get("dataset", {}).get(key) for key in ("split", "digest")}
        row |= {"dataset": accuracy.get("dataset", {}).get("name"), "n_images": accuracy.get("n")}
        for key in ("top1", "macro"):
            row[f"{key}_low"], row[f"{key}_high"] = member[f"{key}_interval"] or (None, None)
        row["remarks"] = "; ".join(f"{mark}: {why}" if why else mark for mark, why in member["remarks"].items())
        rows.append(row)
    at_levels = [f"L{level}{end}" for end in ("", "_macro") for level in levels]
    return pages.csv_table(rows, [*CSV_FIELDS, *at_levels, "front", "remarks"])
