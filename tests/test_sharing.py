"""Members that share the features of a frozen trunk: which do, and that the trunk runs once for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trainings import family, weights_of

from family import cli
from family.plan import produce
from family.plan.lines import plan
from family.plan.members import Member
from family.plan.sharing import sharing

HEAD = Member("b0", name="a", weights="f.h5", set={"finetune_epochs": 0})


def test_heads_of_one_trunk_on_the_same_rows_share(tmp_path):
    members = [HEAD, replace(HEAD, name="b", recipe="tail", set={"seed": 3}), Member("b1", name="c")]
    assert sharing(members) == {"a": "a", "b": "a"}
    one, two, other, *_ = plan(Path("d"), Path("o"), members)
    assert all(step.words[step.words.index("--features") + 1] == "o/features" for step in (one, two))
    assert "--features" not in other.words
    assert not any("--features" in step.words for step in plan(Path("d"), Path("o"), members, here=False))


@pytest.mark.parametrize(
    "change",
    [
        {"variant": "b1"},
        {"weights": "g.h5"},
        {"scope": "animals"},
        {"start_from": "a"},
        {"recipe": "scratch", "set": {}},
        *(
            {"set": {key: value}}
            for key, value in (("resolution_px", 64), ("aspect", "pad"), ("precision", "mixed_bfloat16"), ("drop_connect", 0.1), ("activation", "relu6"))
        ),
        {"set": {"feature_views": 2}},
    ],
)
def test_others_do_not(change):
    assert sharing([HEAD, replace(HEAD, name="b", **change)]) == {}


def test_views_are_shared_where_they_are_drawn_alike():
    views = replace(HEAD, set={"feature_views": 2})
    assert sharing([views, replace(views, name="b", set={"feature_views": 2, "mixup": 0.2, "resolution_px": 224})]) == {"a": "a", "b": "a"}
    assert sharing([views, replace(views, name="b", set={"feature_views": 2, "seed": 1})]) == {}


TABLE = """
[[matrix]]
variants = ["lite0"]
name = "one"
weights = "{place}/start"
set = {{ resolution_px = 32, finetune_epochs = 0, head_epochs = 2, deterministic = true, label = "one" }}
[[matrix]]
variants = ["lite0"]
name = "two"
weights = "{place}/start"
set = {{ resolution_px = 32, finetune_epochs = 0, head_epochs = 2, deterministic = true, seed = 1, label = "two" }}
"""


def test_the_trunk_runs_once_and_its_features_go_when_all_are_trained(tmp_path, monkeypatch):
    family("data", "synth", tmp_path / "dataset", "--listings", 40, "--categories", 12)
    family("train", tmp_path / "dataset", "--out", tmp_path / "start", "--variant", "lite0", "--weights", "none", "--recipe", "scratch",
           "--set", "resolution_px=32", "--set", "finetune_epochs=1")  # fmt: skip
    (tmp_path / "table.toml").write_text(TABLE.format(place=tmp_path))
    out, drop, seen = tmp_path / "out", produce._drop_features, []

    def look_first(folder, planned):
        seen.extend(sorted(path.relative_to(folder).parts[0] for path in folder.rglob("*.npy")))
        drop(folder, planned)

    monkeypatch.setattr(produce, "_drop_features", look_first)
    words = ["produce", tmp_path / "dataset", "--out", out, "--members", tmp_path / "table.toml", "--only", "train"]
    assert cli.main(list(map(str, words))) == 0
    assert seen == ["features"] and not (out / "features").exists(), "one file of one folder, which is gone"
    # The same as with features of its own.
    family("train", tmp_path / "dataset", "--out", tmp_path / "alone", "--variant", "lite0", "--weights", tmp_path / "start", *(
        word for text in ("resolution_px=32", "finetune_epochs=0", "head_epochs=2", "deterministic=true", "seed=1", "label=two")
        for word in ("--set", text)))  # fmt: skip
    ones, others = weights_of(out / "runs" / "two"), weights_of(tmp_path / "alone")
    assert ones.keys() == others.keys() and all(np.array_equal(ones[key], others[key]) for key in ones)


def test_features_stay_while_a_member_that_shares_them_is_not_trained(tmp_path):
    (tmp_path / "features").mkdir()
    planned = plan(Path("d"), tmp_path, [HEAD, replace(HEAD, name="b")])
    for name, stays in (("a", True), ("b", False)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "card.json").touch()
        produce._drop_features(tmp_path, planned)
        assert (tmp_path / "features").exists() == stays
