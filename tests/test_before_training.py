"""What a run has seen before it is tested on it."""

import shutil

import pytest

from family.cli import main
from family.data.dataset import open_dataset
from family.data.importing import import_dataset
from family.outputs import write_json
from family.recipe import make_recipe
from family.training import before
from family.training.before import warn_of_precision, warn_of_seen


@pytest.fixture
def versions(tmp_path, write_source):
    """Two versions of a dataset, the second drawn anew, and the folder of a run that learned from the first."""
    rows = [{"listing_id": f"h{k}", "image": f"{k}.jpg", "category": ("cat", "dog", "art")[k % 3]} for k in range(60)]
    old, new = write_source(tmp_path / "old", rows[:21]), write_source(tmp_path / "new", rows)
    import_dataset(old, tmp_path / "first")
    assert main(["data", "import", str(new), str(tmp_path / "anew")]) == 0
    assert main(["data", "import", str(new), str(tmp_path / "kept"), "--splits-of", str(tmp_path / "first")]) == 0
    first = open_dataset(tmp_path / "first")
    (tmp_path / "run").mkdir()
    card = {"schema": 1, "name": "b0-32-general", "variant": "b0", "resolution_px": 32, "scope": "general", "classes": list(first.ontology.leaves),
            "paths": [first.ontology.path_of[i] for i in first.ontology.leaves], "preprocessing": {"resolution_px": 32, "aspect": "stretch",
            "filter": "bilinear"}, "dataset": {"folder": str(tmp_path / "first"), "digest": first.digest}}  # fmt: skip
    write_json(tmp_path / "run" / "card.json", card)
    return tmp_path


def images_of(dataset, *splits) -> set:
    table = dataset.table.to_pylist()
    return {row["image"] for row in table if row["split"] in splits}


def test_images_that_were_trained_on_are_counted(versions):
    first, anew = open_dataset(versions / "first"), open_dataset(versions / "anew")
    seen = images_of(first, "train") & images_of(anew, "val", "test")
    assert seen
    warning = warn_of_seen(versions / "run", anew)
    assert f"learned from {len(seen)} of the {len(images_of(anew, 'val', 'test'))} images" in warning and "--splits-of" in warning


def test_nothing_is_said_where_nothing_was_seen(versions):
    assert warn_of_seen(versions / "run", open_dataset(versions / "kept")) == ""
    assert warn_of_seen(versions / "run", open_dataset(versions / "first")) == ""
    assert warn_of_seen(versions / "weights.h5", open_dataset(versions / "anew")) == ""


def test_data_that_is_gone_is_told(versions):
    shutil.rmtree(versions / "first")
    assert "can't be told" in warn_of_seen(versions / "run", open_dataset(versions / "anew"))


@pytest.mark.parametrize(
    ("precision", "gpu", "flags", "warned"),
    [
        ("float32", None, set(), False),
        ("mixed_bfloat16", None, {"avx2"}, True),
        ("mixed_bfloat16", None, {"avx512_bf16"}, False),
        ("mixed_bfloat16", None, {"amx_bf16"}, False),
        ("mixed_bfloat16", "a GPU", set(), False),
    ],
)
def test_precision_that_the_processor_lacks_is_told(precision, gpu, flags, warned, monkeypatch):
    monkeypatch.setattr(before, "cpu_flags", lambda: flags)
    assert bool(warn_of_precision(make_recipe({"precision": precision}), gpu)) == warned
