"""`family submit --check`: `family doctor` on every node first, and what differs between the nodes."""

import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from slurm.cluster import Cluster
from slurm.errors import Failed
from slurm.job import Job
from slurm.queue import Follower, cancel, submit
from slurm.script import sbatch_script

PATHS_VARIABLE = "FAMILY_CHECK_PATHS"  # a JSON list: doctor tells which of them it sees
_WORDS = ("doctor", "--json")
_TIME_MIN = 10


def check_nodes(job: Job, cluster: Cluster, say: Callable[[str], None], show: Callable[[str], None]) -> int:
    """Run doctor on the nodes of a small job, show what differs, and return 1 if the job would fail there.

    Raises:
        Failed: a node gave no answer.
    """
    folder = Path(job.working_folder) / f".family-check-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        small, ours = check_job(job, cluster, folder)
        number = submit(sbatch_script(small, ours), Path(job.working_folder))
        say(f"checking {job.nodes} node{'s' * (job.nodes > 1)} with job {number}")
        _wait(number, say)
        answers = read_answers(folder, job.nodes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows, problems = compare(answers, cluster.interface, job.gpus_per_node)
    show(_table(rows) if rows else f"{len(answers)} nodes: no difference")
    show("\n".join(f"problem: {problem}" for problem in problems) or "no problem found")
    return 1 if problems else 0


def _wait(number: str, say: Callable[[str], None]) -> None:
    try:
        Follower(number, None, sys.stdout.buffer, say).follow()
    except BaseException:  # Ctrl-C while it waits for nodes: nobody would read its answers
        cancel(number)
        raise


def check_job(job: Job, cluster: Cluster, folder: Path) -> tuple[Job, Cluster]:
    """Return the small job: one task on each of as many nodes, whose answers go to files."""
    small = replace(
        job, command=_WORDS, name=f"{job.name}-check", tasks=0, tasks_per_node=1, time_min=_TIME_MIN, lead_s=60, array="", array_limit=0,
        after=(), begin="", max_restarts=0, log=str(folder / "job.log").replace("%", "%%"),
    )  # fmt: skip
    place = str(folder).replace("%", "%%")
    # A doctor that finds something exits with 1, which must not end the others.
    srun = ("--kill-on-bad-exit=0", f"--output={place}/%t.json", f"--error={place}/%t.log")
    environment = {**cluster.environment, PATHS_VARIABLE: json.dumps(paths_of(job))}
    return small, replace(cluster, srun=(*cluster.srun, *srun), environment=environment, requeue=False)


def paths_of(job: Job) -> list[str]:
    """Return the words of the command that are files or folders here."""
    found = [os.path.join(job.working_folder, word) for word in job.command[1:] if word and not word.startswith("-")]
    return [path for path in found if os.path.exists(path)]


def read_answers(folder: Path, n_nodes: int) -> list[dict]:
    """Return what doctor said on each node."""
    answers, silent = [], []
    for task in range(n_nodes):
        try:
            answers.append(json.loads((folder / f"{task}.json").read_text(encoding="utf-8").strip().splitlines()[-1]))
        except (OSError, ValueError, IndexError):
            silent.append(task)
    if silent:
        said = [_tail(folder / f"{task}.log") for task in silent] + [_tail(folder / "job.log")]
        raise Failed(f"no answer from {len(silent)} of {n_nodes} nodes: " + (next(filter(None, said), "") or "the job wrote nothing"))
    return answers


def compare(answers: list[dict], interface: str = "", n_gpus: int = 0) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the rows of a table of what differs between nodes, its head first, and what would fail."""
    hosts = [str(answer.get("host", f"node {k}")) for k, answer in enumerate(answers)]
    flat = [_flatten(answer) for answer in answers]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    differ = [key for key in keys if len({one.get(key, "-") for one in flat}) > 1]
    rows = [("", *hosts)] + [(key, *(one.get(key, "-") for one in flat)) for key in differ]
    problems = [f"{key} differs between nodes" for key in differ if key.startswith("versions ")]
    for host, answer in zip(hosts, answers, strict=True):
        problems += [f"{host}: {text}" for text in answer.get("problems", [])]
        problems += [f"{host}: does not see {path}" for path, seen in _paths(answer).items() if not seen]
        if interface and "interfaces" in answer and interface not in answer["interfaces"]:
            problems.append(f"{host}: has no interface {interface!r}, only {', '.join(answer['interfaces'])}")
        if len(answer.get("gpus") or []) < n_gpus:
            problems.append(f"{host}: sees {len(answer.get('gpus') or [])} GPUs; the job asks for {n_gpus}")
    return rows if differ else [], problems


def _flatten(answer: dict) -> dict[str, str]:
    """Return key -> text of what may be compared."""
    flat = {}
    for key in ("versions", "paths"):
        values = _paths(answer) if key == "paths" else answer.get(key) or {}
        flat |= {f"{key} {name}": str(value) for name, value in values.items()}
    for key in ("driver", "gpus", "interfaces"):
        value = answer.get(key)
        # Addresses differ by right; the names of the interfaces may not.
        flat[key] = ", ".join(str(one) for one in value) if isinstance(value, list | dict) else str(value)
    return flat


def _paths(answer: dict) -> dict[str, bool]:
    return answer.get("paths") or {}


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _tail(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1]
    except (OSError, IndexError):
        return ""
