"""The report as Markdown and as comma-separated values."""

from collections.abc import Sequence

from benchmarks.peers import table as peer_table
from benchmarks.reporting import words
from benchmarks.reporting.lines import columns_of, cost_columns, costs_of, details, left_out, levels_of, machines_of, published
from family import pages

CSV_FIELDS = [
    *("scope", "machine", "provider", "threads", "scenario", "batch", "rate", "dataset", "split", "digest", "n_images", "member"),
    *("variant", "resolution_px", "label", "scheme", "model_sha256", "size_mb", "n_parameters", "n_classes"),
    *("p50_ms", "p99_ms", "upper_ms", "images_per_s", "throughput_batch", "from_bytes_per_s", "top1", "top3", "top5", "macro"),
]


def markdown(found: Sequence[dict], rows: Sequence[dict], budget_ms: float | None) -> str:
    parts = [f"# {words.TITLE}", words.headline(found[0], budget_ms, pages.markdown, ("**", "**"))]
    parts += ["![Accuracy against latency](accuracy-latency.svg)", "## Members"]
    parts += [markdown_board(board, found, budget_ms) for board in found]
    for scope in dict.fromkeys(board["scope"] for board in found):
        lines, columns = machines_of(found, scope)
        parts += [f"## {words.MACHINES_TITLE}: {pages.markdown(scope)}", words.MACHINES_NOTE, pages.markdown_table(lines, columns)] if lines else []
    costs = [(board, costs_of(board)) for board in found]
    if any(rows for _, rows in costs):
        parts += ["## What quantization costs and gains", words.COSTS_NOTE]
    for board, lines in costs:
        if lines:
            parts += [f"### {pages.markdown(words.name_of(board, found))}"]
            parts += [
                pages.markdown_table(lines, cost_columns(board, lines)),
                pages.markdown(words.conditions(board)),
            ]
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
        rows.append({**member, "member": name, "fits": words.fits_budget(member, budget_ms) if budget_ms else None})
    columns = [column for column in columns_of(board, budget_ms) if budget_ms or column["key"] != "upper_ms"]
    table = pages.markdown_table(rows, columns)
    notes = [pages.markdown(text) for text in (details(board), words.conditions(board)) if text]
    return "\n\n".join([f"### {pages.markdown(words.name_of(board, found))}", table, *notes])


def csv_text(found: Sequence[dict]) -> str:
    levels = sorted({level for board in found for level in levels_of(board)})
    rows = []
    for member in (member for board in found for member in board["members"]):
        latency, accuracy = member["latency"] or {}, member["accuracy"] or {}
        row = {**member, **{key: latency.get(key) for key in ("provider", "threads", "scenario", "batch", "rate")}}
        row["machine"] = latency.get("machine", {}).get("name")
        row |= {key: accuracy.get("dataset", {}).get(key) for key in ("split", "digest")}
        row |= {"dataset": accuracy.get("dataset", {}).get("name"), "n_images": accuracy.get("n")}
        row["remarks"] = "; ".join(f"{mark}: {why}" if why else mark for mark, why in member["remarks"].items())
        rows.append(row)
    return pages.csv_table(rows, [*CSV_FIELDS, *(f"L{level}" for level in levels), "front", "remarks"])
