"""`family produce`: what it says before it begins, and what it leaves out or refuses."""

import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from produced import made_place, produce

from family.data.dataset import open_dataset
from family.models.variants import variant
from family.plan.estimate import Clock, count_rows, room_bytes, span, with_times, work_of, works_of
from family.plan.lines import plan
from family.plan.members import Member, chains_of, read_members


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return made_place(tmp_path_factory.mktemp("produce"))


def card_of(dataset, variant: str, px: int, scope: str = "general") -> dict:
    """Return what a run's card says of its classes and pixels."""
    tree = dataset.scope(scope)
    return {"schema": 1, "name": f"{variant}-{px}-{scope}", "variant": variant, "resolution_px": px, "scope": scope,
            "classes": list(tree.leaves), "paths": [tree.path_of[leaf] for leaf in tree.leaves],
            "preprocessing": {"resolution_px": px, "aspect": "stretch", "filter": "bilinear"}}  # fmt: skip


def test_count_hours_and_disk_are_said_before_anything_is_done(place, tmp_path, capsys):
    out = tmp_path / "out"
    assert produce(place, "--out", out, "--members", place / "tiny.toml", "--dry-run") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "2 members: lite0-general, lite0-animals"
    assert said[1] == "9 steps: 2 train, 2 export, 3 evaluate, 1 bench, 1 report; 0 are done"
    assert "about" in said[2] and "rough: from one measured machine" in said[2] and "of disk at most" in said[3]
    members = read_members(str(place / "tiny.toml"))
    assert said[4:] == [str(step) for step in plan(place / "dataset", out, members, chains_of(members, lambda scope: [scope]))]
    assert not out.exists()


def test_members_without_a_scope_rows_or_weights_are_left_out_and_named(place, tmp_path, capsys):
    nowhere = tmp_path / "nowhere.toml"
    nowhere.write_text('subtrees = ["Nowhere"]')
    table = tmp_path / "table.toml"
    table.write_text(f'[[matrix]]\nvariants = ["lite0", "b0"]\nscopes = ["general", "animals", "{nowhere}"]')
    assert produce(place, "--out", tmp_path / "out", "--members", table, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "left out lite0-general: no library publishes lite0's weights; give --weights b0=FILE" in said
    assert "left out lite0-animals, lite0-nowhere: lite0-general is left out" in said
    assert "left out b0-nowhere: no category lies below 'Nowhere'" in said and "2 members: b0-general, b0-animals\n" in said
    assert produce(place, "--out", tmp_path / "out", "--members", table, "--weights", f"b0={tmp_path}/f.h5", "--dry-run") == 2
    assert f"no weights at {tmp_path}/f.h5" in capsys.readouterr().err
    (tmp_path / "f.h5").touch()
    assert produce(place, "--out", tmp_path / "out", "--members", table, "--weights", f"b0={tmp_path}/f.h5", "--dry-run") == 0
    assert "4 members: lite0-general, lite0-animals, b0-general, b0-animals\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "trian"], "Did you mean 'train'"),
        (["--members", "quik"], "Did you mean 'quick'"),
        (["--nodes", "2", "--bench-on", "n"], "--nodes, --bench-on: for --cluster FILE, which is not given"),
        (["--cluster", "nowhere"], "unknown cluster"),
        (["--weights", "b0=x.h5", "--weights", "v9=y.h5"], "unknown variant of --weights"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(place, tmp_path, capsys, words, said):
    assert produce(place, "--out", tmp_path / "out", "--dry-run", *words) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_family_that_does_not_fit_on_the_disk_is_refused(place, tmp_path, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 50_000_000))
    assert produce(place, "--out", tmp_path / "out", "--members", place / "tiny.toml") == 2
    told = capsys.readouterr()
    assert "50 MB are free" in told.out and "make room" in told.err and not (tmp_path / "out").exists()


def test_what_is_expected_is_images_times_epochs_times_the_cost_of_one(place):
    dataset = open_dataset(place / "dataset")
    table = dataset.table.to_pylist()
    animals = {i for i, path in zip(dataset.ontology.ids, dataset.ontology.paths, strict=True) if path.startswith("Animals/")}
    n = {split: sum(row["split"] == split and row["category"] in animals for row in table) for split in ("train", "val", "test")}
    assert count_rows(dataset, "animals") == n and n["train"] > 0
    member = Member("b0", scope="animals", set={"resolution_px": 112, "finetune_epochs": 3, "batch_size": 4, "max_updates": 2})
    work = work_of(member, dataset, cores=2)
    # B0 took 3.4 s for 32 rows at 224 px on one core: a quarter of that at 112 px, half of that on two.
    assert work.step_s == pytest.approx(3.4 / 32 / 4 / 2)
    head = (n["train"] + n["val"]) * work.step_s / 3 + 2 * 0.003
    assert work.train_s() == pytest.approx(20 + head + 2 * 4 * work.step_s + 3 * n["val"] * work.step_s / 3)
    n_parameters = variant("b0").n_parameters - (1000 - len(dataset.scope("animals").leaves)) * 1281
    (train, export, *_) = made = with_times(plan(place / "dataset", Path("o"), [member]), [member], [work])
    assert train.expected_s == work.train_s() and all(step.expected_s > 0 for step in made)
    assert room_bytes([train], [member], [work]) == 4 * n_parameters * 7 + 4 * n["train"] * 1280
    assert room_bytes([export], [member], [work]) == 5 * n_parameters + 256 * 224**2 / 4
    assert room_bytes(made[2:], [member], [work]) == 0


def test_a_student_takes_its_teachers_time_too(place, tmp_path):
    dataset = open_dataset(place / "dataset")
    (tmp_path / "card.json").write_text(json.dumps(card_of(dataset, "b1", 120)))
    fields = {"set": {"resolution_px": 112, "finetune_epochs": 3, "batch_size": 4, "max_updates": 2, "head_epochs": 0}, "weights": "none"}
    members = [Member("b0"), Member("lite0", **fields), Member("lite0", name="taught", teacher=("b0-general", str(tmp_path)), **fields)]
    teacher, alone, taught = works_of(members, dataset, cores=2)
    # A pass forward is a third of a step. B1 at half of its resolution takes a quarter of the multiply-adds.
    b1_s = 3.4 / 32 * variant("b1").multiply_adds / variant("b0").multiply_adds / 4 / 2 / 3
    assert teacher.taught_s == alone.taught_s == 0 and taught.taught_s == pytest.approx(teacher.step_s / 3 + b1_s)
    assert taught.train_s() - alone.train_s() == pytest.approx(2 * 4 * taught.taught_s)


def test_shared_features_are_counted_once_and_until_all_are_trained(place):
    dataset, out = open_dataset(place / "dataset"), Path("o")
    heads = [Member("b0", name=name, set={"finetune_epochs": 0, "feature_views": 2, "label": name}) for name in ("one", "two", "three")]
    members = [*heads, Member("b1"), Member("b2")]
    works = works_of(members, dataset, cores=1)
    n = count_rows(dataset, "general")
    assert works[0].train_s() - works[1].train_s() == pytest.approx(2 * n["train"] * works[0].forward_s)
    trainings = plan(place / "dataset", out, members)[:5]
    runs = sum(work.run_bytes() for work in works)
    head, b1, b2 = (4 * n["train"] * n_features for n_features in (2 * 1280, 1280, variant("b2").n_features))
    assert room_bytes(trainings, members, works) == runs + head + b2  # the larger of those that pass
    on_cluster = plan(place / "dataset", out, members, here=False)[:5]
    assert room_bytes(on_cluster, members, works_of(members, dataset, 1, here=False), here=False) == runs + 3 * head + b1 + b2


def test_the_time_left_is_corrected_by_what_trainings_took_here(tmp_path, capsys):
    members = [Member("b0"), Member("b1"), Member("b2")]
    made = [replace(step, expected_s=100.0) for step in plan(tmp_path, tmp_path / "out", members)]
    now = [0.0]
    clock = Clock(made, 3, tmp_path / "steps.jsonl", lambda: now[0])
    clock.expect(made)
    assert clock.left_s() == 3 * 100 + 3 * 100 / 2 + 3 * 100 + 200 and not clock.is_corrected  # exports run two at a time
    clock.begins(1, len(made), made[0])
    now[0] = 300.0
    clock.ended(made[0], "done", 300.0)
    assert clock.left_s() == 2 * 300 + 150 + 300 + 200 and clock.is_corrected
    (tmp_path / "out/runs/b1-general").mkdir(parents=True)  # it is gone on with, so that what it takes now says nothing
    clock.begins(2, len(made), made[1])
    assert "[2 of 11, member 2 of 3, 5 min, about 21 min left] family train" in capsys.readouterr().out
    clock.ended(made[1], "done", 1.0)
    assert clock.left_s() == 300 + 150 + 300 + 200
    clock.passed_over(made[2])
    assert clock.left_s() == 150 + 300 + 200
    with open(tmp_path / "steps.jsonl", "a") as file:
        file.write('{"step": "cut sh')
    again = Clock(made, 3, tmp_path / "steps.jsonl", lambda: now[0])
    again.expect(made[1:3])
    assert again.left_s() == 2 * 300 and again.is_corrected
    assert [span(s) for s in (5, 300, 5399, 5400)] == ["5 s", "5 min", "90 min", "1.5 h"]
