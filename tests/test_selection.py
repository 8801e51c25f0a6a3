"""Which members are made of a dataset: teachers that teach, and namesakes of an earlier family that members start from."""

from pathlib import Path

import pytest

from family import cli
from family.card import read_card, write_card
from family.data.dataset import Dataset, open_dataset
from family.errors import UserError
from family.plan.lines import plan
from family.plan.members import Member, read_members
from family.plan.selection import select


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    out = tmp_path_factory.mktemp("made-up") / "dataset"
    assert cli.main(["data", "synth", str(out), "--listings", "40", "--categories", "12"]) == 0
    return open_dataset(out)


def write_run(run: Path, dataset: Dataset, variant: str, scope: str = "general", drop: int = 0) -> Path:
    """Write what is read of a finished run before its weights are; it lacks the first `drop` categories."""
    tree = dataset.scope(scope)
    leaves = list(tree.leaves)[drop:]
    run.mkdir(parents=True)
    (run / "weights.h5").touch()
    write_card(run, {"schema": 1, "name": run.name, "variant": variant, "resolution_px": 64, "scope": scope, "classes": leaves,
                     "paths": [tree.path_of[leaf] for leaf in leaves],
                     "preprocessing": {"resolution_px": 64, "aspect": "stretch", "filter": "bilinear"}})  # fmt: skip
    return run


# Teachers


def taught(scope: str = "general", **fields) -> Member:
    return Member("lite1", **{"scope": scope, "weights": "none", "recipe": "scratch", "set": {"distill_weight": 0.5}, **fields})


def test_a_student_of_what_is_left_out_is_left_out(dataset, capsys):
    members = [
        Member("lite0"),
        Member("b0"),
        taught(teacher=("b0-general", "lite0-general")),
        taught("animals", start_from="lite1-general", set={}),
    ]
    assert [member.folder for member in select(members[:2] + [taught(teacher=("b0-general",))], dataset)] == ["b0-general", "lite1-general"]
    capsys.readouterr()
    assert [member.folder for member in select(members, dataset)] == ["b0-general"]
    said = capsys.readouterr().out.splitlines()
    assert said[1:] == [
        "left out lite1-general: the teacher lite0-general is left out",
        "left out lite1-animals: lite1-general is left out",
    ]


def test_a_general_model_teaches_a_vertical_and_never_the_other_way(dataset, tmp_path):
    members = [Member("b0"), Member("b0", scope="animals")]
    run = str(write_run(tmp_path / "run", dataset, "b1"))
    assert len(select([*members, taught("animals", teacher=("b0-general", "b0-animals", run))], dataset)) == 3
    with pytest.raises(UserError, match="lite1-general: the teacher b0-animals does not know [0-9]+ of the categories"):
        select([*members, taught(teacher=("b0-animals",))], dataset)
    other = str(write_run(tmp_path / "other", dataset, "b1", drop=1))
    with pytest.raises(
        UserError, match=f"lite1-general: the teacher {other} does not know 1 of the categories: {dataset.ontology.leaves[0]}$"
    ):
        select([taught(teacher=(other,))], dataset)
    (Path(other) / "weights.h5").unlink()
    with pytest.raises(UserError, match="is no finished run"):
        select([taught(teacher=(other,))], dataset)


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (taught(), "got no teacher and distill_weight = 0.5"),
        (taught(teacher=("b0-general",), set={}), "got a teacher and distill_weight = 0"),
        (taught(teacher=("b0-general",), recipe="distill", set={"finetune_epochs": 0}), "teaches in the second phase"),
    ],
)
def test_a_teacher_and_a_recipe_that_do_not_go_together_are_refused(dataset, member, said):
    with pytest.raises(UserError, match=f"lite1-general: .*{said}"):
        select([Member("b0"), member], dataset)


# A family of another version of the tree


@pytest.fixture
def old(dataset, tmp_path) -> Path:
    for variant in ("b0", "lite0"):
        for scope in ("general", "animals"):
            write_run(tmp_path / "old" / "runs" / f"{variant}-{scope}", dataset, variant, scope)
    return tmp_path / "old"


TABLE = """
[[matrix]]
variants = ["b0", "lite0"]
scopes = ["general", "animals"]
"""


def read(tmp_path: Path, text: str) -> list[Member]:
    (tmp_path / "table.toml").write_text(text)
    return read_members(str(tmp_path / "table.toml"))


def test_members_start_from_their_namesakes_with_their_heads(dataset, old, tmp_path):
    (tmp_path / "m.csv").write_text("old,new\n")
    for mapping in (None, tmp_path / "m.csv"):
        members = select(read(tmp_path, TABLE), dataset, old, mapping)
        for member, step in zip(members, plan(dataset.folder, tmp_path / "new", members), strict=False):
            k = step.words.index("--weights")
            assert step.words[k + 1 : k + 3] == (str(old / "runs" / member.folder), "--carry-head")
            assert step.words[k + 3] == (str(mapping) if mapping else "--resume")
            assert [card.parent for card in step.needs[1:]] == [old / "runs" / member.folder]
    assert len(members) == 4, "lite0 needs no file: it has a run to start from"


def test_a_namesake_that_is_missing_is_refused_unless_the_member_is_made_anew(dataset, old, tmp_path):
    table = TABLE + '[[member]]\nvariant = "b1"\n[[member]]\nvariant = "b0"\nscope = "transport"\nstart_from = "b0-general"\n'
    with pytest.raises(UserError) as error:
        select(read(tmp_path, table), dataset, old)
    assert "has no finished run of b1-general, b0-transport (its runs: b0-animals, b0-general, lite0-animals, lite0-general)" in str(
        error.value
    )
    anew = table.replace('"b1"', '"b1"\nanew = true').replace('"transport"', '"transport"\nanew = true')
    *_, general, vertical = select(read(tmp_path, anew), dataset, old)
    assert (general.weights, general.carry_head) == ("imagenet", None) and vertical.parent == "b0-general"


def test_what_the_dataset_has_not_is_left_out_before_a_namesake_is_looked_for(dataset, old, tmp_path, capsys):
    (tmp_path / "nowhere.toml").write_text('subtrees = ["Nowhere"]')
    table = TABLE + f'[[member]]\nvariant = "b0"\nscope = "{tmp_path}/nowhere.toml"\n[[member]]\nvariant = "lite2"\n'
    assert len(select(read(tmp_path, table), dataset, old)) == 4
    said = capsys.readouterr().out
    assert "left out b0-nowhere: no category lies below" in said and "left out lite2-general: no library publishes" in said


def test_a_head_that_does_not_fit_is_refused(dataset, old, tmp_path):
    write_run(old / "runs" / "x", dataset, "b1")
    with pytest.raises(UserError, match="runs/x is a run of b1, and x is b0, which can't take its head"):
        select(read(tmp_path, '[[member]]\nvariant = "b0"\nname = "x"'), dataset, old)
    (tmp_path / "m.csv").write_text("old,new\nnothing,\n")
    with pytest.raises(UserError, match="m.csv: unknown old category 'nothing'"):
        select(read(tmp_path, TABLE), dataset, old, tmp_path / "m.csv")
    (old / "runs" / "b0-general" / "weights.h5").unlink()
    with pytest.raises(UserError, match="b0-general: no weights at .*/old/runs/b0-general/weights.h5"):
        select(read(tmp_path, TABLE), dataset, old)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "{old}", "--out", "{old}"], "--from and --out are the same folder"),
        (["--from", "{old}/runs", "--out", "{old}/../new"], "is no family (it has no runs/)"),
        (["--mapping", "m.csv", "--out", "{old}/../new"], "--mapping m.csv: for --from DIR, which is not given"),
    ],
)
def test_folders_that_are_no_earlier_family_are_refused(dataset, old, capsys, words, said):
    assert cli.main(["produce", str(dataset.folder), *(word.format(old=old) for word in words), "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def test_the_job_that_measures_chooses_the_same_members(dataset, old, tmp_path, capsys):
    (tmp_path / "table.toml").write_text(TABLE)
    words = ["--from", str(old), "--members", str(tmp_path / "table.toml"), "--cluster", "local", "--bench-on", "n1", "--dry-run"]
    assert cli.main(["produce", str(dataset.folder), "--out", str(tmp_path / "new"), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("#SBATCH --array")][0] == "#SBATCH --array=1,2,3,4", "no training waits for another"
    assert f"--only bench,report --from {old})" in next(line for line in lines if line.startswith("command=(produce"))


TINY = """
[[matrix]]
variants = ["lite0"]
recipe = "scratch"
weights = "none"
set = { resolution_px = 32, finetune_epochs = 1, label = "" }
[[matrix]]
variants = ["lite0"]
name = "student"
recipe = "scratch"
weights = "none"
teacher = ["lite0-general"]
set = { resolution_px = 32, finetune_epochs = 1, distill_weight = 0.5, label = "taught" }
"""


def test_a_family_is_taught_and_goes_on_with_a_changed_tree(dataset, tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    changed = tmp_path / "changed"
    assert cli.main(["data", "synth", str(changed), "--listings", "60", "--categories", "14"]) == 0
    old, new = tmp_path / "old", tmp_path / "new"
    words = ["--members", str(tmp_path / "tiny.toml"), "--only", "train"]
    assert cli.main(["produce", str(dataset.folder), "--out", str(old), *words]) == 0
    assert cli.main(["produce", str(changed), "--out", str(new), "--from", str(old), *words]) == 0
    for family in (old, new):
        taught_by = {run.name: read_card(run)["training"]["teachers"] for run in (family / "runs").iterdir()}
        assert taught_by == {"lite0-general": [], "student": ["lite0-32-general"]}
    carried = read_card(new / "runs" / "student")["training"]["weights"]
    assert carried["source"] == str(old / "runs" / "student") and (carried["head"]["kept"], carried["head"]["new"]) == (12, 2)
    assert cli.main(["produce", str(changed), "--out", str(new), *words]) == 2, "without --from it would be another family"
