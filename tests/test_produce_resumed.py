"""`family produce` goes on where it was killed, ends the same, and holds back only what a failure concerns."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from produced import TINY, made_place, produce, tiny
from trainings import ENVIRONMENT, events, kill_all, last_step, start, wait_until, weights_of

from export.bundle import open_bundle
from family import cli
from family.outputs import locked
from family.plan import steps
from family.plan.chaining import renewed, write_chains
from family.plan.lines import plan
from family.plan.members import Member, chains_of


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return made_place(tmp_path_factory.mktemp("produce"))


def graph_and_answers(folder: Path) -> tuple[bytes, np.ndarray]:
    """Return a bundle's graph, without the card in its metadata, and its stored answers."""
    bundle = open_bundle(folder)
    model = onnx.load(folder / bundle.schemes["fp32"]["file"])
    del model.metadata_props[:]
    return model.SerializeToString(deterministic=True), bundle.samples("fp32")[1]


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
        models, answers = zip(*(graph_and_answers(folder / "bundles" / name) for folder in (left_alone, out)), strict=True)
        assert models[0] == models[1], "the same weights are not the same file"
        np.testing.assert_array_equal(*answers)
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
