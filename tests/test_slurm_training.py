"""Training for real on two SLURM nodes, submitted by our own command: what a cluster does to a job, and what the run is afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from trainings import ENVIRONMENT, EXACT, events, family, last_step

REPOSITORY = Path(__file__).parent.parent
RECIPE = [*EXACT, "--set", "finetune_epochs=40", "--set", "optimizer=sgd"]
LONG = [*EXACT, "--set", "finetune_epochs=2000", "--set", "checkpoint_interval_s=2"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made up") / "dataset"
    family("data", "synth", out, "--listings", 80, "--categories", 12)
    return out


@pytest.fixture(scope="module")
def one_rank(dataset, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("one") / "run"
    family("train", dataset, "--out", run, *RECIPE)
    return run


@pytest.fixture
def submit(slurm, tmp_path):
    """Submit a training of `tmp_path/run` and return (job, log); cancelled when the test ends."""
    jobs = []

    def run(dataset: Path, run: Path, *words, recipe=RECIPE) -> tuple[str, Path]:
        command = [sys.executable, "-m", "family.cli", "submit", "--cluster", str(slurm.toml), "--json", *map(str, words), "--", "train",
                   str(dataset), "--out", str(run), *recipe]  # fmt: skip
        environment = {**slurm.environment, **ENVIRONMENT, "SLURM_CONF": slurm.environment["SLURM_CONF"], "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        jobs.append(told["job"])
        return told["job"], Path(told["log"])

    yield run
    for job in jobs:
        slurm.run("scancel", job)


def trains(slurm, run: Path, log: Path, step: int = 3) -> None:
    """Wait until a run has come past a step."""
    try:
        slurm.wait_until(lambda: last_step(run, "step") >= step, 150, f"step {step} of {run.name}")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{log.read_text()[-3000:]}") from None


def losses_of(run: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in events(run, "step")}


def is_the_same_run(run: Path, one: Path) -> None:
    ones, found = losses_of(one), losses_of(run)
    assert ones.keys() == found.keys() and len(ones) >= 20
    np.testing.assert_allclose([found[step] for step in ones], list(ones.values()), rtol=1e-4)


def test_two_jobs_train_on_the_same_two_nodes_and_each_is_the_run_of_one_rank(slurm, submit, dataset, one_rank, tmp_path):
    runs = tmp_path / "a run", tmp_path / "another"
    (first, log), (second, other_log) = (submit(dataset, run, "--nodes", 2, "--tasks", n) for run, n in zip(runs, (3, 2), strict=True))
    for job, run, a_log, n in ((first, runs[0], log, 3), (second, runs[1], other_log, 2)):
        last = slurm.wait_for(job, "COMPLETED", "FAILED", "CANCELLED", timeout_s=240)
        assert last["JobState"] == "COMPLETED", a_log.read_text()[-3000:]
        assert json.loads((run / "card.json").read_text())["training"]["ranks"] == n
        is_the_same_run(run, one_rank)
    # Rank 1 of three is the second on node1, rank 2 the first on node2.
    assert "rank 2: finetune epoch 1/40" in (runs[0] / "logs/rank-2.log").read_text()
    assert "trained lite0-32-general" in log.read_text() and "rank 1:" not in log.read_text()


def test_told_of_its_time_limit_a_training_comes_back_and_is_the_same_run(slurm, submit, dataset, one_rank, tmp_path):
    run = tmp_path / "run"
    job, log = submit(dataset, run, "--nodes", 2)
    trains(slurm, run, log)
    slurm.run("scancel", "--signal=USR1", "--batch", job)  # as SLURM does it, without waiting for a minute to pass
    last = slurm.wait_for(job, "COMPLETED", "FAILED", "CANCELLED", timeout_s=240)
    said = log.read_text()
    assert last["JobState"] == "COMPLETED" and last["Restarts"] == "1", said[-3000:]
    first, second = events(run, "resumed")
    assert first["step"] == 0 and second["step"] > 3 and second["ranks"] == 2
    assert f"stopped by SIGUSR1; a checkpoint of step {second['step']} is written" in said and "goes back into the queue" in said
    is_the_same_run(run, one_rank)


def test_a_cancelled_training_saves_and_stays_away(slurm, submit, dataset, tmp_path):
    run = tmp_path / "run"
    job, log = submit(dataset, run, "--nodes", 2, recipe=LONG)
    trains(slurm, run, log)
    slurm.run("scancel", job)
    last = slurm.wait_for(job, "CANCELLED", timeout_s=60)
    slurm.wait_until(lambda: "ended with exit code" in log.read_text(), 40, "the script's last word")
    assert last["Restarts"] == "0" and "goes back" not in log.read_text()
    assert last_step(run, "checkpoint") == last_step(run, "step") > 0, log.read_text()[-2000:]


def test_a_node_set_down_requeues_the_training_and_it_goes_on(slurm, submit, dataset, tmp_path):
    run = tmp_path / "run"
    recipe = [*EXACT, "--set", "finetune_epochs=25", "--set", "checkpoint_interval_s=0.5"]
    job, log = submit(dataset, run, "--nodes", 1, "--tasks-per-node", 2, recipe=recipe)
    trains(slurm, run, log)
    slurm.wait_until(lambda: last_step(run, "checkpoint") > 0, 60, "a checkpoint")
    node = slurm.show(job)["NodeList"]
    slurm.set_node(node, "down")
    try:
        last = slurm.wait_for(job, "COMPLETED", "FAILED", "CANCELLED", timeout_s=240)
        assert last["JobState"] == "COMPLETED" and last["NodeList"] != node, log.read_text()[-3000:]
    finally:
        slurm.set_node(node, "resume")
    assert [row["step"] > 0 for row in events(run, "resumed")] == [False, True]
    assert (run / "card.json").is_file()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_rank_that_stops_answering_ends_the_job_and_is_named(slurm, submit, dataset, tmp_path, rank):
    run = tmp_path / "run"
    job, log = submit(dataset, run, "--nodes", 2, recipe=LONG)
    trains(slurm, run, log)
    stopped = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_rank(pid, job, rank)]
    assert stopped, "the rank was not found"
    began = time.monotonic()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        other = run / "logs/rank-1.log" if rank == "0" else log
        slurm.wait_until(lambda: "has not answered for 20 s" in other.read_text(), 40, "the loss to be noticed")
        assert time.monotonic() - began < 30
        last = slurm.wait_for(job, "FAILED", "CANCELLED", timeout_s=30)
        assert time.monotonic() - began < 32
    finally:
        for pid in stopped:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGCONT)
    assert last["Restarts"] == "0"
    if rank == "1":
        assert "rank 1 on node2 has not answered for 20 s" in log.read_text() and "  rank 1: rank 1: finetune epoch" in log.read_text()


def _is_rank(pid: int, job: str, rank: str) -> bool:
    try:
        items = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return {f"SLURM_JOB_ID={job}", f"SLURM_PROCID={rank}", "SLURM_STEP_ID=0"} <= set(items) and b"family.cli" in words


def run_on_two_nodes(slurm, folder: Path, *words) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "family.cli", "submit", "--cluster", str(slurm.toml), "--nodes", "2", "--wait", *map(str, words)]
    environment = {**ENVIRONMENT, "SLURM_CONF": slurm.environment["SLURM_CONF"], "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_both_nodes_are_examined_first(slurm, dataset, tmp_path):
    done = run_on_two_nodes(slurm, tmp_path, "--check", "--", "show", dataset)
    assert "checking 2 nodes with job" in done.stderr
    assert "2 nodes: no difference\nno problem found" in done.stdout


def test_the_network_between_two_nodes_is_measured(slurm, tmp_path):
    from benchmarks.scaling.forecast import read_fabric

    run_on_two_nodes(slurm, tmp_path, "--", "bench", "fabric", "--repeats", 3, "--out", tmp_path / "fabric.toml")
    text = (tmp_path / "fabric.toml").read_text()
    assert "sums of 2 ranks on 2 nodes" in text
    (tmp_path / "c.toml").write_text(text + "gpus_per_node = 1\nintra_node_bandwidth_gbyte_s = 10\n")
    fabric = read_fabric(str(tmp_path / "c.toml"))
    assert fabric.latency_us > 0 and fabric.bandwidth_gbit_s > 0 and fabric.measured_fields == ("latency_us", "bandwidth_gbit_s")
