"""What trainings cost at two sizes: the line through them, and the trainings for real."""

import sys
from pathlib import Path

import pytest
from trainings import family

from benchmarks.studies import at_size
from family.data.dataset import open_dataset
from family.outputs import read_json


def size(n: int, s: float, mb: float) -> dict:
    return {"n_train": n, "features": {"s": s}, **{name: {"s": s, "memory_mb": mb} for name in ("head epoch", "finetune epoch")}}


def test_a_line_through_two_sizes_meets_them_and_goes_on():
    small, large = size(1000, 12.0, 1024.0), size(5000, 20.0, 2048.0)
    assert at_size.draw_line(small, large, 1000) == small
    assert at_size.draw_line(small, large, 5000) == large
    assert at_size.draw_line(small, large, 13_000) == size(13_000, 36.0, 4096.0)
    told = at_size.table({"runs": [small, large], "line": at_size.draw_line(small, large, 5_001_000)}).splitlines()
    assert "5,001,000 images (on the line)" in told[0] and told[2].startswith("| features, once | 12 s | 20 s | 2.8 h |")
    assert told[3].startswith("| head epoch | 12 s, 1.0 GB | 20 s, 2.0 GB | 2.8 h, 1251.0 GB")


def test_two_sizes_are_trained_and_told(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    data, trunk = tmp_path / "data", tmp_path / "trunk"
    family("data", "synth", data, "--listings", 300, "--categories", 12, "--image-px", 32)
    small = ["--variant", "lite0", "--set", "resolution_px=32", "--set", "max_updates=1"]
    family("train", data, "--out", trunk, "--recipe", "quick", "--weights", "none", *small)
    words = ["at_size", str(data), "--weights", str(trunk), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", [*words, "--variant", "lite0", "--set", "head_epochs=1"])
    assert at_size.main() == 0
    found = read_json(tmp_path / "found.json")
    part, whole = found["runs"]
    assert whole["n_train"] == len(open_dataset(data).rows("train")) and 0.1 < part["n_train"] / whole["n_train"] < 0.3
    assert all(run[phase]["s"] > 0 for run in (part, whole) for phase in at_size.COSTS) and whole["head epoch"]["memory_mb"] > 100
    assert found["line"]["n_train"] == 5_000_000 and "features, once" in capsys.readouterr().out


def test_the_page_holds_the_table_of_the_checked_in_result():
    root = Path(__file__).parent.parent
    told = at_size.table(read_json(root / "benchmarks" / "results" / "at-size.json"))
    assert f"<!-- at size -->\n\n{told}\n" in (root / "family" / "README.md").read_text(encoding="utf-8")
