"""`bench train` and `bench scaling`: that they run, what they print, and how turns become figures. No figure is judged."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.scaling.command import ALONE, RANKS, summarize_turn
from benchmarks.scaling.command import summarize as summarize_scaling
from benchmarks.training.command import same_setting
from benchmarks.training.command import summarize as summarize_training
from benchmarks.training.drawn import dataset_or_made_up, enough_rows, timed_recipe
from export.speed import interval_of_median
from family.cli import main
from family.data.dataset import open_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    with dataset_or_made_up(None) as made_up:
        folder = tmp_path_factory.mktemp("bench") / "dataset"
        shutil.move(made_up.folder, folder)
    return folder


def process(s, n_steps):
    return {"s": s, "step_ends_s": [s] * n_steps, "waited_s": 0.1 * s, "sum_s": 0.1, "user_s": 3 * s, "system_s": s, "page_faults": 1}


def test_ranks_are_as_fast_as_the_slowest_and_trainers_alone_add_up():
    processes = [process(4.0, 2), process(8.0, 2)]
    assert summarize_turn(processes, 32, RANKS)["images_per_s"] == pytest.approx(128 / 8)
    alone = summarize_turn(processes, 32, ALONE)
    assert alone["images_per_s"] == pytest.approx(64 / 4 + 64 / 8)
    assert alone["waited_for_input"] == pytest.approx(0.1)


def test_efficiency_is_the_median_of_the_pairs_ratios():
    alone = summarize_turn([process(4.0, 4)] * 2, 8, ALONE)
    pairs = [{RANKS: summarize_turn([process(s, 4)] * 2, 8, RANKS), ALONE: alone} for s in (5.0, 4.0, 8.0)]
    row = summarize_scaling(2, pairs)
    assert row["efficiency"] == pytest.approx(0.8) and row["interval"] is None
    assert summarize_scaling(2, pairs * 4)["interval"] == pytest.approx([0.5, 1.0])
    assert row["step_ms"] == pytest.approx({"computing": 1025, "waiting for input": 125, "all-reduce": 100})
    assert row["system_share"] == pytest.approx({RANKS: 0.25, ALONE: 0.25})


def test_the_interval_of_a_median_is_that_of_binomial_tables():
    values = list(range(1, 101))
    assert interval_of_median(values[:5]) is None
    assert [interval_of_median(values[:n]) for n in (6, 9, 12, 20, 100)] == [[1, 6], [2, 8], [3, 10], [6, 15], [40, 61]]


def test_training_ratios_are_the_medians_of_the_rounds_ratios():
    rates = ((10, 10, 5), (30, 20, 30), (9, 10, 3))
    rounds = [{"images_per_s": ours, "keras_fit_images_per_s": theirs, "pytorch_images_per_s": torch} for ours, theirs, torch in rates]
    found = summarize_training(rounds, ["pytorch"])
    assert (found["images_per_s"], found["keras_fit_images_per_s"], found["ratio"]) == (10, 10, 1.0)
    assert found["spread"] == {"ratio_min": 0.9, "ratio_max": 1.5}
    assert found["peers"] == {"pytorch": {"images_per_s": 5, "ratio": 2.0, "spread": {"ratio_min": 1.0, "ratio_max": 3.0}}}
    assert summarize_training(rounds)["peers"] == {}


def test_a_measurement_replaces_one_of_the_same_setting_and_machine():
    row = {"kind": "training", "variant": "b0", "resolution_px": 64, "batch_size": 8, "machine": {"name": "m"}}
    assert same_setting(row, dict(row))
    assert not same_setting(row, {**row, "variant": "v2-b0"})
    assert not same_setting(row, {**row, "machine": {"name": "other"}})
    with_peers = {**row, "peers": {"pytorch": {"ratio": 1.0}}}
    assert not same_setting(with_peers, {**row, "peers": {}}), "what was measured of peers would be lost"
    assert same_setting(with_peers, {**row, "peers": {"pytorch": {"ratio": 2.0}}})


def test_few_rows_are_repeated(dataset):
    rows = open_dataset(dataset).rows("train").take(range(3))
    assert len(enough_rows(rows, 8)) == 8 and len(enough_rows(rows, 2)) == 3


@pytest.mark.parametrize(
    "words", ["train --steps 0", "train --variant b99", "train --weights no-such.h5", "scaling --ranks 1,x", "scaling --rounds 0"]
)
def test_bad_arguments_end_with_2(words, capsys):
    assert main(["bench", *words.split()]) == 2
    assert "family bench" in capsys.readouterr().err


def bench(*words):
    """Run a benchmark in a process of its own, since it sets TensorFlow's threads, and return what it prints."""
    command = [sys.executable, "-m", "family.cli", "bench", *words, "--variant", "lite0", "--resolution", "32", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_bench_train_prints_the_contract(dataset, tmp_path):
    pytest.importorskip("tf_keras")
    turns = ["--batch-size", "4", "--steps", "2", "--rounds", "1", "--head-epochs", "1", "--head-limit", "0"]
    found = bench("train", *turns, "--dataset", str(dataset), "--out", str(tmp_path / "r.jsonl"))
    assert all(found[key] > 0 for key in ("images_per_s", "keras_fit_images_per_s", "ratio"))
    assert found["peak_memory_without_input_mb"] > 100 and found["peak_memory_mb"] > 100
    head = found["head_phase"]
    assert all(head[key] > 0 for key in ("s", "keras_fit_s", "ratio", "epochs_s")) and list(head["views_s"]) == ["1", "2", "3"]
    assert head["keras_fit_estimated"] and 0 <= head["accuracy"]["ours"] <= 1 and "keras_fit" not in head["accuracy"]
    assert json.loads((tmp_path / "r.jsonl").read_text())["kind"] == "training"


def test_peers_that_are_not_installed_are_told_how_to_install(monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.training.sides._is_there", lambda package: package != "torch")
    assert main(["bench", "train", "--peers"]) == 2
    assert "pip install '.[peers]'" in capsys.readouterr().err


def test_bench_scaling_prints_the_contract(dataset, tmp_path):
    pytest.importorskip("horovod")
    turns = ["--ranks", "1,2", "--batch-per-rank", "4", "--strong", "--steps", "2", "--rounds", "2", "--picture", str(tmp_path / "p.svg")]
    one, row = bench("scaling", *turns, "--dataset", str(dataset), "--out", str(tmp_path / "r.jsonl"))["rows"]
    assert row["ranks"] == 2 and row["images_per_s"] > 0 and row["efficiency"] > 0
    assert (one["ranks"], one["batch_per_rank"]) == (1, 4) and one["efficiency"] > 0 and one["step_ms"]["all-reduce"] == 0
    assert len(row["turns"]) == 2 and (row["scaling"], row["batch_per_rank"]) == ("strong", 2)
    assert row["step_ms"]["computing"] > 0 and row["step_ms"]["all-reduce"] > 0
    assert "all-reduce" in (tmp_path / "p.svg").read_text()


@pytest.fixture(scope="module")
def head_phase(dataset):
    pytest.importorskip("tf_keras")
    from benchmarks.training.head_phase import HeadPhase, head_recipe

    return HeadPhase("lite0", "none", open_dataset(dataset).rows("train"), head_recipe(timed_recipe(32, 32), 2))


def test_both_sides_of_the_head_phase_start_from_the_same_trunk(head_phase):
    from benchmarks.training.keras_fit import FrozenFit

    ours = head_phase.build()
    fit = FrozenFit("lite0", head_phase.rows, head_phase.recipe, ours)
    fit.model.layers[-1].set_weights(ours.get_layer("logits").get_weights())
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.float32)
    powers = np.exp(fit.model.predict_on_batch(images))
    np.testing.assert_allclose(powers / powers.sum(1, keepdims=True), ours.predict_on_batch(images), atol=1e-5)


def test_head_phases_are_timed_and_compared_on_the_same_rows(head_phase, dataset):
    from benchmarks.training.head_phase import VIEWS, measure_head_phase

    said = []
    found = measure_head_phase(open_dataset(dataset), "lite0", "none", head_phase.recipe, limit_s=600, say=said.append)
    accuracy = found["accuracy"]
    assert not found["keras_fit_estimated"] and found["keras_fit_timed_steps"] == found["keras_fit_steps"]
    assert accuracy["interval"][0] <= accuracy["difference"] <= accuracy["interval"][1]
    assert accuracy["difference"] == pytest.approx(accuracy["ours"] - accuracy["keras_fit"])
    assert len(said) == len(VIEWS) + 1


def test_accuracies_differ_by_the_rows_where_one_side_alone_is_right():
    compare = pytest.importorskip("benchmarks.training.head_phase", reason="TensorFlow is not installed").compare
    ours, theirs = np.array([1, 1, 1, 0, 0], bool), np.array([1, 0, 0, 1, 0], bool)
    found = compare({"ours": ours, "keras_fit": theirs}, np.array(list("aabcd")))
    assert (found["n_images"], found["ours"], found["keras_fit"]) == (5, 0.6, 0.4)
    assert found["difference"] == pytest.approx(0.2) and found["interval"][0] < 0.2 < found["interval"][1]
    assert compare({"ours": ours}, np.array(list("aabcd"))) == {"n_images": 5, "ours": 0.6}
