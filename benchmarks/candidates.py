"""What may be picked: the members of one scope on one machine, timed in one way, with their cost and how right they are."""

import hashlib
import json
from collections.abc import Callable, Sequence

from benchmarks.boards import INVALID, NO_GAIN, boards, state_of
from benchmarks.bounds import surely
from benchmarks.measurements import REQUIRED, WHOLE, number_at, part_of, scenario_of, whole_of
from family.errors import NothingFits, UserError

N_TOLD = 5  # of those that were left out
_CURVES = ("quantiles_ms", "cold_ms", "stages_ms", "placement", "preprocessing", "conditions")  # of latency rows; no member is picked by them


class NoMember(NothingFits):
    """Nothing fits. `nearest` and `left_out` are lists of what is told of members, for programs."""

    def __init__(self, text: str, nearest: Sequence[dict] = (), left_out: Sequence[dict] = ()):
        super().__init__(text)
        self.nearest, self.left_out = list(nearest), list(left_out)


def needed_for(wanted) -> Callable[[dict, bytes | dict], dict | None]:
    """Return for `read_rows` what keeps of a row, in place, the part that picking looks at, and of latency rows what they are a part of: most of a results
    file are curves, metrics that one question does not ask for, and other scopes.

    Args:
        wanted: a `benchmarks.pick.Wanted`.
    """
    metrics = ("top1", "n_listings", wanted.metric.partition(".")[0])

    def keep(row: dict, whole: bytes | dict) -> dict | None:
        if row["kind"] not in REQUIRED:
            return None
        if row["scope"] != wanted.scope:
            return {"kind": row["kind"], "scope": row["scope"]}
        if row["kind"] == "latency":
            for key in _CURVES:
                row.pop(key, None)
            row[WHOLE] = whole
            return row
        row["metrics"] = {key: row["metrics"][key] for key in metrics if key in row["metrics"]}
        if "against_fp32" in row:
            against = part_of(row, "against_fp32", dict)
            row["against_fp32"] = {key: against[key] for key in ("model_sha256", wanted.metric) if key in against}
        return row

    return keep


def candidates_of(rows: Sequence[dict], wanted) -> tuple[list[dict], list[dict]]:
    """Return the candidates, and {"member", "why"} of what is left out although it was measured.

    Args:
        rows: that were checked; of each, what `needed_for` keeps is enough.
        wanted: a `benchmarks.pick.Wanted`.

    Raises:
        NoMember: no member has both a latency that counts and an accuracy.
        UserError: there is no such scope, machine, batch or metric, or accuracies are of different rows.
    """
    _check_metric(wanted.metric)
    found, older = _newest(_boards_of(boards(_of_scope(rows, wanted.scope), are_checked=True), wanted))
    _refuse_other_rows(found)
    everyone = sorted((member for board in found for member in board["members"]), key=_order)
    kept, left_out = [], older
    for member in everyone:
        marks = {mark: why for mark, why in member["remarks"].items() if not (wanted.allow_invalid and mark in (INVALID, "no bound"))}
        if marks:
            left_out.append({"member": member["member"], "why": ", ".join(_told(*mark) for mark in member["remarks"].items())})
        elif wanted.max_memory_mb is not None and number_at(member["latency"], "peak_memory_mb") is None:
            left_out.append({"member": member["member"], "why": "its memory was not measured: run `family bench` again"})
        elif (candidate := _candidate(member, wanted)) is None:
            left_out.append({"member": member["member"], "why": f"was measured without p{wanted.percentile}: run `family bench` again"})
        else:
            kept.append(candidate)
    found = [c for c in kept if c["accuracy"] is not None]
    if kept and not found:
        raise UserError(f"no member has the metric {wanted.metric!r}; it is a path in the metrics, as top1.macro or levels.2.micro")
    if not found:
        raise NoMember(_why_none(everyone, left_out, wanted), left_out=left_out)
    return found, left_out


def _order(member: dict) -> tuple:
    """Order members, the most accurate first, whatever the order of rows."""
    return -(member["top1"] if member["top1"] is not None else -1), member["member"], member["model_sha256"]


def _of_scope(rows: Sequence[dict], scope: str) -> list[dict]:
    measured = [row for row in rows if row["kind"] in REQUIRED]
    if not measured:
        raise UserError("the results hold no latency and no accuracy measurement; `family bench BUNDLE... --out RESULTS.jsonl --data DATASET` writes them")
    found = [row for row in measured if row["scope"] == scope]
    if not found:
        raise UserError(f"the results hold no member of the scope {scope!r}; they hold {', '.join(sorted({row['scope'] for row in measured}))}")
    return found


def _boards_of(found: Sequence[dict], wanted) -> list[dict]:
    """Return the boards of the machine and the way of timing that are wanted."""
    found = [board for board in found if board["machine"]]
    names = sorted({board["machine"]["machine"].get("name") for board in found})
    if wanted.machine is None and len(names) > 1:
        raise UserError(f"the results come from several machines; choose with --machine: {', '.join(names)}")
    if wanted.machine is not None and wanted.machine not in names:
        raise UserError(f"no measurement of the machine {wanted.machine!r}; there are {', '.join(names) or 'none'}")
    found = [board for board in found if wanted.machine in (None, board["machine"]["machine"].get("name")) and scenario_of(board["machine"])[2] is None]
    batches = sorted({scenario_of(board["machine"])[1] for board in found})
    if found and wanted.batch not in batches:
        raise UserError(f"nothing was timed with {wanted.batch} images a query, but with {', '.join(map(str, batches))}; "
                        f"`family bench ... --batch {wanted.batch}` does")  # fmt: skip
    return [board for board in found if scenario_of(board["machine"])[1] == wanted.batch]


def _newest(boards: list[dict]) -> tuple[list[dict], list[dict]]:
    """Return the boards of what the machine was last, and {"member", "why"} of what was timed before an upgrade or on another machine of its name."""
    states = [state_of(board["machine"]) for board in boards]
    timed = [(state, [member for member in board["members"] if member["latency"]]) for state, board in zip(states, boards, strict=True)]
    _, last = max(((max(str(member["latency"].get("at") or "") for member in members), state) for state, members in timed), default=("", ()))
    left_out = [{"member": member["member"], "why": f"timed {_told_state(member['latency'])}, and not as the newest"}
                for state, members in timed if state != last for member in members]  # fmt: skip
    left_out.sort(key=lambda one: (one["member"], one["why"]))
    return [board for state, board in zip(states, boards, strict=True) if state == last], left_out


def _told_state(latency: dict) -> str:
    machine = latency["machine"]
    version = part_of(machine, "versions", dict).get("onnxruntime")
    return f"at {latency.get('at')} with onnxruntime {version} on {machine.get('cpu')}, {machine.get('cores')} cores"


def _check_metric(metric: str) -> None:
    """Refuse what isn't a share of which more is better: of a distance or a calibration error, the worst would be picked."""
    if metric.split(".")[-1] not in ("micro", "macro") and not metric.removeprefix("listings.").startswith("hierarchical."):
        raise UserError(f"--metric takes a share of right answers, of which more is better: top1.micro, top5.macro, levels.2.micro, levels.2.summed.macro, "
                        f"thirds.tail.macro, hierarchical.f1; got {metric!r}")  # fmt: skip


def _refuse_other_rows(boards: list[dict]) -> None:
    """Accuracies on different rows say nothing about which member is better."""
    both = [board["dataset"]["dataset"] for board in boards if any(member["latency"] and member["accuracy"] for member in board["members"])]
    measured = {tuple(str(dataset.get(key)) for key in ("name", "split", "digest")) for dataset in both}
    if len(measured) > 1:
        told = "; ".join(f"{name} {split} ({digest[:7]})" for name, split, digest in sorted(measured))
        raise UserError(f"accuracies were measured on different rows, which can't be compared: {told}; give results of one of them")


def _why_none(members: list[dict], left_out: list[dict], wanted) -> str:
    told = "; ".join(f"{c['member']}: {c['why']}" for c in left_out[:N_TOLD]) + (f" and {len(left_out) - N_TOLD} more" if len(left_out) > N_TOLD else "")
    are_invalid = any(set(m["remarks"]) == {INVALID} for m in members)
    hint = "; --allow-invalid takes INVALID measurements" if are_invalid and not wanted.allow_invalid else ""
    all_of = "a valid latency and an accuracy" if wanted.max_memory_mb is None else "a valid latency, an accuracy and a measured memory"
    return f"no member of the scope {wanted.scope!r} has {all_of} ({told or 'no measurement'}){hint}"


def _told(mark: str, why: str) -> str:
    return why if mark == NO_GAIN else f"{mark} ({why})" if why else mark


def _candidate(member: dict, wanted) -> dict | None:
    """Return what is chosen from, None where the percentile was not measured."""
    bound, itself = _bound(member["latency"]["latency_ms"], wanted)
    cost = bound if bound is not None else itself
    if cost is None:
        return None
    return {
        "member": member["member"],
        "accuracy": number_at(member["accuracy"]["metrics"], *wanted.metric.split(".")),
        "cost_ms": cost,
        "is_bounded": bound is not None,
        "images_per_s": member["images_per_s"],
        "peak_memory_mb": number_at(member["latency"], "peak_memory_mb"),
        "of": member,
    }


def lower_of(candidate: dict, wanted) -> float | None:
    """Return the one-sided 95 % lower bound of a candidate's accuracy, None where that is not known; see `surely`."""
    return surely(candidate["of"]["accuracy"], wanted.metric, candidate["accuracy"])


def told(candidate: dict, wanted) -> dict:
    """Return a candidate as it is told: what it is and how it was timed, with the digest of its latency row."""
    member = candidate["of"]
    row = member["latency"]
    return {
        "member": member["member"],
        "accuracy": candidate["accuracy"],
        "accuracy_lower": lower_of(candidate, wanted),
        **{key: candidate[key] for key in ("cost_ms", "is_bounded", "images_per_s", "peak_memory_mb")},
        "bundle": row.get("bundle"),
        "scheme": member["scheme"],
        "latency_ms": {key: number_at(row["latency_ms"], key) for key in ("p50", "p99", "upper")},
        "invalid_because": member["remarks"].get(INVALID),
        "provider": row.get("provider"),
        "threads": row.get("threads"),
        "batch": scenario_of(row)[1],
        "machine": row["machine"].get("name"),
        "cpu": row["machine"].get("cpu"),
        "measured_at": row.get("at"),
        "model_sha256": member["model_sha256"],
        "measurement": hashlib.sha256(json.dumps(whole_of(row), sort_keys=True).encode()).hexdigest(),
    }


def _bound(latency: dict, wanted) -> tuple[float | None, float | None]:
    """Return the percentile's bound, and the percentile itself where that may stand for it: of measurements of schema 1, which tell the bound of p99 alone, and
    of INVALID ones that were allowed."""
    percentile, has_uppers = wanted.percentile, isinstance(latency.get("uppers"), dict)
    bound = number_at(latency, "uppers", f"p{percentile}") if has_uppers else number_at(latency, "upper") if percentile == "99" else None
    may_be_itself = wanted.allow_invalid or not (has_uppers or percentile == "99")
    return bound, number_at(latency, f"p{percentile}") if may_be_itself else None
