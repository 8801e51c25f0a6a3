"""`family produce --cluster`: its arrays of jobs, which wait for what they need and for nothing else.

REFRESH_GOLDEN=1 writes the golden file anew; read the difference before you keep it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from produced import made_place, produce

from family.plan import cluster
from family.plan.lines import plan
from family.plan.members import Member, read_members
from slurm import submit

REPOSITORY = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "produce-quick.txt"
# Two variants that wait for nothing of one another.
APART = """
[[matrix]]
variants = ["v2-b0", "lite0"]
scopes = ["general", "verticals"]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return made_place(tmp_path_factory.mktemp("produce"))


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
