"""`family produce`: what it says first, what it leaves out, that it goes on where it was killed, and its arrays on a cluster.

REFRESH_GOLDEN=1 writes the golden file anew; read the difference before you keep it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainings import ENVIRONMENT, events, kill_all, last_step, start, wait_until, weights_of

from export.bundle import open_bundle
from family import cli
from family.data.dataset import open_dataset
from family.models.variants import variant
from family.outputs import locked
from family.plan import cluster, steps
from family.plan.chaining import renewed, write_chains
from family.plan.estimate import Clock, count_rows, room_bytes, span, with_times, work_of, works_of
from family.plan.lines import plan
from family.plan.members import Member, chains_of, read_members
from slurm import submit

REPOSITORY = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "produce-quick.txt"
TINY = """
[[matrix]]
variants = ["lite0"]
scopes = ["general", "animals"]
recipe = "scratch"
weights = "none"
schemes = "fp32"
set = { resolution_px = 32, finetune_epochs = 6, batch_size = 2, deterministic = true, checkpoint_interval_s = 0.1, label = "" }
"""
# Two variants that wait for nothing of one another.
APART = """
[[matrix]]
variants = ["v2-b0", "lite0"]
scopes = ["general", "verticals"]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a small made-up dataset and a table of two tiny members."""
    place = tmp_path_factory.mktemp("produce")
    assert cli.main(["data", "synth", str(place / "dataset"), "--listings", "40", "--categories", "12"]) == 0
    (place / "tiny.toml").write_text(TINY)
    return place


def card_of(dataset, variant: str, px: int, scope: str = "general") -> dict:
    """Return what a run's card says of its classes and pixels."""
    tree = dataset.scope(scope)
    return {"schema": 1, "name": f"{variant}-{px}-{scope}", "variant": variant, "resolution_px": px, "scope": scope,
            "classes": list(tree.leaves), "paths": [tree.path_of[leaf] for leaf in tree.leaves],
            "preprocessing": {"resolution_px": px, "aspect": "stretch", "filter": "bilinear"}}  # fmt: skip


def produce(place: Path, *words) -> int:
    """Run the command in this process."""
    return cli.main(["produce", str(place / "dataset"), *map(str, words)])


def tiny(place: Path, out: Path, *more) -> list:
    return ["produce", place / "dataset", "--out", out, "--members", place / "tiny.toml", *more]


# What is said first


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


# Killed and resumed


@pytest.fixture(scope="module")
def left_alone(place) -> Path:
    out = place / "alone"
    done = subprocess.run(
        [sys.executable, "-m", "family.cli", *map(str, tiny(place, out))], capture_output=True, text=True, env=ENVIRONMENT, timeout=500
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for line in ("[1 of 9, member 1 of 2, ", "[2 of 9, member 2 of 2, ", "[7 of 9, ", "[9 of 9, "):
        assert line in done.stdout
    assert done.stdout.splitlines()[-1] == str(out / "report" / "report.html")
    return out


def test_killed_in_a_training_and_in_an_export_it_goes_on_and_ends_the_same(place, left_alone):
    out = place / "killed"
    general, animals = out / "runs/lite0-general", out / "runs/lite0-animals"
    words = tiny(place, out, "--only", "train,export,evaluate")

    plan = start(*words)
    wait_until(lambda: last_step(general, "checkpoint") >= 2, plan, "a checkpoint of the general member")
    kill_all(plan)
    killed_at = last_step(general, "checkpoint")
    assert not (general / "card.json").exists() and not (out / "bundles").exists()

    plan = start(*words)
    wait_until(lambda: last_step(animals, "checkpoint") >= 1, plan, "a checkpoint of the submodel")
    plan.send_signal(signal.SIGTERM)
    _, said = plan.communicate(timeout=100)
    assert plan.returncode == 143 and "goes on from here" in said, said
    assert [row["step"] for row in events(general, "resumed")][-1] >= killed_at > 0
    assert (general / "card.json").is_file() and not (animals / "card.json").exists()
    assert last_step(animals, "checkpoint") == last_step(animals, "step")

    plan = start(*words)
    wait_until(lambda: list((out / "bundles").glob(".*.partial")), plan, "an export", timeout_s=400)
    kill_all(plan)
    assert not [path for path in (out / "bundles").iterdir() if path.name[0] != "."]

    plan = start(*words)
    _, said = plan.communicate(timeout=500)
    assert plan.returncode == 0, said[-3000:]
    for name in ("lite0-general", "lite0-animals"):
        ones, others = weights_of(left_alone / "runs" / name), weights_of(out / "runs" / name)
        assert ones.keys() == others.keys() and all((ones[key] == others[key]).all() for key in ones)
        # Two conversions of the same weights may order their nodes differently; what they answer is the same.
        answers = [open_bundle(folder / "bundles" / name).samples("fp32")[1] for folder in (left_alone, out)]
        np.testing.assert_allclose(*answers, atol=1e-6)
        metrics = [json.loads((folder / "evaluations" / name / "metrics.json").read_text()) for folder in (left_alone, out)]
        assert metrics[0] == metrics[1]
    assert not list(out.rglob("*.partial*")) and not list(out.rglob("features"))


def test_what_is_done_is_passed_over_without_a_process(place, left_alone, capsys, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a process was started")

    monkeypatch.setattr(steps.subprocess, "Popen", refuse)
    before = set(sys.modules)
    assert cli.main(list(map(str, tiny(place, left_alone)))) == 0
    assert "; 9 are done" in capsys.readouterr().out
    assert "tensorflow" not in sys.modules.keys() - before


def test_members_that_were_made_otherwise_are_refused_at_once(place, left_alone, tmp_path, capsys):
    (tmp_path / "other.toml").write_text(TINY.replace("finetune_epochs = 6", "finetune_epochs = 7"))
    before = {path: path.stat().st_mtime_ns for path in left_alone.rglob("*")}
    assert produce(place, "--out", left_alone, "--members", tmp_path / "other.toml") == 2
    assert "finetune_epochs was '6', now '7'" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in left_alone.rglob("*")}


def test_a_chain_of_other_members_is_evaluated_anew_and_keeps_its_routing(tmp_path):
    members = [Member("b0"), *(Member("b0", scope=scope, start_from="b0-general") for scope in ("animals", "transport"))]
    fewer, more = chains_of(members[:2], lambda scope: [scope]), chains_of(members, lambda scope: [scope])
    write_chains(tmp_path, fewer)
    file = tmp_path / "chains" / "b0-general.toml"
    file.write_text(file.read_text().replace('"hard"', '"soft"'))
    (same,) = [step for step in plan(Path("d"), tmp_path, members[:2], fewer) if "chains" in step.words[1]]
    assert renewed(same, tmp_path, fewer) == same
    (other,) = [step for step in plan(Path("d"), tmp_path, members, more) if "chains" in step.words[1]]
    anew = renewed(other, tmp_path, more)
    assert anew.words == (*other.words, "--fresh") and steps.standing(anew) == ""
    write_chains(tmp_path, more)
    assert 'routing = "soft"' in file.read_text() and "transport" in file.read_text()


def test_a_family_that_somebody_is_at_is_neither_moved_aside_nor_submitted(place, tmp_path, capsys):
    out = tmp_path / "out"
    with locked(out):
        for words in (["--fresh"], ["--cluster", "local"]):
            assert produce(place, "--out", out, "--members", place / "tiny.toml", *words) == 2
            assert "is in use" in capsys.readouterr().err
        for words in ([], ["--fresh"]):
            (out / "made_of.json").write_text('{"command": "demo", "listings": 1200, "categories": 40, "seed": 0}')
            assert cli.main(["demo", "--out", str(out), *words]) == 2
            assert "is in use" in capsys.readouterr().err
    assert not list(tmp_path.glob("out.old*")) and sorted(path.name for path in out.iterdir()) == [".lock", "made_of.json"]


def test_what_jobs_are_to_make_is_not_made_here(place, tmp_path, capsys, monkeypatch):
    out, programs = tmp_path / "out", tmp_path / "programs"
    programs.mkdir()
    out.mkdir()
    (out / "submitted.json").write_text('{"out-train": "41", "out-evaluate": "42"}')
    (programs / "scontrol").write_text(
        '#!/bin/sh\n[ $4 = 42 ] && state=PENDING || state=COMPLETED\necho "JobId=$4 UserId=a JobState=$state ExitCode=0:0"\n'
    )
    (programs / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    words = ["--out", out, "--members", place / "tiny.toml"]
    assert produce(place, *words) == 2 and produce(place, *words, "--fresh") == 2
    assert "jobs 42 of an earlier submission are not over" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["submitted.json"]
    assert produce(place, *words, "--dry-run") == 0
    capsys.readouterr()
    assert produce(place, *words, "--only", "report") == 1, "what no job makes is made: here there is nothing to report on"
    assert "are not over" not in capsys.readouterr().err
    (programs / "scontrol").unlink()
    monkeypatch.setenv("PATH", str(programs))
    assert produce(place, *words, "--only", "evaluate") == 1
    assert "make sure that they are over: 41, 42" in capsys.readouterr().err


@pytest.mark.parametrize(("field", "said"), [('scope = "animlas"', "Did you mean 'animals'"), ('schemes = "fp32,int4"', "int4"), ("ranks = 0", "ranks = 0"),
                                             ('name = ".."', "becomes a folder")])  # fmt: skip
def test_what_would_fail_after_hours_is_refused_before(place, tmp_path, capsys, field, said):
    (tmp_path / "table.toml").write_text(f'[[member]]\nvariant = "lite0"\nrecipe = "scratch"\nweights = "none"\n{field}\n')
    assert produce(place, "--out", tmp_path / "out", "--members", tmp_path / "table.toml", "--dry-run") == 2
    assert said in capsys.readouterr().err


def test_a_failed_member_is_named_and_holds_back_its_own_alone(place, left_alone, tmp_path):
    """A member whose weights are no weights fails, beside one that is done."""
    (tmp_path / "bad.h5").write_text("no weights")
    table = tmp_path / "table.toml"
    table.write_text(TINY + f'[[member]]\nvariant = "b0"\nrecipe = "scratch"\nweights = "{tmp_path}/bad.h5"\n')
    out = tmp_path / "out"
    shutil.copytree(left_alone, out)
    words = ["produce", place / "dataset", "--out", out, "--members", table, "--only", "train,export,evaluate"]
    process = start(*words)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "family train" in said and "b0-general" in said and "exit code 2" in said
    assert f"skipped, since {out}/runs/b0-general/card.json is not there" in said and "lite0" not in said.split("not everything")[1]


def test_a_scheme_that_was_refused_is_named_every_time(left_alone, place, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(left_alone, out)
    card = out / "bundles/lite0-general/card.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "refused": {"int8": {}}}))
    assert cli.main(list(map(str, tiny(place, out)))) == 1
    assert "lite0-general" in (said := capsys.readouterr().err) and "int8 was refused" in said


# On a cluster


def apart(folder: Path) -> list[Member]:
    (folder / "apart.toml").write_text(APART)
    return read_members(str(folder / "apart.toml"), ["v2-b0=v.h5", "b0=b.h5"])


def test_each_line_waits_for_that_of_its_number(tmp_path):
    members = apart(tmp_path)
    made = plan(tmp_path, tmp_path / "out", members, here=False)
    found = {array.name: array for array in cluster.arrays(members, made)}
    number_of = {name: dict(array.steps) for name, array in found.items()}
    assert sorted(step.words for array in found.values() for _, step in array.steps) == sorted(step.words for step in made[:-2])
    for array in found.values():
        for number, step in array.steps:
            for needed in step.needs:
                made_by = [
                    (other.name, n) for other in found.values() for n, one in other.steps if str(needed.parent) == one.words[one.words.index("--out") + 1]
                ]  # fmt: skip
                for name, n in made_by:
                    (wait,) = [wait for wait in array.after if wait.array == name]
                    assert wait.task is None and (wait.kind == "afterany" or (wait.kind == "aftercorr" and n == number))
    assert {name: list(numbers) for name, numbers in number_of.items() if "-" not in name} == {"train": [1, 5], "evaluate": [*range(1, 9)]}


@st.composite
def tables_of_members(draw) -> list[Member]:
    """Members that start from earlier ones, learn from earlier ones, or both."""
    members = []
    for k in range(draw(st.integers(1, 9))):
        names = [member.folder for member in members]
        parent = draw(st.sampled_from(["", *names]))
        teachers = draw(st.lists(st.sampled_from(names), unique=True, max_size=2)) if names else []
        members.append(Member("b0", name=f"m{k}", start_from=parent, teacher=tuple(teachers)))
    return members


@given(tables_of_members(), st.data())
def test_a_training_waits_for_what_it_needs_and_for_nothing_else(members, data):
    made = [step for step in plan(Path("d"), Path("o"), members, here=False) if step.stage == "train"]
    left = data.draw(st.lists(st.sampled_from(made), unique=True)) if data.draw(st.booleans()) else made
    left = [step for step in made if step in left]
    found = {array.name: array for array in cluster.arrays(members, left)}
    order = list(found)
    task_of = {step.words[step.words.index("--out") + 1]: (name, n) for name, array in found.items() for n, step in array.steps}
    assert len(task_of) == len(left)
    for name, array in found.items():
        assert len({n for n, _ in array.steps}) == len(array.steps)
        for number, step in array.steps:
            needed = {task_of[str(card.parent)] for card in step.needs if str(card.parent) in task_of}
            assert {(wait.array, number if wait.task is None else wait.task) for wait in array.after} == needed
        assert all(order.index(wait.array) < order.index(name) for wait in array.after), "a job waits for those that were submitted"
        assert all(wait.kind == ("aftercorr" if wait.task is None else "afterok") for wait in array.after)


def test_a_student_with_a_trunk_of_its_own_waits_for_both(place, tmp_path, capsys):
    (tmp_path / "table.toml").write_text("""
        [[matrix]]
        variants = ["b0", "b1"]
        weights = "none"
        recipe = "scratch"
        [[matrix]]
        variants = ["lite0", "lite1"]
        scopes = ["general", "animals"]
        weights = "none"
        recipe = "scratch"
        set = { distill_weight = 0.5 }
        teacher = ["b0-general", "b1-general"]
    """)
    words = ["--members", tmp_path / "table.toml", "--cluster", "local", "--dry-run"]
    assert produce(place, "--out", tmp_path / "all", *words) == 0
    lines = capsys.readouterr().out.splitlines()
    told = [line.partition("=")[2] for line in lines if line.startswith(("#SBATCH --job-name", "#SBATCH --array", "#SBATCH --dependency"))]
    assert told[:8] == ["all-train", "1,2", "all-train-by-1.2", "3,5", "afterok:1_1,afterok:1_2",
                        "all-train-by-1.2-1-by-1.2", "3,5", "aftercorr:2,afterok:1_1,afterok:1_2"]  # fmt: skip


def test_lines_whose_parents_are_done_wait_for_nothing(tmp_path):
    members = apart(tmp_path)
    made = plan(tmp_path, tmp_path / "out", members)
    left = [step for step in made if (step.stage, step.member) not in (("train", 1), ("train", 2), ("export", 1))]
    found = {array.name: array for array in cluster.arrays(members, left)}
    assert [number for number, _ in found["train"].steps] == [3, 4, 5] and found["train"].after == ()
    assert [number for number, _ in found["export"].steps] == [2] and found["export"].after == ()
    assert [number for number, _ in found["export-train"].steps] == [3, 4, 5]
    assert all([number for number, _ in found[f"train-{k}"].steps] == [5] for k in (1, 2, 3))


def test_ranks_of_a_member_are_not_started_on_a_cluster(tmp_path):
    members = [Member("b0", ranks=2)]
    assert "--ranks" in plan(tmp_path, tmp_path, members)[0].words
    assert "--ranks" not in plan(tmp_path, tmp_path, members, here=False)[0].words


def test_the_jobs_are_the_golden_ones(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(submit, "place_of", lambda _: {"program": ("python",), "checkout": "/opt/family", "working_folder": "/data"})
    monkeypatch.chdir(tmp_path)
    for name in ("v.h5", "b.h5"):
        Path(name).touch()
    words = ["--weights", "v2-b0=v.h5", "--weights", "b0=b.h5", "--cluster", "generic", "--gpus-per-node", "2", "--nodes", "3"]
    assert produce(place, "--out", tmp_path / "all", *words, "--time", "90", "--bench-on", "n7", "--dry-run") == 0
    said = capsys.readouterr().out
    assert said.count("#!/bin/bash\n") == 18 and said.splitlines()[-1].startswith("next: family pick")
    told = [line for line in said.splitlines() if line.startswith(("# job", "#SBATCH", "command=", "launch=")) or ") command=" in line]
    text = "\n".join(told).replace(str(tmp_path), "OUT").replace(str(place), "DATA") + "\n"
    if os.environ.get("REFRESH_GOLDEN") == "1":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
    assert not (tmp_path / "all").exists()


def test_latency_is_left_to_the_machine_that_serves(place, tmp_path, capsys):
    assert produce(place, "--out", tmp_path / "all", "--members", place / "tiny.toml", "--cluster", "local", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "command=(bench" not in said and said.count("#!/bin/bash") == 5
    bundles = " ".join(f"{tmp_path}/all/bundles/lite0-{scope}" for scope in ("general", "animals"))
    assert said.splitlines()[-1] == f"next: family bench {bundles} --out {tmp_path}/all/results.jsonl --data {place}/dataset"


# What stands for our command line on the two nodes: it makes what the next lines need, one member fails, one export is refused.
TOY = """
import sys, time
from pathlib import Path
words = sys.argv[4:]
out = Path(words[words.index("--out") + 1])
log = Path(sys.argv[0]).parent / "order"
failing = words[0] == "train" and "b0-general" in str(out) and "lite" not in str(out)
if words[0] == "train":
    source = Path(words[words.index("--weights") + 1])
    if source.parent.name == "runs" and not (source / "card.json").is_file():
        sys.exit("what it starts from is not there")
    if not all((Path(words[k + 1]) / "card.json").is_file() for k, word in enumerate(words) if word == "--teacher"):
        sys.exit("a teacher is not there")
time.sleep(1)
if not failing:
    out.mkdir(parents=True, exist_ok=True)
    (out / "card.json").write_text("{}")
with open(log, "a") as file:
    file.write(f"{words[0]} {out.name} {failing}\\n")
sys.exit(1 if failing or (words[0] == "export" and "lite0-general" in str(out)) else 0)
"""


# b0-general, the third, fails: with it those that start from it or learn from it.
TAUGHT = """
[[matrix]]
variants = ["lite0", "b0"]
scopes = ["general", "animals"]
weights = "none"
[[member]]
name = "good"
variant = "b1"
recipe = "distill"
weights = "none"
teacher = ["lite0-general"]
[[member]]
name = "bad"
variant = "b1"
recipe = "distill"
weights = "none"
teacher = ["lite0-general", "b0-general"]
[[member]]
name = "bad-animals"
variant = "b1"
scope = "animals"
recipe = "distill"
start_from = "good"
teacher = ["b0-general"]
"""


def test_on_a_real_cluster_a_member_that_fails_holds_back_its_own_alone(slurm, place, tmp_path):
    (tmp_path / "toy.py").write_text(TOY)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/bash\nexec {sys.executable} "{tmp_path}/toy.py" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "cluster.toml").write_text(slurm.toml.read_text() + f'python = "{python}"\n')
    (tmp_path / "table.toml").write_text(TAUGHT)
    environment = {**slurm.environment, "PYTHONPATH": str(REPOSITORY)}
    words = ["produce", str(place / "dataset"), "--out", "all", "--members", "table.toml", "--cluster", "cluster.toml"]

    def family() -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "family.cli", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

    done = family()
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "all/submitted.json").read_text())
    trainings = ["train", "train-1", "train-by-1", "train-by-1.3", "train-by-1-1-by-3"]
    assert list(numbers) == [f"all-{name}" for name in (*trainings, *(f"export-{name}" for name in trainings), "evaluate")]
    twice = family()
    assert twice.returncode == 2 and "are not over" in twice.stderr
    here = [word for word in words if word not in ("--cluster", "cluster.toml")]
    beside = subprocess.run(
        [sys.executable, "-m", "family.cli", *here], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert beside.returncode == 2 and "are not over" in beside.stderr
    slurm.wait_until(lambda: not slurm.squeue(), 120, "all jobs to be over")
    order = (tmp_path / "order").read_text().splitlines()
    trained = ["train lite0-general False", "train lite0-animals False", "train b0-general True"]
    assert sorted(order[:3]) == sorted(trained) or set(trained) <= set(order)
    assert order.index(trained[0]) < order.index(trained[1])
    assert {"export lite0-general False", "export lite0-animals False"} <= set(order)
    assert order.index("train lite0-general False") < order.index("train good False") and "export good False" in order
    assert not [line for line in order if line.startswith(("train b0-animals", "train bad", "export b0", "export bad"))]
    evaluated = [k for k, line in enumerate(order) if line.startswith("evaluate")]
    assert len(evaluated) == 7 and min(evaluated) > max(k for k, line in enumerate(order) if line.startswith("export"))
    assert list((tmp_path / "all/logs").glob("train-*.log"))
