"""A plan on a cluster: arrays of command lines that wait for one another, handed to `slurm`; latency is measured elsewhere."""

import argparse
import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from family.errors import UserError
from family.outputs import write_json
from family.plan.members import Member
from family.plan.steps import Step
from slurm import queue, submit
from slurm.cluster import Cluster, read_cluster
from slurm.job import Job, flag_of, make_job, options
from slurm.script import sbatch_script

SUBMITTED = "submitted.json"
# Of all the options of a job, those that make sense for many.
_OPTIONS = ("nodes", "gpus_per_node", "tasks_per_node", "cpus_per_task", "time_min", "memory_gb", "array_limit", "max_restarts", "lead_s",
            "partition", "account", "qos", "constraint", "reservation", "exclude", "exclusive", "mail_user", "mail_type")  # fmt: skip
_OF_ONE_PROCESS = {"nodes": 1, "gpus_per_node": 0, "tasks_per_node": 1}


@dataclass(frozen=True)
class Array:
    """Command lines that run side by side, each under a number. A line may wait for that of the same number in another array."""

    name: str
    steps: tuple[tuple[int, Step], ...]
    after: tuple[tuple[str, str], ...] = ()  # (name of an array, kind of dependency)


def arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("on a cluster", "trainings as SLURM arrays, exports and evaluations after them")
    group.add_argument("--cluster", metavar="FILE", help="a cluster's TOML, or the name of one that ships")
    group.add_argument("--bench-on", metavar="NODE", help="bench and report on this node at the end (default: not; latency belongs to the "
                       "machine that serves)")  # fmt: skip
    submit.add_options(group, _OPTIONS)


def check(args: argparse.Namespace) -> None:
    """Refuse options of a job where nothing is submitted, and a second submission of what is in the queue.

    Raises:
        UserError: names them.
    """
    given = [flag_of(name) for name in _OPTIONS if getattr(args, name) != options()[name].default]
    given += ["--bench-on"] if args.bench_on else []
    if given and args.cluster is None:
        raise UserError(f"{', '.join(given)}: for --cluster FILE, which is not given")
    if args.cluster is not None and not args.dry_run:
        _refuse_twice(args.out)


def arrays(members: list[Member], steps: list[Step]) -> list[Array]:
    """Return the arrays that run the trainings, exports and evaluations among the steps: a pure function.

    A training waits for that of the member whose trunk it starts from, and its export for it, by number: so one that fails holds
    back its own dependents alone. Evaluations wait until all exports have ended: an export that refused a scheme has failed and left a bundle.
    """
    of_stage = {stage: {step.member: step for step in steps if step.stage == stage} for stage in ("train", "export", "evaluate")}
    number_of = {member.folder: k for k, member in enumerate(members, 1)}
    place: dict[int, tuple[str, int]] = {}  # member -> the array of its training, and its number there
    children: dict[int, int] = {}
    found: dict[str, Array] = {}
    for k in of_stage["train"]:
        parent = number_of.get(members[k - 1].start_from)
        if parent in place:
            name, number = place[parent]
            children[parent] = children.get(parent, 0) + 1
            place[k] = (f"{name}-{children[parent]}", number)
            _add(found, place[k][0], number, of_stage["train"][k], (name, "aftercorr"))
        else:
            place[k] = ("train", k)
            _add(found, "train", k, of_stage["train"][k])
    for k, step in of_stage["export"].items():
        if k in place:
            name, number = place[k]
            _add(found, f"export-{name}", number, step, (name, "aftercorr"))
        else:
            _add(found, "export", k, step)
    exports = tuple((name, "afterany") for name in found if name.startswith("export"))
    for k, step in of_stage["evaluate"].items():
        _add(found, "evaluate", k, step, *exports)
    return list(found.values())


def _add(found: dict[str, Array], name: str, number: int, step: Step, *after: tuple[str, str]) -> None:
    earlier = found[name].steps if name in found else ()
    found[name] = Array(name, (*earlier, (number, step)), after)


def jobs(args: argparse.Namespace, cluster: Cluster, members: list[Member], steps: list[Step]) -> list[tuple[Job, dict[str, str]]]:
    """Return the jobs in the order of their submission, each with the jobs that it waits for: name -> kind."""
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
        found.append((submit.raise_lead(job, cluster), {f"{args.out.name}-{name}": kind for name, kind in array.after}))
    if args.bench_on:
        found.append(_bench(args, cluster, asked, logs, [job for job, _ in found]))
    return found


def _bench(args: argparse.Namespace, cluster: Cluster, asked: dict, logs: str, earlier: list[Job]) -> tuple[Job, dict[str, str]]:
    """Return the job that measures and reports on the node that was named, alone there, when all others have ended."""
    words = ("produce", str(args.dataset), "--out", str(args.out), "--members", args.members, "--only", "bench,report")
    words += tuple(word for text in args.weights for word in ("--weights", text))
    own = {"nodelist": args.bench_on, "exclusive": True, "array_limit": 0, "exclude": "", **_OF_ONE_PROCESS}
    job = make_job(command=words, **submit.place_of(cluster), **asked | own, name=f"{args.out.name}-bench", log=f"{logs}/bench-%j.log")
    last = [one for one in earlier if one.name.endswith("-evaluate")] or earlier
    return job, {one.name: "afterany" for one in last}


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


def _print_scripts(found: list[tuple[Job, dict[str, str]]], cluster: Cluster) -> None:
    numbers = {job.name: str(k) for k, (job, _) in enumerate(found, 1)}
    for job, after in found:
        print(f"# job {numbers[job.name]} of {len(found)} (SLURM gives other numbers): {job.name}")
        print(sbatch_script(_after(job, after, numbers), cluster))


def _after(job: Job, after: dict[str, str], numbers: dict[str, str]) -> Job:
    return replace(job, after=tuple(f"{numbers[name]}:{kind}" for name, kind in after.items()))


def _submit(out: Path, found: list[tuple[Job, dict[str, str]]], cluster: Cluster) -> None:
    numbers: dict[str, str] = {}
    out.mkdir(parents=True, exist_ok=True)
    try:
        for job, after in found:
            waiting = _after(job, after, numbers)
            numbers[job.name] = submit.hand_over(waiting, sbatch_script(waiting, cluster))
            write_json(out / SUBMITTED, numbers)
            print(f"job {numbers[job.name]}: {job.name}, {max(1, len(job.commands))} tasks"
                  + "".join(f", {kind} {numbers[name]}" for name, kind in after.items()), flush=True)  # fmt: skip
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


def _refuse_twice(out: Path) -> None:
    """Refuse to submit what is waiting or running: two jobs would want the same run."""
    try:
        earlier = json.loads((out / SUBMITTED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
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
        print(f"next: family pick {shlex.quote(str(args.out / 'results.jsonl'))} --budget-ms 20 --copy-to best")
        return
    bundles = shlex.join(str(args.out / "bundles" / member.folder) for member in members)
    results, data = shlex.quote(str(args.out / "results.jsonl")), shlex.quote(str(args.dataset))
    print("when they are over, the same command submits what is missing. Latency belongs to the machine that serves; there:")
    print(f"next: family bench {bundles} --out {results} --data {data}")
