"""Latency: members in turns, and statistics that are what they are called."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.boards import boards
from benchmarks.measurements import read_rows
from export.bundle import open_bundle, sha256_of, write_samples
from family.cli import is_done, main
from family.data.dataset import open_dataset
from family.data.importing import import_dataset
from family.outputs import read_json

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
from benchmarks.latency import BLOCK, MIN_SAMPLES, WARMUP, measure_throughput, summarize, time_members, upper_bound  # noqa: E402


class Clock:
    """Time goes on only when somebody works."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def worker(name: str, clock: Clock, decode_ms: float, model_ms: float, calls: list):
    """Return a predictor that takes its time on a fake clock and notes each call."""

    def decode(data):
        clock.now += decode_ms / 1000
        return data

    def predict(pixels):
        clock.now += model_ms / 1000
        calls.append((name, pixels))

    return SimpleNamespace(decode=decode, predict=predict, predict_bytes=lambda data: predict(decode(data)))


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=500))
def test_percentiles_are_numpys(samples):
    samples = np.array(samples)
    found = summarize(samples)
    for q in (50, 90, 95, 99):
        assert found[f"p{q}"] == pytest.approx(np.percentile(samples, q))
    assert found["mean"] == pytest.approx(np.mean(samples))
    assert (found["upper"] is None) == (len(samples) < 299)
    if found["upper"] is not None:
        assert found["p50"] <= found["p90"] <= found["p95"] <= found["p99"] * (1 + 1e-12) and found["p99"] <= found["upper"] * (1 + 1e-12)
        assert found["upper"] in samples


def bound_by_hand(n: int, quantile: float, confidence: float) -> int | None:
    """Return the smallest k with P(Binomial(n, quantile) < k) >= confidence, in whole numbers of exact binomials."""
    below = 0.0
    for k in range(1, n + 1):
        below += math.comb(n, k - 1) * quantile ** (k - 1) * (1 - quantile) ** (n - k + 1)
        if below >= confidence:
            return k
    return None


@pytest.mark.parametrize("n", [1, 10, 50, 58, 59, 100, 298, 299, 300, 400, 473, 700])
@pytest.mark.parametrize("quantile", [0.5, 0.95, 0.99])
def test_the_bound_is_the_smallest_order_statistic_that_is_sure(n, quantile):
    samples = np.random.default_rng(n).permutation(n) + 1.0  # the k-th smallest is k
    assert upper_bound(samples, quantile) == bound_by_hand(n, quantile, 0.95)


def test_fewer_than_the_least_number_of_samples_bound_nothing():
    assert upper_bound(np.arange(MIN_SAMPLES), 0.99) is not None and 1 - 0.99**MIN_SAMPLES >= 0.95
    assert upper_bound(np.arange(298), 0.99) is None


@pytest.mark.parametrize(("n", "quantile"), [(400, 0.99), (1000, 0.99), (60, 0.9)])
def test_the_bound_holds_as_often_as_it_says(n, quantile):
    rng = np.random.default_rng(0)
    truth = np.exp(0.5 * {0.99: 2.3263478740, 0.9: 1.2815515655}[quantile])  # the quantile of a log-normal
    held = np.mean([upper_bound(np.exp(0.5 * rng.normal(size=n)), quantile) >= truth for _ in range(1500)])
    k = bound_by_hand(n, quantile, 0.95)
    exact = sum(math.comb(n, j) * quantile**j * (1 - quantile) ** (n - j) for j in range(k))
    assert exact >= 0.95 and held == pytest.approx(exact, abs=0.02) and held > 0.93


@pytest.mark.parametrize("n", [300, 333, 400])
def test_stages_are_timed_apart_and_members_take_turns(n):
    clock, calls = Clock(), []
    members = [worker("a", clock, 2, 7, calls), worker("b", clock, 1, 30, calls), worker("c", clock, 0.5, 4, calls)]
    images = [[b"1", b"2", b"3"], [b"4"], [b"5", b"6"]]
    found = time_members(members, images, n, clock)
    for samples, decode, model in zip(found, (2, 1, 0.5), (7, 30, 4), strict=True):
        assert samples["decode"] == pytest.approx([decode] * n) and samples["model"] == pytest.approx([model] * n)
    timed = calls[3 * WARMUP :]
    assert [name for name, _ in calls[: 3 * WARMUP]] == ["a"] * WARMUP + ["b"] * WARMUP + ["c"] * WARMUP
    turns = [name for k, (name, _) in enumerate(timed) if k == 0 or timed[k - 1][0] != name]
    assert len(timed) == 3 * n and len(turns) >= 2 * math.ceil(n / BLOCK)
    for start in range(0, 3 * BLOCK * (n // BLOCK), 3 * BLOCK):  # in each round everyone has a turn, in an order that changes
        assert {name for name, _ in timed[start : start + 3 * BLOCK]} == {"a", "b", "c"}
    assert len({tuple(name for name, _ in timed[s : s + 3 * BLOCK : BLOCK]) for s in range(0, 3 * n - 3 * BLOCK, 3 * BLOCK)}) > 1
    assert [data for name, data in timed if name == "a"] == [images[0][k % 3] for k in range(n)]


def test_a_slow_image_shows_in_the_tail():
    clock, calls = Clock(), []
    member = worker("a", clock, 0, 5, calls)
    slow = worker("a", clock, 0, 500, calls)
    member.predict = lambda pixels, fast=member.predict: (slow if pixels == b"slow" else SimpleNamespace(predict=fast)).predict(pixels)
    (found,) = time_members([member], [[b"fast"] * 49 + [b"slow"]], 400, clock)
    assert sorted(set(found["model"].round(6))) == [5, 500] and np.sum(found["model"] > 100) == 8
    assert summarize(found["model"])["p50"] == pytest.approx(5) and summarize(found["model"])["p99"] == pytest.approx(500)


def test_throughput_is_images_over_time():
    calls = []
    member = SimpleNamespace(decode=lambda data: np.zeros((1, 2, 2, 3), np.uint8), predict=lambda pixels: calls.append(len(pixels)))
    found = measure_throughput(member, [b"x", b"y"], 8, seconds=0.02)
    assert found["batch"] == 8 and set(calls) == {8}
    assert found["images_per_s"] >= 8 * (len(calls) - 1) / 0.5


@pytest.fixture(scope="module")
def benched(tmp_path_factory, write_source, write_bundle):
    """A bundle, a dataset of its tree, and what `family bench` wrote of them."""
    folder = tmp_path_factory.mktemp("benched")
    rows = [{"listing_id": str(k), "image": f"{k}.jpg", "category": ("cat", "dog", "art")[k % 3], "split": "test"} for k in range(30)]
    import_dataset(write_source(folder / "src", rows), folder / "data")
    write_bundle(folder / "bundle", open_dataset(folder / "data").ontology, schemes=("fp32", "int8"))
    words = ["bench", str(folder / "bundle"), "--out", str(folder / "r.jsonl"), "--samples", "300", "--machine", "desk"]
    assert main([*words, "--data", str(folder / "data")]) == 0
    return folder, words


def test_bench_writes_measurements_that_are_read_and_joined(benched):
    folder, _ = benched
    rows = read_rows([folder / "r.jsonl"])
    wanted = [(kind, scheme) for kind in ("accuracy", "latency") for scheme in ("fp32", "int8")]
    assert sorted((row["kind"], row["scheme"]) for row in rows) == wanted
    assert {row["model_sha256"] for row in rows} == {sha256_of(folder / f"bundle/model.{scheme}.onnx") for scheme in ("fp32", "int8")}
    (board,) = boards(rows)
    assert [member["comparable"] for member in board["members"]] == [True, True]
    latency = next(row for row in rows if row["kind"] == "latency")
    assert [latency[key] for key in ("n", "batch", "threads", "provider")] == [300, 1, 1, "cpu"] and latency["machine"]["name"] == "desk"
    assert latency["valid"] and latency["agreement"] == 1 and latency["latency_ms"]["p50"] <= latency["latency_ms"]["upper"]


def test_bench_measures_the_accuracy_that_evaluate_does(benched):
    folder, _ = benched
    assert main(["evaluate", str(folder / "bundle"), str(folder / "data"), "--out", str(folder / "evaluated")]) == 0
    row = next(row for row in read_rows([folder / "r.jsonl"]) if row["kind"] == "accuracy")
    assert {**read_json(folder / "evaluated/metrics.json"), "n_listings": 30} == row["metrics"] and row["n"] == 30


def test_measured_again_replaces_and_wrong_answers_are_invalid(benched, capsys):
    folder, words = benched
    bundle = folder / "bundle"
    images, answers = open_bundle(bundle).samples("fp32")
    write_samples(bundle, images, {"fp32": answers[:, ::-1]})
    assert main([words[0], str(bundle), *words[2:], "--scheme", "fp32", "--json"]) == 0
    write_samples(bundle, images, {"fp32": answers, "int8": answers})
    (printed,) = json.loads(capsys.readouterr().out)["rows"]
    rows = [row for row in read_rows([folder / "r.jsonl"]) if row["kind"] == "latency"]
    assert sorted(row["scheme"] for row in rows) == ["fp32", "int8"] and printed in rows
    assert not printed["valid"] and "agree with the stored ones in" in printed["invalid_because"]


def test_too_few_samples_make_a_row_invalid_and_are_not_done(benched, capsys):
    folder, words = benched
    few = [*words[:2], "--out", str(folder / "few.jsonl"), "--samples", "20", "--machine", "desk", "--scheme", "fp32"]
    assert main(few) == 0 and "INVALID: 20 images can't bound p99: --samples 300" in capsys.readouterr().out
    (row,) = read_rows([folder / "few.jsonl"])
    assert not row["valid"] and row["latency_ms"]["upper"] is None and row["latency_ms"]["p50"] > 0
    ((member,),) = [board["members"] for board in boards([row])]
    assert "INVALID" in member["remarks"] and not member["comparable"]
    assert not is_done(few)


def test_no_samples_or_no_such_scheme_is_exit_2(benched, capsys):
    _, words = benched
    assert main([*words, "--samples", "0"]) == 2 and "at least 1" in capsys.readouterr().err
    assert main([*words, "--scheme", "fp61"]) == 2 and "no bundle has the scheme 'fp61'" in capsys.readouterr().err
