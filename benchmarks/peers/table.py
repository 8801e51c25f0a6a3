"""The same model in other runtimes, as a table."""

from collections.abc import Sequence

from benchmarks.measurements import number_at, part_of
from family import pages
from family.pages import NOTHING, amount, percent, plain

TITLE = "The same model in other runtimes"
NOTE = (
    "Our files and peers made of our fp32 file took turns on the same images, each in a process of its own; ms is the model alone, and its decoding "
    "is not in it. A speed of 2.00× is half the time: the median over rounds, with its 95 % interval; by processor time, what a busy machine lets "
    "a side wait is left out. Agreement is the share of the bundle's stored images whose best category is that of our fp32."
)
COLUMNS = [
    {"key": "side", "label": "runtime"},
    {"key": "precision", "label": "precision"},
    {"key": "model_ms", "label": "model\nms", "text": amount},
    {"key": "int8", "label": "speed of our\nint8 over it"},
    {"key": "int8_processor", "label": "the same by\nprocessor time"},
    {"key": "fp32", "label": "speed of our\nfp32 over it"},
    {"key": "agreement", "label": "agreement\n%", "text": percent, "high": True},
    {"key": "top1", "label": "top-1\n%", "text": percent, "high": True},
    {"key": "macro", "label": "macro\n%", "text": percent, "high": True},
]


def html(rows: Sequence[dict]) -> str:
    """Return the part of a page, or "" where no peer was measured."""
    found = "".join(
        pages.heading(name) + pages.table(lines, COLUMNS, caption=f"{TITLE}, {name}") + pages.paragraph(note, "note")
        for name, lines, note in groups(rows)
    )
    return pages.paragraph(NOTE) + found if found else ""


def markdown(rows: Sequence[dict]) -> str:
    """Return the tables as Markdown, or ""."""
    parts = [f"### {pages.markdown(name)}\n\n{to_markdown(lines)}\n\n{pages.markdown(note)}" for name, lines, note in groups(rows)]
    return "\n\n".join(parts)


def to_markdown(lines: Sequence[dict]) -> str:
    """Return a group's lines as a Markdown table."""
    return pages.markdown_table(lines, COLUMNS)


def groups(rows: Sequence[dict]) -> list[tuple[str, list[dict], str]]:
    """Return (name, lines, conditions) of each bundle on each machine and number of threads, in the order of the rows."""
    found: dict[tuple, list[dict]] = {}
    for row in rows:
        if row["kind"] == "peer":
            machine = row["machine"]
            key = (row.get("bundle"), machine.get("name"), machine.get("cpu"), machine.get("cores"), row.get("threads"))
            found.setdefault(tuple(map(str, key)), []).append(row)
    accuracies = {_accuracy_key(row): row["metrics"] for row in rows if row["kind"] == "accuracy"}
    return [(_name(own[0]), [_line(row, accuracies) for row in own], _conditions(own)) for own in found.values()]


def _accuracy_key(row: dict) -> tuple:
    dataset = part_of(row, "dataset", dict)
    return tuple(map(str, (row["model_sha256"], dataset.get("digest"), dataset.get("split"))))


def _name(row: dict) -> str:
    member = row["member"].removesuffix(f"-{row['scheme']}")
    n = row.get("threads")
    return plain(f"{member} on {row['machine'].get('name')}, {n} thread{'' if n == 1 else 's'}")


def _line(row: dict, accuracies: dict) -> dict:
    """Return one line; of our own files, whose accuracies have rows of their own, those of the same rows."""
    metrics = row.get("metrics") or (accuracies.get(_accuracy_key(row)) if str(row.get("side")).startswith("ours-") else None)
    marked = ", REFUSED" if row.get("refused") else ""
    return {
        "side": plain(f"{row.get('title')}{marked}"),
        "precision": plain(row.get("precision")),
        "model_ms": number_at(row, "model_ms"),
        **{scheme: _speed(part_of(row["against"], scheme, dict)) for scheme in ("int8", "fp32")},
        "int8_processor": _speed(part_of(part_of(row["against"], "int8", dict), "processor_time", dict)),
        "agreement": number_at(row, "answers", "agreement"),
        "top1": number_at(metrics, "top1", "micro"),
        "macro": number_at(metrics, "top1", "macro"),
    }


def _speed(found: dict) -> str:
    ratio, interval = number_at(found, "ratio"), part_of(found, "interval", list)
    if ratio is None or len(interval) != 2:
        return NOTHING
    low, high = (number_at({"end": end}, "end") for end in interval)
    return f"{ratio:.2f}×" if low is None or high is None else f"{ratio:.2f}× ({low:.2f} to {high:.2f})"


def _conditions(rows: Sequence[dict]) -> str:
    row = rows[0]
    versions = sorted({f"{name} {version}" for own in rows for name, version in part_of(own, "versions", dict).items()})
    load = [number_at({"load": value}, "load") for value in part_of(row, "load_before_and_after", list)]
    told = f" Load average {' and '.join(f'{value:.1f}' for value in load if value is not None)} before and after." if load else ""
    refused = "".join(f" {own.get('title')}, {own.get('precision')}: REFUSED, {own['refused']}." for own in rows if own.get("refused"))
    calibrated = next((own["calibrated_on"].get("n") for own in rows if isinstance(own.get("calibrated_on"), dict)), None)
    nncf = f" NNCF was calibrated on {calibrated} training images." if calibrated else ""
    return plain(f"{row['machine'].get('cpu')}, {', '.join(versions)}; {row.get('rounds')} rounds of {row.get('images_a_round')} single images, on "
                 f"{str(row.get('at'))[:10]}.{nncf}{told}{refused}")  # fmt: skip
