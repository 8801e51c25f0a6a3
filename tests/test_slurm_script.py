"""The batch script: whole texts against golden files, and the script itself run by bash with a stand-in for srun.

REFRESH_GOLDEN=1 writes the golden files anew; read the difference before you keep it.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from slurm.cluster import Cluster, Container, cluster_of, clusters, read_cluster
from slurm.errors import BadInput
from slurm.job import Job, make_job
from slurm.quoting import directive, quote_word
from slurm.script import sbatch_script

GOLDEN = Path(__file__).parent / "golden" / "slurm"
TRAIN = ("train", "data/listings", "--out", "runs/b0", "--variant", "b0")
COMMANDS = ((1, TRAIN), (5, ("train", "a b", "--fresh", "--out", "{task}")))
HOSTILE = [
    "a b",
    "'",
    '"',
    "$(touch hacked)",
    "`touch hacked`",
    "line\nline",
    "\r\n",
    "-n",
    "--",
    "",
    "*",
    "~",
    "\\",
    "!x",
    "é",
    "\udce9",
    "{task}",
    "#",
]


def job_of(**changes) -> Job:
    values = {
        "program": ("/opt/family/.venv/bin/python", "-P", "-m", "family.cli"),
        "checkout": "/opt/family",
        "working_folder": "/data/jobs",
    }
    return make_job(**{"command": TRAIN, **values, **changes})


def goldens() -> dict[str, tuple[Job, Cluster]]:
    big = {"nodes": 4, "gpus_per_node": 8, "time_min": 720}
    sweep = {"nodes": 2, "gpus_per_node": 4, "array": "0-9", "array_limit": 2, "after": ("12", "13:afterany"), "name": "sweep"}
    more = {"log": "/data/logs/%A-%a.log", "comment": 'seeds "0" to 9', "memory_gb": 1.5, "exclusive": True, "max_restarts": 3}
    words = (*TRAIN, "--fresh", "--set", "seed={task}")
    return {
        "two-cpu-nodes": (job_of(nodes=2, time_min=90), read_cluster("local")),
        "pyxis-4x8": (job_of(**big), read_cluster("pyxis-8gpu")),
        "apptainer-4x8": (job_of(**big), read_cluster("apptainer-8gpu")),
        "array-of-commands": (job_of(command=(), commands=COMMANDS, array="1,5", nodes=2), read_cluster("local")),
        "array-dependency": (job_of(command=words, **sweep, **more), read_cluster("generic")),
    }


@pytest.mark.parametrize("name", goldens())
def test_the_script_is_the_golden_one(name):
    text, path = sbatch_script(*goldens()[name]), GOLDEN / f"{name}.sh"
    if os.environ.get("REFRESH_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


def test_every_golden_file_is_compared_and_is_bash():
    assert sorted(path.stem for path in GOLDEN.iterdir()) == sorted(goldens())
    for path in GOLDEN.iterdir():
        assert subprocess.run(["bash", "-n", path], capture_output=True, text=True).stderr == ""


def test_the_script_is_a_pure_function():
    made = {sbatch_script(*goldens()["array-dependency"]) for _ in range(3)}
    assert len(made) == 1


FAKE_SRUN = """#!/bin/bash
printf '%s\\0' "$@" > "$OUT/argv"
env -0 > "$OUT/environment"
pwd > "$OUT/folder"
echo x >> "$OUT/started"
CODE
"""


@pytest.fixture
def bash(tmp_path):
    """Run a script as SLURM would, with stand-ins for srun (which runs `code`) and scontrol, and return the process."""

    def run(script: str, code: str = "exit 0", signals: tuple[int, ...] = (), **environment):
        programs = {"srun": FAKE_SRUN.replace("CODE", code), "scontrol": '#!/bin/bash\necho "$@" >> "$OUT/asked"\n'}
        for name, text in programs.items():
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        (tmp_path / "job.sh").write_text(script, encoding="utf-8")
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "OUT": str(tmp_path), "SLURM_JOB_ID": "12", **environment}
        words = ["bash", tmp_path / "job.sh"]
        process = subprocess.Popen(words, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in signals:
            end = time.monotonic() + 20
            while not (tmp_path / "ready").exists() and time.monotonic() < end:
                time.sleep(0.02)
            process.send_signal(number)
            (tmp_path / "sent").touch()
        out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    return run


def here(tmp_path, **changes) -> Job:
    return job_of(working_folder=str(tmp_path), **changes)


def argv(tmp_path) -> list[str]:
    return [os.fsdecode(word) for word in (tmp_path / "argv").read_bytes().split(b"\0")[:-1]]


def environment_of(tmp_path) -> dict[str, str]:
    return dict(os.fsdecode(row).split("=", 1) for row in (tmp_path / "environment").read_bytes().split(b"\0")[:-1])


def test_hostile_words_arrive_as_they_are(bash, tmp_path):
    folder = tmp_path / 'it\'s $(a) `b` "c"\nd'
    folder.mkdir()
    job = job_of(
        command=("show", *HOSTILE), working_folder=str(folder), checkout=str(folder), log="/tmp/x.log", program=("my python", "-P")
    )
    cluster = cluster_of({"environment": {"COLOUR": "$(touch hacked) 'red'\n\"x\""}, "interface": "ib 0"})
    done = bash(sbatch_script(job, cluster))
    assert done.returncode == 0, done.stderr
    assert argv(tmp_path)[-len(HOSTILE) - 3 :] == ["my python", "-P", "show", *HOSTILE]
    assert (tmp_path / "folder").read_text() == f"{folder}\n"
    got = environment_of(tmp_path)
    assert got["COLOUR"] == cluster.environment["COLOUR"] and got["PYTHONPATH"] == str(folder) and got["FAMILY_INTERFACE"] == "ib 0"
    assert not list(tmp_path.rglob("hacked"))


def test_no_word_makes_a_line_of_its_own():
    """sbatch refuses carriage returns, and a newline could begin a line that it reads."""
    text = sbatch_script(job_of(command=("show", "\r\n#SBATCH --account=other\n")), Cluster())
    assert "\r" not in text and "\n#SBATCH --account" not in text
    with pytest.raises(BadInput, match="NUL"):
        quote_word("\0x")


@pytest.mark.parametrize("value", ["a\n#SBATCH --account=other", "a\rb", "\x1b[1m", "a\tb"])
def test_control_characters_in_sbatch_lines_are_refused(value):
    for change in ({"name": value}, {"comment": value}, {"log": f"/x/{value}"}, {"partition": value}):
        with pytest.raises(BadInput, match="newline or another control character"):
            job_of(**change)
    for table in ({"partition": value}, {"sbatch": [f"--comment={value}"]}, {"srun": [f"--x={value}"]}, {"interface": value}):
        with pytest.raises(BadInput, match="newline or another control character"):
            cluster_of(table)
    with pytest.raises(BadInput, match="newline"):
        directive("--comment", value)
    with pytest.raises(BadInput, match="give --log a file elsewhere"):
        sbatch_script(job_of(working_folder=f"/data/{value}"), Cluster())


def test_values_of_sbatch_lines_are_quoted():
    assert directive("--comment", 'a "b" \\') == '#SBATCH --comment="a \\"b\\" \\\\"'
    assert directive("--nodes", 2) == "#SBATCH --nodes=2" and directive("--exclusive") == "#SBATCH --exclusive"


def test_train_goes_on_by_itself_and_starts_afresh_only_once(bash, tmp_path):
    job = here(tmp_path, command=(*TRAIN, "--fresh"))
    bash(sbatch_script(job, Cluster()))
    assert argv(tmp_path)[-8:] == ["train", "--resume", *TRAIN[1:], "--fresh"]
    bash(sbatch_script(job, Cluster()), SLURM_RESTART_COUNT="1")
    assert argv(tmp_path)[-7:] == ["train", "--resume", *TRAIN[1:]]
    compress = ("compress", "run", "data", "--out", "small", "--method", "qat")
    bash(sbatch_script(replace(job, command=(*compress, "--fresh")), Cluster()), SLURM_RESTART_COUNT="1")
    assert argv(tmp_path)[-8:] == ["compress", "--resume", *compress[1:]]
    for command in ((*TRAIN, "--resume"), ("evaluate", "x", "--fresh")):
        bash(sbatch_script(replace(job, command=command), Cluster()), SLURM_RESTART_COUNT="1")
        assert argv(tmp_path)[-len(command) :] == list(command)


def test_only_an_array_replaces_the_task(bash, tmp_path):
    words = ("show", "a{task}b{task}")
    bash(sbatch_script(here(tmp_path, command=words, array="0-3"), Cluster()), SLURM_ARRAY_TASK_ID="3", SLURM_ARRAY_JOB_ID="9")
    assert argv(tmp_path)[-1] == "a3b3"
    bash(sbatch_script(here(tmp_path, command=words), Cluster()))
    assert argv(tmp_path)[-1] == "a{task}b{task}"


def test_each_task_of_an_array_may_have_its_own_words(bash, tmp_path):
    job = here(tmp_path, command=(), commands=((3, ("show", *HOSTILE)), (7, ("train", "--fresh", "{task}"))), array="3,7")
    script = sbatch_script(job, Cluster())
    bash(script, SLURM_ARRAY_TASK_ID="3", SLURM_ARRAY_JOB_ID="9")
    assert argv(tmp_path)[-len(HOSTILE) - 1 :] == ["show", *HOSTILE]
    bash(script, SLURM_ARRAY_TASK_ID="7", SLURM_ARRAY_JOB_ID="9")
    assert argv(tmp_path)[-4:] == ["train", "--resume", "--fresh", "{task}"]
    bash(script, SLURM_ARRAY_TASK_ID="7", SLURM_ARRAY_JOB_ID="9", SLURM_RESTART_COUNT="1")
    assert argv(tmp_path)[-3:] == ["train", "--resume", "{task}"]
    with pytest.raises(BadInput, match="the numbers of the tasks that have command lines"):
        replace(job, array="3-7")


def test_ranks_get_their_cores_and_what_the_cluster_says(bash, tmp_path):
    cluster = cluster_of({"interface": "ib0", "lead_s": 77, "environment": {"HOROVOD_AUTOTUNE": 1, "NCCL_DEBUG": "INFO"}})
    bash(sbatch_script(here(tmp_path, max_restarts=4), cluster), SLURM_CPUS_PER_TASK="6")
    got = environment_of(tmp_path)
    wanted = {
        "SRUN_CPUS_PER_TASK": "6", "FAMILY_INTERFACE": "ib0", "FAMILY_LEAD_S": "77", "FAMILY_MAX_RESTARTS": "4",
        "HOROVOD_AUTOTUNE": "1", "NCCL_DEBUG": "INFO", "PYTHONPATH": "/opt/family",
    }  # fmt: skip
    assert {name: got.get(name) for name in wanted} == wanted


def test_set_up_runs_first_and_its_failure_ends_the_job(bash, tmp_path):
    cluster = Cluster(setup=('export COLOUR="red $HOME"', "true $NEVER_SET"))
    assert bash(sbatch_script(here(tmp_path), cluster), HOME="/h").returncode == 0
    assert environment_of(tmp_path)["COLOUR"] == "red /h"
    (tmp_path / "started").unlink()
    done = bash(sbatch_script(here(tmp_path), Cluster(modules=("no such",), setup=("touch later",))))
    assert done.returncode == 127 and "job 12: a set-up line of the cluster file failed: module load 'no such'" in done.stderr
    assert not (tmp_path / "started").exists() and not (tmp_path / "later").exists()


def test_a_folder_that_a_node_lacks_is_said(bash, tmp_path):
    done = bash(sbatch_script(job_of(working_folder=str(tmp_path / "none")), Cluster()))
    assert done.returncode == 1 and "no such folder on " in done.stderr and not (tmp_path / "started").exists()


def requeued(tmp_path) -> list[str]:
    path = tmp_path / "asked"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("code", [0, 1, 2, 3, 74, 76, 137, 138, 143])
def test_other_codes_end_the_job(bash, tmp_path, code):
    done = bash(sbatch_script(here(tmp_path), Cluster()), f"exit {code}")
    assert done.returncode == code and requeued(tmp_path) == [] and f"job 12: ended with exit code {code}\n" in done.stderr


@pytest.mark.parametrize(
    ("environment", "cluster", "told", "back"),
    [
        ({}, {}, "goes back into the queue, after 0 restarts of at most 2", ["requeue 12"]),
        ({"SLURM_RESTART_COUNT": "1"}, {}, "goes back into the queue, after 1 restarts", ["requeue 12"]),
        ({"SLURM_RESTART_COUNT": "2"}, {}, "was restarted 2 times of at most 2", []),
        ({}, {"requeue": False}, "the cluster's file says requeue = false", []),
        ({"SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "5"}, {}, "job 10_5: goes back", ["requeue 10_5"]),
    ],
)
def test_75_comes_back_while_it_may(bash, tmp_path, environment, cluster, told, back):
    done = bash(sbatch_script(here(tmp_path, max_restarts=2), Cluster(**cluster)), "exit 75", **environment)
    assert done.returncode == 75 and told in done.stderr and requeued(tmp_path) == back


WAITS = 'trap "echo told; exit %d" USR1\ntrap "exit %d" TERM\ntouch "$OUT/ready"\nwhile :; do sleep 0.05; done'


@pytest.mark.parametrize(("code", "back"), [(75, ["requeue 12"]), (143, ["requeue 12"]), (137, ["requeue 12"]), (0, []), (1, []), (3, [])])
def test_usr1_is_passed_on_and_what_follows_decides(bash, tmp_path, code, back):
    done = bash(sbatch_script(here(tmp_path), Cluster()), WAITS % (code, 99), signals=(signal.SIGUSR1,))
    assert "told" in done.stdout and requeued(tmp_path) == back and done.returncode == (75 if back else code)


def test_srun_that_dies_of_usr1_because_it_was_not_listening_yet_comes_back(bash, tmp_path):
    done = bash(sbatch_script(here(tmp_path), Cluster()), 'touch "$OUT/ready"; exec sleep 20', signals=(signal.SIGUSR1,))
    assert done.returncode == 75 and requeued(tmp_path) == ["requeue 12"]


def test_term_is_not_passed_on_and_nothing_comes_back(bash, tmp_path):
    """SLURM tells the tasks itself; srun would kill them."""
    code = 'trap "touch $OUT/hurt" TERM\ntouch "$OUT/ready"\nwhile [ ! -e "$OUT/sent" ]; do sleep 0.05; done\nsleep 0.3\nexit 75'
    done = bash(sbatch_script(here(tmp_path), Cluster()), code, signals=(signal.SIGTERM,))
    assert done.returncode == 75 and requeued(tmp_path) == [] and not (tmp_path / "hurt").exists()
    assert "ended with exit code 75" in done.stderr


@pytest.mark.parametrize(("name", "code", "back"), [("USR1", 75, ["requeue 12"]), ("TERM", 143, [])])
def test_signals_during_the_set_up_start_no_rank(bash, tmp_path, name, code, back):
    done = bash(sbatch_script(here(tmp_path), Cluster(setup=(f"kill -{name} $$",))))
    assert done.returncode == code and requeued(tmp_path) == back and not (tmp_path / "started").exists()


def test_a_container_sees_the_checkout_and_the_working_folder():
    for kind in ("pyxis", "apptainer"):
        cluster = Cluster(container=Container(kind, "i.img", ("/data",)))
        assert "/opt/family:/opt/family,/data/jobs:/data/jobs,/data" in sbatch_script(job_of(), cluster)
        assert ("--nv" in sbatch_script(job_of(gpus_per_node=1), cluster)) == (kind == "apptainer")
        assert "--nv" not in sbatch_script(job_of(), cluster)
        for bad in ("/a,b", "/a:b", "/a\nb"):
            with pytest.raises(BadInput, match="can't be mounted"):
                sbatch_script(job_of(working_folder=bad, log="/x.log"), cluster)
    with pytest.raises(BadInput, match="colon"):
        sbatch_script(job_of(checkout="/a:b"), Cluster())


def test_gpus_are_never_asked_for_by_task():
    for name in clusters():
        text = sbatch_script(job_of(gpus_per_node=2), read_cluster(name))
        assert "--gpus-per-task" not in text and "--ntasks-per-node=2" in text


def test_a_time_limit_within_the_lead_is_refused():
    with pytest.raises(BadInput, match="time limit of 2 min is within the lead of 120 s; wanted --time above 2 min"):
        sbatch_script(job_of(time_min=2), Cluster())
    assert "--time=00:03:00" in sbatch_script(job_of(time_min=3), Cluster())


def test_the_script_needs_the_standard_library_alone():
    code = "import slurm.submit, sys; print([m for m in sys.modules if m.split('.')[0] in ('numpy', 'family', 'distributed')])"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
