"""`family submit` without a cluster: what it refuses, prints and hands to sbatch. A real one is in test_slurm_cluster.py."""

import argparse
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slurm import check, queue, submit
from slurm.errors import BadInput, Failed
from slurm.job import make_job
from slurm.queue import Follower, State, clean_environment
from slurm.script import default_log

SBATCH = """#!/bin/bash
cat > "$OUT/script"; env > "$OUT/environment"; printf '%s\\n' "$@" > "$OUT/argv"; pwd > "$OUT/folder"
[ -z "$REFUSE" ] || { echo "sbatch: error: Batch job submission failed: $REFUSE" >&2; exit 1; }
echo "41;cluster"
"""


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """A stand-in for sbatch that writes down what it was given. Returns the folder that it writes to."""
    out = tmp_path / "sbatch"
    out.mkdir()
    (out / "sbatch").write_text(SBATCH)
    (out / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{out}:/usr/bin:/bin")
    monkeypatch.setenv("OUT", str(out))
    monkeypatch.setenv("REFUSE", "")
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    return out


def run(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="family submit", allow_abbrev=False)
    submit.arguments(parser)
    return submit.run(parser.parse_args(words)) or 0


def test_what_is_submitted_and_told(sbatch, tmp_path, capsys):
    assert run("--cluster", "local", "--nodes", "2", "--name", "b0", "--", "train", "my data", "--out", "runs/b0") == 0
    work = tmp_path / "place"
    assert capsys.readouterr().out.splitlines() == [
        "job:    41",
        f"log:    {work}/b0-41.log",
        f"follow: tail -F {work}/b0-41.log",
        "cancel: scancel 41",
        "next:   family evaluate runs/b0 'my data' --out runs/b0-test",
    ]
    assert (sbatch / "argv").read_text() == "--parsable\n" and (sbatch / "folder").read_text() == f"{work}\n"
    script = (sbatch / "script").read_text()
    assert f"{sys.executable} -P -m family.cli)\ncommand=(train --resume 'my data' --out runs/b0)\n" in script
    assert f"export PYTHONPATH={submit.CHECKOUT}\n" in script and f"cd -- {work} " in script
    assert (Path(submit.CHECKOUT) / "family" / "cli.py").is_file()


def test_json_is_one_object(sbatch, capsys):
    assert run("--cluster", "local", "--json", "--log", "logs/new/%x-%j.log", "--", "produce", "data", "--out", "all") == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"job", "log", "follow", "cancel", "next"} and told["next"] == "family show all"
    assert told["log"].endswith("/place/logs/new/family-41.log") and Path(told["log"]).parent.is_dir()
    assert run("--cluster", "local", "--json", "--dry-run", "--", "show", "x") == 0
    assert json.loads(capsys.readouterr().out)["script"].startswith("#!/bin/bash\n")


def test_a_dry_run_prints_the_script_and_submits_nothing(sbatch, capsys):
    assert run("--cluster", "local", "--dry-run", "--", "show", "x") == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash\n#SBATCH --job-name=family\n")
    assert not (sbatch / "script").exists()


def test_only_sbatch_judges_a_test(sbatch, capsys):
    assert run("--cluster", "local", "--test-only", "--", "show", "x") == 0
    assert (sbatch / "argv").read_text() == "--test-only\n" and "job:" not in capsys.readouterr().out


def test_a_refusal_is_told_in_one_line(sbatch, monkeypatch):
    monkeypatch.setenv("REFUSE", "Invalid account")
    with pytest.raises(Failed, match="^sbatch refused the job: Batch job submission failed: Invalid account$") as error:
        run("--cluster", "local", "--", "show", "x")
    assert error.value.exit_code == 1


def test_without_sbatch_it_says_where_to_go(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="no sbatch on the path; submit from a login node of the cluster, or see the script with --dry-run"):
        run("--cluster", "local", "--", "show", "x")


@pytest.mark.parametrize("words", [[], ["train", "x"], ["--"]])
def test_words_come_after_two_dashes(words, sbatch):
    with pytest.raises(BadInput, match="after --"):
        run("--cluster", "local", *words)


@pytest.mark.parametrize("words", [["show", "--", "-x"], ["show", "--nodes", "7"], ["show", "--json", "--debug"], ["show", "", "a\nb"]])
def test_words_stay_theirs(words, sbatch, capsys):
    assert run("--cluster", "local", "--", *words) == 0
    script = (sbatch / "script").read_text()
    assert "#SBATCH --nodes=1\n" in script and capsys.readouterr().out.startswith("job:")
    line = re.search(r"^command=\(.*\)$", script, re.MULTILINE)[0]
    printed = subprocess.run(["bash", "-c", line + "; printf '%s\\0' \"${command[@]}\""], capture_output=True, text=True)
    assert printed.stdout.split("\0")[:-1] == words


def test_what_an_allocation_left_is_not_handed_on(sbatch, monkeypatch):
    left = ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURMD_NODENAME", "SBATCH_TIMELIMIT", "SRUN_CPUS_PER_TASK", "PMI_RANK", "PMIX_ID", "PMI2_X")
    left += ("OMPI_COMM_WORLD_RANK", "HOROVOD_RANK", "HOROVOD_GLOO_IFACE", "HOROVOD_JOB_ID", "FAMILY_RANK_CPUS", "FAMILY_LAUNCHER_PID")
    kept = ("SLURM_CONF", "HOROVOD_AUTOTUNE", "HOME", "VIRTUAL_ENV", "FAMILY_CACHE")
    for name in (*left, *kept):
        monkeypatch.setenv(name, "x")
    run("--cluster", "local", "--", "show", "x")
    names = {line.split("=")[0] for line in (sbatch / "environment").read_text().splitlines()}
    assert not names & set(left) and names >= set(kept)
    assert clean_environment({"SLURM_CONF": "a", "SLURM_X": "b"}) == {"SLURM_CONF": "a"}


@pytest.mark.parametrize(
    ("rows", "lead"),
    [
        (['{"event": "checkpoint", "step": 1, "s": 500}', '{"event": "checkpoint", "step": 2, "s": 90.2}', '{"step": 3}'], 181),
        (['{"event": "checkpoint", "step": 1, "s": 90.2}', '{"event": "checkpoint", "st'], 181),
        (['{"event": "checkpoint", "step": 1, "s": 20}'], 120),
        (['{"event": "checkpoint", "step": 1}', "3", "not json"], 120),
        ([], 120),
    ],
)
def test_the_lead_is_at_least_twice_the_last_checkpoint(rows, lead, sbatch, capsys):
    Path("run").mkdir()
    Path("run/metrics.jsonl").write_text("\n".join(rows))
    for words in (["--out", "run"], ["--out=run"]):
        run("--cluster", "local", "--dry-run", "--", "train", "d", *words)
        told = capsys.readouterr()
        assert f"--signal=B:USR1@{lead}\n" in told.out and f"export FAMILY_LEAD_S={lead}\n" in told.out
        assert ("the last checkpoint took 90.2 s, so the ranks are told 181 s before the time limit, not 120 s" in told.err) == (
            lead == 181
        )
    run("--cluster", "local", "--dry-run", "--lead", "300", "--", "train", "d", "--out", "run")
    assert "--signal=B:USR1@300\n" in capsys.readouterr().out
    run("--cluster", "local", "--dry-run", "--", "show", "--out", "run")
    assert "--signal=B:USR1@120\n" in capsys.readouterr().out


def test_a_container_brings_its_own_python(sbatch, capsys):
    run("--cluster", "apptainer-8gpu", "--dry-run", "--", "show", "x")
    assert "family.sif python -P -m family.cli)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pattern", "log"),
    [("/x/%j.log", "/x/41.log"), ("/x/100%%-%x.log", "/x/100%-n m.log"), ("/x/%A.log", "/x/41.log"), ("/x/%N.log", None), ("/x/%4j", None)],
)
def test_the_name_of_the_log(pattern, log):
    values = {"command": ("x",), "program": ("p",), "checkout": "/c", "working_folder": "/w"}
    assert submit.log_of(pattern, make_job(name="n m", **values), "41") == log
    assert submit.log_of(pattern, make_job(array="1-2", **values), "41") is None


def test_the_log_is_named_after_the_job_in_the_working_folder():
    values = {"command": ("x",), "program": ("p",), "checkout": "/c"}
    assert default_log(make_job(name="a/b c", working_folder="/100%", **values)) == "/100%%/a_b_c-%j.log"
    assert default_log(make_job(array="1-2", working_folder="/", **values)) == "/family-%A_%a.log"


def test_a_job_that_is_requeued_or_asked_for_in_vain_is_followed(monkeypatch, tmp_path):
    """A state that looks over for a moment, and a controller that does not answer for a moment, are no end."""
    log = tmp_path / "log"
    log.write_bytes(b"old ")
    states = [State("PENDING", reason="Resources"), State("FAILED", 75), Failed("no answer"), State("PENDING", restarts=1)]
    states += [State("RUNNING", restarts=1, nodes="n1"), State("COMPLETED", restarts=1), State("COMPLETED", restarts=1)]

    def ask(job):
        with open(log, "ab") as file:
            file.write(b"%d " % len(states))
        now = states.pop(0)
        if isinstance(now, Exception):
            raise now
        return now

    monkeypatch.setattr(queue, "state", ask)
    monkeypatch.setattr(queue.time, "sleep", lambda _: None)
    out, said = io.BytesIO(), []
    follower = Follower("41", log, out, said.append)
    follower.start_at_end()
    assert follower.follow() == State("COMPLETED", restarts=1) and states == []
    assert out.getvalue() == b"7 6 5 4 3 2 1 "
    assert said == [
        "job 41: pending (Resources)", "job 41: failed", "job 41: pending (), restart 1", "job 41: running on n1, restart 1",
        "job 41: completed, restart 1",
    ]  # fmt: skip


def test_a_job_that_slurm_forgot_is_no_success(monkeypatch):
    monkeypatch.setattr(queue, "state", lambda job: None)
    with pytest.raises(Failed, match="SLURM does not know job 41 any more"):
        Follower("41", None, io.BytesIO(), print).follow()


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (State("COMPLETED"), 0), (State("FAILED", 75), 75), (State("FAILED", 137), 137), (State("CANCELLED"), 1), (State("TIMEOUT"), 1),
        (State("NODE_FAIL"), 1), (State("CANCELLED", 3), 3),
    ],
)  # fmt: skip
def test_the_exit_code_is_the_job_s(state, code):
    assert submit._exit_code(state) == code


def test_what_a_job_is_called_is_not_taken_for_its_state(monkeypatch):
    name, rest = "x JobState=COMPLETED", "Restarts=2 ExitCode=0:9 NodeList=n1 Comment=JobState=COMPLETED ExitCode=0:0"
    text = f"JobId=41 JobName={name} UserId=me(0) JobState=FAILED Reason=None {rest}\n"
    monkeypatch.setattr(queue, "_call", lambda *words: subprocess.CompletedProcess(words, 0, text, ""))
    assert queue.state("41") == State("FAILED", 137, 2, "None", "n1")


ONE = {
    "host": "n1",
    "versions": {"horovod": "0.28.1"},
    "gpus": ["A", "A"],
    "driver": "555",
    "interfaces": {"lo": "1", "ib0": "2"},
    "problems": [],
}


@pytest.mark.parametrize(
    ("change", "row", "problem"),
    [
        ({}, None, None),
        ({"interfaces": {"lo": "1", "ib0": "3"}}, None, None),
        ({"versions": {"horovod": "0.27"}}, ("versions horovod", "0.28.1", "0.27"), "versions horovod differs between nodes"),
        ({"versions": {}}, ("versions horovod", "0.28.1", "-"), "versions horovod differs between nodes"),
        ({"driver": "550"}, ("driver", "555", "550"), None),
        ({"gpus": ["A"]}, ("gpus", "A, A", "A"), "n2: sees 1 GPUs; the job asks for 2"),
        ({"interfaces": {"lo": "1"}}, ("interfaces", "lo, ib0", "lo"), "n2: has no interface 'ib0', only lo"),
        ({"problems": ["no gloo"]}, None, "n2: no gloo"),
        ({"paths": {"/d": False}}, ("paths /d", "-", "False"), "n2: does not see /d"),
    ],
)
def test_nodes_are_compared(change, row, problem):
    rows, problems = check.compare([ONE, {**ONE, "host": "n2", **change}], "ib0", 2)
    assert rows == ([("", "n1", "n2"), row] if row else []) and problems == ([problem] if problem else [])


def test_a_node_that_does_not_answer_is_a_failure(tmp_path):
    (tmp_path / "0.json").write_text("chatter\n" + json.dumps(ONE) + "\n")
    assert check.read_answers(tmp_path, 1) == [ONE]
    (tmp_path / "1.log").write_text("ModuleNotFoundError: No module named 'horovod'\n")
    with pytest.raises(Failed, match="no answer from 1 of 2 nodes: ModuleNotFoundError"):
        check.read_answers(tmp_path, 2)


def test_paths_of_the_words_are_checked(sbatch):
    Path("d").mkdir()
    job = make_job(
        command=("train", "d", "--out", "new", "--weights", "none"), program=("p",), checkout="/c", working_folder=str(Path.cwd())
    )
    assert check.paths_of(job) == [str(Path.cwd() / "d")]
