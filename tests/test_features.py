"""Features of a frozen trunk: what is kept of them, and when it is used again."""

import fcntl
import json
from types import SimpleNamespace

import numpy as np
import pytest
from trainings import EXACT, events, family

pytest.importorskip("tf_keras")

from distributed.signals import Wishes  # noqa: E402
from distributed.world import World  # noqa: E402
from family.data.crops import draw_crop, row_draws  # noqa: E402
from family.data.dataset import open_dataset  # noqa: E402
from family.data.images import Preprocessing, decode_image  # noqa: E402
from family.errors import UserError  # noqa: E402
from family.models.builders import build_variant, trunk_of  # noqa: E402
from family.recipe import make_recipe  # noqa: E402
from family.training import features  # noqa: E402
from family.training.features import Extraction, compute_features  # noqa: E402

HOW = Preprocessing(32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("made-up") / "dataset"
    family("data", "synth", out, "--listings", 40, "--categories", 12)
    return out


@pytest.fixture(scope="module")
def trunk():
    return trunk_of(build_variant("lite0", 12, 32))


def extraction(dataset, trunk, wishes=None, **fields):
    rows = open_dataset(dataset).rows("train")
    return Extraction(trunk, rows, HOW, make_recipe({"resolution_px": 32, **fields}), World(), wishes or Wishes())


def test_views_are_the_plain_picture_and_then_those_of_training(dataset, trunk, tmp_path):
    of = extraction(dataset, trunk, feature_views=3)
    found, complete = compute_features(of, tmp_path)
    assert complete
    for view in range(3):
        pixels = []
        for row in range(len(of.rows)):
            box, flip = draw_crop(of.recipe, row_draws(of.recipe.seed, view, row)) if view else (None, False)
            image = decode_image(of.rows.read(row), HOW, box)
            pixels.append(image[:, ::-1] if flip else image)
        expected = trunk(np.stack(pixels).astype(np.float32), training=False).numpy()
        np.testing.assert_allclose(found.view(view)[np.arange(len(of.rows))], expected, atol=1e-4)
    assert not np.allclose(found.view(1)[np.arange(5)], found.view(0)[np.arange(5)])
    np.testing.assert_array_equal(found.view(4)[np.array([7, 2])], found.view(1)[np.array([7, 2])])


def test_what_a_signal_cut_short_is_gone_on_with(dataset, trunk, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "BATCH_SIZE", 4)
    wishes, seen = Wishes(), []

    def ending(batches, *_):
        for batch in batches:
            wishes.end = len(seen) == 2
            seen.append(len(batch))
            yield batch

    monkeypatch.setattr(features, "progress", ending)
    _, complete = compute_features(extraction(dataset, trunk, wishes), tmp_path)
    assert not complete and seen == [4, 4, 4]
    seen.clear()
    monkeypatch.setattr(features, "progress", lambda batches, *_: (seen.append(len(b)) or b for b in batches))
    of = extraction(dataset, trunk)
    found, complete = compute_features(of, tmp_path)
    assert complete and sum(seen) == len(of.rows) - 8
    whole, _ = compute_features(of, tmp_path / "other")
    np.testing.assert_allclose(found.view(0)[np.arange(len(of.rows))], whole.view(0)[np.arange(len(of.rows))], atol=1e-5)


def test_features_of_other_trunks_pictures_and_views_have_other_names(dataset, trunk):
    digests = [
        extraction(dataset, trunk, **fields).digest()
        for fields in ({}, {"feature_views": 2}, {"feature_views": 2, "flip": False}, {"seed": 1})
    ]
    assert len(set(digests)) == 3 and digests[0] == digests[3], "without views, the seed changes nothing"
    other = trunk_of(build_variant("lite0", 12, 32))
    layer = other.get_layer("stem_conv")
    layer.set_weights([layer.get_weights()[0] + 1e-6])
    assert extraction(dataset, other).digest() != digests[0]


def test_a_full_disk_is_told_before(dataset, trunk, tmp_path, monkeypatch):
    monkeypatch.setattr(features.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 2**30 + 1000}))
    with pytest.raises(UserError, match="GB free"):
        compute_features(extraction(dataset, trunk), tmp_path)


def test_runs_share_features_at_any_number_of_ranks(dataset, tmp_path):
    start = tmp_path / "start"
    family("train", dataset, "--out", start, *EXACT, "--set", "finetune_epochs=1")
    words = ["--variant", "lite0", "--weights", start, "--recipe", "transfer", "--features", tmp_path / "features", "--set", "resolution_px=32",
             "--set", "finetune_epochs=0", "--set", "head_epochs=2"]  # fmt: skip
    family("train", dataset, "--out", tmp_path / "one", *words, "--ranks", 2)
    (folder,) = (tmp_path / "features").iterdir()
    parts = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.npy")}
    assert sorted(parts) == ["view-0-part-0-of-2.npy", "view-0-part-1-of-2.npy"]
    family("train", dataset, "--out", tmp_path / "two", *words, "--set", "seed=1")
    assert {file.name: file.stat().st_mtime_ns for file in folder.glob("*.npy")} == parts
    assert json.loads((tmp_path / "two" / "card.json").read_text())["training"]["ranks"] == 1
    assert len(events(tmp_path / "two", "epoch")) == 2 and not (tmp_path / "two" / "features").exists()


def test_a_run_waits_for_another_one_at_the_same_features_until_a_signal_comes(dataset, trunk, tmp_path, capsys, monkeypatch):
    wishes, slept = Wishes(), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        wishes.come_back = len(slept) == 3

    monkeypatch.setattr(features, "time", SimpleNamespace(sleep=sleep))
    with open(tmp_path / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert compute_features(extraction(dataset, trunk, wishes), tmp_path) == (None, False)
    assert capsys.readouterr().out.count("waiting for another run") == 1 and len(slept) == 3


def test_a_note_of_rows_that_are_gone_is_not_believed(dataset, trunk, tmp_path):
    of = extraction(dataset, trunk)
    compute_features(of, tmp_path)
    (part,) = tmp_path.glob("*.npy")
    whole = np.load(part).copy()
    part.unlink()
    found, complete = compute_features(of, tmp_path)
    assert complete
    np.testing.assert_array_equal(found.view(0)[np.arange(len(of.rows))], whole)
