"""The same run at any number of ranks: the losses of its steps, its answers, and what recipes may change about how they are made."""

import sys
from pathlib import Path

import numpy as np
import pytest
from trainings import EXACT, events, family, rounding

from distributed.launch import launch

# 17 rows an update: uneven at 2 and at 4 ranks, and the last update of an epoch has fewer rows than there are ranks.
# SGD, whose updates are as close as the gradients are; Adam divides by small numbers and makes more of a rounding.
WORDS = [*EXACT, "--set", "batch_size=17", "--set", "finetune_epochs=4", "--set", "optimizer=sgd"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made-up") / "dataset"
    family("data", "synth", out, "--listings", 80, "--categories", 12)
    return out


@pytest.fixture(scope="module")
def one_rank(dataset, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("one") / "run"
    family("train", dataset, "--out", run, *WORDS)
    return run


def losses_of(run: Path) -> np.ndarray:
    return np.array([row["loss"] for row in events(run, "step")])


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_losses_of_the_steps_are_those_of_one_rank(dataset, one_rank, tmp_path, ranks):
    run = tmp_path / "run"
    family("train", dataset, "--out", run, *WORDS, "--ranks", ranks)
    assert largest_difference(one_rank, run, f"SGD, {ranks} ranks") < 1e-6


def test_fine_tuning_with_adam_is_the_same_at_any_number_of_ranks(dataset, one_rank, tmp_path):
    words = ["--variant", "lite0", "--weights", one_rank, "--set", "resolution_px=32", "--set", "head_epochs=0", "--set", "finetune_epochs=4",
             "--set", "batch_size=17", "--set", "deterministic=true"]  # fmt: skip
    for ranks in (1, 2, 4):
        family("train", dataset, "--out", tmp_path / str(ranks), *words, "--ranks", ranks)
    for ranks in (2, 4):
        assert largest_difference(tmp_path / "1", tmp_path / str(ranks), f"AdamW, {ranks} ranks") < 1e-4


def largest_difference(one: Path, other: Path, what: str) -> float:
    """Return the largest relative difference of the loss over the first 20 steps."""
    ones, others = losses_of(one), losses_of(other)
    assert len(ones) == len(others) >= 20
    found = float(np.abs(others / ones - 1)[:20].max())
    print(f"{what}: largest relative difference of the loss over 20 steps {found:.1e}")
    return found


def test_the_last_update_has_fewer_rows_than_ranks(dataset):
    from family.data.dataset import open_dataset

    assert 0 < len(open_dataset(dataset).rows("train")) % 17 < 4, "then uneven ranks are not tested above"


def test_a_distributed_evaluation_counts_every_row_once_and_gives_the_same_answers(dataset, one_rank, tmp_path):
    answers = {}
    for ranks in (1, 2, 4):
        out = tmp_path / f"{ranks}.npz"
        command = [sys.executable, str(Path(__file__).parent / "answers.py"), str(one_rank), str(dataset), str(out)]
        assert launch(command, ranks, tmp_path / f"logs-{ranks}") == 0
        answers[ranks] = np.load(out)
    one = answers[1]["probabilities"]
    for ranks in (2, 4):
        found = answers[ranks]
        assert len(found["shares"]) == ranks and found["shares"].sum() == len(one) == len(answers[1]["labels"])
        np.testing.assert_allclose(found["probabilities"], one, atol=1e-6)
        changed = found["probabilities"].argmax(1) != one.argmax(1)
        best = np.sort(one, axis=1)
        assert (best[changed, -1] - best[changed, -2] < 1e-6).all(), "a rank changed the answer where it was not close"
        assert found["accuracy"] == answers[1]["accuracy"] or changed.any()


def test_accumulating_gradients_over_parts_of_an_update_changes_nothing(dataset, one_rank, tmp_path):
    run = tmp_path / "run"
    family("train", dataset, "--out", run, *WORDS, "--set", "accumulate=3", "--ranks", 2)
    assert largest_difference(one_rank, run, "3 parts an update") < 1e-6


def test_gradients_can_travel_in_half_the_bytes(dataset, one_rank, tmp_path):
    run = tmp_path / "run"
    family("train", dataset, "--out", run, *WORDS, "--set", "gradient_compression=fp16", "--ranks", 2)
    ones, found = losses_of(one_rank), losses_of(run)
    assert not np.array_equal(ones, found), "nothing was compressed"
    np.testing.assert_allclose(found[:20], ones[:20], rtol=2e-2)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_activations_can_be_half_as_long(dataset, one_rank, tmp_path, precision):
    run = tmp_path / "run"
    family("train", dataset, "--out", run, *WORDS, "--set", f"precision={precision}", "--set", "finetune_epochs=1")
    assert np.abs(losses_of(run)[:6] / losses_of(one_rank)[:6] - 1).max() < 0.05
    family("evaluate", run, dataset, "--out", tmp_path / "evaluation")


def test_the_best_epoch_can_be_kept_and_validation_can_end_a_run(dataset, tmp_path):
    run = tmp_path / "run"
    family("train", dataset, "--out", run, *WORDS, "--set", "finetune_epochs=60", "--set", "val_patience=2", "--set", "weights_kept=best",
           "--set", "finetune_rate=0.01")  # fmt: skip
    (phase,) = events(run, "phase")
    accuracies = [row["val_accuracy"] for row in events(run, "epoch")]
    assert phase["stopped_by"] == "validation" and phase["epochs"] == len(accuracies) < 60
    assert accuracies.index(max(accuracies)) == len(accuracies) - 3
    assert phase["val_accuracy"] == max(accuracies)


def test_autotune_is_refused_where_bits_are_to_stay(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("HOROVOD_AUTOTUNE", "1")
    from family.cli import main

    assert main(["train", str(dataset), "--out", str(tmp_path / "run"), *WORDS]) == 2
    assert not (tmp_path / "run").exists()


def test_a_student_learns_the_same_at_two_ranks_and_only_from_one_who_knows_its_categories(dataset, one_rank, tmp_path):
    words = [*WORDS, "--set", "distill_weight=0.7", "--set", "resolution_px=48", "--teacher", one_rank]
    family("train", dataset, "--out", tmp_path / "one", *words)
    family("train", dataset, "--out", tmp_path / "two", *words, "--ranks", 2)
    assert largest_difference(tmp_path / "one", tmp_path / "two", "with a teacher") < rounding(1e-5, 1e-4)  # 2.8e-5 was seen
    family("train", dataset, "--out", tmp_path / "alone", *words[:-2], "--set", "distill_weight=0.0")
    assert not np.allclose(losses_of(tmp_path / "alone")[:5], losses_of(tmp_path / "one")[:5])
    vertical = tmp_path / "animals"
    family("train", dataset, "--out", vertical, *WORDS, "--scope", "animals", "--set", "finetune_epochs=1", "--set", "max_updates=1")
    done = family("train", dataset, "--out", tmp_path / "refused", *words[:-1], vertical, code=2)
    assert "does not know" in done.stderr and not (tmp_path / "refused").exists()
