"""`family pick --chain`: from results and what members answered to a chain with its file, ready to serve."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.boards import INVALID, WRONG, agrees, is_newer, setting_of, state_of
from benchmarks.candidates import N_TOLD, NoMember
from benchmarks.chains.choosing import Chosen, bound_of, pick_chain
from benchmarks.chains.evidence import Evidence, read_evidence
from benchmarks.chains.mixture import is_timed
from benchmarks.measurements import scenario_of
from export.chain import PICKED, chain_digest, chain_name, join_schemes
from family.errors import UserError

SUFFIX = ".chains.parquet"  # of what `family bench --chains` writes beside its results


# Of answers to the rows that a chain is chosen on, no accuracy is sure; the memory of a chain is that of no one file's process.
_NOT_WITH_CHAINS = {
    "--min-accuracy": lambda wanted: wanted.min_accuracy is not None,
    "--max-memory-mb": lambda wanted: wanted.max_memory_mb is not None,
    "--batch": lambda wanted: wanted.batch != 1,
    "--scope": lambda wanted: wanted.scope != "general",
}


def evidence_of(results: Sequence[Path]) -> Path:
    """Return the file of answers beside results.

    Raises:
        UserError: there is none, or one beside each of several.
    """
    found = [path for path in (result.with_name(result.name + SUFFIX) for result in results) if path.is_file()]
    if len(found) != 1:
        told = ", ".join(str(path) for path in found) or "none"
        raise UserError(f"--chain reads what members answered from one file beside the results; there is {told}: `family bench BUNDLE... --chains --data "
                        "DATASET` writes it")  # fmt: skip
    return found[0]


class Timed(NamedTuple):
    """What a chain is chosen from."""

    rows: dict[str, dict]  # by sha256
    left_out: list[dict]  # {"member", "why"} of what was timed and doesn't count


def choose(rows: Sequence[dict], results: Sequence[Path], wanted) -> dict:
    """Return the chosen chain as `family pick --chain --json` prints it.

    Args:
        wanted: a `benchmarks.pick.Wanted` with a budget.

    Raises:
        NothingFits: no chain is within the budget.
        UserError: there is no budget, no evidence, or rows of several machines or settings.
    """
    return tell_chosen(*find_chain(rows, results, wanted), wanted)


def find_chain(rows: Sequence[dict], results: Sequence[Path], wanted) -> tuple[Chosen, Timed, Evidence]:
    """Return the chosen chain, what it was chosen from, and what members answered; see `choose`."""
    if wanted.budget_ms is None:
        raise UserError("--chain wants --budget-ms")
    other = [option for option, is_given in _NOT_WITH_CHAINS.items() if is_given(wanted)]
    if other:
        raise UserError(f"--chain is picked by --budget-ms, --percentile, --metric, --machine and --allow-invalid alone, for single images of the whole tree: "
                        f"leave out {' and '.join(other)}")  # fmt: skip
    evidence = read_evidence(evidence_of(results))
    found, nothing = [], []
    for timed in _timed(rows, evidence, wanted):
        try:
            found.append((pick_chain(list(timed.rows.values()), evidence, wanted.budget_ms, float(wanted.percentile), wanted.metric), timed))
        except NoMember as none:
            nothing.append(NoMember(str(none), none.nearest, timed.left_out))
    if not found:
        raise min(nothing, key=lambda none: none.nearest[0]["cost_ms"])
    chosen, timed = min(found, key=lambda one: (-one[0].accuracy, one[0].cost_ms))  # of equal ones the first: settings come in order
    return chosen, timed, evidence


def _timed(rows: Sequence[dict], evidence: Evidence, wanted) -> list[Timed]:
    """Return what chains can be made of, for each setting in which a general model was timed that counts: of each file that answered, the newest row of
    single images on the one machine, in its newest state.

    Raises:
        NoMember: no general model counts.
        UserError: there is no such machine, or it must be named.
    """
    files = {*evidence.generals, *evidence.submodels}
    single = [row for row in rows if row["kind"] == "latency" and scenario_of(row)[:2] == ("single-stream", 1) and "asked" not in row]  # no chains
    meant = [row for row in single if row["model_sha256"] in files]
    machines = sorted({row["machine"]["name"] for row in meant})
    if wanted.machine is not None and wanted.machine not in machines:
        raise UserError(f"no measurement of the machine {wanted.machine!r}; there are {', '.join(machines) or 'none'}")
    if wanted.machine is None and len(machines) > 1:
        raise UserError(f"the results come from several machines; choose with --machine: {', '.join(machines)}")
    meant = [row for row in meant if wanted.machine in (None, row["machine"]["name"])]
    _, last = max(((str(row.get("at") or ""), state_of(row)) for row in meant), default=("", ()))
    by_setting: dict[tuple, dict[str, dict]] = {}
    for row in meant:
        if state_of(row) == last:
            newest = by_setting.setdefault(setting_of(row), {})
            known = newest.get(row["model_sha256"])
            if known is None or is_newer(row, known):
                newest[row["model_sha256"]] = row
    names = {row["model_sha256"]: row["member"] for row in single if wanted.machine in (None, row["machine"]["name"])}
    found = [_of_setting(by_setting[setting], names, files, wanted) for setting in sorted(by_setting)]
    counting = [timed for timed in found if timed.rows.keys() & evidence.generals.keys()]
    if meant and evidence.generals.keys() & names.keys() and not counting:
        own = [row for newest in by_setting.values() for sha, row in newest.items() if sha in evidence.generals]
        raise _no_general(own, found, wanted)
    return counting or [Timed({}, [])]


def _of_setting(newest: dict[str, dict], names: dict[str, str], answered: set[str], wanted) -> Timed:
    """Return the rows of one setting that count, and why others that were timed do not; `names` are those of all files that were."""
    reasons = {sha: _why_not(row, wanted) for sha, row in newest.items()}
    elsewhere = dict.fromkeys(names.keys() - newest.keys(), "not timed with the setting, and in the newest state of the machine, that the chain's members were")
    unasked = dict.fromkeys(names.keys() - answered, "did not answer validation rows: `family bench BUNDLE... --chains`")
    why = {**elsewhere, **unasked, **{sha: reason for sha, reason in reasons.items() if reason}}
    left_out = sorted(({"member": names[sha], "why": reason} for sha, reason in why.items()), key=lambda one: (one["member"], one["why"]))
    return Timed({sha: row for sha, row in newest.items() if not reasons[sha]}, left_out)


def _no_general(rows: Sequence[dict], found: Sequence[Timed], wanted) -> NoMember:
    """Say why none of the general models that were timed counts."""
    why = {row["member"]: _why_not(row, wanted) for row in rows}
    told = "; ".join(f"{member}: {reason}" for member, reason in sorted(why.items())[:N_TOLD]) + (f" and {len(why) - N_TOLD} more" if len(why) > N_TOLD else "")
    helps = any(not _why_not(row, wanted._replace(allow_invalid=True)) for row in rows)
    hint = "; --allow-invalid takes INVALID measurements and those without a bound" if helps else ""
    left_out = [one for timed in found for one in timed.left_out]
    return NoMember(f"no general model can be the first of a chain ({told})" + hint, left_out=left_out)


def _why_not(row: dict, wanted) -> str:
    """Say why a row does not count, or nothing."""
    if not row.get("valid", True) and not wanted.allow_invalid:
        return f"{INVALID} ({row.get('invalid_because') or 'no reason given'})"
    if not agrees(row):
        return WRONG
    if not row.get("trained", True):
        return "untrained"
    if not is_timed(row):
        return "timed without its stages: run `family bench` again"
    return "" if wanted.allow_invalid or _is_bounded(row, wanted) else f"no bound of p{wanted.percentile}: more --samples"


def _is_bounded(row: dict, wanted) -> bool:
    return bound_of(row, float(wanted.percentile)) is not None


def tell_chosen(chosen: Chosen, of: Timed, evidence: Evidence, wanted) -> dict:
    """Return a chosen chain as `family pick --chain --json` prints it."""
    timed = of.rows
    general, asked = timed[chosen.general], {name: option for name, option in chosen.options.items() if option.submodel}
    files, beside = {"general": chosen.general, **{name: option.submodel for name, option in asked.items()}}, chosen.beside
    own = [timed[sha] for sha in files.values()]
    thresholds = {name: option.threshold for name, option in asked.items() if option.threshold is not None}
    upper_ms = chosen.cost_ms if all(_is_bounded(row, wanted) for row in own) else None
    alone_ms = beside.cost_ms if _is_bounded(timed[beside.general], wanted) else None
    return {
        # As `bench` writes them of the chain that --copy-to makes: its name and its schemes, joined; the bundle is the general model's.
        "member": chain_name("hard", general["member"], asked, thresholds) if asked else general["member"],
        "bundle": general.get("bundle"),
        "scheme": join_schemes([row["scheme"] for row in own]),
        "chain": {
            "general": general["member"],
            "verticals": {name: timed[option.submodel]["member"] for name, option in asked.items()},
            "thresholds": thresholds,
        },
        "bundles": {"general": general.get("bundle"), **{name: timed[option.submodel].get("bundle") for name, option in asked.items()}},
        "files": files,
        "model_sha256": chain_digest("hard", files, thresholds),
        "schemes": {"general": general["scheme"], **{name: timed[option.submodel]["scheme"] for name, option in asked.items()}},
        "asked": {name: option.asked for name, option in asked.items()},
        "alone": {"member": timed[beside.general]["member"], "accuracy": beside.accuracy, "upper_ms": alone_ms, "won": beside.won, "lost": beside.lost},
        "invalid_because": "; ".join(dict.fromkeys(str(row.get("invalid_because")) for row in own if not row.get("valid", True))) or None,
        "latency_ms": {"p50": chosen.p50_ms, f"p{wanted.percentile}": chosen.percentile_ms, "upper": upper_ms},
        "accuracy": chosen.accuracy,
        "accuracy_on": {**evidence.dataset, "n": len(evidence.truth)},
        "provider": general.get("provider"),
        "threads": general.get("threads"),
        "machine": general["machine"]["name"],
        "cpu": general["machine"].get("cpu"),
        "measured_at": general.get("at"),
        "left_out": of.left_out,
    }


def tell(found: dict, percentile: str, metric: str) -> str:
    """Return the chosen chain in lines."""
    chain, ms = found["chain"], found["latency_ms"]
    lines = [f"{chain['general']}"]
    for name, member in chain["verticals"].items():
        limit = chain["thresholds"].get(name)
        when = "" if limit is None else f", where the general model is less than {limit:.0%} sure"
        lines.append(f"  then {member} for {name}{when}: {found['asked'][name]:.1%} of images")
    if not chain["verticals"]:
        lines[0] += " alone: no submodel pays within this budget"
    on = found["accuracy_on"]
    p50, slow = (ms.get(key, math.nan) for key in ("p50", f"p{percentile}"))
    times = ([] if percentile == "50" else [f"p50 {p50:.2f} ms"]) + [f"p{percentile} {slow:.2f} ms ({_at_most(ms['upper'])})"]
    lines.append(f"expected: {metric} {found['accuracy']:.1%} on the {on['n']:,} {on['split']} images of {on['name']} that it was chosen on, "
                 f"{', '.join(times)}, {found['threads']} threads of {found['machine']}")  # fmt: skip
    if chain["verticals"]:
        alone = found["alone"]
        lines.append(f"of these images {alone['won']} are right that {alone['member']} alone ({_at_most(alone['upper_ms'])}), the best within the budget, "
                     f"has wrong, and {alone['lost']} the other way round; they chose it, so `family evaluate` of both on other images tells")  # fmt: skip
    if found["invalid_because"]:
        lines.append(f"INVALID: {found['invalid_because']}")
    lines += [f"  not {one['member']}: {one['why']}" for one in found["left_out"][:N_TOLD]]
    if len(found["left_out"]) > N_TOLD:
        lines.append(f"  nor {len(found['left_out']) - N_TOLD} more; --json has all of them")
    return "\n".join(lines)


def _at_most(bound_ms: float | None) -> str:
    return "not bounded" if bound_ms is None else f"at most {bound_ms:.2f} ms"


def copy_chain(found: dict, out: Path, results: Sequence[Path], fresh: bool) -> Path:
    """Copy the bundles of a chosen chain and write its file, `chain.toml`; each card's `serve` says how it was measured.

    Raises:
        UserError: a bundle is not here, or was exported anew.
    """
    from benchmarks.copying import locate_measured
    from family.card import write_card
    from family.chains import write_chain
    from family.outputs import is_done, whole_folder, write_json

    serve = {key: found[key] for key in ("threads", "provider", "machine", "cpu", "measured_at", "invalid_because") if found[key] is not None}
    predicted_ms = {key: ms for key, ms in found["latency_ms"].items() if ms is not None}
    rounded_ms = {key: round(ms, 4) for key, ms in predicted_ms.items()}
    made_of = {"command": "pick", "chain": found["chain"]["general"], "model_sha256": found["model_sha256"], "predicted_ms": rounded_ms, **serve}
    if not is_done(out, made_of, fresh):
        with whole_folder(out, made_of) as folder:
            for name, bundle in found["bundles"].items():
                scheme = found["schemes"][name]
                source = locate_measured(bundle, scheme, found["files"][name], results)
                shutil.copytree(source.folder, folder / name)
                write_card(folder / name, {**source.card, "serve": {"scheme": scheme, **serve}})
            verticals = {name: folder / name for name in found["bundles"] if name != "general"}
            if verticals:
                write_chain(folder / "chain.toml", folder / "general", verticals, "hard", found["chain"]["thresholds"])
                write_json(folder / PICKED, {"schemes": found["schemes"], "predicted_ms": predicted_ms, "model_sha256": found["model_sha256"],
                                             **{key: serve.get(key) for key in ("machine", "threads", "provider")}})  # fmt: skip
    return out / ("chain.toml" if len(found["bundles"]) > 1 else "general")
