"""`family pick`: never over the budget, never beaten, and honest when nothing fits."""

import hashlib
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.boards import boards
from benchmarks.bounds import TWO_SIDED, lower_bound
from benchmarks.bounds import surely as surely_of
from benchmarks.candidates import needed_for
from benchmarks.measurements import append_rows, read_rows
from benchmarks.pick import Wanted, _pick, pick
from export.bundle import sha256_of
from family.cli import main
from family.data.ontology import from_leaves
from family.errors import NothingFits, UserError
from family.evaluation.wilson import wilson
from family.outputs import read_json

MACHINE = {"name": "desk", "cpu": "A CPU", "cores": 2, "features": ["avx2"], "gpu": None, "versions": {"onnxruntime": "1.26.0"}}


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def measured(name: str, ms: float, top1: float | None, scope="general", machine="desk", **latency) -> list[dict]:
    """Return a member's latency row and, with an accuracy, its accuracy row; the bound of p99 is 2 x ms."""
    common = {
        "schema": 1, "at": "2026-01-01T00:00:00Z", "member": name, "variant": "b0", "resolution_px": 64, "scope": scope, "label": None,
        "scheme": "fp32", "model_sha256": digest(name), "trained": latency.pop("trained", True),
    }  # fmt: skip
    times = {"p50": ms, "p90": 1.2 * ms, "p95": 1.3 * ms, "p99": 1.5 * ms, "upper": 2 * ms, "mean": ms}
    row = {
        **common, "kind": "latency", "bundle": f"bundles/{name}", "machine": {**MACHINE, "name": machine}, "provider": "cpu",
        "threads": 1, "batch": 1, "latency_ms": times, "valid": True, **latency,
    }  # fmt: skip
    if top1 is None:
        return [row]
    metrics = {"top1": {"micro": top1, "macro": 1 - top1}, "levels": {"2": {"micro": top1, "macro": 0.5}}}
    return [row, {**common, "kind": "accuracy", "dataset": {"name": "d", "digest": "x", "split": "test"}, "n": 100, "metrics": metrics}]


MEMBERS = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 20)), min_size=1, max_size=8)


def surely(right: int) -> float:
    return lower_bound(right / 20, 100)


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_the_lower_bound_solves_wilsons_equation(right, n):
    share = right / 1000
    bound = lower_bound(share, n)
    assert 0 <= bound <= share + 1e-12
    assert (share - bound) ** 2 == pytest.approx(1.645**2 * bound * (1 - bound) / n, abs=1e-9)


@pytest.mark.parametrize(("int8_ms", "threads", "picked"), [(4, 1, "a-int8"), (5, 1, "a"), (9, 1, "a"), (9, 2, "a-int8")])
def test_int8_that_is_not_faster_than_its_own_fp32_is_not_picked(int8_ms, threads, picked):
    rows = measured("a", 5, 0.6) + measured("a-int8", int8_ms, 0.7, bundle="bundles/a", threads=threads)
    for row in rows[2:]:
        row["scheme"] = "int8"
    assert pick(rows, budget_ms=30)["member"] == picked


def two_runs(int8_ms: float, **against) -> list[dict]:
    """Return the rows of two runs whose bundles have one name: fp32 takes 4 ms and 8 ms, and there is one int8."""
    rows = measured("a", 4, 0.6, bundle="bundles/m") + measured("b", 8, 0.61, bundle="bundles/m")
    int8 = measured("a-int8", int8_ms, 0.7, bundle="bundles/m", **({"against_fp32": against} if against else {}))
    return rows + [{**row, "scheme": "int8"} for row in int8]


def test_the_fp32_of_its_own_bundle_is_found_by_its_digest():
    for base, gains in (("a", False), ("b", True)):
        rows = two_runs(6)
        for row in rows[-2:]:
            row["against_fp32"] = {"model_sha256": digest(base)}
            for order in (rows, rows[::-1]):
                found = {member["member"]: member for board in boards(order) for member in board["members"]}["a-int8"]
                assert found["base"]["member"] == base and ("no gain" not in found["remarks"]) == gains
            del row["against_fp32"]
    rows = two_runs(6, model_sha256=digest("gone"), ratio=0.5)
    assert pick(rows, budget_ms=30)["member"] == "a-int8", "its fp32 is not here: no other one takes its place"


def test_where_names_alone_do_not_tell_which_fp32_is_its_own_that_is_said():
    told = {m["member"]: m for board in boards(two_runs(6)) for m in board["members"]}["a-int8"]
    assert told["base"] is None and told["base_unclear"].startswith("2 fp32 files have the name of its bundle")
    why = {one["member"]: one["why"] for one in pick(two_runs(6), budget_ms=30)["runners_up"]}
    assert why["a-int8"].startswith("unclear gain (2 fp32 files have the name of its bundle")
    assert pick(two_runs(3), budget_ms=30)["member"] == "a-int8", "faster than both"
    (slow,) = [one for one in pick(two_runs(9), budget_ms=30)["runners_up"] if one["member"] == "a-int8"]
    assert slow["why"] == "not faster than any fp32 of its bundle's name, whose answers it approximates"
    assert pick(two_runs(6, ratio=1.2), budget_ms=30)["member"] == "a-int8", "it was timed with its own"


def test_a_mean_over_categories_is_as_sure_as_its_own_interval():
    rows = measured("a", 5, 0.6) + measured("b", 9, 0.6)
    for row, low in zip(rows[1::2], (0.3, 0.45), strict=True):
        row["metrics"]["levels"]["2"]["macro_interval"] = [low, 0.9]
    assert pick(rows, min_accuracy=0.4, metric="levels.2.macro")["member"] == "b"
    with pytest.raises(NothingFits, match="surely 45.7%.*surely 32.8%.*An accuracy of 45.7% would do"):
        pick(rows, min_accuracy=0.5, metric="levels.2.macro")
    with pytest.raises(UserError, match="how sure top1.macro of a, b is.*top1.micro"):
        pick(rows, min_accuracy=0.1, metric="top1.macro")
    assert pick(rows, budget_ms=30, metric="top1.macro")["member"] == "a"


def rows_of(members) -> list[dict]:
    return [row for k, (ms, right) in enumerate(members) for row in measured(f"m{k}", ms, right / 20)]


@given(MEMBERS, st.integers(1, 70), st.one_of(st.none(), st.integers(0, 20)), st.sampled_from(["50", "90", "99"]))
def test_never_over_the_budget_and_never_beaten(members, budget, least, percentile):
    cost = {"50": lambda ms: ms, "90": lambda ms: 1.2 * ms, "99": lambda ms: 2 * ms}[percentile]  # rows of schema 1 bound p99 alone
    fitting = [(ms, right) for ms, right in members if cost(ms) <= budget and (least is None or surely(right) >= least / 20)]
    asked = {"budget_ms": budget, "min_accuracy": None if least is None else least / 20, "percentile": percentile}
    if not fitting:
        with pytest.raises(NothingFits, match="nothing fits"):
            pick(rows_of(members), **asked)
        return
    found = pick(rows_of(members), **asked)
    best = max(right for _, right in fitting)
    assert found["accuracy"] == best / 20 and found["cost_ms"] <= budget
    assert found["latency_ms"]["p50"] == min(ms for ms, right in fitting if right == best), "the fastest of the most accurate"
    assert found["latency_ms"].keys() == {"p50", "p99", "upper"}


@given(MEMBERS, st.integers(0, 20))
def test_with_an_accuracy_alone_the_fastest_that_reaches_it(members, least):
    reaching = [(ms, right) for ms, right in members if surely(right) >= least / 20]
    if not reaching:
        with pytest.raises(NothingFits):
            pick(rows_of(members), min_accuracy=least / 20)
        return
    found = pick(rows_of(members), min_accuracy=least / 20)
    fastest = min(ms for ms, _ in reaching)
    assert found["latency_ms"]["p50"] == fastest and found["accuracy"] == max(right for ms, right in reaching if ms == fastest) / 20


@given(MEMBERS)
def test_with_neither_the_front(members):
    front = [(row["latency_ms"]["p50"], row["accuracy"]) for row in pick(rows_of(members))["front"]]
    points = {(ms, right / 20) for ms, right in members}
    beaten = {p for p in points for q in points if q != p and q[0] <= p[0] and q[1] >= p[1]}
    assert set(front) == points - beaten and front == sorted(set(front))


@st.composite
def results_of(draw):
    """Return rows of few speeds and accuracies, with ties, measurements that are repeated, several scopes, INVALID ones and what gains nothing."""
    rows = []
    for k in range(draw(st.integers(1, 6))):
        name, scope = f"m{draw(st.integers(0, 3))}", draw(st.sampled_from(["general", "general", "animals"]))
        rates = draw(st.sampled_from([{}, {"throughput": [{"batch": 8, "images_per_s": 50.0}]}, {"throughput": [{"batch": 8, "images_per_s": 90.0}]}]))
        fields = {"peak_memory_mb": float(draw(st.integers(1, 3))), "quantiles_ms": {"model": [1.0, 2.0]}, "conditions": {"load": 1.0}, **rates}
        valid = draw(st.booleans()) or draw(st.booleans())
        own = measured(name, draw(st.integers(1, 3)), draw(st.integers(8, 10)) / 10, scope, valid=valid, bundle="bundles/b", **fields)
        scheme, sha256 = draw(st.sampled_from(["fp32", "int8"])), digest(f"{name} {draw(st.integers(0, 2))}")
        for row in own:
            row |= {"scheme": scheme, "model_sha256": sha256, "at": f"2026-01-0{draw(st.integers(1, 2))}T00:00:00Z"}
        metrics = own[1]["metrics"]
        metrics["levels"]["2"]["macro_interval"] = [0.4, 0.6]
        metrics |= {"listings": {"top1": {"micro": 0.7}}, "calibration": {"bins": [{"low": 0.0, "n": k}]}, "n_listings": draw(st.integers(20, 90))}
        if scheme == "int8" and draw(st.booleans()):
            own[1]["against_fp32"] = {"model_sha256": digest(f"m0 {k % 3}"), "top1.micro": {"difference": -0.1, "interval": [-0.2, 0.0], "shown": k % 2 == 0}}
        rows += own
    return rows


ASKED = st.fixed_dictionaries({"metric": st.sampled_from(["top1.micro", "levels.2.macro", "listings.top1.micro"])}, optional={
    "budget_ms": st.integers(1, 9), "min_accuracy": st.sampled_from([0.3, 0.7, 0.9]), "max_memory_mb": st.integers(1, 3), "scope": st.just("animals"),
    "allow_invalid": st.booleans()})  # fmt: skip


def answer_of(find) -> tuple:
    """Return what is picked, or how that is refused."""
    try:
        return "picked", find()
    except (NothingFits, UserError) as error:
        return type(error).__name__, str(error), getattr(error, "nearest", None), getattr(error, "left_out", None)


@given(results_of(), ASKED, st.randoms())
def test_the_order_of_rows_does_not_matter(rows, asked, random):
    assert answer_of(lambda: pick(random.sample(rows, len(rows)), **asked)) == answer_of(lambda: pick(rows, **asked))


@given(results_of(), ASKED)
def test_reading_what_is_needed_alone_gives_what_reading_everything_gives(tmp_path_factory, rows, asked):
    path = tmp_path_factory.getbasetemp() / "needed.jsonl"
    other = {"schema": 2, "kind": "training", "variant": "b0"}
    path.write_text("".join(json.dumps(row) + "\n" for row in [other, *rows]))
    wanted = Wanted(**asked)
    needed = answer_of(lambda: _pick(read_rows([path], needed_for(wanted)), wanted))
    assert needed == answer_of(lambda: pick(rows, **asked))
    seconds = [(row["kind"], row["model_sha256"], row["at"]) for row in rows]
    if len(set(seconds)) == len(seconds):  # of two measurements of one file and second, which one counts is told by what was kept
        assert needed == answer_of(lambda: _pick(read_rows([path]), wanted)), "nothing that was left out decides anything"


@pytest.mark.parametrize(
    "line", ['{"schema": 2, "kind": "training", "curve": [1, 2}', '{"kind": "latency", "x": "\\ud800"}', '{"a": nul}', '{"a": 1} {}', "\x00"]
)
@pytest.mark.parametrize("words", [[], ["--chain"]])
def test_no_line_is_skipped_unread(tmp_path, capsys, line, words):
    (tmp_path / "r.jsonl").write_text(json.dumps(measured("a", 1, None)[0]) + "\n" + line + "\n")
    assert main(["pick", str(tmp_path / "r.jsonl"), "--budget-ms", "9", *words]) == 2
    assert f"{tmp_path / 'r.jsonl'}, line 2: not a JSON object" in capsys.readouterr().err


def test_equally_accurate_members_are_told_apart_by_the_percentile_that_was_asked_for():
    steady = measured("steady", 2, 0.9, latency_ms={"p50": 2, "p99": 3, "upper": 4})
    spiky = measured("spiky", 1, 0.9, latency_ms={"p50": 1, "p99": 8, "upper": 9})
    for rows in (steady + spiky, spiky + steady):
        assert pick(rows, budget_ms=10)["member"] == "steady"
        assert pick(rows, budget_ms=10, percentile="50")["member"] == "spiky"


def test_the_nearest_misses_are_told():
    rows = rows_of([(10, 18), (20, 19), (30, 20), (40, 20)])
    told = r"p99 within 5 ms. Nearest: m0 \(20.00 ms, 90.0%, surely 83.9%\); m1 .*; m2 .*A budget of 20.00 ms would do"
    with pytest.raises(NothingFits, match=told) as error:
        pick(rows, budget_ms=5)
    assert "m3" not in str(error.value)
    with pytest.raises(NothingFits, match=r"p99 within 30 ms and an accuracy of at least 90.0%.*A budget of 40.00 ms or an accuracy of 83.9% would do"):
        pick(rows, budget_ms=30, min_accuracy=0.9)


@pytest.mark.parametrize(
    "row",
    [
        measured("bad", 1, 1.0, valid=False, invalid_because="its answers are others"),
        measured("bad", 1, 1.0, trained=False),
        measured("bad", 1, None),
        measured("bad", 1, 1.0)[1:],
        measured("bad", 1, 1.0, latency_ms={"p50": 1, "p90": 1, "p95": 1, "p99": 1, "upper": None}),
    ],
)
def test_what_is_invalid_untrained_or_half_measured_is_never_picked(row):
    good = measured("good", 50, 0.1)
    for asked in ({"budget_ms": 200}, {"min_accuracy": 0.0}):
        assert pick([*row, *good], **asked)["member"] == "good"
    assert [found["member"] for found in pick([*good, *row])["front"]] == ["good"]
    with pytest.raises(NothingFits, match="has a valid latency and an accuracy|nothing fits"):
        pick(row, budget_ms=200)


def test_a_measurement_that_is_invalid_is_taken_where_that_is_allowed_and_marked():
    rows = measured("busy", 1, 1.0, valid=False, invalid_because="other processes used 1.0 of 2 cores") + measured("good", 50, 0.1)
    found = pick(rows, budget_ms=200, allow_invalid=True)
    assert (found["member"], found["invalid_because"]) == ("busy", "other processes used 1.0 of 2 cores")
    assert pick(rows, budget_ms=200)["member"] == "good" and pick(rows, budget_ms=200)["invalid_because"] is None
    assert {"member": "busy", "why": "INVALID (other processes used 1.0 of 2 cores)"} in pick(rows, budget_ms=200)["runners_up"]
    with pytest.raises(NothingFits, match=r"busy: INVALID \(other processes used 1.0 of 2 cores\).*--allow-invalid takes"):
        pick(rows[:2], budget_ms=200)


def test_a_member_without_the_percentile_is_left_out_and_told():
    rows = measured("old", 1, 0.9, latency_ms={"p50": 1, "p99": 2, "upper": 3})
    rows += measured("new", 3, 0.8, latency_ms={"p50": 3, "p95": 4, "p99": 5, "upper": 6, "uppers": {"p95": 4.5, "p99": 6}})
    found = pick(rows, budget_ms=10, percentile="95")
    assert found["member"] == "new" and found["runners_up"] == [{"member": "old", "why": "was measured without p95: run `family bench` again"}]


def test_wrong_answers_are_never_taken_nor_is_what_has_no_bound_unless_that_is_allowed(tmp_path, capsys):
    wrong = measured("wrong", 1, 1.0, valid=False, invalid_because="its answers agree with the stored ones in 0.0%", agreement=0.0)
    few = measured("few", 3, 0.9, valid=False, invalid_because="20 images can't bound p99",
                   latency_ms={"p50": 3, "p99": 4, "upper": None, "uppers": {"p50": 3.5, "p99": None}})  # fmt: skip
    exact = measured("exact", 3, 0.9, latency_ms={"p50": 3, "p99": 4, "upper": 4, "uppers": {"p50": 3, "p99": 4}})
    (tmp_path / "exact.jsonl").write_text("".join(json.dumps(row) + "\n" for row in exact))
    assert main(["pick", str(tmp_path / "exact.jsonl"), "--budget-ms", "9"]) == 0
    assert "p99 4.00 ms (at most 4.00)" in capsys.readouterr().out, "a bound that is the percentile is one"
    with pytest.raises(NothingFits, match="wrong: INVALID .its answers agree.*wrong answers"):
        pick(wrong, budget_ms=200, allow_invalid=True)
    assert pick(wrong + few, budget_ms=200, allow_invalid=True)["cost_ms"] == 4
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in wrong + few))
    assert main(["pick", str(tmp_path / "r.jsonl"), "--budget-ms", "9", "--allow-invalid"]) == 0
    told = capsys.readouterr().out
    assert "p99 4.00 ms (not bounded)" in told and "INVALID: 20 images can't bound p99" in told and "not wrong: INVALID" in told


@pytest.mark.parametrize("asked", [{"budget_ms": float("nan")}, {"budget_ms": -1}, {"min_accuracy": 2}, {"percentile": "98", "budget_ms": 1}])
def test_the_function_refuses_what_the_command_does(asked):
    with pytest.raises(UserError):
        pick(rows_of([(1, 5)]), **asked)
    assert pick(rows_of([(1, 5)]), budget_ms=9, percentile=99)["cost_ms"] == 2, "a number is a percentile too"


@pytest.mark.parametrize(
    ("which", "path", "value", "told"),
    [
        (0, ("latency_ms", "p99"), -1, "latency_ms.p99 is '-1'; a latency row has a number, 0 or more"),
        (0, ("machine", "name"), None, "machine.name is 'None'; a latency row has text"),
        (0, ("batch",), "8", "batch is '8'; a latency row has a whole number"),
        (0, ("bundle",), ["b"], "bundle is"),
        (0, ("agreement",), 7, "agreement is '7'; a latency row has a share"),
        (0, ("scenario",), "server", "rate is 'None'; a latency row has requests a second"),
        (0, ("scenario",), "sever", "scenario is 'sever'"),
        (0, ("n",), -4, "n is '-4'"),
        (1, ("metrics", "top1", "micro"), 95, "metrics.top1.micro is '95'; a accuracy row has a share from 0 to 1"),
        (1, ("metrics", "levels", "2", "macro"), -0.1, "metrics.levels.2.macro is"),
        (1, ("n",), "abc", "n is 'abc'"),
    ],
)
def test_a_row_that_holds_what_can_not_be_is_refused(which, path, value, told):
    rows = rows_of([(1, 5)])
    part = rows[which]
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(UserError) as error:
        pick(rows, budget_ms=10)
    assert told in str(error.value)


JUNK = st.one_of(st.none(), st.booleans(), st.integers(-5, 10**20), st.floats(allow_nan=False), st.text(max_size=3), st.lists(st.integers(), max_size=2),
                 st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))  # fmt: skip


@given(st.data())
def test_whatever_a_row_holds_it_is_picked_from_or_refused(data):
    rows = measured("a", 1, 0.5) + measured("b", 2, 0.9, scheme_of="x")
    for _ in range(data.draw(st.integers(1, 3))):
        part = data.draw(st.sampled_from(rows))
        while True:
            key = data.draw(st.sampled_from(sorted(part)))
            if isinstance(part[key], dict) and part[key] and data.draw(st.booleans()):
                part = part[key]
                continue
            part[key] = data.draw(JUNK)
            break
    try:
        found = pick(rows, budget_ms=10)
    except (UserError, NothingFits):
        return
    assert found["cost_ms"] <= 10


def test_every_percentile_is_held_to_its_own_bound():
    uppers = {"p50": 2.2, "p90": 3.3, "p95": 4.4, "p99": 5.5}
    rows = measured("a", 2, 0.9, latency_ms={"p50": 2, "p90": 3, "p95": 4, "p99": 5, "upper": 5.5, "uppers": uppers})
    for percentile, bound in (("50", 2.2), ("90", 3.3), ("95", 4.4), ("99", 5.5)):
        assert pick(rows, budget_ms=bound, percentile=percentile)["cost_ms"] == bound
        with pytest.raises(NothingFits):
            pick(rows, budget_ms=bound - 0.01, percentile=percentile)


def test_memory_and_images_a_query_are_asked_for():
    rows = measured("small", 2, 0.5, peak_memory_mb=100.0) + measured("large", 2, 0.9, peak_memory_mb=300.0) + measured("old", 1, 1.0)
    assert pick(rows, budget_ms=50)["member"] == "old"
    found = pick(rows, budget_ms=50, max_memory_mb=200)
    assert found["member"] == "small" and found["peak_memory_mb"] == 100
    assert [c["member"] for c in pick(rows, max_memory_mb=200)["front"]] == ["small"]
    assert {"member": "large", "why": "holds 300 MB, over 200"} in pick(rows, max_memory_mb=200)["left_out"]
    with pytest.raises(NothingFits, match=r"nothing fits 50 MB of memory. Nearest: small .*, 100 MB\); large .*, 300 MB\). Left out: old: its memory.*"
                       r"100 MB of memory would do"):  # fmt: skip
        pick(rows, max_memory_mb=50)
    with pytest.raises(NothingFits, match="has a valid latency, an accuracy and a measured memory .old: its memory was not measured"):
        pick(measured("old", 1, 1.0), max_memory_mb=50)
    assert {(c["member"], c["why"]) for c in found["runners_up"]} == {
        ("large", "holds 300 MB, over 200"), ("old", "its memory was not measured: run `family bench` again")}  # fmt: skip
    with pytest.raises(UserError, match="nothing was timed with 8 images a query, but with 1; `family bench ... --batch 8` does"):
        pick(rows, budget_ms=50, batch=8)
    eight = measured("large", 9, None, batch=8, scenario="multi-stream")
    assert pick(rows + eight, budget_ms=50, batch=8)["member"] == "large" and pick(rows + eight, budget_ms=50)["latency_ms"]["p50"] == 1
    served = measured("large", 1, None, scenario="server", rate=50.0)
    assert pick(rows + served, budget_ms=50)["member"] == "old", "requests at random times are another thing"


def test_what_would_do_is_told_of_each_wish_alone_and_when_none_would():
    rows = measured("fast", 5, 0.8, peak_memory_mb=90.0) + measured("right", 50, 0.95, peak_memory_mb=150.5)
    with pytest.raises(NothingFits, match=r"p99 within 20 ms and an accuracy of at least 85.0% and 200 MB of memory.*"
                       r"A budget of 100.00 ms or an accuracy of 72.\d% would do$"):  # fmt: skip
        pick(rows, budget_ms=20, min_accuracy=0.85, max_memory_mb=200)
    with pytest.raises(NothingFits, match="No member fits if only one of these is given up$"):
        pick(rows, budget_ms=2, min_accuracy=0.99)
    with pytest.raises(NothingFits, match="151 MB would do|151 MB of memory would do"):
        pick(rows, min_accuracy=0.85, max_memory_mb=100)
    with pytest.raises(NothingFits, match="at least 99.99%"):
        pick(rows, min_accuracy=0.9999)


def test_bounds_that_are_told_would_do():
    rows = measured("a", 5.0031, 0.8)
    for ask, pattern in (({"budget_ms": 1}, r"budget of ([\d.]+) ms"), ({"min_accuracy": 0.9}, r"accuracy of ([\d.]+)%")):
        with pytest.raises(NothingFits) as error:
            pick(rows, **ask)
        enough = float(re.search(pattern, str(error.value)).group(1)) / (100 if "min_accuracy" in ask else 1)
        assert pick(rows, **dict.fromkeys(ask, enough))["member"] == "a"


def test_numbers_are_told_as_people_write_them(tmp_path, capsys):
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in measured("a", 10**6, 0.9)))
    (tmp_path / "none.jsonl").write_text("\n")
    for words, told in ((["--budget-ms", "1e99"], "--budget-ms takes milliseconds above 0, up to 1,000,000,000; got 1e+99"),
                        (["--budget-ms", "inf"], "got inf"), (["--batch", "0"], "--batch takes 1 or more")):  # fmt: skip
        assert main(["pick", str(tmp_path / "r.jsonl"), *words]) == 2 and told in capsys.readouterr().err
    assert main(["pick", str(tmp_path / "r.jsonl"), "--budget-ms", "1000000"]) == 3
    assert "p99 within 1,000,000 ms. Nearest: a (2,000,000.00 ms" in capsys.readouterr().err
    for words in (["--budget-ms", "9"], [], ["--budget-ms", "9", "--json"]):
        assert main(["pick", str(tmp_path / "none.jsonl"), *words]) == 2
        assert "the results hold no latency and no accuracy measurement; `family bench" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["micro", "macro"])
@given(st.integers(1, 999), st.integers(10, 5000))
def test_micro_and_macro_have_the_same_one_sided_bound(kind, right, n):
    row = measured("a", 1, right / 1000)[1]
    row["metrics"]["top1"] = {kind: right / 1000, f"{kind}_interval": wilson(right / 1000, n, TWO_SIDED)}
    assert surely_of(row, f"top1.{kind}", right / 1000) == pytest.approx(lower_bound(right / 1000, n), abs=1e-9)


def test_it_is_said_why_the_others_lost():
    rows = measured("best", 5, 0.9) + measured("worse", 2, 0.8) + measured("slow", 30, 0.95) + measured("later", 7, 0.9)
    for row in rows[1::2]:
        row["n"] = 50
    why = {c["member"]: c["why"] for c in pick(rows, budget_ms=20)["runners_up"]}
    unsure = ", which is not shown: it is within their intervals"
    assert why == {"slow": "p99 may be 60.00 ms, over 20", "later": "fits, and may take 4.00 ms longer",
                   "worse": f"fits, and is 10.00 points less accurate{unsure}"}  # fmt: skip
    for row in rows[1::2]:
        row["n"] = 3000
    assert {c["member"]: c["why"] for c in pick(rows, budget_ms=20)["runners_up"]}["worse"] == "fits, and is 10.00 points less accurate"
    for shown in (True, False):  # as it was compared on the same rows
        rows[3]["against_fp32"] = {"model_sha256": digest("best"), "top1.micro": {"difference": -0.1, "interval": [-0.2, 0.1], "shown": shown}}
        why = {c["member"]: c["why"] for c in pick(rows, budget_ms=20)["runners_up"]}
        assert why["worse"] == "fits, and is 10.00 points less accurate" + ("" if shown else unsure)
    (first, *_) = pick(rows, min_accuracy=0.7)["runners_up"]
    assert first == {"member": "best", "why": "fits, and may take 6.00 ms longer"}
    fast = measured("many", 5, 0.9, throughput=[{"batch": 8, "images_per_s": 900.0}])
    few = measured("few", 5, 0.9, throughput=[{"batch": 8, "images_per_s": 100.0}])
    for rows in (fast + few, few + fast):
        found = pick(rows, budget_ms=20)
        assert found["member"] == "many" and found["runners_up"] == [{"member": "few", "why": "as good; answers 100 images/s, not 900"}]


@given(MEMBERS)
def test_where_everything_fits_the_most_accurate_is_found_and_all_others_are_accounted_for(members):
    found = pick(rows_of(members), budget_ms=10**6)
    assert found["accuracy"] == max(right for _, right in members) / 20
    assert len(found["runners_up"]) == min(len(members) - 1, 5) and all(c["why"].startswith(("fits", "as good")) for c in found["runners_up"])


def test_scope_machine_and_metric_are_told():
    rows = measured("a", 1, 0.9) + measured("v", 1, 0.5, scope="animals") + measured("a", 9, None, machine="node")
    with pytest.raises(UserError, match="no member of the scope 'animal'; they hold animals, general"):
        pick(rows, scope="animal")
    with pytest.raises(UserError, match="several machines; choose with --machine: desk, node"):
        pick(rows, budget_ms=100)
    with pytest.raises(UserError, match="no measurement of the machine 'nod'; there are desk, node"):
        pick(rows, budget_ms=100, machine="nod")
    assert pick(rows, budget_ms=100, machine="node")["latency_ms"]["p50"] == 9
    assert pick(rows, budget_ms=100, scope="animals")["member"] == "v"
    with pytest.raises(UserError, match="no member has the metric 'topp.micro'"):
        pick(measured("a", 1, 0.9), metric="topp.micro")
    assert pick(rows_of([(1, 5), (1, 15)]), budget_ms=9, metric="top1.macro")["accuracy"] == 0.75
    assert pick(measured("a", 1, 0.9), budget_ms=9, metric="levels.2.macro")["accuracy"] == 0.5


@pytest.mark.parametrize("metric", ["n", "severity.of_rows", "calibration.ece", "distance_at.5", "confusion.level", "top1.micro_interval"])
def test_what_is_no_share_of_right_answers_is_not_picked_by(metric):
    """Of a severity, the worst member would be picked."""
    with pytest.raises(UserError, match="--metric takes a share of right answers"):
        pick(measured("a", 1, 0.9), budget_ms=10, metric=metric)


def test_a_share_of_some_rows_is_as_sure_as_its_own_interval():
    rows = measured("a", 1, 0.9)
    rows[1]["metrics"]["thirds"] = {"tail": {"micro": 0.88, "micro_interval": [0.78, 0.95]}}
    assert pick(rows, min_accuracy=0.77, metric="thirds.tail.micro")["member"] == "a"
    with pytest.raises(NothingFits):
        pick(rows, min_accuracy=0.8, metric="thirds.tail.micro")


def another_state(row: dict, **changes) -> dict:
    return {**row, "machine": {**row["machine"], **changes}, "at": "2025-01-01T00:00:00Z"}


def test_what_a_machine_measured_before_it_was_changed_is_left_out():
    new, accuracy = measured("a", 2, 0.9)
    other, other_accuracy = measured("b", 4, 0.8)
    for changes in ({"versions": {"onnxruntime": "1.20.0"}}, {"cpu": "Another CPU", "cores": 64}):
        old = another_state({**new, "latency_ms": measured("a", 1, None)[0]["latency_ms"]}, **changes)
        rows = [new, accuracy, other, other_accuracy, old]
        for order in (rows, rows[::-1]):
            with pytest.raises(NothingFits):
                pick(order, budget_ms=3)
            found = pick(order, budget_ms=100)
            assert found["member"] == "a" and found["latency_ms"]["p50"] == 2
            assert any("at 2025-01-01T00:00:00Z" in one["why"] and "not as the newest" in one["why"] for one in found["runners_up"])
            assert {member["member"]: member["latency_ms"]["p50"] for member in pick(order)["front"]} == {"a": 2}


def test_accuracies_on_different_rows_are_not_compared():
    rows = measured("a", 1, 0.6) + measured("b", 1, 0.9)
    rows[3]["dataset"] = {"name": "d", "digest": "x", "split": "val"}
    with pytest.raises(UserError, match="different rows"):
        pick(rows, budget_ms=100)


def test_the_bound_of_the_percentile_that_was_asked_for_is_told(tmp_path, capsys):
    times = {"p50": 2, "p90": 3, "p95": 4, "p99": 5, "upper": 6, "uppers": {"p50": 2.5, "p90": 3.5, "p95": 4.5, "p99": 6}, "mean": 2}
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, measured("a", 2, 0.9, latency_ms=times, schema=2))) + "\n")
    for percentile, told in (("50", "p50 2.00 ms (at most 2.50)"), ("95", "p50 2.00 ms, p95 at most 4.50 ms"), ("99", "p99 5.00 ms (at most 6.00)")):
        assert main(["pick", str(tmp_path / "r.jsonl"), "--budget-ms", "10", "--percentile", percentile]) == 0
        assert told in capsys.readouterr().out


def test_memory_is_that_of_queries_of_the_batch():
    rows = measured("a", 1, 0.9, peak_memory_mb=80) + measured("a", 3, 0.9, batch=8, peak_memory_mb=120)
    assert pick(rows, budget_ms=10, max_memory_mb=100)["member"] == "a"
    with pytest.raises(NothingFits, match="120 MB"):
        pick(rows, budget_ms=10, batch=8, max_memory_mb=100)
    with pytest.raises(NothingFits, match="its memory was not measured"):
        pick(measured("a", 1, 0.9, batch=8), budget_ms=10, batch=8, max_memory_mb=100)


def test_a_percentile_that_was_not_measured_is_told():
    rows = measured("a", 1, 0.6, latency_ms={"p50": 1, "p99": 2, "upper": 3})
    assert pick(rows, budget_ms=10)["member"] == "a"
    with pytest.raises(NothingFits, match="a: was measured without p90"):
        pick(rows, budget_ms=10, percentile="90")


@pytest.fixture
def results(tmp_path, write_bundle):
    """Two bundles and their results: `fast` in half the time, `right` with the better accuracy."""
    tree = from_leaves([("1", "A/B"), ("2", "A/C"), ("3", "D")])
    rows = []
    for name, ms, top1 in (("fast", 1, 0.5), ("right", 2, 0.9)):
        folder = write_bundle(tmp_path / "bundles" / name, tree, schemes=("fp32", "int8"))
        measured_file = sha256_of(folder / "model.int8.onnx") if name == "right" else digest("fast, as it was before")
        own = {"scheme": "int8", "model_sha256": measured_file}
        rows += [{**row, **own} for row in measured(name, ms, top1, threads=1)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_json_is_the_contracts_object(results, capsys):
    assert main(["pick", str(results / "results.jsonl"), "--budget-ms", "10", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {key: found[key] for key in ("member", "scheme", "latency_ms", "accuracy")} == {
        "member": "right", "scheme": "int8", "latency_ms": {"p50": 2, "p99": 3, "upper": 4}, "accuracy": 0.9,
    }  # fmt: skip
    assert found["bundle"] == "bundles/right"
    assert main(["pick", str(results / "results.jsonl"), "--budget-ms", "1", "--json"]) == 3
    captured = capsys.readouterr()
    assert "Nearest: fast" in captured.err
    found = json.loads(captured.out)
    assert {found[key] for key in ("member", "bundle", "scheme", "latency_ms", "accuracy")} == {None} and found["why"] in captured.err
    assert [(c["member"], c["cost_ms"], c["why"]) for c in found["nearest"]] == [
        ("fast", 2, "p99 may be 2.00 ms, over 1"), ("right", 4, "p99 may be 4.00 ms, over 1")]  # fmt: skip


def test_what_is_copied_serves_as_it_was_measured(results, capsys, photo):
    words = ["pick", str(results / "results.jsonl"), "--budget-ms", "10", "--copy-to", str(results / "best")]
    assert main(words) == 0
    assert f"next: family predict {results / 'best'} IMAGE" in capsys.readouterr().out
    serve = read_json(results / "best/card.json")["serve"]
    assert (serve["scheme"], serve["threads"], serve["provider"], serve["machine"]) == ("int8", 1, "cpu", "desk")
    from export.opening import open_model

    opened = open_model(results / "best")
    assert opened.about == {"scheme": "int8", "provider": "cpu", "threads": 1, "model_sha256": serve["model_sha256"]}
    assert "serve" not in read_json(results / "bundles/right/card.json")
    before = (results / "best/card.json").stat().st_mtime_ns
    assert main(words) == 0 and (results / "best/card.json").stat().st_mtime_ns == before
    other = [*words[:2], "--budget-ms", "2.5", *words[4:]]
    capsys.readouterr()
    assert main(other) == 2 and "member was 'right', now 'fast'" in capsys.readouterr().err


def test_a_bundle_that_was_exported_anew_is_not_copied(results, capsys):
    words = ["pick", str(results / "results.jsonl"), "--budget-ms", "2.5", "--copy-to", str(results / "best")]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert f"there is {results / 'bundles/fast'}, of another run, or exported anew after it was measured; run `family bench` again" in told
    (results / "bundles/right/model.int8.onnx").write_bytes(b"other")
    assert main([*words[:2], "--budget-ms", "10", *words[4:]]) == 2
    shutil.rmtree(results / "bundles/right")
    assert main([*words[:2], "--budget-ms", "10", *words[4:]]) == 2
    assert "is not here" in capsys.readouterr().err and not (results / "best").exists()


def test_of_two_bundles_of_one_name_the_one_that_holds_the_measured_file_is_copied(results, capsys, write_bundle):
    tree = from_leaves([("1", "A/B"), ("2", "A/C"), ("3", "D")])
    other = write_bundle(results / "other/bundles/right", tree, schemes=("fp32", "int8"))
    (other / "model.int8.onnx").write_bytes((other / "model.int8.onnx").read_bytes() + b" ")
    card = read_json(other / "card.json")
    card["schemes"]["int8"]["sha256"] = sha256_of(other / "model.int8.onnx")
    (other / "card.json").write_text(json.dumps(card))
    rows = [{**row, "scheme": "int8", "model_sha256": card["schemes"]["int8"]["sha256"]} for row in measured("right", 2, 0.95, threads=1)]
    (results / "other/results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [str(results / "results.jsonl"), str(results / "other/results.jsonl")]
    for order, name in ((files, "a"), (files[::-1], "b")):
        assert main(["pick", *order, "--budget-ms", "10", "--copy-to", str(results / name)]) == 0
        assert sha256_of(results / name / "model.int8.onnx") == card["schemes"]["int8"]["sha256"]
    shutil.rmtree(other)
    capsys.readouterr()
    assert main(["pick", *files, "--budget-ms", "10", "--copy-to", str(results / "c")]) == 2
    assert f"no bundle here holds the file that was measured (int8, sha256 {card['schemes']['int8']['sha256'][:12]})" in capsys.readouterr().err


def test_a_front_is_not_copied(results, capsys):
    assert main(["pick", str(results / "results.jsonl"), "--copy-to", str(results / "best")]) == 2
    assert "--budget-ms or --min-accuracy" in capsys.readouterr().err


def test_rows_are_added_whole_and_replace_their_elders(tmp_path):
    path = tmp_path / "deep/r.jsonl"
    same = lambda old, new: old["member"] == new["member"]  # noqa: E731
    append_rows(path, measured("a", 1, None), same)
    append_rows(path, measured("b", 1, None) + measured("c", 1, None), same)
    append_rows(path, measured("a", 5, None), same)
    assert [(row["member"], row["latency_ms"]["p50"]) for row in read_rows([path])] == [("b", 1), ("c", 1), ("a", 5)]
    many = [f"m{k}" for k in range(24)]
    with ThreadPoolExecutor(4) as pool:  # each opens the lock for itself, as processes do
        list(pool.map(lambda name: append_rows(path, measured(name, 1, None), lambda old, new: False), many))
    assert sorted(row["member"] for row in read_rows([path])) == sorted([*many, "a", "b", "c"]), "nobody loses what another adds meanwhile"
    (tmp_path / "link.jsonl").symlink_to(path)
    append_rows(tmp_path / "link.jsonl", measured("linked", 1, None), same)
    assert (tmp_path / "link.jsonl").is_symlink() and read_rows([path])[-1]["member"] == "linked"
    path.write_text("".join(json.dumps(row) + "\n" for row in read_rows([path])[:3]) + "{half a row")
    with pytest.raises(UserError, match="r.jsonl, line 4: not a JSON object"):
        append_rows(path, measured("d", 1, None), same)


def test_rows_are_written_lean_and_older_ones_stay_as_they_are(tmp_path):
    path = tmp_path / "r.jsonl"
    bins = [{"low": 0.0, "high": 1.0, "n": 1}]
    old, new = measured("a", 1 / 3, 2 / 3), measured("b", 1 / 3, 2 / 3)
    for rows in (old, new):
        rows[1]["metrics"]["calibration"] = {"ece": 1 / 7, "bins": bins, "after": {"ece": 1 / 9, "bins": bins}}
        rows[0] |= {"n_parameters": 123456789, "spans": [1e-7 / 3, 2e6 / 3], "scenario": "server", "rate": 50 / 3}
    path.write_text("".join(json.dumps(row) + "\n" for row in old))
    written = append_rows(path, new, lambda old, new: False)
    rows = read_rows([path])
    assert rows[:2] == old and rows[2:] == written
    assert rows[3]["metrics"]["calibration"] == {"ece": 0.142857, "after": {"ece": 0.111111}}
    assert rows[2]["latency_ms"]["p50"] == 0.333333 and rows[3]["metrics"]["top1"]["micro"] == 0.666667
    assert rows[2]["rate"] == 50 / 3 and rows[2]["n_parameters"] == 123456789 and rows[2]["spans"] == [3.33333e-8, 666667.0]
    assert new[1]["metrics"]["calibration"]["bins"] == bins, "what was given is as it was"
    other = {"schema": 2, "kind": "training", "images_per_s": 1 / 3}
    assert append_rows(path, [other], lambda old, new: False) == [other]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[]", "not a measurement"),
        ('{"schema": 3, "kind": "latency"}', "schema 3; this version reads up to 2"),
        ('{"schema": 1, "kind": "latency", "member": NaN}', "NaN is no number"),
        ('{"schema": 1, "kind": "latency"}', "'member' is None"),
        ('{"schema": 1}', '"kind" is missing'),
        ("[" * 100_000, "not a JSON object"),
    ],
)
def test_a_line_that_is_no_measurement_is_told(tmp_path, line, told):
    (tmp_path / "r.jsonl").write_text(json.dumps(measured("a", 1, None)[0]) + "\n\n" + line)
    with pytest.raises(UserError) as error:
        read_rows([tmp_path / "r.jsonl"])
    assert told in str(error.value) and "line 3" in str(error.value)
