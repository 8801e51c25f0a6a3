"""Which rows an export sees: no image that is held back calibrates anything, in whichever dataset it is."""

import shutil

import pytest

from export.rows import calibration_rows, check_calibration
from family.cli import main
from family.data.dataset import open_dataset
from family.data.importing import import_dataset
from family.errors import UserError
from family.outputs import write_json


@pytest.fixture
def versions(tmp_path, write_source):
    """A dataset, a larger one split anew, one that keeps the first one's split, and the card of a run on the first."""
    rows = [{"listing_id": f"h{k}", "image": f"{k}.jpg", "category": ("cat", "dog", "art")[k % 3]} for k in range(60)]
    old, new = write_source(tmp_path / "old", rows[:30]), write_source(tmp_path / "new", rows)
    import_dataset(old, tmp_path / "first")
    assert main(["data", "import", str(new), str(tmp_path / "anew")]) == 0
    assert main(["data", "import", str(new), str(tmp_path / "kept"), "--splits-of", str(tmp_path / "first")]) == 0
    first = open_dataset(tmp_path / "first")
    card = {"schema": 1, "name": "b0-32-general", "variant": "b0", "resolution_px": 32, "scope": "general", "classes": list(first.ontology.leaves),
            "paths": [first.ontology.path_of[i] for i in first.ontology.leaves], "preprocessing": {"resolution_px": 32, "aspect": "stretch",
            "filter": "bilinear"}, "dataset": {"folder": str(tmp_path / "first"), "digest": first.digest}}  # fmt: skip
    return tmp_path, card


def images_of(dataset, *splits) -> set:
    return {row["image"] for row in dataset.table.to_pylist() if row["split"] in splits}


def test_a_dataset_that_trains_on_what_is_held_back_is_refused_with_what_was_found(versions):
    folder, card = versions
    first, anew = open_dataset(folder / "first"), open_dataset(folder / "anew")
    n = {split: len(images_of(anew, "train") & images_of(first, split)) for split in ("val", "test")}
    assert sum(n.values())
    with pytest.raises(UserError) as error:
        check_calibration(anew, card)
    for split, found in n.items():
        assert (f"{found} of the {len(images_of(first, split))} {split} images" in str(error.value)) == bool(found)
    assert "--splits-of" in str(error.value)


def test_the_command_refuses_it_before_any_work(versions, capsys):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    folder, card = versions
    (folder / "run").mkdir()
    write_json(folder / "run" / "card.json", card)
    (folder / "run" / "weights.h5").write_bytes(b"none")
    assert main(["export", str(folder / "run"), "--out", str(folder / "bundle"), "--calibrate", str(folder / "anew")]) == 2
    assert "its training rows hold" in capsys.readouterr().err and not (folder / "bundle").exists()


def test_the_runs_own_data_and_data_split_like_it_may_calibrate(versions):
    folder, card = versions
    assert check_calibration(open_dataset(folder / "first"), card) == "" == check_calibration(open_dataset(folder / "kept"), card)


def test_data_without_test_rows_may_calibrate(tmp_path, versions, write_source):
    rows = [{"listing_id": f"h{k}", "image": f"{k}.jpg", "category": ("cat", "dog")[k % 2], "split": "val" if k < 5 else "train"} for k in range(20)]
    import_dataset(write_source(tmp_path / "unsplit", rows), tmp_path / "without")
    without, (_, card) = open_dataset(tmp_path / "without"), versions
    told = {**card, "dataset": {"folder": str(tmp_path / "without"), "digest": without.digest}}
    with pytest.raises(UserError, match="of the 5 val images"):
        check_calibration(open_dataset(tmp_path / "first"), told)


def test_data_that_is_gone_is_told(versions):
    folder, card = versions
    shutil.rmtree(folder / "first")
    assert "can't be told" in check_calibration(open_dataset(folder / "anew"), card)


def test_calibration_and_ranking_see_different_training_rows_and_nothing_else(versions):
    folder, card = versions
    dataset = open_dataset(folder / "anew")
    calibration, ranked_on = (set(rows.images.tolist()) for rows in calibration_rows(dataset, card))
    assert calibration and ranked_on and not calibration & ranked_on
    assert calibration | ranked_on == images_of(dataset, "train")


def test_an_image_that_a_users_split_has_on_both_sides_calibrates_nothing(tmp_path, write_source, photo):
    rows = [{"listing_id": f"h{k}", "image": f"{k}.jpg", "category": ("cat", "dog")[k % 2], "split": "train" if k < 20 else "test"} for k in range(30)]
    source = write_source(tmp_path / "source", rows, images={"0.jpg": photo(777), "25.jpg": photo(777)})
    import_dataset(source, tmp_path / "data")
    dataset = open_dataset(tmp_path / "data")
    both = images_of(dataset, "train") & images_of(dataset, "test")
    assert len(both) == 1
    card = {"name": "b0", "classes": list(dataset.ontology.leaves)}
    seen = {image for rows in calibration_rows(dataset, card) for image in rows.images.tolist()}
    assert len(seen) == 19 and not seen & both
