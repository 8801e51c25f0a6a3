"""Whole trainings compared: the command lines of all arms, and the long-tailed copy that they train on."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies.ablation import LONGEST, long_tail
from benchmarks.studies.recipes import COMPARISONS, Comparison, _dataset_of, steps
from family.cli import main
from family.data.dataset import open_dataset
from family.errors import OtherOutput, UserError

FILES = ["v2-b0=large.h5", "b0=small.h5"]


def planned(what: str, seeds=(0, 1, 2), weights=FILES) -> list:
    args = Namespace(dataset=Path("data"), work=Path("work"), weights=weights, resolution=128, epochs=4, settings=["precision=mixed_bfloat16"])
    return steps(args, COMPARISONS[what], {seed: Path(f"data-{seed}") for seed in seeds})


def settings(step) -> dict[str, str]:
    return dict(step.words[k + 1].split("=", 1) for k, word in enumerate(step.words) if word == "--set")


def test_arms_differ_in_what_they_say_and_in_nothing_else():
    trainings = [step for step in planned("distill") if step.stage == "train"]
    assert len(trainings) == 1 + 2 * 2 * 3 and "teacher" in str(trainings[0])
    for plain, taught in zip(trainings[1::2], trainings[2::2], strict=True):
        assert "--teacher" not in plain.words and taught.words[taught.words.index("--teacher") + 1] == "work/runs/teacher"
        ours, theirs = settings(plain), settings(taught)
        assert ours["precision"] == "mixed_bfloat16"
        assert {key for key in theirs if ours.get(key) != theirs[key]} == {"label", "distill_weight", "label_smoothing"}
        assert plain.words[:2] == taught.words[:2] and plain.words[5:9] == taught.words[5:9]


def test_every_training_is_evaluated_on_the_dataset_it_was_trained_on_and_seeds_are_told():
    found = planned("tail", seeds=(0, 1))
    trained = {step.words[3]: (step.words[1], settings(step)["seed"]) for step in found if step.stage == "train"}
    evaluated = {step.words[1]: step.words[2] for step in found if step.stage == "evaluate"}
    assert {run: folder for run, (folder, _) in trained.items()} == evaluated
    assert sorted(trained.values()) == [("data-0", "0"), ("data-0", "0"), ("data-1", "1"), ("data-1", "1")]


def test_lite_starts_from_the_file_of_b0_and_a_missing_file_is_told():
    lite = next(step for step in planned("distill") if "lite0" in step.words)
    assert lite.words[lite.words.index("--weights") + 1] == "small.h5"
    with pytest.raises(UserError, match="--weights b0=FILE"):
        planned("distill", weights=["v2-b0=large.h5"])


def test_a_long_tailed_copy_is_a_dataset_with_fewer_training_rows_and_the_same_others(tmp_path):
    source = tmp_path / "source"
    assert main(["data", "synth", str(source), "--listings", "300", "--categories", "12"]) == 0
    dataset = open_dataset(source)
    folder = _dataset_of(Comparison({}, {}, is_long_tailed=True), dataset, tmp_path / "work", seed=1)
    copy = open_dataset(folder)
    labels = dataset.rows("train").labels
    kept = dataset.rows("train").images[long_tail(labels, 1)]
    assert set(copy.rows("train").images) == set(kept) and len(kept) < len(labels) and LONGEST > 1
    assert copy.rows("train").read(0) and copy.digest != dataset.digest
    for split in ("val", "test"):
        np.testing.assert_array_equal(copy.rows(split).images, dataset.rows(split).images)
    assert _dataset_of(Comparison({}, {}, is_long_tailed=True), dataset, tmp_path / "work", seed=1) == folder
    assert copy.about["counts"]["train"] == len(kept) and copy.about["counts"]["test"] == dataset.about["counts"]["test"]
    other = tmp_path / "other"
    assert main(["data", "synth", str(other), "--listings", "200", "--categories", "12"]) == 0
    with pytest.raises(OtherOutput):
        _dataset_of(Comparison({}, {}, is_long_tailed=True), open_dataset(other), tmp_path / "work", seed=1)
    assert _dataset_of(COMPARISONS["tree"], dataset, tmp_path / "work", seed=1) == source
