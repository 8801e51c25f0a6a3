"""Plans: members become command lines in order; what a failure leaves out is said."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trainings import children_of, kill_all

from family.chains import read_chain
from family.data.scopes import verticals
from family.errors import UserError
from family.plan.chaining import write_chains
from family.plan.lines import plan
from family.plan.members import Member, chains_of, needs_file, read_members, tables
from family.plan.steps import Step, run_steps


def test_every_table_that_ships_is_a_plan():
    for name in tables():
        members = read_members(name)
        steps = plan(Path("d"), Path("o"), members)
        assert len(steps) == 3 * len(members) + 2
        assert [step.stage for step in steps[-2:]] == ["bench", "report"]
        assert [step.member for step in steps] == 3 * [*range(1, len(members) + 1)] + [0, 0]


def test_a_submodel_starts_from_its_general_run_and_needs_it():
    members = [Member("b0", weights="none", recipe="scratch"), Member("b0", scope="animals", start_from="b0-general")]
    first, second, *_ = plan(Path("d"), Path("o"), members)
    assert Path("o/runs/b0-general/card.json") in second.needs
    assert second.words[second.words.index("--weights") + 1] == "o/runs/b0-general"


def test_a_student_learns_from_earlier_members_and_from_runs_and_needs_them():
    student = Member("lite0", scope="animals", recipe="distill", start_from="lite0-general", teacher=("b0-general", "elsewhere/b4"))
    *_, step = plan(Path("d"), Path("o"), [Member("b0"), Member("lite0"), student])[:3]
    taught_by = [step.words[k + 1] for k, word in enumerate(step.words) if word == "--teacher"]
    assert taught_by == ["o/runs/b0-general", "elsewhere/b4"]
    cards = [Path(f"{run}/card.json") for run in ("o/runs/lite0-general", "o/runs/b0-general", "elsewhere/b4")]
    assert step.needs == (Path("d/dataset.json"), *cards)


def test_a_member_of_a_changed_tree_starts_from_its_own_earlier_run():
    members = [Member("b0"), Member("b0", scope="animals", start_from="b0-general", weights="old/runs/b0-animals", carry_head="m.csv")]
    _, step, *_ = plan(Path("d"), Path("o"), members)
    k = step.words.index("--weights")
    assert step.words[k : k + 5] == ("--weights", "old/runs/b0-animals", "--carry-head", "m.csv", "--resume")
    assert step.needs == (Path("d/dataset.json"), Path("old/runs/b0-animals/card.json"))
    (chain,) = chains_of(members, lambda scope: [scope])
    assert list(chain.verticals) == ["animals"], "it is still a part of the general member's chain"


def test_recipe_fields_are_passed_on():
    (step, *_) = plan(Path("d"), Path("o"), [Member("b0", set={"flip": False, "seed": 3})])
    assert "flip=false" in step.words and "seed=3" in step.words


def test_a_local_file_replaces_downloads_only():
    members = read_members("v2-b0", weights=["file.h5"])
    assert {member.weights for member in members if not member.start_from} == {"file.h5"}
    assert read_members("demo", weights=["file.h5"])[0].weights == "none"


def read(tmp_path, text: str, *weights: str) -> list[Member]:
    (tmp_path / "members.toml").write_text(text)
    return read_members(str(tmp_path / "members.toml"), list(weights))


def test_a_matrix_is_variants_times_scopes(tmp_path):
    text = """
        [[matrix]]
        variants = ["lite0", "b1"]
        scopes = ["animals", "general", "my/own.toml"]
        schemes = "fp32"
        set = { seed = 2 }
        [[member]]
        variant = "b1"
        scope = "transport"
        start_from = "b1-general"
    """
    found = read(tmp_path, text)
    assert [(m.folder, m.scope, m.start_from) for m in found] == [
        ("lite0-general", "general", ""), ("lite0-animals", "animals", "lite0-general"), ("lite0-own", "my/own.toml", "lite0-general"),
        ("b1-general", "general", ""), ("b1-animals", "animals", "b1-general"), ("b1-own", "my/own.toml", "b1-general"),
        ("b1-transport", "transport", "b1-general"),
    ]  # fmt: skip
    assert all(m.set == {"seed": 2} and m.schemes == "fp32" for m in found[:-1]) and found[-1].set is None


def test_teachers_are_earlier_members_by_name_or_finished_runs(tmp_path):
    run = tmp_path / "b4"
    run.mkdir()
    (run / "card.json").touch()
    student = f'recipe = "distill"\nteacher = ["b0-{{scope}}", "{run}"]'
    found = read(tmp_path, f'[[matrix]]\nvariants = ["b0"]\nscopes = ["general", "animals"]\n[[matrix]]\nvariants = ["lite0"]\n'
                 f'scopes = ["general", "animals"]\n{student}')  # fmt: skip
    assert [m.teacher for m in found] == [(), (), ("b0-general", str(run)), ("b0-animals", str(run))]
    assert found[3].start_from == "lite0-general"


def test_verticals_start_from_the_last_general_member_of_their_variant(tmp_path):
    matrix = '[[matrix]]\nvariants = ["b0"]\n'
    text = f'{matrix}{matrix}name = "{{variant}}-{{scope}}-s"\n{matrix}scopes = ["verticals"]\n'
    found = read(tmp_path, text)
    assert [(m.folder, m.start_from) for m in found] == [("b0-general", ""), ("b0-general-s", "")] + [
        (f"b0-{scope}", "b0-general-s") for scope in sorted(verticals())
    ]
    # Without a general member they start as everything does.
    assert {m.start_from for m in read(tmp_path, matrix + 'scopes = ["verticals"]')} == {""}


def test_weights_are_given_for_each_variant_and_lite_takes_those_of_b(tmp_path):
    text = '[[matrix]]\nvariants = ["lite0", "v2-b0", "b1"]\nscopes = ["general", "animals"]'
    found = read(tmp_path, text, "v2-b0=/a=b/v2.h5", "b0=b0.h5")
    assert [m.weights for m in found if not m.start_from] == ["b0.h5", "/a=b/v2.h5", "imagenet"]
    assert [needs_file(m) for m in found] == [False] * 6
    assert [needs_file(m) for m in read(tmp_path, text)] == [True, False, False, False, False, False]
    assert read(tmp_path, text, "noisy-student", "lite0=own.h5")[4].weights == "noisy-student"
    with pytest.raises(UserError, match="--weights b0=FILE --weights v2-b0=FILE --weights b1=FILE"):
        read(tmp_path, text, "file.h5")
    with pytest.raises(UserError, match="Did you mean 'v2-b0'"):
        read(tmp_path, text, "v2b0=file.h5")


def test_members_come_after_those_that_they_need_and_otherwise_as_they_stand(tmp_path):
    text = """
        [[matrix]]
        variants = ["v2-b0"]
        [[member]]
        name = "student"
        variant = "lite0"
        teacher = ["big", "b0-general"]
        [[member]]
        name = "big"
        variant = "v2-s"
        [[matrix]]
        variants = ["b0"]
        teacher = ["big"]
    """
    assert [member.folder for member in read(tmp_path, text)] == ["v2-b0-general", "big", "b0-general", "student"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[member]]\nvariant = "b0"\ncolour = 1', "colour"),
        ('[[member]]\nvariant = "b0"\n[[member]]\nvariant = "b0"', "two members"),
        ('[[member]]\nvariant = "b0"\nstart_from = "later"', "no other member"),
        (
            '[[member]]\nvariant = "b0"\n[[member]]\nvariant = "lite0"\nteacher = ["b0-generl"]',
            "no finished run; did you mean 'b0-general'",
        ),
        ('[[member]]\nvariant = "lite0"\nteacher = ["b1-general"]\n[[member]]\nvariant = "b0"', "no other member and no finished run$"),
        ('[[matrix]]\nvariants = ["b0"]\nteacher = ["b0-general"]', "no other member"),
        (
            '[[member]]\nvariant = "b0"\nteacher = ["b1-general"]\n[[member]]\nvariant = "b1"\nstart_from = "b0-general"',
            "b0-general, b1-general start from or learn from one another",
        ),
        ('[[member]]\nvariant = "b0"\nteacher = "b1-general"', "teacher takes a list"),
        ('[[member]]\nvariant = "b0"\nteacher = []', "teacher takes a list of names"),
        ('[[member]]\nvariant = "b0"\ncarry_head = "m.csv"', "field of a member"),
        ("", "no members"),
        ("[[member", "members.toml"),
        ('[[matrix]]\nscopes = ["general"]', "has no variants"),
        ("[[matrix]]\nvariants = []", "takes a list of names"),
        ('[[matrix]]\nvariants = ["b0"]\nscope = "animals"', "field of a matrix.*Did you mean 'scopes'"),
        ('[[matrix]]\nvariants = ["b0"]\n[[matrix]]\nvariants = ["b0", "b1"]', "two members named b0-general"),
        ('[[matrix]]\nvariants = ["b0"]\nname = "a/{variant}"', "becomes a folder"),
        ('[[matrices]]\nvariants = ["b0"]', "unknown table"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(tmp_path, text, said):
    (tmp_path / "members.toml").write_text(text)
    with pytest.raises(UserError, match=said):
        read_members(str(tmp_path / "members.toml"))


def test_steps_go_on_past_a_failure_and_skip_what_needed_it(tmp_path, capfd):
    missing = tmp_path / "missing"
    steps = [Step(("list", "variants")), Step(("list", "nothing")), Step(("show", "x"), (missing,)), Step(("list", "schemes"))]
    failed = run_steps(steps)
    said = capfd.readouterr().out
    assert len(failed) == 2 and "exit code 2" in failed[0] and "skipped" in failed[1] and str(missing) in failed[1]
    assert "inception-resnet-v2" in said and "int8" in said


def test_a_step_may_need_what_the_step_before_it_made(tmp_path, capfd):
    first, second = tmp_path / "first", tmp_path / "second"
    words = ("data", "synth", str(first), "--listings", "12", "--categories", "12")
    steps = [Step(words), Step(("data", "synth", str(second), *words[3:]), (first / "dataset.json",))]
    assert run_steps(steps) == [] and (second / "dataset.json").is_file()


def test_words_whose_files_are_missing_are_left_out_unless_all_are(tmp_path, capfd):
    there, gone = tmp_path / "there", tmp_path / "gone"
    there.write_text("")
    uses = (("variants", there), ("schemes", gone))
    assert run_steps([Step(("list", "variants", "schemes"), uses=uses)]) == []
    (failed,) = run_steps([Step(("list", "schemes"), uses=(("schemes", gone),))])
    assert "skipped" in failed


def test_lines_that_run_beside_one_another_are_told_apart(tmp_path, capfd):
    steps = [Step(("export", str(tmp_path / f"run-{k}"), "--out", str(tmp_path / f"out-{k}"))) for k in range(3)]
    steps.insert(1, Step(("export", "never"), (tmp_path / "missing",)))
    failed = run_steps(steps)
    assert [line.partition(":")[0] for line in failed] == [str(step) for step in steps]
    assert "exit code 2" in failed[0] and "skipped" in failed[1] and "exit code 2" in failed[2] and "exit code 2" in failed[3]
    assert capfd.readouterr().out.count("-- family export") == 3


def test_a_plan_that_is_told_to_make_room_saves_and_goes_on_later(tmp_path):
    dataset, run = tmp_path / "dataset", tmp_path / "run"
    words = ["train", str(dataset), "--out", str(run), "--variant", "lite0", "--weights", "none", "--recipe", "scratch", "--resume",
             "--set", "resolution_px=32", "--set", "finetune_epochs=500"]  # fmt: skip
    plan = [["data", "synth", str(dataset), "--listings", "80", "--categories", "12"], words, ["list", "schemes"]]
    code = f"from family.plan.steps import Step, run_steps\nrun_steps([Step(tuple(words)) for words in {plan!r}])"
    main = f"import sys\ntry:\n    exec({code!r})\nexcept Exception as error:\n    sys.exit(getattr(error, 'exit_code', 1))"
    process = subprocess.Popen([sys.executable, "-c", main], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 200
        while not (run / "metrics.jsonl").is_file() or '"step"' not in (run / "metrics.jsonl").read_text():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGUSR1)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 75, said
    assert list((run / "checkpoints").glob("step-*.npz")) and "what it is" not in said


def test_a_stage_that_dies_fails_all_of_its_lines_that_were_left(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    failed = run_steps([Step(("list", "variants")), Step(("list", "schemes"))])
    assert len(failed) == 2


def test_another_process_takes_the_place_of_one_that_died(monkeypatch, tmp_path, capfd):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/bash\nmkdir "{tmp_path}/died" 2> /dev/null && exit 7\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    failed = run_steps([Step(("list", "variants")), Step(("list", "schemes"))])
    assert failed == ["family list variants: exit code 7"] and "int8" in capfd.readouterr().out


def test_a_plan_that_is_killed_takes_its_processes_along(tmp_path):
    words = ["data", "synth", str(tmp_path / "dataset"), "--listings", "100000"]
    code = f"from family.plan.steps import Step, run_steps\nrun_steps([Step(tuple({words!r}))])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".synth-*/made-up/images/*")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        assert len(children_of(process.pid)) == 1
        kill_all(process)
    finally:
        process.kill()
        process.wait()


def test_the_verticals_of_a_general_member_make_a_chain_unless_they_share_a_leaf():
    members = [Member("b0"), *(Member("b0", scope=scope, start_from="b0-general") for scope in ("animals", "transport")), Member("lite0")]
    leaves = {"animals": ["cat", "dog"], "transport": ["van"]}
    (chain,) = chains_of(members, leaves.__getitem__)
    assert (chain.name, list(chain.verticals)) == ("chain-b0-general", ["animals", "transport"])
    assert chains_of(members, lambda scope: ["cat"]) == []
    *_, evaluated, bench, report = plan(Path("d"), Path("o"), members, [chain])
    assert evaluated.words == ("evaluate", "o/chains/b0-general.toml", "d", "--out", "o/evaluations/chain-b0-general")
    assert evaluated.needs == tuple(Path(f"o/bundles/b0-{scope}/card.json") for scope in ("general", "animals", "transport"))
    assert (bench.stage, report.stage) == ("bench", "report") and bench.words[-1] == "--chains"


def test_members_answer_for_chains_where_any_submodel_may_stand_behind_any_general_model():
    def bench_of(members: list[Member], leaves: dict) -> tuple:
        chains = chains_of(members, leaves.__getitem__)
        return next(step.words for step in plan(Path("d"), Path("o"), members, chains) if step.stage == "bench")

    def family(variant: str, *scopes: str) -> list[Member]:
        general = Member(variant)
        return [general, *(Member(variant, scope=scope, start_from=general.folder) for scope in scopes)]

    leaves = {"animals": ["cat", "dog"], "transport": ["van"], "electronics": ["dog", "tv"]}
    assert "--chains" not in bench_of(family("b0"), leaves)
    assert "--chains" in bench_of([*family("b0", "animals", "transport"), *family("lite0", "transport")], leaves)
    assert "--chains" not in bench_of([*family("b0", "animals"), *family("lite0", "electronics")], leaves), "both know dogs"


def test_chain_files_name_the_bundles_relative_to_themselves(tmp_path):
    members = [Member("b0"), Member("b0", scope="animals", start_from="b0-general")]
    for name in ("b0-general", "b0-animals"):
        (tmp_path / "bundles" / name).mkdir(parents=True)
    write_chains(tmp_path, chains_of(members, lambda scope: [scope]))
    told = read_chain(tmp_path / "chains" / "b0-general.toml")
    assert told.general.resolve() == tmp_path / "bundles" / "b0-general" and told.routing == "hard"
    assert {name: path.resolve() for name, path in told.verticals.items()} == {"animals": tmp_path / "bundles" / "b0-animals"}
