"""`family pick --chain`: which general model, which submodels and which thresholds, by what they answered and how long they take. Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.bounds import ONE_SIDED
from benchmarks.candidates import NoMember
from benchmarks.chains.evidence import Evidence, General
from benchmarks.chains.mixture import Way, alone, extra, handing_over, is_timed, percentile
from benchmarks.chains.searching import best_within
from benchmarks.measurements import number_at
from family.errors import UserError
from family.evaluation.wilson import wilson

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, None)  # of the general model's probability, above which a submodel is not asked; None: always asked
_EQUAL = 1e-9  # accuracies, and times as a ratio, that differ by less


@dataclass(frozen=True)
class Option:
    """What may be done with the rows of a vertical."""

    submodel: str | None  # sha256; None: the general model answers alone
    threshold: float | None
    gain: float  # of the metric
    asked: float  # share of all rows
    ms: np.ndarray | None  # of the rows that are asked about, float64 ascending


NOBODY = Option(None, None, 0.0, 0.0, None)


@dataclass(frozen=True)
class Beside:
    """The most accurate general model alone within the budget, and how the chain's answers differ from its own."""

    general: str
    accuracy: float
    cost_ms: float
    won: int  # rows that the chain alone has right
    lost: int  # and that it alone has


@dataclass(frozen=True)
class Chosen:
    """A chain with what it is expected to do on rows like these."""

    general: str
    options: dict[str, Option]  # by vertical
    accuracy: float
    p50_ms: float
    cost_ms: float  # the percentile that was asked for, with the shares of slow ways at their upper bounds
    percentile_ms: float
    beside: Beside | None = None


def pick_chain(rows: Sequence[dict], evidence: Evidence, budget_ms: float, percent: float = 99, metric: str = "top1.micro") -> Chosen:
    """Choose the chain with the highest expected accuracy whose percentile is within a budget; of equal ones, the faster.

    Args:
        rows: latency rows of one machine and setting, with `quantiles_ms`, of members that `evidence` knows.
        metric: top1.micro, top1.macro, or levels.K.micro or .macro.

    Raises:
        NoMember: none does; names the fastest.
        UserError: there is no such metric, or no general model was both timed and asked.
    """
    timed = {row["model_sha256"]: row for row in rows if is_timed(row)}
    node_of, weights = _weigh(evidence, metric)
    alone_ms = {sha: alone(timed[sha]) for sha in evidence.generals if sha in timed}
    if not alone_ms:
        raise UserError("no general model was both timed with its stages and asked on validation rows: `family bench BUNDLE... --chains --data DATASET`")
    nobody = dict.fromkeys(evidence.verticals, NOBODY)
    right = {sha: _right(sha, nobody, evidence, node_of) for sha in alone_ms}
    lone = [_expect(float(weights @ right[sha]), sha, nobody, timed, own_ms, len(evidence.truth), percent) for sha, own_ms in alone_ms.items()]
    fastest = min(lone, key=lambda one: (one.cost_ms, one.general))  # a submodel only adds time
    if fastest.cost_ms > budget_ms:
        raise _nothing(fastest, timed, budget_ms, percent)
    best = _most_accurate(evidence, timed, node_of, weights, lone, budget_ms, percent)
    other = min((one for one in lone if one.cost_ms <= budget_ms), key=lambda one: (-one.accuracy, one.cost_ms, one.general))
    of_chain = _right(best.general, best.options, evidence, node_of)
    won, lost = int((of_chain & ~right[other.general]).sum()), int((right[other.general] & ~of_chain).sum())
    return replace(best, beside=Beside(other.general, other.accuracy, other.cost_ms, won, lost))


def _nothing(fastest: Chosen, timed: dict[str, dict], budget_ms: float, percent: float) -> NoMember:
    enough = math.ceil(100 * fastest.cost_ms) / 100
    nearest = {"member": timed[fastest.general].get("member"), "accuracy": fastest.accuracy, "cost_ms": fastest.cost_ms,
               "latency_ms": {"p50": fastest.p50_ms, f"p{percent:g}": fastest.percentile_ms,
                              "upper": fastest.cost_ms if bound_of(timed[fastest.general], percent) is not None else None}}  # fmt: skip
    return NoMember(f"no chain fits p{percent:g} within {budget_ms:,.12g} ms. The fastest takes {enough:,.2f} ms; a budget of {enough:,.2f} ms would do",
                    [{**nearest, "why": f"p{percent:g} may be {enough:,.2f} ms, over {budget_ms:,.12g}"}])  # fmt: skip


def _most_accurate(evidence: Evidence, timed: dict[str, dict], node_of: np.ndarray, weights: np.ndarray, lone: Sequence[Chosen], budget_ms: float,
                   percent: float) -> Chosen:  # fmt: skip
    """Return the most accurate chain, or general model alone, that is within a budget, of equal ones the fastest; one of them is."""
    finders = [_finder(one, evidence, timed, node_of, weights, percent) for one in lone]
    found = [one for one in lone if one.cost_ms <= budget_ms] + [one for find in finders if (one := find(budget_ms, -np.inf))]
    most = max(one.accuracy for one in found) - _EQUAL
    fastest = [one for one in found if one.accuracy >= most]
    for find in finders:
        slowest, best = min(one.cost_ms for one in lone), find(budget_ms, most)
        while best:  # halve what is left between what is too fast for any, and the fastest that was found
            fastest.append(best)
            faster = None
            while faster is None and best.cost_ms - slowest > _EQUAL * best.cost_ms:
                middle = (slowest + best.cost_ms) / 2
                faster = find(middle, most)
                slowest = middle if faster is None else slowest
            best = faster
    return min(fastest, key=lambda one: (one.cost_ms, -one.accuracy, one.general))


def _finder(lone: Chosen, evidence: Evidence, timed: dict[str, dict], node_of: np.ndarray, weights: np.ndarray,
            percent: float) -> Callable[[float, float], Chosen | None]:  # fmt: skip
    """Return what finds the most accurate chain of a general model with submodels within a budget, of an accuracy at least; None where there is none."""
    sha, n, own_ms = lone.general, len(evidence.truth), alone(timed[lone.general])
    margins = {other: _margin([timed[sha], timed[other]], percent) for other in evidence.submodels if other in timed}
    margins[None] = _margin([timed[sha]], percent)
    base, options = _options_of(sha, evidence, timed, node_of, weights, margins)
    with_others_ms = own_ms + handing_over(timed[sha])

    def find(budget_ms: float, least: float) -> Chosen | None:
        for limit_ms in (budget_ms, budget_ms * (1 - _EQUAL)):  # the first may be over by what sums are rounded
            combined = best_within(options, with_others_ms, lambda option: margins[option.submodel], lambda option: _at_most(option.asked, n), limit_ms,
                                   percent / 100, least - base)  # fmt: skip
            if combined is None or not any(option.submodel for option in combined):
                return None  # a general model alone is another thing: nothing is handed over
            gained = base + sum(option.gain for option in combined)
            found = _expect(gained, sha, dict(zip(evidence.verticals, combined, strict=True)), timed, own_ms, n, percent)
            if found.cost_ms <= budget_ms:
                return found
        return None

    return find


def _right(sha: str, options: dict[str, Option], evidence: Evidence, node_of: np.ndarray) -> np.ndarray:
    """Return bool [n], the rows that a chain has right."""
    general = evidence.generals[sha]
    best = general.best.copy()
    for place, name in enumerate(evidence.verticals):
        option = options[name]
        if option.submodel:
            asked = _asked(general, place, option.threshold)
            best[asked] = evidence.submodels[option.submodel].best[asked]
    return node_of[best] == node_of[evidence.truth]


def _asked(general: General, place: int, threshold: float | None) -> np.ndarray:
    """Return bool [n], the rows that go to a vertical and are asked about."""
    return (general.route == place) & (True if threshold is None else general.sure < threshold)


def expect_again(chosen: Chosen, rows: Sequence[dict], asked: dict[str, float], n: int, percent: float) -> Chosen:
    """Return what a chain is expected to take by other latency rows of its members, on other images.

    Args:
        asked: by vertical, the share of the n images that its submodel is asked about.
    """
    timed = {row["model_sha256"]: row for row in rows if is_timed(row)}
    general = timed[chosen.general]
    options = {name: replace(o, ms=_of_asked(general, timed[o.submodel]), asked=asked[name]) if o.submodel else o
               for name, o in chosen.options.items()}  # fmt: skip
    return _expect(chosen.accuracy, chosen.general, options, timed, alone(general), n, percent)


def _weigh(evidence: Evidence, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the node of each class at the metric's level, and what each row counts."""
    *path, kind = metric.split(".")
    level = len(evidence.levels) if path == ["top1"] else int(path[1]) if len(path) == 2 and path[0] == "levels" and path[1].isdecimal() else 0
    if kind not in ("micro", "macro") or not 1 <= level <= len(evidence.levels):
        raise UserError(f"a chain is picked by top1.micro, top1.macro or levels.K.micro or .macro, K from 1 to {len(evidence.levels)}; got {metric!r}")
    node_of = evidence.levels[level - 1]
    truth = node_of[evidence.truth]
    counts = np.bincount(truth)
    weights = np.ones(len(truth)) / len(truth) if kind == "micro" else 1 / counts[truth] / np.count_nonzero(counts)
    return node_of, weights


def _expect(accuracy: float, sha: str, options: dict[str, Option], timed: dict[str, dict], own_ms: np.ndarray, n: int, percent: float) -> Chosen:
    asked = [option for option in options.values() if option.submodel]
    own_ms = own_ms + handing_over(timed[sha]) if asked else own_ms
    ways = [Way(max(1 - sum(o.asked for o in asked), 0.0), own_ms), *(Way(o.asked, o.ms) for o in asked)]
    slow = [Way(_at_most(o.asked, n), o.ms) for o in asked]
    careful = [Way(max(1 - sum(way.share for way in slow), 0.0), own_ms), *slow]
    margin = _margin([timed[sha], *(timed[o.submodel] for o in asked)], percent)
    return Chosen(sha, options, accuracy, percentile(ways, 50), percentile(careful, percent) * margin, percentile(ways, percent))


def _options_of(sha: str, evidence: Evidence, timed: dict[str, dict], node_of: np.ndarray, weights: np.ndarray,
                margins: dict[str | None, float]) -> tuple[float, list[list[Option]]]:  # fmt: skip
    """Return what a general model alone reaches, and for each vertical what may be done with its rows, without what another option beats in everything."""
    general, truth = evidence.generals[sha], node_of[evidence.truth]
    right = node_of[general.best] == truth
    found: list[list[Option]] = [[NOBODY] for _ in evidence.verticals]
    for other, submodel in evidence.submodels.items():
        if other not in timed:
            continue
        place = evidence.verticals.index(submodel.vertical)
        ms, own = _of_asked(timed[sha], timed[other]), node_of[submodel.best] == truth
        better = weights * (own.astype(float) - right)
        for threshold in THRESHOLDS:
            rows = _asked(general, place, threshold)
            found[place].append(Option(other, threshold, float(better[rows].sum()), float(rows.mean()), ms))
    return float((weights * right).sum()), [_unbeaten(options, margins) for options in found]


def _unbeaten(options: list[Option], margins: dict[str | None, float]) -> list[Option]:
    """Leave out what gains no more than another that asks no more often, is never slower and has no larger margin."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda option: (-option.gain, option.asked)):
        if not any(other.asked <= option.asked and margins[other.submodel] <= margins[option.submodel] and _is_never_slower(other, option) for other in kept):
            kept.append(option)
    return kept


def _is_never_slower(one: Option, other: Option) -> bool:
    return one.ms is None or one.ms is other.ms or (other.ms is not None and bool((one.ms <= other.ms).all()))


def _of_asked(general: dict, submodel: dict) -> np.ndarray:
    """Return float64 [N_DRAWN], ascending: what rows take that a submodel is asked about."""
    return np.sort(alone(general) + handing_over(general) + extra(general, submodel))


def _at_most(share: float, n: int) -> float:
    """Return Wilson's one-sided 95 % upper bound of a share of n rows; of none, none is asked."""
    return wilson(share, n, ONE_SIDED)[1] if share else 0.0


def bound_of(row: dict, percent: float) -> float | None:
    """Return the upper bound of a percentile of a member, None where it has none: INVALID rows of few samples, and those of old versions."""
    return number_at(row, "latency_ms", "uppers", f"p{percent:g}")


def _margin(rows: Sequence[dict], percent: float) -> float:
    """Return how far the bound of the percentile is above it, of the member where it is furthest; of members without a bound, 1."""
    ratios = [1.0]
    for row in rows:
        upper, value = bound_of(row, percent), number_at(row, "latency_ms", f"p{percent:g}")
        if upper and value:
            ratios.append(upper / value)
    return max(ratios)
