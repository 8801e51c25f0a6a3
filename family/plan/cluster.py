"""A plan on a cluster: arrays of command lines that wait for one another, handed to `slurm`; latency is measured elsewhere."""

import argparse
import json
import shutil
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from family.errors import UserError
from family.outputs import write_json
from family.plan.members import Member
from family.plan.steps import Step
from family.progress import next_command
from slurm import queue, submit
from slurm.cluster import Cluster, read_cluster
from slurm.job import Job, flag_of, make_job, options
from slurm.script import sbatch_script

SUBMITTED = "submitted.json"
# Of all the options of a job, those that make sense for many.
_OPTIONS = ("nodes", "gpus_per_node", "tasks_per_node", "cpus_per_task", "time_min", "memory_gb", "array_limit", "max_restarts", "lead_s",
            "partition", "account", "qos", "constraint", "reservation", "exclude", "exclusive", "mail_user", "mail_type")  # fmt: skip
_STAGES = ("train", "export", "evaluate")  # that jobs run, beside the one that measures
_OF_ONE_PROCESS = {"nodes": 1, "gpus_per_node": 0, "tasks_per_node": 1}


@dataclass(frozen=True)
class Wait:
    """What an array waits for: another array, by a kind of dependency, or one task of it."""

    array: str
    kind: str  # aftercorr: each task for that of its own number
    task: int | None = None


@dataclass(frozen=True)
class Array:
    """Command lines that run side by side, each under a number, and what all of them wait for."""

    name: str
    steps: tuple[tuple[int, Step], ...]
    after: tuple[Wait, ...] = ()


def arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("on a cluster", "trainings as SLURM arrays, exports and evaluations after them")
    group.add_argument("--cluster", metavar="FILE", help="a cluster's TOML, or the name of one that ships")
    group.add_argument("--bench-on", metavar="NODE", help="bench and report on this node at the end (default: not; latency belongs to the "
                       "machine that serves)")  # fmt: skip
    submit.add_options(group, _OPTIONS)


def check(args: argparse.Namespace, stages: tuple[str, ...]) -> None:
    """Refuse options of a job where nothing is submitted, and work on what jobs in the queue are to make, here or by a second submission.

    Raises:
        UserError: names them.
    """
    given = [flag_of(name) for name in _OPTIONS if getattr(args, name) != options()[name].default]
    given += ["--bench-on"] if args.bench_on else []
    if given and args.cluster is None:
        raise UserError(f"{', '.join(given)}: for --cluster FILE, which is not given")
    if not args.dry_run and (args.cluster is not None or set(stages) & set(_STAGES)):
        _refuse_beside_jobs(args.out)


def arrays(members: list[Member], steps: list[Step]) -> list[Array]:
    """Return the arrays that run the trainings, exports and evaluations among the steps: a pure function.

    A training waits for that of the member whose trunk it starts from, and its export for it, by number; a student waits for the tasks
    that train its teachers. So one that fails holds back its own dependents alone: an array holds lines that wait for the same.
    Evaluations wait until all exports have ended: an export that refused a scheme has failed and left a bundle.
    """
    of_stage = {stage: {step.member: step for step in steps if step.stage == stage} for stage in _STAGES}
    found: dict[str, Array] = {}
    place = _add_trainings(found, members, of_stage["train"])
    for k, step in of_stage["export"].items():
        if k in place:
            name, number = place[k]
            _add(found, f"export-{name}", number, step, Wait(name, "aftercorr"))
        else:
            _add(found, "export", k, step)
    exports = tuple(Wait(name, "afterany") for name in found if name.startswith("export"))
    for k, step in of_stage["evaluate"].items():
        _add(found, "evaluate", k, step, *exports)
    return list(found.values())


def _add_trainings(found: dict[str, Array], members: list[Member], steps: dict[int, Step]) -> dict[int, tuple[str, int]]:
    """Add the arrays of trainings; return member -> the array of its training and its number there.

    A member without a parent among them keeps its own number. The second child of `train`'s members is in `train-2`, under its parent's number;
    members that 1 and 3 teach are in arrays of their own, `train-by-1.3` and `train-2-by-1.3`.
    """
    number_of = {member.folder: k for k, member in enumerate(members, 1)}
    place: dict[int, tuple[str, int]] = {}
    n_children: Counter[int] = Counter()
    for k, step in steps.items():
        name, number, after = "train", k, []
        parent = number_of.get(members[k - 1].parent)
        if parent in place:
            n_children[parent] += 1
            array, number = place[parent]
            name, after = f"{array}-{n_children[parent]}", [Wait(array, "aftercorr")]
        teachers = sorted(number_of[name] for name in members[k - 1].teacher if number_of.get(name) in place)
        if teachers:
            name += f"-by-{'.'.join(map(str, teachers))}"
            after += [Wait(place[teacher][0], "afterok", place[teacher][1]) for teacher in teachers]
        place[k] = name, number
        _add(found, name, number, step, *after)
    return place


def _add(found: dict[str, Array], name: str, number: int, step: Step, *after: Wait) -> None:
    earlier = found[name].steps if name in found else ()
    found[name] = Array(name, (*earlier, (number, step)), after)


def jobs(args: argparse.Namespace, cluster: Cluster, members: list[Member], steps: list[Step]) -> list[tuple[Job, tuple[Wait, ...]]]:
    """Return the jobs in the order of their submission, each with what it waits for, by the names of jobs."""
    asked = {name: getattr(args, name) for name in _OPTIONS}
    logs = str((args.out / "logs").absolute()).replace("%", "%%")
    found = []
    for array in arrays(members, steps):
        is_training = array.name.startswith("train")
        wanted = asked if is_training else asked | _OF_ONE_PROCESS
        job = make_job(
            command=(), commands=tuple((number, step.present_words) for number, step in array.steps), **submit.place_of(cluster),
            **wanted, name=f"{args.out.name}-{array.name}", array=",".join(str(number) for number, _ in array.steps),
            log=f"{logs}/{array.name}-%A_%a.log",
        )  # fmt: skip
        found.append((submit.raise_lead(job, cluster), tuple(replace(wait, array=f"{args.out.name}-{wait.array}") for wait in array.after)))
    if args.bench_on:
        found.append(_bench(args, cluster, asked, logs, [job for job, _ in found]))
    return found


def _bench(args: argparse.Namespace, cluster: Cluster, asked: dict, logs: str, earlier: list[Job]) -> tuple[Job, tuple[Wait, ...]]:
    """Return the job that measures and reports on the node that was named, alone there, when all others have ended."""
    words = ("produce", str(args.dataset), "--out", str(args.out), "--members", args.members, "--only", "bench,report")
    words += tuple(word for text in args.weights for word in ("--weights", text))
    words += tuple(word for name, path in (("--from", args.earlier), ("--mapping", args.mapping)) if path for word in (name, str(path)))
    own = {"nodelist": args.bench_on, "exclusive": True, "array_limit": 0, "exclude": "", **_OF_ONE_PROCESS}
    job = make_job(command=words, **submit.place_of(cluster), **asked | own, name=f"{args.out.name}-bench", log=f"{logs}/bench-%j.log")
    last = [one for one in earlier if one.name.endswith("-evaluate")] or earlier
    return job, tuple(Wait(one.name, "afterany") for one in last)


def hand_over(args: argparse.Namespace, members: list[Member], steps: list[Step]) -> int:
    """Submit what is left of a plan, or print the scripts; say what comes next.

    Raises:
        Failed: SLURM refused a job; those before it are cancelled.
    """
    cluster = read_cluster(args.cluster)
    found = jobs(args, cluster, members, steps)
    if args.dry_run:
        _print_scripts(found, cluster)
    else:
        _submit(args.out, found, cluster)
    _say_next(args, members)
    return 0


def _print_scripts(found: list[tuple[Job, tuple[Wait, ...]]], cluster: Cluster) -> None:
    numbers = {job.name: str(k) for k, (job, _) in enumerate(found, 1)}
    for job, after in found:
        print(f"# job {numbers[job.name]} of {len(found)} (SLURM gives other numbers): {job.name}")
        print(sbatch_script(_after(job, after, numbers), cluster))


def _after(job: Job, after: tuple[Wait, ...], numbers: dict[str, str]) -> Job:
    """Return the job with what it waits for, by numbers: `12:aftercorr`, or `12_3:afterok` for a task."""
    return replace(job, after=tuple(
        f"{numbers[wait.array]}{'' if wait.task is None else f'_{wait.task}'}:{wait.kind}" for wait in after
    ))  # fmt: skip


def _submit(out: Path, found: list[tuple[Job, tuple[Wait, ...]]], cluster: Cluster) -> None:
    numbers: dict[str, str] = {}
    out.mkdir(parents=True, exist_ok=True)
    try:
        for job, after in found:
            waiting = _after(job, after, numbers)
            numbers[job.name] = submit.hand_over(waiting, sbatch_script(waiting, cluster))
            write_json(out / SUBMITTED, numbers)
            print(f"job {numbers[job.name]}: {job.name}, {max(1, len(job.commands))} tasks"
                  + "".join(f", {kind} {number}" for number, _, kind in (text.partition(":") for text in waiting.after)), flush=True)  # fmt: skip
    except BaseException:
        for number in numbers.values():
            queue.cancel(number)
        (out / SUBMITTED).unlink(missing_ok=True)
        raise
    if not numbers:
        print("there is nothing to submit")
    else:
        print(f"follow: squeue --job {','.join(numbers.values())}\ncancel: scancel {' '.join(numbers.values())}")
        print(f"logs:   {out / 'logs'}")


def _refuse_beside_jobs(out: Path) -> None:
    """Refuse to make what jobs that wait or run are to make: two would want the same run, and the same bundle.

    Raises:
        UserError: names the jobs.
    """
    try:
        earlier = json.loads((out / SUBMITTED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if shutil.which("scontrol") is None:
        print(f"warning: {out / SUBMITTED} names jobs, and there is no scontrol here to ask; make sure that they are over: "
              f"{', '.join(earlier.values())}", file=sys.stderr)  # fmt: skip
        return
    alive = []
    for number in earlier.values():
        now = queue.state(number)
        alive += [number] if now and not now.is_over else []
    if alive:
        raise UserError(
            f"{out}: jobs {', '.join(alive)} of an earlier submission are not over; wait for them, or scancel {' '.join(alive)}"
        )


def _say_next(args: argparse.Namespace, members: list[Member]) -> None:
    if args.bench_on:
        print(next_command("pick", args.out / "results.jsonl", "--budget-ms", 20, "--copy-to", "best"))
        return
    bundles = [args.out / "bundles" / member.folder for member in members]
    print("when they are over, the same command submits what is missing. Latency belongs to the machine that serves; there:")
    print(next_command("bench", *bundles, "--out", args.out / "results.jsonl", "--data", args.dataset))
