"""MLPerf's server scenario: requests that come at random times, and a queue that goes on from turn to turn, as that of a server does.

*Source*: Reddi et al. 2020, MLPerf Inference Benchmark, section IV. How a queue nears its steady state: Cohen 1982, The Single Server Queue, III.7.3.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.timing.pipeline import Pipeline
from benchmarks.timing.scenarios import Plan, answer_query
from benchmarks.timing.statistics import MIN_SAMPLES
from benchmarks.timing.trust import Turn, between, read_counters
from family.progress import progress

TURNS = 8  # of a member; its arrivals stand still while others have theirs
MOST_S = 60.0  # that a member is timed without being asked for more, as long as MLPerf times at least
_RELAXED = 3  # relaxation times, after which it is forgotten that the queue began empty
_SPARE = 1.5  # what autocorrelations tell is rough
_PROBED = 40  # queries, each worker's


@dataclass(frozen=True)
class Load:
    """What comes at a member: queries a second, how many, and how many of them before the queue is in its steady state."""

    rate: float
    n: int
    n_transient: int
    workers: int


def plan_load(rate: float, plan: Plan, workers: int, utilization: float) -> Load:
    """Return a member's load, long enough to bound p99 where that takes less than MOST_S."""
    if utilization >= 1:
        return Load(rate, max(plan.n, int(rate * plan.min_s)), 0, workers)  # its queue has no steady state
    n = max(plan.n, int(rate * plan.min_s), min(queries_needed(utilization), int(rate * MOST_S)))
    return Load(rate, n, min(math.ceil(_RELAXED * relaxation(utilization)), n), workers)


def relaxation(utilization: float) -> float:
    """Return the queries that come within the time in which the queue of random service times (M/M/1) forgets how it began; even ones forget sooner."""
    return utilization / (1 - math.sqrt(utilization)) ** 2


def queries_needed(utilization: float) -> int:
    """Return how many waiting times tell as much about p99 as MIN_SAMPLES that are independent.

    That of even service times (M/D/1) is worth (1 - u)^2 / (1 + u) of one, to within 10 % from u = 0.1 to 0.9, by simulation.
    """
    return math.ceil(_SPARE * MIN_SAMPLES * (1 + utilization) / (1 - utilization) ** 2)


def probe(pipeline: Pipeline, queries: Sequence, rate: float, workers: int, clock: Callable = time.perf_counter) -> float:
    """Return the utilization that a rate makes, by what answering takes when all workers are busy."""
    _, took, _ = serve(pipeline, queries, np.zeros(_PROBED * workers), [0.0] * workers, clock)
    return rate * float(np.mean(took)) / 1000 / workers


def arrivals(rate: float, n: int, seed: int = 0) -> np.ndarray:
    """Return float64 [n], ascending: the seconds at which queries of a Poisson process come."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, n))


def serve(pipeline: Pipeline, queries: Sequence, due_s: np.ndarray, free_s: Sequence[float] = (0.0,), clock: Callable = time.perf_counter,
          sleep: Callable = time.sleep) -> tuple[np.ndarray, np.ndarray, list[float]]:  # fmt: skip
    """Answer queries that come at given times, in their order, by some workers; return float64 [n] twice, in ms: from when each was due to its answer,
    and what answering it took; and when each worker became free.

    Nobody generates load: a worker that is free takes the next query and waits until it is due, so that one which is late has waited in a queue, and
    counts so. A generator that waited for answers would hide just that.

    Args:
        free_s: when each worker is free, in the time of the arrivals. This begins when the first is and the first query is due;
            what was due before is in the queue already.
    """
    waited, took = np.zeros(len(due_s)), np.zeros(len(due_s))
    lock, order, failed = threading.Lock(), iter(range(len(due_s))), []
    begins_s = max(min(free_s), float(due_s[0]) if len(due_s) else 0.0)
    start, ends_s = clock() - begins_s, list(free_s)

    def work(own: int) -> None:
        try:
            if (ahead := start + free_s[own] - clock()) > 0:
                sleep(ahead)
            while True:
                with lock:
                    k = next(order, None)
                if k is None or failed:
                    return
                ahead = start + due_s[k] - clock()
                if ahead > 0:
                    sleep(ahead)
                began = clock()
                answer_query(pipeline, queries[k % len(queries)], clock)
                ended = clock()
                waited[k], took[k] = 1000 * (ended - start - due_s[k]), 1000 * (ended - began)
                ends_s[own] = ended - start
        except BaseException as error:  # of a thread, which would be lost
            failed.append(error)

    workers = [threading.Thread(target=work, args=(own,), daemon=True) for own in range(len(free_s))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise failed[0]
    return waited, took, ends_s


def serve_members(pipelines: Sequence[Pipeline], queries: Sequence[Sequence], loads: Sequence[Load], clock: Callable = time.perf_counter,
                  sleep: Callable = time.sleep, read: Callable = read_counters, look: Callable = lambda member: None) -> list[list[tuple]]:  # fmt: skip
    """Serve members in turns whose order is drawn anew each round; a member's queue, and the arrivals, go on where its turn before ended.

    Returns:
        For each member [(float64 [n] ms from when each query was due to its answer, Turn)], without the queries before the steady state.
    """
    due = [arrivals(load.rate, load.n_transient + load.n) for load in loads]
    cuts = [np.linspace(0, len(own), TURNS + 1).astype(int) for own in due]
    free_s, found = [[0.0] * load.workers for load in loads], [[] for _ in loads]
    turns = [(m, turn) for turn in range(TURNS) for m in random.Random(turn).sample(range(len(loads)), len(loads))]
    for m, turn in progress(turns, f"{loads[0].rate:g} requests/s", unit="turns"):
        first, end = cuts[m][turn], cuts[m][turn + 1]
        own = [queries[m][k % len(queries[m])] for k in range(first, end)]
        answer_query(pipelines[m], queries[m][first % len(queries[m])], clock)  # untimed: its caches are those of the member before
        before, began = read(), clock()
        waited, took, free_s[m] = serve(pipelines[m], own, due[m][first:end], free_s[m], clock, sleep)
        steady = max(0, loads[m].n_transient - first)
        if steady < end - first:
            found[m].append((waited[steady:], Turn(m, began, {"answer": took[steady:]}, between(before, read()))))
        look(m)
    return found
