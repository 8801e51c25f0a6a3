"""The bounds of percentiles where turns differ: by simulation, with seeds, against the true percentile of all turns that might have been."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.timing.statistics import LEAST_TURNS, _chi_square, _student, summarize, turns_differ, upper_bound, upper_bounds_of_turns

WITHIN, N_TURNS, TURN, DRAWS = 0.1, 8, 50, 300  # spread of the logarithms of a turn's times; as `family bench` times 400 queries


def drawn_turns(rng: np.random.Generator, between: float) -> list[np.ndarray]:
    """Return log-normal times in turns that are slower or faster by log-normal factors."""
    return [np.exp(between * rng.normal() + WITHIN * rng.normal(size=TURN)) for _ in range(N_TURNS)]


def simulate(between: float, quantile: float) -> dict[str, tuple[float, float]]:
    """Return {"turns", "order"}: how often a bound is not below the true quantile, and how far it lies above on average, as a share."""
    rng = np.random.default_rng(0)
    true = float(np.exp(NormalDist().inv_cdf(quantile) * np.hypot(between, WITHIN)))
    found: dict[str, list[float]] = {"turns": [], "order": []}
    for _ in range(DRAWS):
        turns = drawn_turns(rng, between)
        found["turns"] += upper_bounds_of_turns(turns, [quantile])
        found["order"].append(upper_bound(np.concatenate(turns), quantile))
    return {name: (float(np.mean(np.array(bounds) >= true)), float(np.mean(bounds)) / true - 1) for name, bounds in found.items()}


# Of bounds by order alone, and of those that look at turns: covered, and how far above the truth. 300 draws tell 0.95 to 0.025.
@pytest.mark.parametrize(("between", "by_order", "most_wide"), [(0.0, 0.97, 0.08), (0.05, 0.94, 0.14), (0.1, 0.8, 0.25), (0.16, 0.59, 0.45)])
def test_the_bound_of_p99_covers_where_turns_differ(between, by_order, most_wide):
    found = simulate(between, 0.99)
    assert found["turns"][0] >= 0.95 and found["turns"][1] <= most_wide
    assert found["order"][0] == pytest.approx(by_order, abs=0.05), "what order statistics alone would be"


def test_bounds_of_a_median_cover_too():
    found = simulate(0.1, 0.5)
    assert found["turns"][0] >= 0.93 and found["order"][0] < 0.75


def test_turns_that_are_alike_keep_their_order_statistics():
    rng, same, widened = np.random.default_rng(1), 0, []
    for _ in range(DRAWS):
        turns = drawn_turns(rng, 0)
        (bound,), by_order = upper_bounds_of_turns(turns, [0.99]), upper_bound(np.concatenate(turns), 0.99)
        same += bound == by_order
        widened.append(bound / by_order)
    assert same >= 0.7 * DRAWS and 1 <= np.mean(widened) < 1.01 and min(widened) == 1


@pytest.mark.parametrize("n_turns", [1, LEAST_TURNS - 1])
def test_too_few_turns_bound_nothing(n_turns):
    samples = np.random.default_rng(0).exponential(1, 600)
    found = summarize(samples, n_by_turn=[600 // n_turns] * n_turns)
    assert found["upper"] is None and set(found["uppers"].values()) == {None} and found["p99"] == np.percentile(samples, 99)


def test_a_short_last_turn_is_part_of_the_one_before():
    samples = np.concatenate([np.random.default_rng(0).uniform(1, 2, 400), [50.0]])
    assert summarize(samples, n_by_turn=[50] * 8 + [1])["upper"] == summarize(samples, n_by_turn=[50] * 7 + [51])["upper"]


@settings(max_examples=40)
@given(st.lists(st.lists(st.floats(0, 1e5), min_size=50, max_size=50), min_size=6, max_size=9))
def test_bounds_are_never_below_order_statistics_and_rise_with_the_percentile(turns):
    turns = [np.array(turn) for turn in turns]
    found = summarize(np.concatenate(turns), n_by_turn=[len(turn) for turn in turns])["uppers"]
    for name, bound in found.items():
        by_order = upper_bound(np.concatenate(turns), int(name[1:]) / 100)
        assert (bound is None) == (by_order is None) and (bound is None or bound >= by_order)
    known = [bound for bound in found.values() if bound is not None]
    assert known == sorted(known)


def test_whether_turns_differ_is_kruskals_and_wallis_test():
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    rng = np.random.default_rng(0)
    for shift in (0, 0.1, 0.2, 0.5):
        for _ in range(20):
            turns = [(rng.normal(size=20) + shift * rng.normal()).round(1) for _ in range(8)]  # rounded: many are equal
            told = stats.kruskal(*turns).pvalue
            assert turns_differ(turns) == (told < 0.25) or abs(told - 0.25) < 0.01
    assert not turns_differ([np.ones(50)] * 6)


@pytest.mark.parametrize("freedom", [5, 7, 19, 99])
def test_quantiles_of_student_and_chi_square_are_near_the_exact_ones(freedom):
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    assert _student(freedom) == pytest.approx(stats.t.ppf(0.95, freedom), rel=0.01)
    for share in (0.05, 0.75):
        assert _chi_square(freedom, share) == pytest.approx(stats.chi2.ppf(share, freedom), rel=0.02)
