"""Latency: scenarios on a clock that goes on only when somebody works, statistics that are what they are called, and what `family bench` writes."""

import json
import math
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.boards import boards, setting_of
from benchmarks.measurements import check_row, lean, read_rows, same_measurement
from benchmarks.pick import pick
from benchmarks.report import write_report
from export.bundle import open_bundle, sha256_of, write_samples
from family.cli import is_done, main
from family.data.dataset import open_dataset
from family.data.importing import import_dataset
from family.machine import cpu_model
from family.outputs import read_json, write_json

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
from benchmarks.timing.gpu import Watch  # noqa: E402
from benchmarks.timing.rows import _rows_of_turns, _throughput  # noqa: E402
from benchmarks.timing.scenarios import TURN, Plan, time_members, time_offline, warm  # noqa: E402
from benchmarks.timing.serving import arrivals, serve  # noqa: E402
from benchmarks.timing.statistics import MIN_SAMPLES, effective_number, summarize, upper_bound  # noqa: E402
from benchmarks.timing.trust import Counters  # noqa: E402


class Clock:
    """Time goes on only when somebody works."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def pipeline(name: str, clock: Clock, calls: list, **stages_ms) -> dict:
    """Return stages that take their time on a fake clock; the last one notes its query. A time may be a function of the query."""

    def stage(which: str, ms):
        def take(query):
            clock.now += (ms(query) if callable(ms) else ms) / 1000
            if which == list(stages_ms)[-1]:
                calls.append((name, query))
            return query

        return take

    return {which: stage(which, ms) for which, ms in stages_ms.items()}


def nothing_known() -> Counters:
    return Counters(0.0, 0.0, None, None, None)


def timed(pipelines, queries, plan, clock) -> list:
    return time_members(pipelines, queries, plan, clock, nothing_known)


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=500))
def test_percentiles_are_numpys(samples):
    samples = np.array(samples)
    found = summarize(samples)
    for q in (50, 90, 95, 99):
        assert found[f"p{q}"] == pytest.approx(np.percentile(samples, q))
    assert found["mean"] == pytest.approx(np.mean(samples))
    assert (found["upper"] is None) == (len(samples) < 299) and found["upper"] == found["uppers"]["p99"]
    assert all(bound is None or bound >= found[name] * (1 - 1e-12) for name, bound in found["uppers"].items())
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
    members = [pipeline(name, clock, calls, decode=a, model=b) for name, a, b in (("a", 2, 7), ("b", 1, 30), ("c", 0.5, 4))]
    queries = [[b"1", b"2", b"3"], [b"4"], [b"5", b"6"]]
    turns = timed(members, queries, Plan(n, 0), clock)
    for member, (decode, model) in enumerate(((2, 7), (1, 30), (0.5, 4))):
        own = [turn for turn in turns if turn.member == member]
        assert np.concatenate([turn.samples_ms["decode"] for turn in own]) == pytest.approx([decode] * n)
        assert np.concatenate([turn.samples_ms["model"] for turn in own]) == pytest.approx([model] * n)
        assert np.concatenate([turn.total_ms for turn in own]) == pytest.approx([decode + model] * n)
    one = TURN + 1  # the first is not timed: its caches are those of the member before
    for start in range(0, 3 * one * (n // TURN), 3 * one):  # in each round everyone has a turn, in an order that changes
        assert {name for name, _ in calls[start : start + 3 * one]} == {"a", "b", "c"}
    assert len({tuple(name for name, _ in calls[s : s + 3 * one : one]) for s in range(0, 3 * one * (n // TURN), 3 * one)}) > 1
    own = [data for name, data in calls if name == "a"]
    timed_ones = [data for k, data in enumerate(own) if k % one]
    assert timed_ones == [queries[0][k % 3] for k in range(n)] and own[0] == timed_ones[0]


def test_the_first_query_of_a_turn_is_not_timed():
    clock, calls = Clock(), []
    members = [pipeline(name, clock, calls, model=lambda _, name=name: 90 if not calls or calls[-1][0] != name else 5) for name in "ab"]
    turns = timed(members, [[0], [0]], Plan(300, 0), clock)
    assert all((turn.total_ms < 6).all() for turn in turns)


def test_a_fast_member_is_timed_long_enough_without_the_slow_one():
    clock, calls = Clock(), []
    members = [pipeline("fast", clock, calls, model=1), pipeline("slow", clock, calls, model=100)]
    timed(members, [[0], [0]], Plan(300, 2.0), clock)
    assert sum(called == "slow" for called, _ in calls) == 300 + 6
    assert sum(called == "fast" for called, _ in calls) in (2000 + 40, 2050 + 41), "2 s, and one turn where they add up to a little less"


def test_warming_ends_when_two_turns_are_equally_fast():
    clock, calls = Clock(), []
    steady = pipeline("a", clock, calls, model=5)
    assert warm(steady, [0], clock) == (20, True)
    n_calls = iter(range(10**6))
    falling = pipeline("a", clock, calls, model=lambda query: 5 + 20 * 0.9 ** next(n_calls))
    n, is_steady = warm(falling, [0], clock)
    assert 40 <= n <= 80 and is_steady
    restless = pipeline("a", clock, calls, model=lambda query: 5 * (1 + next(n_calls) // 10 % 2))
    assert warm(restless, [0], clock) == (200, False)
    n_calls = iter(range(10**6))
    late = pipeline("a", clock, calls, model=lambda query: 5 * (1 + min(next(n_calls), 189) // 10 % 2))
    assert warm(late, [0], clock) == (200, True), "the last turn is like the one before"


def test_a_slow_image_shows_in_the_tail():
    clock, calls = Clock(), []
    member = pipeline("a", clock, calls, model=lambda query: 500 if query == b"slow" else 5)
    turns = timed([member], [[b"fast"] * 49 + [b"slow"]], Plan(400, 0), clock)
    samples = np.concatenate([turn.total_ms for turn in turns])
    assert sorted(set(samples.round(6))) == [5, 500] and np.sum(samples > 100) == 8 and len(samples) == 400
    assert summarize(samples)["p50"] == pytest.approx(5) and summarize(samples)["p99"] == pytest.approx(500)


def test_a_row_holds_what_numpy_makes_of_the_raw_samples():
    clock, calls, rng = Clock(), [], np.random.default_rng(3)
    members = [pipeline(name, clock, calls, decode=lambda _: rng.exponential(2), model=lambda _, base=base: base + rng.exponential(3))
               for name, base in (("fp32", 20), ("int8", 10))]  # fmt: skip
    turns = timed(members, [[0]] * 2, Plan(400, 0), clock)
    about = [{"bundle": "b", "scheme": scheme, "model_sha256": f"sha of {scheme}", "agreement": 1.0, "machine": {"cores": 2}, "threads": 1, "provider": "cpu",
              "placement": {"convolutions": {"cpu": 3}}} for scheme in ("fp32", "int8")]  # fmt: skip
    rows = _rows_of_turns(about, turns, 1, [(20, True), (200, False)], Watch(False))
    for member, row in enumerate(rows):
        raw = np.concatenate([sum(turn.samples_ms.values()) for turn in turns if turn.member == member])
        assert row["n"] == len(raw) == 400 and row["turns"] == 8 and row["stages_ms"].keys() == {"decode", "model"}
        for q in (50, 90, 95, 99):
            assert row["latency_ms"][f"p{q}"] == pytest.approx(np.percentile(raw, q))
            assert row["latency_ms"]["uppers"][f"p{q}"] >= upper_bound(raw, q / 100), "more where turns differ"
    pairs = zip([t for t in turns if t.member == 0], [t for t in turns if t.member == 1], strict=True)
    assert rows[1]["against_fp32"]["ratio"] == pytest.approx(np.median([np.median(a.total_ms) / np.median(b.total_ms) for a, b in pairs]))
    assert rows[0]["against_fp32"] is None and rows[1]["against_fp32"]["interval"][0] > 1.3
    assert rows[1]["against_fp32"]["model_sha256"] == "sha of fp32"


@pytest.mark.parametrize("rate", [20, 60, 95, 150])
def test_a_queue_of_one_worker_is_lindleys(rate):
    """Waiting by Lindley's recursion: what is left of the one before's waiting and service when the next comes."""
    clock, calls, rng = Clock(), [], np.random.default_rng(0)
    service = rng.uniform(5, 15, 400)  # 10 ms: 100 a second

    def sleep(seconds: float) -> None:
        clock.now += seconds

    due = arrivals(rate, 400)
    waited, took, _ = serve(pipeline("a", clock, calls, answer=lambda k: service[k]), range(400), due, [0.0], clock, sleep)
    assert took == pytest.approx(service) and [k for _, k in calls] == list(range(400))
    expected = [service[0]]
    for k in range(1, 400):
        expected.append(max(0.0, expected[-1] - 1000 * (due[k] - due[k - 1])) + service[k])
    assert waited == pytest.approx(expected)
    assert (np.median(waited) > 100) == (rate > 100), "more than it can answer queues up without end"


def test_waiting_times_count_as_fewer_samples_and_their_bound_is_wider():
    rng = np.random.default_rng(0)
    free = [rng.exponential(1, 400) for _ in range(4)]
    assert 1000 < effective_number(free) <= 1600
    alike = []
    for _ in range(4):  # each 0.9 of the one before: (1 - 0.9) / (1 + 0.9) of them are worth as much
        x, own = 0.0, []
        for e in rng.normal(size=400):
            x = 0.9 * x + e
            own.append(x)
        alike.append(np.array(own))
    assert effective_number(alike) == pytest.approx(1600 * 0.1 / 1.9, rel=0.4)
    samples = np.arange(1.0, 1001)
    assert upper_bound(samples, 0.9) == bound_by_hand(1000, 0.9, 0.95) < upper_bound(samples, 0.9, n_effective=100) == 10 * bound_by_hand(100, 0.9, 0.95)
    assert upper_bound(samples, 0.99, n_effective=298) is None


def test_arrivals_are_a_poisson_process_that_a_seed_fixes():
    gaps = np.diff(arrivals(50, 20_000))
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03) and gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert (arrivals(50, 100) == arrivals(50, 100)).all() and not (arrivals(50, 100, seed=1) == arrivals(50, 100)).any()


def test_workers_answer_at_the_same_time_and_a_failure_is_told():
    both = threading.Barrier(2, timeout=20)  # that one worker would wait at for ever
    waited, took, _ = serve({"answer": lambda k: both.wait()}, range(4), np.zeros(4), [0.0, 0.0])
    assert (waited >= took - 1e-6).all() and len(took) == 4
    with pytest.raises(ZeroDivisionError):
        serve({"answer": lambda k: 1 // 0}, range(4), np.zeros(4), [0.0, 0.0])


def test_throughput_is_images_over_time_in_turns():
    clock, calls = Clock(), []

    def model(name: str, ms: float):
        def predict(images):
            calls.append(name)
            clock.now += ms / 1000 * len(images)

        return predict

    batches, everyone = [[(n, [b"photo"] * n) for n in (1, 8)]] * 2, []
    turns = time_offline([model("a", 5), model("b", 20)], batches, clock, nothing_known)
    everyone = [turn for own in turns for of_size in own for turn in of_size]
    fixed = {"machine": {"cores": 2}, "threads": 1}
    found = [[_throughput(fixed, n, own[k], own[k], everyone) for k, n in enumerate((1, 8))] for own in turns]
    assert [[row["images_per_s"] for row in own] for own in found] == [[200.0, 200.0], [50.0, 50.0]]
    assert all(row["valid"] and row["images_per_s"] == row["from_bytes_per_s"] for own in found for row in own)
    assert len([k for k in range(1, len(calls)) if calls[k] != calls[k - 1]]) >= 3


def test_throughput_beside_a_busy_neighbour_is_invalid_and_stands_on_no_board():
    clock, neighbour = Clock(), 0.9
    busy = lambda: Counters(clock.now, clock.now, (1 + neighbour) * clock.now, None, None)  # noqa: E731
    turns = time_offline([lambda images: setattr(clock, "now", clock.now + 0.01)], [[(1, [0])]], clock, busy)
    row = _throughput({"machine": {"cores": 2}, "threads": 1}, 1, turns[0][0], turns[0][0], turns[0][0])
    assert row["images_per_s"] == 100 and not row["valid"] and row["invalid_because"].count("other processes used 0.9 of 2 cores") == 1
    names = {"member": "a", "variant": "b0", "scope": "general", "scheme": "fp32", "model_sha256": "1"}
    latency = {"schema": 2, "kind": "latency", **names, "machine": {"name": "desk"}, "latency_ms": {"p50": 1.0, "upper": 2.0}}
    for throughput, best in (([row], None), ([row, {**row, "batch": 8, "images_per_s": 50, "valid": True}], 50)):
        assert boards([{**latency, "throughput": throughput}])[0]["members"][0]["images_per_s"] == best


@pytest.fixture(scope="module")
def benched(tmp_path_factory, write_source, write_bundle):
    """A bundle, a dataset of its tree, and what `family bench` wrote of them."""
    folder = tmp_path_factory.mktemp("benched")
    rows = [{"listing_id": str(k), "image": f"{k}.jpg", "category": ("cat", "dog", "art")[k % 3], "split": "test"} for k in range(30)]
    import_dataset(write_source(folder / "src", rows), folder / "data")
    write_bundle(folder / "bundle", open_dataset(folder / "data").ontology, schemes=("fp32", "int8"))
    words = ["bench", str(folder / "bundle"), "--out", str(folder / "r.jsonl"), "--samples", "300", "--min-seconds", "0", "--machine", "desk"]
    assert main([*words, "--data", str(folder / "data")]) == 0
    return folder, words


def test_bench_writes_measurements_that_are_read_and_joined(benched):
    folder, _ = benched
    rows = read_rows([folder / "r.jsonl"])
    assert {row["schema"] for row in rows} == {2}
    wanted = [(kind, scheme) for kind in ("accuracy", "latency") for scheme in ("fp32", "int8")]
    assert sorted((row["kind"], row["scheme"]) for row in rows) == wanted
    assert {row["model_sha256"] for row in rows} == {sha256_of(folder / f"bundle/model.{scheme}.onnx") for scheme in ("fp32", "int8")}
    (board,) = boards([{**row, "valid": True} for row in rows])  # this machine may have other work
    assert len(board["members"]) == 2 and not any("INVALID" in member["remarks"] for member in board["members"])
    latency = next(row for row in rows if row["kind"] == "latency")
    assert [latency[key] for key in ("scenario", "batch", "threads", "provider")] == ["single-stream", 1, 1, "cpu"]
    assert latency["machine"]["name"] == "desk" and latency["n"] >= 300 and latency["warmup"] >= 20
    assert latency["agreement"] == 1 and latency["latency_ms"]["p50"] <= latency["latency_ms"]["upper"]
    assert list(latency["stages_ms"]) == ["decode", "resize", "model", "post"] and 0 < latency["overhead_ms"] < latency["latency_ms"]["p50"]
    assert latency["placement"]["nodes"].keys() == {"cpu"} and "gpu" not in latency["conditions"]
    assert latency["load_ms"] > 0 and latency["first_ms"] > 0 and 20 < latency["peak_memory_mb"] < 2000
    assert latency["n_stored"] == 4, "all that the bundle holds were asked"
    int8 = next(row for row in rows if row["kind"] == "latency" and row["scheme"] == "int8")
    assert int8["against_fp32"]["model_sha256"] == sha256_of(folder / "bundle/model.fp32.onnx")
    assert [found["batch"] for found in latency["throughput"]] == [1, 8]
    assert all(found["from_bytes_per_s"] > 0 and found["images_per_s"] > 0 for found in latency["throughput"])


def test_bench_measures_the_accuracy_that_evaluate_does(benched):
    folder, _ = benched
    assert main(["evaluate", str(folder / "bundle"), str(folder / "data"), "--out", str(folder / "evaluated")]) == 0
    row = next(row for row in read_rows([folder / "r.jsonl"]) if row["kind"] == "accuracy")
    assert row["machine"]["name"] == "desk" and row["machine"]["versions"] and row["provider"] == "cpu" and row["threads"] >= 1 and row["batch"] >= 1
    whole = {**read_json(folder / "evaluated/metrics.json"), "n_listings": 30}
    assert lean({**row, "metrics": whole}) == row and row["n"] == 30 and whole["calibration"]["bins"], "all but the curve of calibration, in six digits"


def test_an_accuracy_is_the_same_one_wherever_it_was_measured(benched):
    rows = read_rows([benched[0] / "r.jsonl"])
    row = next(row for row in rows if row["kind"] == "accuracy")
    elsewhere = {**row, "machine": {**row["machine"], "name": "elsewhere", "cpu": "another"}, "provider": "cuda", "threads": 64}
    before = {key: value for key, value in row.items() if key not in ("machine", "provider", "threads", "batch")}  # as an older version wrote it
    latencies = [{**row, "valid": True} for row in rows if row["kind"] == "latency"]
    for other in (elsewhere, before):
        check_row(other, "here")
        assert same_measurement(row, other) and same_measurement(other, row) and setting_of(row) == setting_of(other)
        (board,) = boards([*latencies, *(r for r in rows if r["kind"] == "accuracy" and r is not row), other])
        assert all(member["latency"] and member["accuracy"] for member in board["members"])
        assert pick([*latencies, row, other], budget_ms=1e6)["accuracy"] == row["metrics"]["top1"]["micro"]
    assert not same_measurement(row, {**row, "dataset": {**row["dataset"], "digest": "another"}})


def served_bundle(folder, write_bundle, benched, **changes):
    """Write a bundle as `pick --copy-to` leaves it."""
    serve = {"scheme": "int8", "threads": 2, "provider": "cpu", "machine": "desk", "cpu": cpu_model(), **changes}
    return write_bundle(folder, open_dataset(benched[0] / "data").ontology, schemes=("fp32", "int8"), serve=serve)


def test_a_picked_bundle_is_timed_as_it_was_picked(tmp_path, write_bundle, benched, capsys):
    bundle = served_bundle(tmp_path / "best", write_bundle, benched)
    words = ["bench", str(bundle), "--out", str(tmp_path / "r.jsonl"), "--samples", "300", "--min-seconds", "0", "--data", str(benched[0] / "data")]
    assert main(words) == 0
    told = capsys.readouterr().err
    assert "running int8 with 2 threads; picked: int8 with 2 on desk" in told and "warning" not in told
    found = {row["kind"]: row for row in read_rows([tmp_path / "r.jsonl"])}
    assert len(read_rows([tmp_path / "r.jsonl"])) == 2 and {row["scheme"] for row in found.values()} == {"int8"}
    assert (found["latency"]["threads"], found["latency"]["provider"]) == (2, "cpu")
    assert is_done(words) and not is_done([*words, "--threads", "1"]) and not is_done([*words, "--scheme", "fp32"])


def test_the_command_line_wins_over_what_was_picked_and_another_machine_is_told(tmp_path, write_bundle, benched, capsys):
    bundle = served_bundle(tmp_path / "best", write_bundle, benched, cpu="Abacus 9000")
    words = ["bench", str(bundle), "--out", str(tmp_path / "r.jsonl"), "--samples", "20", "--min-seconds", "0", "--scheme", "fp32", "--threads", "1"]
    assert main(words) == 0
    assert "warning: it was measured on Abacus 9000" in capsys.readouterr().err
    (row,) = read_rows([tmp_path / "r.jsonl"])
    assert (row["scheme"], row["threads"]) == ("fp32", 1)
    assert main([*words, "--provider", "cpu"]) == 0 and "picked" not in capsys.readouterr().err, "nothing that was picked is used"


def test_what_a_scheme_costs_is_paired_on_the_same_images(tmp_path, write_source, write_bundle):
    rows = [{"listing_id": str(k // 2), "image": f"{k}.jpg", "category": ("cat", "dog", "art")[k // 2 % 3], "split": "test"} for k in range(60)]
    import_dataset(write_source(tmp_path / "src", rows), tmp_path / "data")
    write_bundle(tmp_path / "bundle", open_dataset(tmp_path / "data").ontology, schemes=("fp32", "int8"))
    other = tmp_path / "bundle" / "model.int8.onnx"
    model = onnx.load(other)
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == "weights")
    weights.CopyFrom(onnx.numpy_helper.from_array(np.roll(onnx.numpy_helper.to_array(weights), 1, axis=-1), weights.name))
    onnx.save(model, other)
    card = read_json(tmp_path / "bundle" / "card.json")
    card["schemes"]["int8"]["sha256"] = sha256_of(other)
    write_json(tmp_path / "bundle" / "card.json", card)
    words = [str(tmp_path / "bundle"), "--out", str(tmp_path / "r.jsonl"), "--samples", "10", "--min-seconds", "0", "--data", str(tmp_path / "data")]
    assert main(["bench", *words, "--scheme", "int8"]) == 0 and "against_fp32" not in read_rows([tmp_path / "r.jsonl"])[-1]
    assert main(["bench", *words]) == 0, "now int8 is known, but not what it costs"
    fp32, int8 = sorted((row for row in read_rows([tmp_path / "r.jsonl"]) if row["kind"] == "accuracy"), key=lambda row: row["scheme"])
    against = int8["against_fp32"]
    assert "against_fp32" not in fp32 and against["model_sha256"] == fp32["model_sha256"]
    for name, one in (("top1.micro", "top1"), ("levels.1.macro", "levels")):
        mine, theirs = (row["metrics"][one] if one == "top1" else row["metrics"][one]["1"] for row in (int8, fp32))
        kind = name.split(".")[-1]
        low, high = against[name]["interval"]
        assert against[name]["difference"] == pytest.approx(mine[kind] - theirs[kind], abs=2e-6) != 0 and low <= against[name]["difference"] <= high


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
    few = [*words[:2], "--out", str(folder / "few.jsonl"), "--samples", "20", "--min-seconds", "0", "--machine", "desk", "--scheme", "fp32"]
    assert main(few) == 0
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "INVALID" in line]
    (row,) = read_rows([folder / "few.jsonl"])
    assert "20 images can't bound p99: --samples 300" in told and "20 images can't bound p99: --samples 300" in row["invalid_because"]
    assert not row["valid"] and row["latency_ms"]["upper"] is None and row["latency_ms"]["p50"] > 0
    ((member,),) = [board["members"] for board in boards([row])]
    assert "INVALID" in member["remarks"] and not member["comparable"]
    assert not is_done(few)


def test_more_requests_than_can_be_answered_are_invalid(benched):
    folder, words = benched
    out = folder / "flood.jsonl"
    flood = [*words[:2], "--out", str(out), "--samples", "300", "--min-seconds", "0", "--machine", "desk", "--scheme", "fp32", "--rate", "200000"]
    assert main(flood) == 0
    row = next(row for row in read_rows([out]) if row["scenario"] == "server")
    assert not row["valid"] and "200000 requests/s are more than" in row["invalid_because"] and row["utilization"] > 1
    assert row["latency_ms"]["p99"] > row["stages_ms"]["answer"]


def test_results_that_can_not_be_read_are_told_before_anything_is_timed(benched, capsys):
    folder, words = benched
    (folder / "broken.jsonl").write_text("{half a row")
    assert main([*words[:2], "--out", str(folder / "broken.jsonl")]) == 2 and "line 1: not a JSON object" in capsys.readouterr().err


def test_no_samples_or_no_such_scheme_is_exit_2(benched, capsys):
    _, words = benched
    assert main([*words, "--samples", "0"]) == 2 and "at least 1" in capsys.readouterr().err
    assert main([*words, "--scheme", "fp61"]) == 2 and "no bundle has the scheme 'fp61'" in capsys.readouterr().err
    assert main([*words, "--min-seconds", "-1"]) == 2 and "0 or more" in capsys.readouterr().err
    for wrong in ("1,x", "0", "1,,2", "-4"):
        assert main([*words, f"--batch={wrong}"]) == 2 and f"wanted numbers above 0, as in 1,8; got '{wrong}'" in capsys.readouterr().err


def test_several_images_a_query_and_requests_at_random_times_are_rows_of_their_own(benched, capsys):
    folder, words = benched
    out = folder / "scenarios.jsonl"
    asked = [*words[:2], "--out", str(out), "--samples", "300", "--min-seconds", "0", "--machine", "desk", "--scheme", "fp32"]
    assert main([*asked, "--batch", "1,4", "--rate", "200"]) == 0
    printed = capsys.readouterr().out
    assert "of 4 images a query" in printed and "of 200 requests/s" in printed
    rows = {row["scenario"]: row for row in read_rows([out])}
    assert {name: (row["batch"], row["n"]) for name, row in rows.items() if name != "server"} == {"single-stream": (1, 300), "multi-stream": (4, 300)}
    assert rows["server"]["batch"] == 1 and rows["server"]["n"] >= 300 and rows["server"]["turns"] == 8, "as many as its utilization wants"
    assert rows["server"]["stages_ms"].keys() == {"queue", "answer"} and rows["server"]["utilization"] > 0 and rows["server"]["transient"] >= 1
    assert 0 < rows["server"]["n_effective"] <= rows["server"]["n"]
    for name in ("single-stream", "multi-stream"):
        assert [found["batch"] for found in rows[name]["throughput"]] == [1, 4, 8] and rows[name]["peak_memory_mb"] > 20
    assert rows["multi-stream"]["peak_memory_mb"] >= rows["single-stream"]["peak_memory_mb"] and rows["server"]["peak_memory_mb"] is None
    found = boards([{**row, "valid": True} for row in rows.values()])
    assert len(found) == 3, "no two scenarios stand on one board"
    assert is_done([*asked, "--batch", "1,4,4"]) and not is_done([*asked, "--batch", "2"])
    report = write_report(list(rows.values()), folder / "report") and (folder / "report" / "report.md").read_text()
    for told in ("single images", "4 images a query", "200 requests/s at random times"):
        assert f"1 thread · {told}" in report and f"1 thread, {told}" in report
    few = [*asked[:2], "--out", str(folder / "few-server.jsonl"), *asked[4:], "--rate", "3000000", "--batch", "1"]
    assert main(few) == 2 and "wanted numbers above 0" in capsys.readouterr().err
    assert main([*asked, "--batch", "4"]) == 0 and len(read_rows([out])) == 3
    assert [row for row in read_rows([out]) if row["batch"] == 4][0]["throughput"], "though no single images were timed"
