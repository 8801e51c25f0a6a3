"""The tables of export/README.md: what exports came to, the same models in other runtimes, and files against others' files.

python -m benchmarks.studies.exports_page export/README.md PEERS.jsonl VERSUS.json RESULT.json ...

of `benchmarks.studies.exports`, `family bench --peers`, and a list of what `benchmarks.peers.versus` printed. A test holds the page to the checked-in results.
"""

import sys
from pathlib import Path

from benchmarks.measurements import read_rows
from benchmarks.peers import table as peer_table
from benchmarks.readme import splice
from family.evaluation.paired import MOST_ROWS
from family.outputs import read_json, whole_file

LEAST_ROWS = 10  # of a category, for macro: of one with fewer, a single row would move it by more than the gate's bound over all
N_SHOWN = 8  # candidates of a member in the page
OLD_VERDICTS = (" Verdicts are of the gate as it was then: `pass` where no point estimate lost more than 0.5 points; it is `undecided` now, unless the "
                "interval ends there.")  # fmt: skip
MARKS = ("<!-- exports: written by benchmarks.studies.exports_page -->", "<!-- end of exports -->")
PEER_MARKS = ("<!-- peers: written by benchmarks.studies.exports_page -->", "<!-- end of peers -->")


def main() -> int:
    page, peers, versus, *results = map(Path, sys.argv[1:])
    text = write_tables(page.read_text(encoding="utf-8"), [read_json(path) for path in results], read_rows([peers]), read_json(versus))
    with whole_file(page) as partial:
        partial.write_text(text, encoding="utf-8")
    return 0


def write_tables(page: str, results: list[dict], peers: list[dict], versus: list[dict]) -> str:
    """Return the page with its tables written anew."""
    others = "\n\n".join([peer_table.NOTE, peer_table.markdown(peers), render_versus(versus)])
    return splice(splice(page, "\n".join(map(render, results)), *MARKS), others, *PEER_MARKS)


def render_versus(found: list[dict]) -> str:
    """Return what `benchmarks.peers.versus` measured as a Markdown table."""
    lines = ["| file | as fast as | by the clock | by processor time | rounds |", "|---|---|---|---|---:|"]
    for one in found:
        names = [f"{one[which]['name']}-{one[which]['scheme']}" for which in ("first", "second")]
        speeds = [f"{one[clock]['ratio']:.2f}\u00d7 ({one[clock]['interval'][0]:.2f} to {one[clock]['interval'][1]:.2f})" for clock in ("wall", "processor")]
        lines.append(f"| {' | '.join([*names, *speeds, str(one['wall']['rounds'])])} |")
    return "\n".join(lines) + "\n"


def render(result: dict) -> str:
    """Return the tables of a result as Markdown."""
    members = [m for m in result["members"] if "refused" not in m]
    levels = list(max((m["loss"] for m in members), key=len, default={}))
    refused = [f"| {m['name']} | refused: {m['refused']} |" + " |" * 9 for m in result["members"] if "refused" in m]
    lines = ["**The proof**: what ONNX Runtime makes of each int8 file when it opens it, how it stands against its own fp32 (one thread, in turns, when it was "
             "exported), and the cosine of its embeddings with fp32's on the stored images (median, least), on "
             f"{result['machine']['cpu']} {_vnni(result['machine'])}.{'' if result['schema'] > 1 else OLD_VERDICTS}", "",
             "| member | convolutions in int8 | in float | BatchNorm | Transpose | weights in float, MB | MB (of fp32's) | speed of fp32's "
             "| verdict (images that would decide) | cosine | export took |",
             "|---|---:|---:|---:|---:|---:|---|---|---|---|---|",
             *(_proof_line(m) for m in members), *refused, "",
             f"**The loss** on the test rows of {result['dataset']['name']}, in points at each level of the tree, with 95 % intervals by listing; less than 0 "
             f"is a gain. Macro is over the nodes with at least {LEAST_ROWS} rows.", "",
             "| member | | " + " | ".join(f"level {level}" for level in levels) + " |", "|---|---|" + "---|" * len(levels),
             *(line for m in members for line in _loss_lines(m, levels)), "",
             "**The candidates** of each member that were timed. Divergence from fp32 is on joined halves of training rows; a time of 1.00 is that of "
             "all blocks in int8. Accuracies are of validation rows, and had no part in the choice."]  # fmt: skip
    for m in result["members"]:
        if m.get("candidates"):
            lines += ["", *_candidate_lines(m)]
    return "\n".join(lines) + "\n"


def _proof_line(m: dict) -> str:
    proof, (low, high) = m["proof"], m["speed"]["interval"]
    cells = [m["name"], proof["int8_convolutions"], proof["float_convolutions"], proof["batchnorms"], proof["transposes"], f"{proof['float_weights_mb']:.2f}",
             f"{m['mb']['int8']:.1f} ({m['mb']['int8'] / m['mb']['fp32']:.2f})", f"{m['speed']['ratio']:.2f} ({low:.2f} to {high:.2f})",
             _verdict(m["verdict"]), _cosine(m.get("embedding_cosine")),
             f"{m['export_s']:.0f} s, {m['export_peak_memory_mb'] / 1024:.1f} GB" if m.get("export_s") else ""]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _cosine(found: dict | None) -> str:
    return f"{found['median']:.4f}, {found['least']:.3f}" if found else ""


def _vnni(machine: dict) -> str:
    return f"{'with' if any('vnni' in feature for feature in machine['features']) else 'without'} VNNI"


def _verdict(found: dict) -> str:
    needs = found.get("needs_rows")
    return found["verdict"] + (f" ({needs:,})" if needs and needs <= MOST_ROWS else "")


def _loss_lines(m: dict, levels: list[str]) -> list[str]:
    told = {kind: [_loss_cell(m["loss"].get(level, {}).get(kind)) for level in levels] for kind in ("micro", "macro")}
    return [f"| {m['name'] if kind == 'micro' else ''} | {kind} | {' | '.join(cells)} |" for kind, cells in told.items()]


def _loss_cell(found: dict | None) -> str:
    return "" if found is None else f"{found['points']:+.2f} ({found['interval'][0]:+.2f} to {found['interval'][1]:+.2f})"


def _candidate_lines(m: dict) -> list[str]:
    """Return the table of the candidates that were timed, the best N_SHOWN of them."""
    made = m["made"]
    lines = [f"<details><summary>{m['name']}: the best of {made['n_candidates']} candidates on {made['n_ranked_on']} joined halves</summary>", "",
             "| | ranges | blocks in float | format | divergence | agreement | MB | time | micro | macro |",
             "|---|---|---|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for row in m["candidates"][:N_SHOWN]:
        cells = ["chosen" if row["chosen"] else "", row["ranges"], row["blocks_in_float"] or "none", row["format"], f"{row['divergence']:.4f}",
                 f"{row['agreement']:.1%}", f"{row['size_mb']:.1f}", f"{row['relative_time']:.2f}", f"{row['val_micro']:.1%}",
                 f"{row['val_macro']:.1%}"]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", "</details>"]


if __name__ == "__main__":
    sys.exit(main())
