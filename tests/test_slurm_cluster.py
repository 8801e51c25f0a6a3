"""`family submit` on a real SLURM of two nodes, with toys in the place of training.

All of it takes about two minutes; SLURM's own pauses are most of that.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
HEARS_CONTROL_C = ("env", "--default-signal=INT")  # which a shell's background jobs are started deaf to, and all that they start
SUBMIT = """
import argparse, sys
import slurm.submit
parser = argparse.ArgumentParser(prog="family submit", allow_abbrev=False)
slurm.submit.arguments(parser)
try:
    sys.exit(slurm.submit.run(parser.parse_args()))
except Exception as error:
    if not hasattr(error, "exit_code"):
        raise
    print(f"family submit: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""
# What stands for a rank. It is told what to do by its first word, after `-P -m family.cli`.
TOY = """
import os, signal, sys, time
words = sys.argv[4:] if sys.argv[1:4] == ["-P", "-m", "family.cli"] else sys.exit(f"started with {sys.argv[1:]}")
rank, node, restarts = (os.environ.get(n, "0") for n in ("SLURM_PROCID", "SLURMD_NODENAME", "SLURM_RESTART_COUNT"))
told = []
def say(*what): os.write(1, (f"rank {rank} on {node}: " + " ".join(map(str, what)) + "\\n").encode())
def hear(number, frame): told.append(signal.Signals(number).name); say("heard", told[-1])
signal.signal(signal.SIGUSR1, hear)
signal.signal(signal.SIGTERM, hear)
what, *rest = words
if what == "print":
    say(*rest, *(f"{n}={os.environ.get(n)}" for n in ("FAMILY_INTERFACE", "FAMILY_LEAD_S", "COLOUR", "SLURM_ARRAY_TASK_ID")))
elif what == "exit":
    say("exits")
    time.sleep(2 if rank == "0" else 0)  # srun ends those that are still about to, and takes the highest code of all
    sys.exit(int(rest[0]) if rank == "0" else 0)
elif what == "crash":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(100 if rank == "0" else 0)
    sys.exit(9)
elif what == "always-75":
    os._exit(75)
elif what == "work":
    say("works, restart", restarts)
    while not told and not (restarts != "0" and what == "work"):
        time.sleep(0.02)
    if told and told[0] == "SIGTERM":
        time.sleep(float(rest[0]) if rest else 0)
        say("saved and ends")
        os._exit(3)
    if told:
        time.sleep(2 * int(rank))  # the last rank is still on its way out when the first has gone
        os._exit(75)
    say("finished")
elif what == "doctor":
    import json
    print(json.dumps({"host": node, "versions": {"toy": node if os.environ.get("COLOUR") == "odd" else "1"}, "gpus": [], "driver": None,
                      "interfaces": {"lo": "127.0.0.1"}, "paths": {p: True for p in json.loads(os.environ["FAMILY_CHECK_PATHS"])},
                      "problems": []}))
"""


@pytest.fixture(scope="session")
def place(slurm, tmp_path_factory):
    """A folder with spaces and a quote in its name, and a cluster's file whose interpreter is the toy."""
    folder = tmp_path_factory.mktemp("sub mit's")
    (folder / "toy.py").write_text(TOY)
    python = folder / "python"
    python.write_text(f'#!/bin/bash\nexec {sys.executable} "{folder}/toy.py" "$@"\n')
    python.chmod(0o755)
    own = f'python = "{python}"\n[environment]\nCOLOUR = "$(red) `\'\\""\n'
    (folder / "cluster.toml").write_text(slurm.toml.read_text() + own)
    (folder / "odd.toml").write_text(slurm.toml.read_text() + f'python = "{python}"\n[environment]\nCOLOUR = "odd"\n')
    return folder


@pytest.fixture
def submit(slurm, place):
    """Run `family submit` in the folder with the spaces, and return the process when it has ended."""

    def run(*words: str, cluster="cluster.toml", environment=None, timeout_s: float = 90):
        command = [sys.executable, "-c", SUBMIT, "--cluster", cluster, *words]
        environment = {**slurm.environment, "PYTHONPATH": str(REPOSITORY), **(environment or {})}
        return slurm.run(*command, cwd=place, env=environment, timeout_s=timeout_s)

    return run


@pytest.fixture
def start(submit):
    """Submit a job and return its number and its log."""

    def run(*words: str, **more) -> tuple[str, Path]:
        done = submit("--json", *words, **more)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        return told["job"], Path(told["log"])

    return run


def heard(slurm, log: Path, text: str, n: int = 1) -> None:
    """Wait until a log holds a text n times."""
    slurm.wait_until(lambda: log.is_file() and log.read_text().count(text) >= n, 40, f"{n} times {text!r} in {log.name}")


def test_two_nodes_run_the_words_with_the_environment(submit):
    done = submit("--nodes", "2", "--cpus-per-task", "2", "--lead", "45", "--wait", "--", "print", "a b", "--x", "q\"'$HOME\n`id`")
    assert done.returncode == 0, done.stderr
    for k in (0, 1):
        line = f"rank {k} on node{k + 1}: a b --x q\"'$HOME\n`id` FAMILY_INTERFACE=lo FAMILY_LEAD_S=45 COLOUR=$(red) `'\" SLURM"
        assert line in done.stdout
    assert re.search(r"cancel: scancel \d+\n", done.stdout)
    assert re.search(r"job \d+: completed\n", done.stderr)


def test_ranks_may_be_uneven(submit):
    done = submit("--nodes", "2", "--tasks", "3", "--wait", "--", "print", "x")
    assert sorted(re.findall(r"rank (\d) on (\w+): x", done.stdout)) == [("0", "node1"), ("1", "node1"), ("2", "node2")]


def test_wait_returns_the_exit_code_of_the_job(submit):
    done = submit("--nodes", "2", "--wait", "--json", "--", "exit", "7")
    assert done.returncode == 7
    assert json.loads(done.stdout)["job"] and "rank 0 on node1: exits" in done.stderr
    assert "ended with exit code 7" in done.stderr


def test_one_rank_that_crashes_ends_the_others(submit):
    began = time.monotonic()
    done = submit("--nodes", "2", "--wait", "--", "crash")
    assert done.returncode not in (0, 75) and time.monotonic() - began < 40
    assert "task 1: Exited with exit code 9" in done.stdout


def test_a_cancelled_job_hears_of_it_has_time_to_save_and_does_not_come_back(slurm, start):
    job, log = start("--nodes", "2", "--", "work", "8")
    heard(slurm, log, "works, restart 0", 2)
    slurm.run("scancel", job)
    last = slurm.wait_for(job, "CANCELLED")
    heard(slurm, log, "saved and ends", 2)
    slurm.wait_until(lambda: job not in slurm.squeue(), 40, "the job to leave the queue")
    assert last["Restarts"] == slurm.show(job)["Restarts"] == "0"
    assert "back into the queue" not in log.read_text()


def test_told_of_the_time_limit_the_job_comes_back_and_finishes(slurm, submit, place):
    command = [sys.executable, "-c", SUBMIT, "--cluster", "cluster.toml", "--nodes", "2", "--wait", "--log", "again.log", "--", "work"]
    environment = {**slurm.environment, "PYTHONPATH": str(REPOSITORY)}
    following = subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        heard(slurm, place / "again.log", "works, restart 0", 2)
        job = max(slurm.squeue(), key=int)  # an earlier test's may still be ending
        slurm.run("scancel", "--signal=USR1", "--batch", job)
        out, _ = following.communicate(timeout=90)
    finally:
        following.kill()
        following.wait()
    assert following.returncode == 0, out
    text = (place / "again.log").read_text()
    for k in (0, 1):
        in_order = rf"rank {k} on node{k + 1}: works, restart 0(.|\n)*rank {k} on node{k + 1}: heard SIGUSR1"
        assert re.search(rf"{in_order}(.|\n)*rank {k} on node\d: works, restart 1\n(.|\n)*rank {k} on node\d: finished", text)
        assert f"rank {k} on node{k + 1}: finished" in out
    assert "goes back into the queue, after 0 restarts of at most 20" in text
    assert slurm.show(job)["Restarts"] == "1"


def test_the_signal_comes_before_the_time_limit_and_the_job_comes_back(slurm, submit):
    # SLURM looks at time limits every 30 s and signals up to 30 s early: with a longer lead, at times before a rank listens.
    done = submit("--time", "1", "--lead", "20", "--wait", "--", "work", timeout_s=200)
    assert done.returncode == 0, done.stdout + done.stderr
    in_order = r"works, restart 0\n(.|\n)*SIGUSR1: the ranks are told(.|\n)*heard SIGUSR1\n(.|\n)*works, restart 1\n(.|\n)*finished"
    assert re.search(in_order, done.stdout) and "SIGTERM" not in done.stdout


def test_restarts_are_limited(slurm, submit):
    done = submit("--max-restarts", "1", "--wait", "--", "always-75")
    assert done.returncode == 75
    assert done.stdout.count("goes back into the queue, after 0 restarts of at most 1") == 1
    assert "wants to go on (exit code 75), but was restarted 1 times of at most 1" in done.stdout


def test_an_array_runs_its_tasks_and_only_the_one_that_asks_comes_back(slurm, submit, place):
    done = submit("--array", "3-4", "--array-limit", "1", "--log", "array-%a.log", "--wait", "--", "exit", "{task}")
    assert done.returncode == 4
    assert [(place / f"array-{k}.log").read_text().count("exits") for k in (3, 4)] == [1, 1]
    done = submit("--array", "0,75", "--max-restarts", "1", "--log", "some-%a.log", "--wait", "--", "exit", "{task}")
    assert [(place / f"some-{k}.log").read_text().count("exits") for k in (0, 75)] == [1, 2]


def test_a_dependency_is_waited_for(slurm, start, submit):
    job, _ = start("--", "exit", "0")
    done = submit("--after", job, "--wait", "--", "print", "second")
    assert done.returncode == 0 and "rank 0 on node1: second" in done.stdout
    assert slurm.show(job)["JobState"] == "COMPLETED"


def test_a_node_that_goes_down_sends_the_job_elsewhere(slurm, start):
    job, log = start("--", "work")
    heard(slurm, log, "works, restart 0")
    node = slurm.show(job)["NodeList"]
    slurm.set_node(node, "down")
    try:
        last = slurm.wait_for(job, "COMPLETED")
    finally:
        slurm.set_node(node, "resume")
    other = {"node1": "node2", "node2": "node1"}[node]
    assert last["Restarts"] == "1" and last["NodeList"] == other
    assert f"rank 0 on {other}: finished" in log.read_text()


def test_a_job_may_submit_a_job(slurm, place):
    log = place / "outer.log"
    inner = f'{sys.executable} -c "$SUBMIT" --cluster cluster.toml --nodes 2 --log inner.log --wait -- print inner'
    script = f"#!/bin/bash\nsrun --ntasks=1 {inner}\n"
    environment = {**slurm.environment, "SUBMIT": SUBMIT, "PYTHONPATH": str(REPOSITORY), "SBATCH_TIMELIMIT": "1-00", "HOROVOD_RANK": "3"}
    job = slurm.submit(script, "--ntasks=1", f"--output={str(log).replace('%', '%%')}", cwd=place, env=environment)
    last = slurm.wait_for(job, "COMPLETED", "FAILED")
    assert last["JobState"] == "COMPLETED", log.read_text()
    assert (place / "inner.log").read_text().count(": inner FAMILY_INTERFACE=lo") == 2
    number = re.search(r"job: +(\d+)", log.read_text())[1]
    assert slurm.show(number)["TimeLimit"] != "1-00:00:00"  # that is the allocation's


def test_check_compares_the_nodes_before_anything_is_submitted(slurm, submit, place):
    (place / "data").mkdir()
    done = submit("--nodes", "2", "--check", "--wait", "--", "print", "data", "none")
    assert done.returncode == 0, done.stderr
    assert "2 nodes: no difference" in done.stdout and "rank 1 on node2: data none" in done.stdout
    done = submit("--nodes", "2", "--check", "--", "print", "data", cluster="odd.toml")
    assert done.returncode == 1
    assert re.search(r"versions toy +node1 +node2", done.stdout) and "problem: versions toy differs between nodes" in done.stdout
    assert "nothing was submitted" in done.stderr
    assert not list(place.glob(".family-check-*"))


def test_a_check_that_is_given_up_leaves_no_job(slurm, place):
    command = [sys.executable, "-c", SUBMIT, "--cluster", "cluster.toml", "--nodes", "2", "--check", "--", "print", "x"]
    environment = {**slurm.environment, "PYTHONPATH": str(REPOSITORY)}
    slurm.set_node("node2", "drain")  # so that the check has to wait
    checking = subprocess.Popen([*HEARS_CONTROL_C, *command], cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True)  # fmt: skip
    try:
        job = re.search(r"checking 2 nodes with job (\d+)", checking.stderr.readline())[1]
        slurm.wait_until(lambda: slurm.squeue().get(job) == "PENDING", 20, "the check to be in the queue")
        os.kill(checking.pid, 2)
        checking.communicate(timeout=20)
    finally:
        checking.kill()
        checking.wait()
        slurm.set_node("node2", "resume")
    assert slurm.show(job)["JobState"] == "CANCELLED" and not list(place.glob(".family-check-*"))


def test_sbatch_accepts_the_golden_scripts(slurm, start):
    """On partitions, nodes and GPUs that this SLURM believes in. Only the jobs that one script waits for have to be changed."""
    job, _ = start("--", "exit", "0")
    for path in sorted((REPOSITORY / "tests" / "golden" / "slurm").iterdir()):
        text = path.read_text(encoding="utf-8").replace("afterok:12,afterany:13", f"afterany:{job}")
        done = slurm.run("sbatch", "--test-only", input=text)
        assert done.returncode == 0, f"{path.name}: {done.stderr}"
        n_nodes = re.search(r"--nodes=(\d+)", text)[1]
        assert re.search(rf"using \d+ processors on nodes (node|gpu)\[1-{n_nodes}\] in partition", done.stderr), done.stderr


def test_a_dry_run_for_gpu_clusters_is_accepted(slurm, submit):
    for name in ("pyxis-8gpu", "apptainer-8gpu"):
        done = submit("--nodes", "4", "--gpus-per-node", "8", "--time", "12:00:00", "--test-only", "--", "train", "D", cluster=name)
        assert done.returncode == 0, done.stderr
        assert "using 256 processors on nodes gpu[1-4] in partition gpu" in done.stdout
    done = submit("--nodes", "9", "--test-only", "--", "train", "D")
    assert done.returncode == 1 and "sbatch refused the job: " in done.stderr


def test_sbatch_reads_quoted_values_as_they_were_meant(slurm, start, place):
    comment, name = """it's "a" #1 \\ & $HOME 100%""", 'n "1" #2'
    job, log = start("--name", name, "--comment", comment, "--log", 'logs/it\'s "x" #%j 100%%.log', "--", "print", "x")
    slurm.wait_for(job, "COMPLETED")
    assert f"Comment={comment} " in slurm.run("scontrol", "--oneliner", "show", "job", job).stdout
    assert f"JobName={name} " in slurm.run("scontrol", "--oneliner", "show", "job", job).stdout
    assert log == place / "logs" / f'it\'s "x" #{job} 100%.log' and "rank 0" in log.read_text()


def test_control_c_stops_following_and_not_the_job(slurm, place):
    command = [sys.executable, "-c", SUBMIT, "--cluster", "cluster.toml", "--wait", "--log", "long.log", "--", "work"]
    environment = {**slurm.environment, "PYTHONPATH": str(REPOSITORY)}
    following = subprocess.Popen([*HEARS_CONTROL_C, *command], cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 text=True)  # fmt: skip
    try:
        heard(slurm, place / "long.log", "works, restart 0")
        time.sleep(1.5)
        os.kill(following.pid, 2)
        _, told = following.communicate(timeout=20)
    finally:
        following.kill()
        following.wait()
    assert following.returncode == 130, told
    job = re.fullmatch(r"(?s).*job (\d+) goes on\. To cancel it: scancel \1\n", told)[1]
    assert slurm.show(job)["JobState"] == "RUNNING"
    slurm.run("scancel", job)
    slurm.wait_for(job, "CANCELLED")
