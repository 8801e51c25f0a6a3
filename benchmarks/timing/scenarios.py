"""How requests come, as MLPerf Inference tells them apart: one after another, several images at once, at random times, or all at once.

*Source*: Reddi et al. 2020, MLPerf Inference Benchmark, section IV, and its rules since version 2.0, by which multi-stream is queries of several images one
after another. It asks for at least 60 s of each; how long is a matter of `Plan` here. Warming up, turns and faults are ours.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.timing.pipeline import Pipeline
from benchmarks.timing.trust import Turn, between, read_counters
from family.progress import progress

TURN = 50  # queries of one member before the next has its turn: shorter turns would time cold caches
_WARM_TURN, _LEAST_WARM, _MOST_WARM, _STEADY = 10, 20, 200, 0.05
_OFFLINE_ROUNDS, _OFFLINE_S = 3, 0.35


@dataclass(frozen=True)
class Plan:
    """How long a member is timed."""

    n: int = 400  # queries, at least
    min_s: float = 2.0  # seconds, at least


def warm(pipeline: Pipeline, queries: Sequence, clock: Callable = time.perf_counter) -> tuple[int, bool]:
    """Answer queries until two turns in a row are equally fast; return how many that took, and whether they ever were."""
    before = np.inf
    for n in range(_WARM_TURN, _MOST_WARM + 1, _WARM_TURN):
        now = float(np.median([sum(answer_query(pipeline, queries[(n - k) % len(queries)], clock)) for k in range(_WARM_TURN, 0, -1)]))
        if n >= _LEAST_WARM and abs(now - before) <= _STEADY * before:
            return n, True
        before = now
    return _MOST_WARM, False


def time_members(pipelines: Sequence[Pipeline], queries: Sequence[Sequence], plan: Plan = Plan(), clock: Callable = time.perf_counter,
                 read: Callable = read_counters, look: Callable = lambda member: None) -> list[Turn]:  # fmt: skip
    """Time members one query at a time (a single stream; of several images a query, MLPerf's multi-stream), in turns whose order is drawn anew each round.

    A member that has had its number and its time leaves the rounds.

    Args:
        queries: for each member, what its first stage takes; they go round.
        read: gives Counters.
        look: is called with the member behind each of its turns.
    """
    turns: list[Turn] = []
    last: int | None = None
    counts, spent = [0] * len(pipelines), [0.0] * len(pipelines)
    for round_ in progress(_until_enough(counts, spent, plan), "timing", unit="rounds"):
        members = [m for m in range(len(pipelines)) if counts[m] < plan.n or spent[m] < plan.min_s]
        random.Random(round_).shuffle(members)
        for m in members:
            stages: list[list[float]] = []
            # Not of the samples: its caches are those of the one before. It tells what a query takes that comes now and then.
            first = answer_query(pipelines[m], queries[m][counts[m] % len(queries[m])], clock)
            cold = {stage: 1000 * s for stage, s in zip(pipelines[m], first, strict=True)} if last not in (None, m) else {}
            last = m
            before, began = read(), clock()
            for _ in range(min(TURN, plan.n - counts[m]) if counts[m] < plan.n else TURN):
                stages.append(answer_query(pipelines[m], queries[m][counts[m] % len(queries[m])], clock))
                counts[m] += 1
            spent[m] += clock() - began
            samples = dict(zip(pipelines[m], 1000 * np.array(stages).T, strict=True))
            turns.append(Turn(m, began, samples, between(before, read()), cold))
            look(m)
    return turns


def _until_enough(counts: list[int], spent: list[float], plan: Plan):
    round_ = 0
    while any(n < plan.n or s < plan.min_s for n, s in zip(counts, spent, strict=True)):
        yield round_
        round_ += 1


def answer_query(pipeline: Pipeline, query, clock: Callable) -> list[float]:
    """Return the seconds of each stage."""
    took, value, began = [], query, clock()
    for stage in pipeline.values():
        value = stage(value)
        ended = clock()
        took.append(ended - began)
        began = ended
    return took


def time_offline(answers: Sequence[Callable], batches: Sequence[Sequence[tuple[int, object]]], clock: Callable = time.perf_counter,
                 read: Callable = read_counters) -> list[list[list[Turn]]]:  # fmt: skip
    """Return the turns of each callable with each of its batches, of which a sample is a batch; all take turns.

    Args:
        batches: for each callable, (number of images, what it takes).
    """
    pairs = [(m, b) for m in range(len(answers)) for b in range(len(batches[m]))]
    found: dict[tuple[int, int], list[Turn]] = {pair: [] for pair in pairs}
    turns = [pair for round_ in range(_OFFLINE_ROUNDS) for pair in random.Random(round_).sample(pairs, len(pairs))]
    for m, b in progress(turns, "throughput", unit="turns"):
        images = batches[m][b][1]
        answers[m](images)
        before, began, ends = read(), clock(), []
        while not ends or ends[-1] - began < _OFFLINE_S:
            answers[m](images)
            ends.append(clock())
        found[m, b].append(Turn(pairs.index((m, b)), began, {"batch": 1000 * np.diff([began, *ends])}, between(before, read())))
    return [[found[m, b] for b in range(len(batches[m]))] for m in range(len(answers))]
