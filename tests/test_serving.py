"""The server scenario against queues that are known exactly: the waiting times of even service times under random arrivals (M/D/1)."""

import math
import threading

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
from benchmarks.timing.gpu import Watch  # noqa: E402
from benchmarks.timing.members import Member  # noqa: E402
from benchmarks.timing.rows import _server_row  # noqa: E402
from benchmarks.timing.scenarios import Plan  # noqa: E402
from benchmarks.timing.serving import MOST_S, TURNS, Load, arrivals, plan_load, probe, queries_needed, relaxation, serve, serve_members  # noqa: E402
from benchmarks.timing.statistics import MIN_SAMPLES, effective_number, summarize  # noqa: E402
from benchmarks.timing.trust import Counters  # noqa: E402

SERVICE_MS = 10.0


class Clock:
    """Time goes on when somebody works or sleeps."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def go_on(self, seconds: float) -> None:
        self.now += seconds

    def pipeline(self, ms: float = SERVICE_MS) -> dict:
        return {"answer": lambda query: self.go_on(ms / 1000)}


def served(rates: list[float], n: int, n_transient: int = 0) -> list[list[np.ndarray]]:
    """Return of each member the waiting times of its turns, one worker each."""
    return [[waited for waited, _ in own] for own in serve_all(rates, n, n_transient)]


def serve_all(rates: list[float], n: int, n_transient: int = 0) -> list[list[tuple]]:
    clock, loads = Clock(), [Load(rate, n, n_transient, 1) for rate in rates]
    return serve_members([clock.pipeline()] * len(rates), [[0]] * len(rates), loads, clock, clock.go_on, lambda: Counters(clock.now, 0.0, None, None, None))


def exact_p99_ms(utilization: float) -> float:
    """Return p99 of waiting and service. *Source*: Erlang 1909, the distribution of waiting times of M/D/1, as in Tijms 2003, section 9.6.2."""

    def at_most(t: float) -> float:
        parts = ((-utilization * (t - k)) ** k / math.factorial(k) * math.exp(utilization * (t - k)) for k in range(int(t) + 1))
        return (1 - utilization) * sum(parts)

    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if at_most(middle) >= 0.99 else (middle, high)
    return SERVICE_MS * (1 + low)


def waiting(utilization: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return float64 [n] times of a queue that begins empty, by Lindley's recursion, in units of the service time."""
    steps = np.concatenate([[0.0], np.cumsum(1 - rng.exponential(1 / utilization, n - 1))])
    return 1 + steps - np.minimum.accumulate(steps)


@pytest.mark.parametrize("utilization", [0.5, 0.8])
def test_the_p99_of_a_server_is_that_of_the_queue(utilization):
    (turns,) = served([100 * utilization], 100_000, 1000)
    found, true = float(np.percentile(np.concatenate(turns), 99)), exact_p99_ms(utilization)
    assert found == pytest.approx(true, rel=0.04), "of 100,000 queries the percentile itself is off by 2 %"
    begun_anew = [SERVICE_MS * waiting(utilization, 100, np.random.default_rng(k)) for k in range(1000)]
    assert np.percentile(np.concatenate(begun_anew), 99) < (0.99 if utilization == 0.5 else 0.9) * true, "turns of 100 that begin empty are too fast"


def test_a_queue_goes_on_from_turn_to_turn_whoever_else_has_turns():
    alone = np.concatenate(served([80], 4000)[0])
    together = served([80, 50, 95], 4000)
    assert [len(turns) for turns in together] == [TURNS] * 3
    assert np.concatenate(together[0]) == pytest.approx(alone), "its arrivals stand still while others have their turns"
    due, expected = arrivals(80, 4000), [SERVICE_MS]
    for k in range(1, 4000):
        expected.append(max(0.0, expected[-1] - 1000 * (due[k] - due[k - 1])) + SERVICE_MS)
    assert alone == pytest.approx(expected)


def test_what_was_due_before_a_turn_begins_is_in_the_queue():
    clock = Clock()
    waited, took, (free_s,) = serve(clock.pipeline(), [0], np.array([0.0, 0.02, 0.1]), [0.05], clock, clock.go_on)
    assert free_s == pytest.approx(0.11)
    assert waited == pytest.approx([60, 50, 10]) and took == pytest.approx([10, 10, 10])


def test_a_worker_that_is_still_busy_takes_no_query_and_holds_nobody_up():
    """The second worker is free late: it sleeps until the first has answered all there is."""
    answered, by = threading.Event(), []

    def answer(query: int) -> None:
        by.append(threading.get_ident())
        if len(by) == 5:
            answered.set()

    _, _, (first, second) = serve({"answer": answer}, range(5), np.zeros(5), [2.0, 9.0], sleep=lambda seconds: answered.wait(60))
    assert len(set(by)) == 1 and first >= 2.0 and second == 9.0


def test_the_queries_before_the_steady_state_are_left_out():
    everything, (turns,) = np.concatenate(served([80], 4000)[0]), served([80], 3000, 1000)
    assert np.concatenate(turns) == pytest.approx(everything[1000:]) and len(turns) == TURNS - 2
    assert relaxation(0.5) == pytest.approx(5.8, abs=0.1) and relaxation(0.8) == pytest.approx(72, abs=1) and relaxation(0.95) > 1000


@pytest.mark.parametrize(("utilization", "n"), [(0.2, 844), (0.5, 2700), (0.8, 20_000)])
def test_as_many_queries_as_are_asked_for_bound_p99_and_the_bound_covers(utilization, n):
    rng, true, bounds = np.random.default_rng(0), exact_p99_ms(utilization), []
    assert queries_needed(utilization) == pytest.approx(n, rel=0.05)
    for _ in range(150 if utilization < 0.8 else 60):
        samples = SERVICE_MS * waiting(utilization, n + 1000, rng)[1000:]
        bounds.append(summarize(samples, effective_number([samples]))["upper"])
    known = [bound for bound in bounds if bound is not None]
    assert len(known) >= 0.8 * len(bounds) and np.mean(np.array(known) >= true) >= 0.93


@pytest.mark.parametrize(("rate", "n", "told"), [(80, 3000, "--samples "), (20, 3000, None), (120, 400, "120 requests/s are more than 1 workers answer")])
def test_a_row_tells_its_utilization_and_how_many_queries_it_lacks(rate, n, told):
    fixed = {"machine": {"cores": 1}, "threads": 1, "agreement": 1.0, "provider": "cpu", "placement": {"convolutions": {"cpu": 3}}}
    (own,) = serve_all([rate], n, 100)
    row = _server_row(Member(fixed, {}, []), Load(rate, n, 100, 1), own, [turn for _, turn in own], (20, True), Watch(False))
    assert row["utilization"] == pytest.approx(rate / 100) and (row["n"], row["transient"], row["workers"], row["turns"]) == (n, 100, 1, len(own))
    assert row["latency_ms"]["p99"] == np.percentile(np.concatenate([waited for waited, _ in own]), 99)
    assert row["valid"] == (told is None) and (told is None or told in row["invalid_because"])
    if told == "--samples ":
        assert row["latency_ms"]["upper"] is None and row["n_effective"] < MIN_SAMPLES
        assert 15_000 < int(row["invalid_because"].split("--samples ")[1].split(",")[0]) < 60_000
        assert f"at a utilization of 0.80 tell as much as {row['n_effective']} independent ones" in row["invalid_because"]


def test_a_load_is_as_long_as_a_bound_wants_within_a_minute_and_not_longer_where_nothing_helps():
    assert plan_load(50, Plan(400, 2), 1, 0.5) == Load(50, 2700, 18, 1)
    assert plan_load(5, Plan(400, 2), 2, 0.5).n == 400 and plan_load(80, Plan(400, 2), 1, 0.8).n == 80 * MOST_S
    assert plan_load(80, Plan(400, 600), 1, 0.8).n == 48_000 and plan_load(80, Plan(10**5, 2), 1, 0.8).n == 10**5
    assert plan_load(150, Plan(400, 2), 1, 1.5) == Load(150, 400, 0, 1), "a queue that grows has no steady state"
    assert plan_load(1, Plan(MIN_SAMPLES, 0), 1, 0.01).n == MIN_SAMPLES


def test_the_load_is_probed_with_all_workers_busy():
    clock = Clock()
    assert probe(clock.pipeline(), [0], 50, 1, clock) == pytest.approx(0.5) and clock.now == pytest.approx(0.4)
