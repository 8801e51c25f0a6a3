"""The files of an evaluation: tables as CSV, thresholds, and the summary for a pull request."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from family.data.ontology import Ontology
from family.evaluation.assembling import Answered, Evaluated
from family.evaluation.filing import Filed
from family.evaluation.findings import Findings
from family.evaluation.metrics import first_rows
from family.evaluation.mistakes import KINDS, Mistakes
from family.evaluation.predictions import numbered_nodes
from family.outputs import write_json

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_files(folder: Path, answered: Answered, evaluated: Evaluated) -> None:
    """Write metrics.json, categories.csv, errors.csv, actions.csv, summary.md; where there are thresholds, thresholds.json and filed.parquet."""
    findings = evaluated.findings
    write_json(folder / "metrics.json", findings.metrics)
    _write_csv(folder / "categories.csv", _category_lines(findings.categories))
    _write_csv(folder / "actions.csv", _action_lines(findings.actions))
    write_errors(folder / "errors.csv", answered, evaluated.mistakes)
    (folder / "summary.md").write_text(summarize_findings(findings), encoding="utf-8")
    if evaluated.thresholds:
        told = {key: findings.metrics["filing"][key] for key in ("precision_wanted", "fitted_on", "fitting_listings", "probabilities")}
        write_json(folder / "thresholds.json", {**told, "levels": _by_node(answered.rows.ontology, evaluated.thresholds)})
        write_filed(folder / "filed.parquet", answered, evaluated.filed)


def write_filed(path: Path, answered: Answered, filed: Filed) -> None:
    """Write for each listing the node that it would be filed under without a person, null where it needs one, and whether that is a leaf, and right."""
    nodes, first_of_level = numbered_nodes(answered.rows.ontology)
    there = filed.level > 0
    places = pa.array(np.where(there, filed.node + first_of_level[np.maximum(filed.level, 1) - 1], 0), mask=~there)
    starts = first_rows(answered.by_listing)
    table = {
        "listing_id": pa.array(answered.rows.listing_ids[starts], pa.string()), "filed_id": nodes.take(places), "level": pa.array(filed.depth),
        "is_final": pa.array(there & filed.is_leaf), "right": pa.array(filed.right, mask=~there),
    }  # fmt: skip
    pa.parquet.write_table(pa.table(table), path)


def _by_node(ontology: Ontology, thresholds: list[np.ndarray]) -> dict:
    """Return each level's thresholds by node id; null where a node's answers are never filed."""
    return {
        str(level): {i: float(t) if np.isfinite(t) else None for i, t in zip(ontology.level(level)[0], values, strict=True)}
        for level, values in enumerate(thresholds, 1)
    }


def _category_lines(categories: list[dict]) -> Iterable[dict]:
    for line in categories:
        worst = line["worst"] or {}
        yield {**{key: value for key, value in line.items() if key != "worst"},
               **{f"worst_{key}": worst.get(key) for key in ("id", "path", "n")}}  # fmt: skip


def _action_lines(actions: list[dict]) -> Iterable[dict]:
    for action in actions:
        ids, paths = (" | ".join(category[key] for category in action["categories"]) for key in ("id", "path"))
        yield {"rank": action["rank"], "kind": action["kind"], "category_ids": ids, "paths": paths, "listings": action["listings"],
               "gain_points": action["gain_points"], "why": action["why"]}  # fmt: skip


def _write_csv(path: Path, lines: Iterable[dict]) -> None:
    """Write lines that have the same keys; an empty field is None. Text that a spreadsheet would run as a formula gets a quote before it."""
    lines = list(lines)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]) if lines else ["rank"])
        writer.writeheader()
        writer.writerows({key: _harmless(value) for key, value in line.items()} for line in lines)


def _harmless(value):
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def write_errors(path: Path, answered: Answered, mistakes: Mistakes) -> None:
    """Write every mistake; probabilities are the member's own, those that begin with `rule_` what the rules of the kinds look at."""
    rows, answers, ontology = answered.rows, answered.by_image, answered.rows.ontology
    wrong = mistakes.rows
    ids = pa.array([_harmless(leaf) for leaf in ontology.leaves], pa.string())
    paths = pa.array([_harmless(ontology.path_of[leaf]) for leaf in ontology.leaves], pa.string())
    true, best = pa.array(answers.labels[wrong]), pa.array(answers.top[wrong, 0])
    table = pa.table({
        "listing_id": pa.array([_harmless(str(i)) for i in rows.listing_ids[wrong]], pa.string()),
        "image": pa.array(rows.images[wrong], pa.string()),
        "true_id": ids.take(true), "true_path": paths.take(true), "answer_id": ids.take(best), "answer_path": paths.take(best),
        "probability": pa.array(answers.top_probabilities[wrong, 0]), "true_probability": pa.array(answers.true_probabilities[wrong]),
        "kind": pa.array(KINDS, pa.string()).take(pa.array(mistakes.kinds)),
        "rule_probability": pa.array(answers.tempered[wrong, 0]), "rule_true_probability": pa.array(answers.tempered[wrong, 1]),
        "rule_usual_probability": pa.array(mistakes.usual[answers.top[wrong, 0]]),
    })  # fmt: skip
    pyarrow.csv.write_csv(table, path)


def summarize_findings(findings: Findings) -> str:
    """Return the summary in Markdown."""
    about, metrics = findings.about, findings.metrics
    under = metrics["macro_over"]
    lines = [
        f"### {_plain(about['member'])} on {_plain(about['dataset'])}, split {about['split']}", "",
        f"{about['n_images']:,} images of {about['n_listings']:,} listings, {about['n_categories']:,} categories, data {about['digest'][:12]}. "
        "In brackets 95 % intervals by listing.", "",
        "| | images, micro % | images, macro % | listings, micro % | listings, macro % |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name in ("top1", "top3", "top5"):
        lines.append(_line(name.replace("top", "top-"), metrics[name], metrics["listings"][name]))
    for level, found in metrics["levels"].items():
        lines.append(_line(f"level {level}, {found['nodes']:,} categories", found, metrics["listings"]["levels"][level]))
    lines += [
        "",
        f"Macro is over the {under['categories']:,} categories with rows, {under['under_5_rows']:,} of them with fewer than five.",
        "",
    ]
    lines += [*_trust(metrics), *_errors(metrics["errors"]), *_groups(metrics.get("by", {}))]
    if findings.actions:
        lines += ["", "| # | what to do | categories | listings | gain, points |", "|---|---|---|---|---|"]
    for action in findings.actions:
        gain = "" if action["gain_points"] is None else f"{action['gain_points']:.2f}"
        paths = ", ".join(_plain(category["path"]) for category in action["categories"])
        lines.append(f"| {action['rank']} | {action['kind']} | {paths} | {action['listings']:,} | {gain} |")
    lines += ["", *(f"Note: {_plain(note)}" for note in about["notes"])] if about["notes"] else []
    return "\n".join(lines) + "\n"


def _trust(metrics: dict) -> list[str]:
    calibration, filing = metrics["calibration"], metrics.get("filing")
    lines = [f"- Expected calibration error {_percent(calibration['ece'])}"]
    if calibration["after"]:
        lines[0] += (
            f", {_percent(calibration['after']['ece'])} at the temperature {calibration['temperature']} ({calibration['fitted_on']})"
        )
    if filing:
        leaf, back = filing["leaf"], filing["backoff"]
        lines.append(
            f"- At a wanted precision of {filing['precision_wanted']:.0%}: {_percent(leaf['share'])} of listings are filed as a final category "
            f"(precision {_percent(leaf['precision'])}), {_percent(back['share'])} at some level ({_percent(back['precision'])})"
        )
    return lines


def _errors(errors: dict) -> list[str]:
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in errors["by_kind"].items())
    return [f"- {errors['n']:,} images are answered wrong: {kinds}"]


def _groups(by: dict) -> list[str]:
    lines = []
    for column, groups in by.items():
        lines += ["", f"| {_plain(column)} | images | listings | top-1 micro % | top-1 macro % |", "|---|---|---|---|---|"]
        for value, found in groups.items():
            shares = (_with_interval(found["top1"], kind) for kind in ("micro", "macro"))
            lines.append(f"| {_plain(value)} | {found['n']:,} | {found['n_listings']:,} | {' | '.join(shares)} |")
    return lines


def _line(name: str, images: dict, listings: dict) -> str:
    return f"| {name} | " + " | ".join(_with_interval(found, kind) for found in (images, listings) for kind in ("micro", "macro")) + " |"


def _with_interval(found: dict, kind: str) -> str:
    low, high = found[f"{kind}_interval"]
    return f"{100 * found[kind]:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f} %"


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in " ".join(str(text).split()))
