"""What a job and a cluster may be, and that the options of the command are the fields of the job."""

import argparse
import dataclasses
import re
from pathlib import Path

import pytest

from slurm import submit
from slurm.cluster import Cluster, Container, cluster_of, clusters, read_cluster
from slurm.errors import BadInput
from slurm.job import Job, make_job, options
from slurm.script import sbatch_script
from slurm.units import parse_memory, parse_time, write_time

FILLED = {"command", "commands", "program", "checkout", "working_folder"}
# What each option is given here, and the line that it makes.
SHOWN = {
    "name": (["--name", "n"], "#SBATCH --job-name=n"),
    "nodes": (["--nodes", "3"], "#SBATCH --nodes=3"),
    "gpus_per_node": (["--gpus-per-node", "5"], "#SBATCH --gpus-per-node=5"),
    "tasks_per_node": (["--tasks-per-node", "7"], "#SBATCH --ntasks-per-node=7"),
    "tasks": (["--tasks", "9"], "#SBATCH --ntasks=9"),
    "cpus_per_task": (["--cpus-per-task", "6"], "#SBATCH --cpus-per-task=6"),
    "time_min": (["--time", "1-02:03:04"], "#SBATCH --time=1-02:04:00"),
    "memory_gb": (["--memory", "64"], "#SBATCH --mem=65536M"),
    "array": (["--array", "1-9"], "#SBATCH --array=1-9"),
    "array_limit": (["--array-limit", "4", "--array", "1"], "#SBATCH --array=1%4"),
    "after": (["--after", "8", "--after", "9:afterany"], "#SBATCH --dependency=afterok:8,afterany:9"),
    "max_restarts": (["--max-restarts", "11"], "export FAMILY_MAX_RESTARTS=11"),
    "lead_s": (["--lead", "33"], "#SBATCH --signal=B:USR1@33"),
    "log": (["--log", "/x/%j.log"], "#SBATCH --output=/x/%j.log"),
    "exclusive": (["--exclusive"], "#SBATCH --exclusive"),
    **{
        name: ([f"--{name.replace('_', '-')}", "v"], f"#SBATCH --{name.replace('_', '-')}=v")
        for name in (
            "partition", "account", "qos", "constraint", "reservation", "nodelist", "exclude", "begin", "comment", "mail_user", "mail_type",
        )
    },
}  # fmt: skip


def job_of(**changes) -> Job:
    return make_job(**{"command": ("show", "x"), "program": ("python",), "checkout": "/c", "working_folder": "/w", **changes})


def test_every_field_of_a_job_is_an_option_or_filled_by_the_command():
    assert {f.name for f in dataclasses.fields(Job)} == set(options()) | FILLED
    assert set(options()) == set(SHOWN) and not FILLED & set(options())


@pytest.mark.parametrize("name", SHOWN)
def test_every_option_reaches_the_script(name, capsys):
    words, line = SHOWN[name]
    parser = argparse.ArgumentParser(allow_abbrev=False)
    submit.arguments(parser)
    told = []
    for given in ([], words):
        submit.run(parser.parse_args(["--cluster", "local", *given, "--dry-run", "--", "show", "x"]))
        told.append(capsys.readouterr().out.splitlines())
    assert line in told[1] and line not in told[0]


def test_unknown_options_are_refused_with_the_ones_that_there_are():
    with pytest.raises(BadInput, match=r"unknown option 'nodse'. Did you mean 'nodes'\? Allowed: account, after, array"):
        job_of(nodse=3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"nodes": 0}, "--nodes: wanted 1 to 100000; got 0"),
        ({"gpus_per_node": 65}, "--gpus-per-node: wanted 0 to 64; got 65"),
        ({"time_min": -1}, "--time: wanted 0 to 527040; got -1"),
        ({"lead_s": 70000}, "--lead: wanted 0 to 65535"),
        ({"max_restarts": -1}, "--max-restarts: wanted"),
        ({"command": ()}, "no command line: give it after --"),
        ({"tasks": 3, "tasks_per_node": 1}, "give one of them"),
        ({"tasks": 1, "nodes": 2}, "--tasks 1: wanted at least one for each of the 2 nodes"),
        ({"gpus_per_node": 2, "tasks_per_node": 3, "nodes": 2}, "6 ranks on 4 GPUs; wanted one GPU for each rank"),
        ({"array": "1-"}, "--array '1-': wanted numbers and ranges"),
        ({"array": "0-3%2"}, "--array-limit N"),
        ({"array_limit": 2}, "--array-limit needs --array"),
        ({"after": ("x",)}, "--after 'x': wanted a job's number"),
        ({"after": ("3:afterokay",)}, "unknown kind of dependency 'afterokay'. Did you mean 'afterok'?"),
        ({"log": "a\\b"}, "a backslash in a file name"),
    ],
)
def test_absurd_jobs_are_refused(changes, told):
    with pytest.raises(BadInput, match=re.escape(told)) as error:
        job_of(**changes)
    assert error.value.exit_code == 2


def test_tasks_follow_the_gpus():
    assert job_of(nodes=4, gpus_per_node=8).n_tasks() == 32
    assert job_of(nodes=4, gpus_per_node=8, tasks_per_node=2).n_tasks() == 8
    assert job_of(nodes=4).n_tasks() == 4 and job_of(nodes=2, tasks=3).n_tasks() == 3


@pytest.mark.parametrize(
    ("text", "minutes", "written"),
    [
        ("90", 90, "01:30:00"), ("1:30", 2, "00:02:00"), ("12:00:00", 720, "12:00:00"), ("0:59:01", 60, "01:00:00"),
        ("2-0", 2880, "2-00:00:00"), ("1-12", 2160, "1-12:00:00"), ("1-02:03", 1563, "1-02:03:00"), ("1-02:03:04", 1564, "1-02:04:00"),
    ],
)  # fmt: skip
def test_times_are_read_as_sbatch_reads_them(text, minutes, written):
    assert parse_time(text) == minutes and write_time(minutes) == written


@pytest.mark.parametrize("text", ["", "x", "-5", "1:2:3:4", "1.5", "1-", "-", "1h", "1-2-3", "²"])
def test_other_times_are_refused(text):
    with pytest.raises(BadInput, match="wanted minutes, HH:MM:SS or D-HH:MM:SS"):
        parse_time(text)


def test_memory_is_in_gigabytes():
    assert [parse_memory(text) for text in ("64", "64G", "64GB", "512M", "1.5T", "1048576k")] == [64, 64, 64, 0.5, 1536, 1]
    for text in ("", "much", "-1", "1E", "1 G"):
        with pytest.raises(BadInput, match="wanted gigabytes"):
            parse_memory(text)
    assert "#SBATCH --mem=1M" in sbatch_script(job_of(memory_gb=1e-6), Cluster())


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"partion": "gpu"}, "unknown field 'partion'. Did you mean 'partition'? Allowed: account, constraint"),
        ({"partition": 3}, "partition: wanted a text; got 3"),
        ({"lead_s": "120"}, "lead_s: wanted a whole number; got '120'"),
        ({"lead_s": True}, "lead_s: wanted a whole number; got True"),
        ({"lead_s": 0}, "lead_s: wanted 1 to 65535 seconds; got 0"),
        ({"time_min": -1}, "time_min: wanted 0 or more; got -1"),
        ({"requeue": 1}, "requeue: wanted true or false; got 1"),
        ({"modules": "cuda"}, "modules: wanted a list of texts; got 'cuda'"),
        ({"srun": [3]}, "srun: wanted a list of texts"),
        ({"fabric": 3}, "fabric: wanted a table; got 3"),
        ({"environment": {"A B": "x"}}, "environment 'A B': not a variable's name"),
        ({"environment": {"A;id": "x"}}, "not a variable's name"),
        ({"environment": {"A": [1]}}, "environment A: wanted a text or a number; got [1]"),
        ({"environment": {"HOROVOD_RANK": 1}}, "environment HOROVOD_RANK: is set by the program"),
        ({"environment": {"PYTHONPATH": "x"}}, "is set by the program"),
        ({"container": {"kind": "docker", "image": "x"}}, "unknown kind of container 'docker'. Allowed: apptainer, pyxis"),
        ({"container": {"kind": "pyxis"}}, "field of [container] 'image' is missing"),
        ({"container": {"kind": "pyxis", "image": "x", "mount": []}}, "unknown field of [container] 'mount'. Did you mean 'mounts'?"),
        ({"container": {"kind": "pyxis", "image": ""}}, "container: wanted an image"),
        ({"container": "x"}, "container: wanted a table"),
        ({"gpus": "--gpus-per-task={n}"}, "not --gpus-per-task"),
        ({"gpus": "--gres=gpu"}, "with {n} for the number"),
        ({"srun": ["--gpus-per-task=1"]}, "picks its own by local rank"),
        ({"sbatch": ["exclusive"]}, "wanted options, such as --exclusive"),
        ({"sbatch": ["--signal=B:USR2@1"]}, "the program writes --signal itself"),
    ],
)
def test_absurd_clusters_are_refused(table, told):
    with pytest.raises(BadInput, match=re.escape(told)) as error:
        cluster_of(table)
    assert error.value.exit_code == 2


def test_a_cluster_is_what_its_file_says():
    fabric = {"latency_us": 2.0, "anything": [1, 2]}
    table = {
        "environment": {"A": 1, "B": 0.5, "C": True, "D": "x y"}, "fabric": fabric, "modules": ["a", "b"],
        "container": {"kind": "pyxis", "image": "i", "mounts": ["/a"]},
    }  # fmt: skip
    cluster = cluster_of(table)
    assert cluster.environment == {"A": "1", "B": "0.5", "C": "1", "D": "x y"} and cluster.fabric == fabric
    assert cluster.container == Container("pyxis", "i", ("/a",)) and cluster.modules == ("a", "b")
    with pytest.raises(dataclasses.FrozenInstanceError):
        cluster.qos = "x"


def test_every_cluster_that_ships_is_read_and_says_what_it_is():
    assert set(clusters()) == {"apptainer-8gpu", "generic", "local", "pyxis-8gpu"}
    for name, path in clusters().items():
        assert read_cluster(name) == read_cluster(str(path))
        assert path.read_text(encoding="utf-8").startswith("# ")
        assert read_cluster(name).fabric or name == "local"


def test_the_annotated_example_names_every_field():
    text = clusters()["generic"].read_text(encoding="utf-8")
    missing = [f.name for f in dataclasses.fields(Cluster) if not re.search(rf"^(\[{f.name}\]|{f.name} =)", text, re.MULTILINE)]
    assert missing == ["container"]  # the other two examples


@pytest.mark.parametrize(
    ("text", "told"),
    [(None, "No such file or directory; apptainer-8gpu, generic"), ("a = ", "not TOML"), ("qoss = 1", "c.toml: unknown field 'qoss'")],
)
def test_a_bad_file_is_named(tmp_path: Path, text, told):
    path = tmp_path / "c.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=re.escape(told)):
        read_cluster(str(path))


def test_an_unknown_cluster_gets_the_nearest_name():
    with pytest.raises(BadInput, match=r"unknown cluster 'generik'. Did you mean 'generic'\? .* or give a file that ends in .toml"):
        read_cluster("generik")
