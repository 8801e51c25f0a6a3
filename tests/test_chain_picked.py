"""`family pick --chain`: what is expected of a chain is what it does, its mixture is that of its ways, and nothing better is within the budget."""

import argparse
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import bench
from benchmarks.chains import choosing, gathering
from benchmarks.chains.choosing import NOBODY, THRESHOLDS, Chosen, Option, _at_most, expect_again, pick_chain
from benchmarks.chains.evidence import Evidence, General, Submodel, read_evidence, write_evidence
from benchmarks.chains.mixture import GRID, N_DRAWN, Way, alone, draw, extra, handing_over, is_timed, percentile, quantiles
from benchmarks.chains.picking import SUFFIX, choose, tell
from benchmarks.chains.searching import search
from benchmarks.measurements import read_rows
from benchmarks.pick import Wanted
from benchmarks.studies import predicting
from family.cli import is_done, main
from family.data.dataset import open_dataset
from family.errors import NothingFits, UserError
from family.outputs import read_json

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

LEVELS = (np.array([0, 0, 1, 1, 2]), np.arange(5))  # of five classes
VERTICALS = ("a", "b")


def timed(sha: str, model_ms: float, px: int = 128, noise: float = 0.1, **fields) -> dict:
    rng = np.random.default_rng(len(sha))
    stages = {"decode": 1.0, "resize": 0.3, "model": model_ms, "post": 0.05}
    grids = {stage: quantiles(ms * (1 + noise * rng.exponential(1, 2000))) for stage, ms in stages.items()}
    return {"kind": "latency", "model_sha256": sha, "member": sha, "resolution_px": px, "quantiles_ms": grids,
            "latency_ms": {"p99": 1.0, "uppers": {"p99": 1.0, "p90": 1.0, "p50": 1.0}}, **fields}  # fmt: skip


@st.composite
def evidences(draw_):
    rng = np.random.default_rng(draw_(st.integers(0, 2**32)))
    n = draw_(st.integers(20, 120))
    truth = rng.integers(0, 5, n).astype(np.int32)

    def answers(right: float) -> np.ndarray:
        return np.where(rng.random(n) < right, truth, rng.integers(0, 5, n)).astype(np.int32)

    generals = {f"g{k}": General(answers(0.5 + 0.1 * k), rng.random(n).astype(np.float32), rng.integers(-1, 2, n).astype(np.int32)) for k in range(2)}
    subs = {f"{v}{k}": Submodel(v, answers(0.7 + 0.1 * k)) for v in VERTICALS for k in range(draw_(st.integers(0, 2)))}
    return Evidence(VERTICALS, truth, LEVELS, generals, subs, {"name": "d", "digest": "x", "split": "val"})


def rows_of(evidence: Evidence) -> list[dict]:
    return [timed(sha, 4 + 3 * k) for k, sha in enumerate([*evidence.generals, *evidence.submodels])]


def accuracy_of(evidence: Evidence, sha: str, choice: dict, metric: str) -> float:
    """Answer row by row, as a chain would."""
    general, level = evidence.generals[sha], LEVELS[0] if metric.startswith("levels.1") else LEVELS[1]
    right, truth = [], level[evidence.truth]
    for row in range(len(evidence.truth)):
        best = general.best[row]
        if general.route[row] >= 0:
            sub, limit = choice[VERTICALS[general.route[row]]]
            if sub and (limit is None or general.sure[row] < limit):
                best = evidence.submodels[sub].best[row]
        right.append(level[best] == truth[row])
    right = np.array(right)
    return float(right.mean()) if metric.endswith("micro") else float(np.mean([right[truth == node].mean() for node in np.unique(truth)]))


@settings(max_examples=25, deadline=None)
@given(evidences(), st.floats(4, 40), st.sampled_from(["top1.micro", "top1.macro", "levels.1.micro"]), st.sampled_from([50, 90, 99]))
def test_what_is_expected_is_what_answering_row_by_row_gives_and_nothing_better_fits(evidence, budget, metric, percent):
    rows = rows_of(evidence)
    by_sha = {row["model_sha256"]: row for row in rows}
    try:
        chosen = pick_chain(rows, evidence, budget, percent, metric)
    except NothingFits:
        chosen = None
    best = -1.0
    for sha in evidence.generals:
        options = [[(None, None), *((s, t) for s, sub in evidence.submodels.items() if sub.vertical == v for t in (0.5, 0.9, None))] for v in VERTICALS]
        for combined in itertools.product(*options):
            choice = dict(zip(VERTICALS, combined, strict=True))
            slow, own = [], alone(by_sha[sha]) + handing_over(by_sha[sha])
            for place, (sub, limit) in enumerate(combined):
                general = evidence.generals[sha]
                asked = (general.route == place) & (np.ones(len(evidence.truth), bool) if limit is None else general.sure < limit)
                if sub:
                    slow.append(Way(_at_most(float(asked.mean()), len(asked)), np.sort(own + extra(by_sha[sha], by_sha[sub]))))
            cost = percentile([Way(max(1 - sum(way.share for way in slow), 0.0), own if slow else alone(by_sha[sha])), *slow], percent)
            if cost <= budget:
                best = max(best, accuracy_of(evidence, sha, choice, metric))
    if chosen is None:
        assert best == -1.0
        return
    assert chosen.cost_ms <= budget
    choice = {name: (option.submodel, option.threshold) for name, option in chosen.options.items()}
    assert chosen.accuracy == pytest.approx(accuracy_of(evidence, chosen.general, choice, metric), abs=1e-6)
    assert chosen.accuracy >= best - 1e-6
    if metric == "top1.micro":
        nobody, beside = dict.fromkeys(VERTICALS, (None, None)), chosen.beside
        fitting = [accuracy_of(evidence, sha, nobody, metric) for sha in evidence.generals if percentile([Way(1.0, alone(by_sha[sha]))], percent) <= budget]
        assert beside.accuracy == pytest.approx(max(fitting), abs=1e-6) and beside.cost_ms <= budget
        assert (beside.won - beside.lost) / len(evidence.truth) == pytest.approx(chosen.accuracy - beside.accuracy, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(evidences(), st.floats(5, 30), st.sampled_from(["top1.micro", "top1.macro"]), st.sampled_from([50, 95]),
       st.lists(st.floats(1, 1.6), min_size=6, max_size=6))  # fmt: skip
def test_the_choice_is_that_of_trying_everything(evidence, budget, metric, percent, margins):
    rows = rows_of(evidence)
    for row, margin in zip(rows, margins, strict=False):
        row["latency_ms"] = {f"p{percent}": 1.0, "uppers": {f"p{percent}": margin}}
    timed_of = {row["model_sha256"]: row for row in rows}
    node_of, weights = choosing._weigh(evidence, metric)
    everything = []
    for sha, general in evidence.generals.items():
        right = node_of[general.best] == node_of[evidence.truth]
        options = [[NOBODY] for _ in VERTICALS]
        for other, submodel in evidence.submodels.items():
            ms = choosing._of_asked(timed_of[sha], timed_of[other])
            better = weights * ((node_of[submodel.best] == node_of[evidence.truth]).astype(float) - right)
            for limit in (0.5, 0.9, None) if len(evidence.submodels) > 2 else THRESHOLDS:
                asked = choosing._asked(general, VERTICALS.index(submodel.vertical), limit)
                options[VERTICALS.index(submodel.vertical)].append(Option(other, limit, float(better[asked].sum()), float(asked.mean()), ms))
        for combined in itertools.product(*options):
            accuracy, own = float(weights @ right) + sum(option.gain for option in combined), alone(timed_of[sha])
            one = choosing._expect(accuracy, sha, dict(zip(VERTICALS, combined, strict=True)), timed_of, own, len(evidence.truth), percent)
            everything += [one] if one.cost_ms <= budget else []
    if not everything:
        with pytest.raises(NothingFits):
            pick_chain(rows, evidence, budget, percent, metric)
        return
    found = pick_chain(rows, evidence, budget, percent, metric)
    most = max(one.accuracy for one in everything)
    assert found.cost_ms <= budget and found.accuracy >= most - 1e-9
    if len(evidence.submodels) <= 2:
        assert found.accuracy <= most + 1e-9
        assert found.cost_ms <= min(one.cost_ms for one in everything if one.accuracy >= most - 1e-9) * (1 + 1e-8), "of equal ones the fastest"


@given(st.data())
def test_a_search_finds_the_most_that_any_choice_gains_within_a_limit(data):
    numbers = st.integers(-3, 8)
    verticals = data.draw(st.lists(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5), min_size=1, max_size=4))
    limit = data.draw(st.integers(-6, 20))
    sums = [tuple(map(sum, zip(*chosen, strict=True))) for chosen in itertools.product(*verticals)]
    fitting = [(gain, -load) for gain, load in sums if load <= limit]
    found = search([np.array([gain for gain, _ in own], float) for own in verticals], [np.array([load for _, load in own], float) for own in verticals], limit)
    if not fitting:
        assert found is None
        return
    gain, places = found
    chosen = [own[place] for own, place in zip(verticals, places, strict=True)]
    assert (gain, -sum(load for _, load in chosen)) == max(fitting) and gain == sum(gain for gain, _ in chosen)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(1, 50)), min_size=1, max_size=4), st.sampled_from([50, 90, 95, 99]))
def test_a_mixtures_percentile_is_that_of_its_rows(ways, percent):
    """Not the average of percentiles: a slow way that one row in a hundred takes lies beyond p99."""
    shares = np.array([share for share, _ in ways]) / sum(share for share, _ in ways)
    rng = np.random.default_rng(0)
    drawn = [np.sort(ms * (1 + 0.2 * rng.random(N_DRAWN))) for _, ms in ways]
    found = percentile([Way(share, ms) for share, ms in zip(shares, drawn, strict=True)], percent)
    rows = np.concatenate([rng.choice(ms, int(200_000 * share)) for share, ms in zip(shares, drawn, strict=True)])
    reached = (rows <= found).mean()
    assert reached >= percent / 100 - 0.01 and (rows < found * 0.999).mean() <= percent / 100 + 0.01


def test_draws_follow_the_distribution_that_a_row_tells():
    samples = np.random.default_rng(1).gamma(3, 2, 5000)
    row = {"quantiles_ms": {"model": quantiles(samples)}, "resolution_px": 128}
    for q in (0.1, 0.5, 0.9, 0.99):
        assert np.quantile(draw(row, "model"), q) == pytest.approx(np.quantile(samples, q), rel=0.03)
    assert not draw(row, "resize").any() and len(GRID) == len(quantiles(samples)) and not is_timed(row)
    other = {"quantiles_ms": {"model": quantiles(samples), "resize": [0.5] * len(GRID)}, "resolution_px": 224}
    assert np.median(extra(row, other) - extra(row, {**other, "resolution_px": 128})) == pytest.approx(0.5)
    how = {"resolution_px": 128, "aspect": "stretch"}
    both = ({**one, "resolution_px": 128, "preprocessing": {**how, "filter": name}} for one, name in ((row, "bilinear"), (other, "bicubic")))
    assert np.median(extra(*both) - draw(other, "model")) != 0, "one size in two ways is resized twice"


@pytest.mark.parametrize("junk", [["x"] * 18, [{}] * 18, [1.0] * 3, [-1.0] * 18, [None] * 18, {"a": 1}, [True] * 18, [1e300] * 18])
def test_rows_whose_quantiles_are_no_times_are_not_chosen_from(junk):
    fine = timed("g", 4)
    assert is_timed(fine)
    for stage in ("decode", "resize", "model", "post"):
        assert not is_timed({**fine, "quantiles_ms": {**fine["quantiles_ms"], stage: junk}})
    assert not any(map(is_timed, ({}, {"quantiles_ms": 3}, {"quantiles_ms": {}})))


def test_what_is_slow_for_an_image_in_one_stage_is_in_all_and_what_comes_now_and_then_takes_cold_time():
    """Photos differ in size: decoding and resizing are slow together, and their sum's tail is longer than that of shuffled ones."""
    size = np.random.default_rng(0).lognormal(0, 0.7, 20_000)
    stages = {"decode": 2 * size, "resize": size, "model": np.full(20_000, 4.0), "post": np.full(20_000, 0.1)}
    row = {"quantiles_ms": {stage: quantiles(ms) for stage, ms in stages.items()}, "resolution_px": 128}
    whole = {**row, "quantiles_ms": {**row["quantiles_ms"], "total": quantiles(sum(stages.values()))}}
    for one in (row, whole):
        assert np.quantile(alone(one), 0.99) == pytest.approx(np.quantile(sum(stages.values()), 0.99), rel=0.03)
    cold = {**row, "cold_ms": {"model": 6.0}}
    assert np.median(extra(row, cold)) == pytest.approx(1.5 * np.median(extra(row, row)))
    assert np.median(extra(row, {**row, "cold_ms": {"model": 1.0}})) == np.median(extra(row, row)), "never less than when warm"


def test_a_chain_takes_what_its_mixture_says_where_members_have_other_sizes():
    """On a made-up clock: resizing for a submodel is paid by the images that it is asked about alone."""
    def member(sha: str, px: int, model_ms: float, resize_ms: float) -> dict:
        stages = {"decode": 1.0, "resize": resize_ms, "model": model_ms, "post": 0.1}
        grids = {stage: quantiles(np.full(9, ms)) for stage, ms in {**stages, "total": sum(stages.values())}.items()}
        return {"kind": "latency", "model_sha256": sha, "member": sha, "resolution_px": px, "quantiles_ms": grids,
                "latency_ms": {"p99": 1.0, "uppers": {"p99": 1.0, "p50": 1.0}}}  # fmt: skip

    rows = [member("g", 128, 4.0, 0.4), member("s", 224, 9.0, 0.9)]
    chosen = Chosen("g", {"a": Option("s", None, 0.0, 0.5, np.zeros(1))}, 0.9, 0.0, 0.0, 0.0)
    seldom, often = (expect_again(chosen, rows, {"a": share}, 1000, 99) for share in (0.005, 0.02))
    assert (seldom.p50_ms, seldom.percentile_ms) == pytest.approx((5.6, 5.6)) and (often.p50_ms, often.percentile_ms) == pytest.approx((5.6, 15.5))
    assert often.options["a"].asked == 0.02 and chosen.options["a"].asked == 0.5


def test_slow_ways_count_with_the_most_that_their_share_may_be():
    assert _at_most(0.0, 100) == 0 and _at_most(0.005, 200) > 0.01
    assert _at_most(0.5, 10**6) == pytest.approx(0.5, abs=0.001) and _at_most(1.0, 5) == pytest.approx(1)
    n = 600
    truth = np.zeros(n, np.int32)
    route = np.full(n, -1, np.int32)
    route[:4] = 0  # 0.7 % of the rows: p99 may well be the slow way's, since of 600 rows that is not sure
    general = General(np.ones(n, np.int32), np.full(n, 0.6, np.float32), route)
    evidence = Evidence(("a",), truth, LEVELS, {"g": general}, {"s": Submodel("a", truth)}, {})
    rows = [timed("g", 4, noise=0.0), timed("s", 30, noise=0.0)]
    with pytest.raises(NothingFits, match="The fastest takes 5.35 ms"):
        pick_chain(rows, evidence, 5)
    assert pick_chain(rows, evidence, 20).options["a"].submodel is None
    assert pick_chain(rows, evidence, 40).options["a"].submodel == "s"
    assert pick_chain(rows, evidence, 20, percent=50).options["a"].submodel == "s", "half of the rows are fast in any case"


def test_metrics_and_members_that_are_not_there_are_told():
    truth = np.zeros(9, np.int32)
    evidence = Evidence(("a",), truth, LEVELS, {"g": General(truth, truth + 0.5, truth - 1)}, {}, {})
    for metric in ("top2.micro", "levels.3.micro", "levels.0.micro", "top1.median", "levels.x.micro"):
        with pytest.raises(UserError, match="K from 1 to 2"):
            pick_chain([timed("g", 4)], evidence, 10, metric=metric)
    with pytest.raises(UserError, match="no general model was both timed"):
        pick_chain([timed("other", 4)], evidence, 10)
    assert None in THRESHOLDS


def test_evidence_is_what_was_written_and_anything_else_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    general = General(rng.integers(0, 5, 9).astype(np.int32), rng.random(9).astype(np.float32), rng.integers(-1, 1, 9).astype(np.int32))
    evidence = Evidence(("a",), np.arange(9, dtype=np.int32) % 5, LEVELS, {"g": general}, {"s": Submodel("a", general.best)}, {"name": "d"})
    path = tmp_path / "r.chains.parquet"
    write_evidence(path, evidence)
    found = read_evidence(path)
    assert (found.verticals, found.dataset) == (("a",), {"name": "d"}) and (found.truth == evidence.truth).all()
    assert (found.generals["g"].sure == general.sure).all() and found.submodels["s"].vertical == "a" and (found.levels[0] == LEVELS[0]).all()
    write_evidence(path, Evidence(("a",), np.array([7], np.int32), LEVELS, {}, {}, {}))
    with pytest.raises(UserError, match="classes that its tree does not have"):
        read_evidence(path)
    for content in (b"", b"PAR1 no"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="holds no answers of members"):
            read_evidence(path)


def test_the_chain_that_is_picked_is_copied_and_answers_as_expected(family_of_three, tmp_path, capsys, monkeypatch):
    folder = family_of_three
    bundles = [str(folder / name) for name in ("general", "electronics", "animals")]
    out = tmp_path / "r.jsonl"
    words = ["bench", *bundles, "--out", str(out), "--samples", "300", "--min-seconds", "0", "--scheme", "fp32", "--machine", "desk"]
    assert main([*words, "--chains"]) == 2 and "--chains wants --data" in capsys.readouterr().err
    one = ["bench", bundles[0], "--data", str(folder / "data"), "--out"]
    assert main([*one, str(out), "--chains"]) == 2 and "give bundles of both" in capsys.readouterr().err
    assert main([*one, str(tmp_path)]) == 2 and "is a folder; --out takes a file of results" in capsys.readouterr().err
    assert main([*one, str(folder / "general" / "card.json" / "r.jsonl")]) == 2 and "can't be written" in capsys.readouterr().err
    assert main([*words, "--data", str(folder / "data"), "--split", "test"]) == 0
    pick = ["pick", str(out), "--chain", "--budget-ms", "10000", "--allow-invalid"]
    assert main(pick) == 2 and "there is none: `family bench BUNDLE... --chains" in capsys.readouterr().err
    from benchmarks.chains.gathering import gather
    from export.bundle import open_bundle
    from export.chain import open_chain
    from export.opening import open_model
    from family.evaluation.routing import route

    asked = [*words, "--data", str(folder / "data"), "--split", "test"]
    assert is_done(asked) and not is_done([*asked, "--chains"])
    evidence = gather([open_model(path, "fp32", "cpu", 1) for path in bundles], open_dataset(folder / "data"), "test")
    write_evidence(out.with_name(out.name + SUFFIX), evidence)
    assert not is_done([*asked, "--chains"]), "they are answers to other rows"
    write_evidence(out.with_name(out.name + SUFFIX), replace(evidence, dataset={**evidence.dataset, "split": "val"}))
    assert is_done([*asked, "--chains"]), "whoever goes on with a family does not time it again"
    write_evidence(out.with_name(out.name + SUFFIX), evidence)
    assert main([*pick, "--json", "--copy-to", str(tmp_path / "best")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy_on"]["split"] == "test" and found["latency_ms"]["upper"] <= 10000
    place = tmp_path / "best" / ("chain.toml" if found["chain"]["verticals"] else "general")
    assert main(["evaluate", str(place), str(folder / "data"), "--out", str(tmp_path / "evaluated")]) == 0
    assert read_json(tmp_path / "evaluated" / "metrics.json")["top1"]["micro"] == pytest.approx(found["accuracy"], abs=1e-9)
    capsys.readouterr()
    timed = ["bench", str(place), "--out", str(tmp_path / "timed.jsonl"), *words[6:]]
    assert place.suffix == ".toml" and main(timed) == 0 and "  predicted p50 " in capsys.readouterr().out
    (row,) = read_rows([tmp_path / "timed.jsonl"])
    assert (row["member"], row["scheme"]) == (found["member"], found["scheme"]) and found["bundle"] == found["bundles"]["general"]
    assert row["predicted_ms"] == pytest.approx(found["latency_ms"], rel=1e-5) and row["asked"].keys() == found["chain"]["verticals"].keys()
    chain, (images, _) = open_chain(place, None, "cpu", 1), open_bundle(tmp_path / "best" / "general").samples("fp32")
    routes = route(np.stack([chain.general.answer(data) for data in images]), list(chain.parts.values()), chain.limits).tolist()
    assert list(row["asked"].values()) == pytest.approx([routes.count(k) / len(images) for k in range(len(chain.submodels))], abs=0.05)
    assert main([*timed, "--data", str(folder / "data")]) == 0
    results = [{**json.loads(line), "valid": True} for line in out.read_text().splitlines()]  # this machine may have other work
    out.write_text("".join(json.dumps(row) + "\n" for row in results))
    monkeypatch.setattr(predicting, "N_SAMPLES", 300)
    asked = {"results": out, "dataset": folder / "data", "budgets": "10000", "percentile": "99", "work": tmp_path / "work", "out": tmp_path / "chains.json"}
    (line,) = predicting.measure(argparse.Namespace(**asked))["chains"]
    assert line["chain"] == found["chain"] and line["timed_ms"]["p50"] > 0 and line["in_turns_ms"]["p50"] > 0 and line["n"] >= 300
    assert line["accuracy_test"] == pytest.approx(found["accuracy"], abs=1e-6) and f"{100 * line['accuracy_test']:.2f}" in capsys.readouterr().out
    own = ["pick", str(tmp_path / "timed.jsonl"), "--budget-ms", "10000", "--allow-invalid"]
    assert main(own) == 0 and "chain-hard-" in capsys.readouterr().out
    assert main([*own, "--copy-to", str(tmp_path / "copy")]) == 2 and "is a chain, which is served from its own folder" in capsys.readouterr().err
    assert main([*timed[:-1], "laptop"]) == 0 and "predicted" not in capsys.readouterr().out, "what was expected of another machine says nothing here"
    everything = tmp_path / "all.toml"
    from family.chains import write_chain

    write_chain(everything, folder / "general", {"animals": folder / "animals"}, "hard", {"animals": 0.9})
    assert main(["bench", str(everything), *words[4:]]) == 0
    assert "chain-hard-b0-32-general-fp32+animals<0.9" in capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    row = next(row for row in rows if row["member"].startswith("chain-"))
    assert row["kind"] == "latency" and list(row["stages_ms"]) == ["decode", "resize", "model", "submodels", "post"] and row["agreement"] == 1
    assert all(found["from_bytes_per_s"] > 0 and found["images_per_s"] > 0 for found in row["throughput"])
    assert main([*pick[:-1], "--max-memory-mb", "9", "--min-accuracy", "0.5"]) == 2
    assert "leave out --min-accuracy and --max-memory-mb" in capsys.readouterr().err
    assert main([*pick[:3], "--budget-ms", "0.001", "--allow-invalid", "--json"]) == 3
    none = json.loads(capsys.readouterr().out)
    assert none["member"] is None and [one["member"] for one in none["nearest"]] == [found["chain"]["general"]] and "would do" in none["why"]
    assert main([*pick[:3], "--allow-invalid"]) == 2 and "--chain wants --budget-ms" in capsys.readouterr().err


def test_answers_that_give_way_to_those_of_other_bundles_are_told(family_of_three, tmp_path, capsys, monkeypatch):
    gather = gathering.gather
    monkeypatch.setattr(gathering, "gather", lambda models, dataset: gather(models, dataset, "test"))  # it has no validation rows
    bundles = [family_of_three / name for name in ("general", "animals")]
    args = argparse.Namespace(bundles=bundles, scheme="fp32", threads=1, provider="cpu", out=tmp_path / "r.jsonl")
    dataset, place = open_dataset(family_of_three / "data"), tmp_path / ("r.jsonl" + SUFFIX)
    bench._note_answers(args, dataset)
    first = read_evidence(place)
    assert "no longer" not in capsys.readouterr().err and first.verticals == ("animals",)
    write_evidence(place, replace(first, submodels={**first.submodels, "another": next(iter(first.submodels.values()))}))
    bench._note_answers(args, dataset)
    assert "no longer holds what 1 other files answered" in capsys.readouterr().err
    assert read_evidence(place).submodels.keys() == first.submodels.keys()


def test_rows_that_can_not_make_one_chain_are_told(tmp_path):
    truth = np.zeros(9, np.int32)
    rows_of_it = {"name": "d", "digest": "x", "split": "val"}
    evidence = Evidence(("a",), truth, LEVELS, {"g": General(truth, truth + 0.5, truth)}, {"s": Submodel("a", truth)}, rows_of_it)
    results = tmp_path / "r.jsonl"
    write_evidence(results.with_name(results.name + SUFFIX), evidence)

    def row(sha: str, **fields) -> dict:
        machine = {"name": "desk", "cpu": "c", "cores": 2, "versions": {"onnxruntime": "1.26"}} | fields.pop("machine", {})
        return {**timed(sha, 4), "schema": 2, "scheme": "int8", "bundle": sha, "machine": machine, "provider": "cpu", "threads": 1, **fields}

    def pick(*rows: dict, **wanted) -> dict:
        return choose(list(rows), [results], Wanted(budget_ms=100, **wanted))

    assert pick(row("g"), row("s"))["chain"]["general"] == "g"
    (stray,) = pick(row("g"), row("s"), row("stray", threads=2))["left_out"]
    assert stray["member"] == "stray" and "did not answer validation rows" in stray["why"]
    first, later = {"at": "2026-01-01"}, {"at": "2026-02-01"}
    older, elsewhere = {"machine": {"versions": {"onnxruntime": "1.20"}}}, {"machine": {"cpu": "other"}}
    for changed in ({"threads": 2}, older, elsewhere):
        found = pick(row("g", **later), row("s", **first, **changed))
        assert found["files"] == {"general": "g"} and "not timed with the setting" in found["left_out"][0]["why"] and found["left_out"][0]["member"] == "s"
    slow = [{**timed(sha, 40), **{key: value for key, value in row(sha, threads=2, **later).items() if key != "quantiles_ms"}} for sha in "gs"]
    both = [row("g", **first), row("s", **first), *slow]
    assert pick(*both, percentile="50") == pick(*reversed(both), percentile="50") and pick(*both)["threads"] == 1, "the faster setting, whichever is newer"
    upgraded = [row(sha, **later, valid=False, invalid_because="it was busy") for sha in "gs"]
    with pytest.raises(NothingFits, match="g: INVALID .it was busy"):
        pick(*(row(sha, **first, **older) for sha in "gs"), *upgraded)
    assert pick(*(row(sha, **first, **older) for sha in "gs"), *(row(sha, **later, threads=2) for sha in "gs"))["threads"] == 2, "the newest state"
    both = [row(sha, machine={"name": name}) for sha in "gs" for name in ("desk", "laptop")]
    with pytest.raises(UserError, match="choose with --machine: desk, laptop"):
        pick(*both)
    assert pick(*both, machine="laptop")["machine"] == "laptop"
    with pytest.raises(UserError, match="no measurement of the machine 'foo'; there are desk, laptop"):
        pick(*both, machine="foo")
    busy = {"valid": False, "invalid_because": "the machine was busy"}
    with pytest.raises(NothingFits, match=r"no general model can be .*g: INVALID .the machine was busy.*; --allow-invalid") as nothing:
        pick(row("g", **busy), row("s", **busy))
    assert [one["member"] for one in nothing.value.left_out] == ["g", "s"]
    with pytest.raises(NothingFits, match="g: INVALID .the machine was busy"):
        pick(row("g", **busy), row("s"))
    found = pick(row("g"), row("s", **busy))
    assert found["left_out"] == [{"member": "s", "why": "INVALID (the machine was busy)"}] and "  not s: INVALID (the" in tell(found, "99", "top1.micro")
    with pytest.raises(NothingFits, match="would do") as nothing:
        choose([row("g"), row("s", **busy)], [results], Wanted(budget_ms=0.1))
    assert [one["member"] for one in nothing.value.left_out] == ["s"], "--json tells it too"
    bare = {key: value for key, value in row("g").items() if key not in ("bundle", "provider", "threads")}
    assert choose([bare], [results], Wanted(budget_ms=100))["bundle"] is None
    found = pick(row("g", **busy), row("s"), allow_invalid=True)
    assert found["invalid_because"] == "the machine was busy" and "INVALID: the machine was busy" in tell(found, "99", "top1.micro")
    assert found["latency_ms"]["upper"] and "at most" in tell(found, "99", "top1.micro")
    unbounded = {"latency_ms": {key: ms for key, ms in timed("s", 4)["latency_ms"].items() if key != "uppers"}}
    assert not pick(row("g"), row("s", **unbounded))["chain"]["verticals"], "nothing says how long a submodel takes at most that has no bound"
    with pytest.raises(NothingFits, match="g: no bound of p99: more --samples.*; --allow-invalid"):
        pick(row("g", **unbounded), row("s", **unbounded))
    found = pick(row("g", **unbounded), row("s"), allow_invalid=True)
    assert found["latency_ms"]["upper"] is None and found["alone"]["upper_ms"] is None and "(not bounded)" in tell(found, "99", "top1.micro")
    for wrong, said in (({"agreement": 0.4}, "wrong answers"), ({"trained": False}, "untrained"), ({"trained": None}, "untrained"),
                        ({"quantiles_ms": None}, "without its stages")):  # fmt: skip
        with pytest.raises(NothingFits, match=f"g: .*{said}"):
            pick(row("g", **wrong), row("s"), allow_invalid=True)
    with pytest.raises(UserError, match="no general model was both timed"):
        pick(row("s"))
    with pytest.raises(UserError, match="K from 1 to 2"):
        pick(row("g"), row("s"), metric="levels.\u00b2.micro")
