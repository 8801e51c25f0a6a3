"""The rows of `family bench`: every file of some bundles in the scenarios that were asked for, with how it was measured. No TensorFlow."""

import argparse
import math
import os

import numpy as np

from benchmarks.boards import LEAST_AGREEMENT
from benchmarks.chains.mixture import quantiles
from benchmarks.machine import describe_machine
from benchmarks.timing.gpu import PROVIDERS as GPU_PROVIDERS
from benchmarks.timing.gpu import Watch
from benchmarks.timing.members import Member, asked_for, open_member
from benchmarks.timing.pipeline import NULL, answering, queries_of, split_at_model
from benchmarks.timing.scenarios import Plan, time_members, time_offline, warm
from benchmarks.timing.serving import Load, plan_load, probe, queries_needed, serve_members
from benchmarks.timing.statistics import MIN_SAMPLES, effective_number, summarize
from benchmarks.timing.trust import Turn, conditions, disturbances, faults
from export.speed import interval_of_median
from family.progress import progress

OFFLINE_BATCHES = (1, 8)


def time_bundles(args: argparse.Namespace) -> list[dict]:
    """Time every file and chain in every scenario that was asked for; all members take turns."""
    plan = Plan(args.samples, args.min_seconds)
    overhead = summarize(time_members([NULL], [[None]], Plan(1000, 0))[0].total_ms)["p50"]
    shared = {"machine": describe_machine(args.machine), "overhead_ms": overhead}
    members = [open_member(path, scheme, args, shared) for path, scheme in progress(asked_for(args), "opening", unit="members")]
    rows = []
    for batch in args.batch:
        queries = [queries_of(member.images, batch) for member in members]
        warmup = [warm(member.pipeline, own) for member, own in zip(members, queries, strict=True)]
        watch = _watch(members)
        turns = time_members([member.pipeline for member in members], queries, plan, look=watch.look)
        about = [{**member.fixed, "peak_memory_mb": member.memory_mb.get(batch)} for member in members]
        rows += _rows_of_turns(about, turns, batch, warmup, watch)
        if batch == 1:
            for row, member in zip(rows[-len(members) :], members, strict=True):
                row |= _of_chain(member)  # of the images that were timed, before others are asked about some of them again and again
    rates = _measure_throughput(members, sorted({*OFFLINE_BATCHES, *args.batch}))
    for k, row in enumerate(rows):
        row["throughput"] = rates[k % len(members)]
    for rate in args.rate:
        rows += _serve_all(members, rate, plan)
    return rows


def _watch(members: list[Member]) -> Watch:
    return Watch(any(member.fixed["provider"] in GPU_PROVIDERS for member in members))


def _of_chain(member: Member) -> dict:
    """Return the shares of images that submodels were asked about, and what `pick` expected of a chain that it made; of another member nothing."""
    n = member.asked[""]
    asked = {"asked": {name: member.asked[name] / n for name in member.submodels}} if n else {}
    return asked | ({"predicted_ms": member.predicted_ms} if member.predicted_ms else {})


def _rows_of_turns(about: list[dict], turns: list, batch: int, warmup: list[tuple[int, bool]], watch: Watch) -> list[dict]:
    """Return a row for each member, of single images, or of several a query (MLPerf's multi-stream)."""
    rows = []
    for member, (fixed, warmed) in enumerate(zip(about, warmup, strict=True)):
        own = [turn for turn in turns if turn.member == member]
        total = np.concatenate([turn.total_ms for turn in own])
        stages = {stage: np.concatenate([turn.samples_ms[stage] for turn in own]) for stage in own[0].samples_ms}
        why = _wrong_answers(fixed) + _never_steady(*warmed) + faults(own, turns, fixed["machine"]["cores"], fixed["threads"])
        rows.append({
            **fixed,
            "scenario": "single-stream" if batch == 1 else "multi-stream",
            "batch": batch,
            "n": len(total),
            "warmup": warmed[0],
            "turns": len(own),
            "latency_ms": summarize(total, n_by_turn=[len(turn.total_ms) for turn in own]),
            "stages_ms": {stage: float(np.median(values)) for stage, values in stages.items()},
            **({"quantiles_ms": {stage: quantiles(values) for stage, values in {**stages, "total": total}.items()},
                **_cold(own)} if batch == 1 else {}),
            "against_fp32": _against_fp32(own, turns, fixed, about),
            **_judged(own, why, fixed, watch, member),
        })  # fmt: skip
    return rows


def _cold(turns: list[Turn]) -> dict:
    """Return what a query takes that comes behind others' turns, by stage; nothing of a member that was timed alone."""
    found = [turn.cold_ms for turn in turns if turn.cold_ms]
    return {"cold_ms": {stage: float(np.median([cold[stage] for cold in found])) for stage in found[0]}} if found else {}


def _judged(turns: list[Turn], why: list[str], fixed: dict, watch: Watch, member: int) -> dict:
    """Return what a row ends with: under which conditions it was measured, and why it doesn't count."""
    on_gpu = fixed["provider"] in GPU_PROVIDERS
    why = [*why, *_misplaced(fixed), *(watch.faults(member) if on_gpu else [])]
    told = {**conditions(turns), "load": os.getloadavg()[0], **({"gpu": watch.conditions(member)} if on_gpu else {})}
    return {"conditions": told, "valid": not why, "invalid_because": "; ".join(why) or None}


def _misplaced(fixed: dict) -> list[str]:
    """Return whether convolutions ran elsewhere than on the provider that was to run; TensorRT may leave some to CUDA."""
    where = fixed["placement"]["convolutions"]
    n, fine = sum(where.values()), {fixed["provider"], *(GPU_PROVIDERS if fixed["provider"] == "tensorrt" else ())}
    elsewhere = sum(count for name, count in where.items() if name not in fine)
    return [f"{elsewhere} of {n} convolutions did not run on {fixed['provider']}: it has no kernel for this scheme; try fp32 or fp16"] if elsewhere else []


def _against_fp32(own: list, turns: list, fixed: dict, about: list[dict]) -> dict | None:
    """Return how many times as fast a file is as the fp32 of its own bundle, paired by rounds: {"model_sha256": of the fp32, "ratio", "interval"}; None
    where that was not timed."""
    base = [k for k, other in enumerate(about) if (other["bundle"], other["scheme"]) == (fixed["bundle"], "fp32")]
    if not base or fixed["scheme"] == "fp32":
        return None
    pairs = zip([turn for turn in turns if turn.member == base[0]], own, strict=False)
    ratios = [float(np.median(fp32.total_ms) / np.median(turn.total_ms)) for fp32, turn in pairs]
    return {"model_sha256": about[base[0]]["model_sha256"], "ratio": float(np.median(ratios)), "interval": interval_of_median(ratios)}


def _measure_throughput(members: list[Member], sizes: list[int]) -> list[list[dict]]:
    """Return the throughput of each member in batches (MLPerf's offline scenario): of the models alone, on pixels, and from bytes to answers."""
    answers, batches = [], []
    for member in members:
        queries = [(size, [member.images[k % len(member.images)] for k in range(size)]) for size in sizes]
        pixels_of, models = split_at_model(member.pipeline)
        answers += [models, answering(member.pipeline)]
        batches += [[(size, pixels_of(query)) for size, query in queries], queries]
    turns = time_offline(answers, batches)
    everyone = [turn for own in turns for of_size in own for turn in of_size]
    return [
        [_throughput(member.fixed, size, of_models[k], from_bytes[k], everyone) for k, size in enumerate(sizes)]
        for member, of_models, from_bytes in zip(members, turns[::2], turns[1::2], strict=True)
    ]


def _throughput(fixed: dict, size: int, of_models: list[Turn], from_bytes: list[Turn], everyone: list[Turn]) -> dict:
    def rate(turns: list[Turn]) -> float:
        return round(float(np.median([1000 * size * len(turn.total_ms) / turn.total_ms.sum() for turn in turns])), 2)

    why = [told for turns in (of_models, from_bytes) for told in disturbances(turns, everyone, fixed["machine"]["cores"], fixed["threads"])]
    return {"batch": size, "images_per_s": rate(of_models), "from_bytes_per_s": rate(from_bytes), "valid": not why,
            "invalid_because": "; ".join(dict.fromkeys(why)) or None}  # fmt: skip


def _serve_all(members: list[Member], rate: float, plan: Plan) -> list[dict]:
    """Return a row for each member under requests of one image that come at random times, `rate` a second."""
    watch, pipelines = _watch(members), [member.pipeline for member in members]
    queries = [queries_of(member.images, 1) for member in members]
    warmup = [warm(member.pipeline, own) for member, own in zip(members, queries, strict=True)]
    workers = [max(1, member.fixed["machine"]["cores"] // member.fixed["threads"]) for member in members]
    loads = [plan_load(rate, plan, n, probe(member.pipeline, own, rate, n)) for member, own, n in zip(members, queries, workers, strict=True)]
    found = serve_members(pipelines, queries, loads, look=watch.look)
    everyone = [turn for own in found for _, turn in own]
    return [_server_row(member, load, own, everyone, warmed, watch) for member, load, own, warmed in zip(members, loads, found, warmup, strict=True)]


def _server_row(member: Member, load: Load, own: list[tuple], everyone: list[Turn], warmed: tuple[int, bool], watch: Watch) -> dict:
    fixed, turns, workers = member.fixed, [turn for _, turn in own], load.workers
    waited, took = np.concatenate([waited for waited, _ in own]), np.concatenate([turn.total_ms for turn in turns])
    utilization, n_effective = load.rate * took.mean() / 1000 / workers, effective_number([waited])  # turns go on where the one before ended
    latency = summarize(waited, n_effective)
    why = _wrong_answers(fixed) + _never_steady(*warmed) + faults(turns, everyone, fixed["machine"]["cores"], fixed["threads"] * workers)
    if utilization >= 1:
        why.append(f"{load.rate:g} requests/s are more than {workers} workers answer: give fewer, or more cores")
    elif latency["upper"] is None and len(waited) >= MIN_SAMPLES:
        needed = max(queries_needed(utilization), math.ceil(1.2 * MIN_SAMPLES * len(waited) / n_effective / 100) * 100)
        why.append(f"{len(waited)} waiting times at a utilization of {utilization:.2f} tell as much as {n_effective} independent ones, which can't bound p99: "
                   f"--samples {needed}, or a lower --rate")  # fmt: skip
    return {
        **fixed,
        "peak_memory_mb": None,  # measured on single images, one after another
        "scenario": "server",
        "rate": load.rate,
        "workers": workers,
        "utilization": float(utilization),
        "batch": 1,
        "n": len(waited),
        "n_effective": n_effective,
        "transient": load.n_transient,
        "turns": len(turns),
        "warmup": warmed[0],
        "latency_ms": latency,
        "stages_ms": {"queue": float(np.median(waited - took)), "answer": float(np.median(took))},
        **_judged(turns, why, fixed, watch, turns[0].member),
    }


def _never_steady(n_warm: int, is_steady: bool) -> list[str]:
    return [] if is_steady else [f"not steady after {n_warm} queries to warm up: measure when the machine is idle"]


def _wrong_answers(fixed: dict) -> list[str]:
    """Return why a file's answers don't count, and what to do about it."""
    if fixed["agreement"] >= LEAST_AGREEMENT:
        return []
    return [f"its answers agree with the stored ones in {fixed['agreement']:.1%}: export it anew"]
