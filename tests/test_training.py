"""The trainer, for real: phases, two Horovod ranks, a kill and a resume. Tiny models; nothing is mocked."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from trainings import ENVIRONMENT, EXACT, children_of, events, family, rank_of, weights_of

from family.training.rates import learning_rate


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made-up") / "dataset"
    family("data", "synth", out, "--listings", 80, "--categories", 12)
    return out


@pytest.fixture(scope="module")
def one_rank(dataset, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("one") / "run"
    family("train", dataset, "--out", run, *EXACT, "--set", "finetune_epochs=4")
    return run


def test_two_ranks_learn_the_same_as_one(dataset, one_rank, tmp_path):
    run = tmp_path / "run"
    family("train", dataset, "--out", run, *EXACT, "--set", "finetune_epochs=4", "--ranks", 2)
    ones, twos = events(one_rank, "epoch"), events(run, "epoch")
    assert len(ones) == len(twos) == 4
    assert [row["step"] for row in ones] == [row["step"] for row in twos]
    np.testing.assert_allclose([row["loss"] for row in ones], [row["loss"] for row in twos], rtol=1e-4)
    one, two = (json.loads((folder / "card.json").read_text()) for folder in (one_rank, run))
    assert two["training"]["ranks"] == 2
    assert two["temperature"] == pytest.approx(one["temperature"], rel=0.01), "fitted on the validation rows of both ranks together"


def test_a_killed_run_resumes_to_the_same_bits(dataset, one_rank, tmp_path):
    run = tmp_path / "run"
    words = ["train", str(dataset), "--out", str(run), *EXACT, "--set", "finetune_epochs=4", "--set", "checkpoint_interval_s=0.001"]
    child = subprocess.Popen(
        [sys.executable, "-m", "family.cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )
    deadline = time.monotonic() + 300
    while not (run / "checkpoints").is_dir() or not list((run / "checkpoints").glob("step-*.npz")):
        assert time.monotonic() < deadline and child.poll() is None, "no checkpoint was written"
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (run / "card.json").exists()
    said = family(*words, code=2).stderr
    assert "--resume" in said
    family(*words, "--resume")
    (resumed,) = events(run, "resumed")
    assert resumed["step"] > 0
    ones, found = weights_of(one_rank), weights_of(run)
    assert ones.keys() == found.keys()
    assert all(np.array_equal(ones[name], found[name]) for name in ones), "the resumed run differs"


def test_two_phases_need_a_pretrained_trunk(dataset, tmp_path):
    said = family("train", dataset, "--out", tmp_path / "run", "--weights", "none", code=2).stderr
    assert "pretrained" in said and "--recipe scratch" in said
    assert not (tmp_path / "run").exists()


def test_the_head_phase_ends_at_a_plateau_and_finetuning_follows(dataset, one_rank, tmp_path):
    run = tmp_path / "run"
    # A rate so low that training accuracy stays where it is: the plateau is seen after `plateau_patience` stale epochs.
    family("train", dataset, "--out", run, "--variant", "lite0", "--weights", one_rank, "--scope", "animals", "--set", "resolution_px=32",
           "--set", "finetune_epochs=1", "--set", "head_epochs=30", "--set", "head_rate=0.0000001", "--set", "plateau_patience=2")  # fmt: skip
    head, finetune = events(run, "phase")
    assert (head["phase"], head["stopped_by"]) == ("head", "plateau") and head["epochs"] < 30
    assert finetune["phase"] == "finetune" and finetune["epochs"] == 1
    assert head["features_s"] > 0 and all(phase["s"] > 0 and phase["peak_memory_mb"] > 100 for phase in (head, finetune))
    card = json.loads((run / "card.json").read_text())
    assert card["scope"] == "animals" and all(path.startswith("Animals/") for path in card["paths"])
    assert card["training"]["weights"]["loaded"] > 200 and not card["training"]["weights"]["missing"]
    before, after = weights_of(one_rank), weights_of(run)
    moved = [name for name in before if "moving_" in name and not np.array_equal(before[name], after[name])]
    assert not moved, "BatchNorm statistics of a pretrained trunk must stay"


def test_a_finished_run_is_not_trained_again(dataset, one_rank):
    said = family("train", dataset, "--out", one_rank, *EXACT, "--set", "finetune_epochs=4").stdout
    assert "already done" in said


def test_a_run_of_another_recipe_is_not_overwritten(dataset, one_rank):
    said = family("train", dataset, "--out", one_rank, *EXACT, "--set", "finetune_epochs=5", code=2).stderr
    assert "finetune_epochs" in said and "--fresh" in said


def test_a_rank_that_dies_ends_the_job_and_is_named(dataset, tmp_path):
    run = tmp_path / "run"
    words = ["train", str(dataset), "--out", str(run), *EXACT, "--set", "finetune_epochs=500", "--ranks", "2"]
    launcher = subprocess.Popen(
        [sys.executable, "-m", "family.cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    deadline = time.monotonic() + 300
    while not (run / "metrics.jsonl").is_file():
        assert time.monotonic() < deadline and launcher.poll() is None, "it did not begin to train"
        time.sleep(0.1)
    ranks = {rank_of(pid): pid for pid in children_of(launcher.pid)}
    os.kill(ranks["1"], signal.SIGKILL)
    killed_at = time.monotonic()
    _, said = launcher.communicate(timeout=60)
    assert time.monotonic() - killed_at < 30
    assert launcher.returncode == 1 and "rank 1 was killed by SIGKILL" in said
    assert not Path(f"/proc/{ranks['0']}").exists(), "a rank outlived its job"


def test_horovodrun_may_start_the_ranks(dataset, tmp_path):
    run, horovodrun = tmp_path / "run", Path(sys.executable).with_name("horovodrun")
    words = [sys.executable, "-m", "family.cli", "train", str(dataset), "--out", str(run), *EXACT, "--set", "finetune_epochs=1"]
    command = [str(horovodrun), "--gloo", "-np", "2", "-H", "localhost:2", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert json.loads((run / "card.json").read_text())["training"]["ranks"] == 2
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert again.returncode == 0 and "already done" in again.stdout


def test_mpirun_without_mpi_in_horovod_is_refused_instead_of_training_twice(dataset, tmp_path):
    environment = {**ENVIRONMENT, "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}
    words = [sys.executable, "-m", "family.cli", "train", str(dataset), "--out", str(tmp_path / "run"), *EXACT]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 1 and "built without MPI" in done.stderr
    assert not (tmp_path / "run").exists()


def test_rates_warm_up_and_scale_with_the_rows_of_an_update():
    rates = [learning_rate(k, 100, 0.256, 128, 10, "cosine") for k in range(100)]
    assert rates[:10] == sorted(rates[:10]) and rates[0] > 0
    assert max(rates) == pytest.approx(0.128, rel=0.05)
    assert rates[-1] < 0.001
    assert learning_rate(50, 100, 0.256, 256, 0, "constant") == 0.256
