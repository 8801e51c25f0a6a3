"""`family submit`: one of our command lines, on a cluster."""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from slurm.check import check_nodes
from slurm.cluster import Cluster, read_cluster
from slurm.errors import BadInput
from slurm.job import Job, make_job, options
from slurm.queue import Follower, State, submit, submit_script, to_stderr
from slurm.script import RESUMABLE, default_log, sbatch_script

CHECKOUT = Path(__file__).resolve().parent.parent
# -P: a folder called `family` where the user stands must not be taken for ours.
_OURS = ("-P", "-m", "family.cli")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} --cluster FILE [options] -- COMMAND ..."
    parser.add_argument("--cluster", required=True, metavar="FILE", help="a cluster's TOML, or the name of one that ships")
    add_options(parser, options())
    parser.add_argument("--dry-run", action="store_true", help="print the script and submit nothing")
    parser.add_argument("--test-only", action="store_true", help="let sbatch judge the script and submit nothing")
    parser.add_argument("--check", action="store_true", help="run `family doctor` on as many nodes first, and compare them")
    parser.add_argument("--wait", action="store_true", help="follow the log until the job ends, and exit with its exit code")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="one of our command lines, without `family`")


def add_options(parser: argparse._ActionsContainer, names: Iterable[str]) -> None:
    """Offer options of a job, by the names of its fields."""
    for name in names:
        option = options()[name]
        flag, text, metavar, parse = (option.metadata[key] for key in ("flag", "help", "metavar", "parse"))
        if parse is bool:
            parser.add_argument(flag, dest=name, action="store_true", help=text)
        elif option.default == ():
            parser.add_argument(flag, dest=name, action="append", default=[], metavar=metavar, help=text)
        else:
            parser.add_argument(flag, dest=name, type=parse, default=option.default, metavar=metavar, help=text)


def run(args: argparse.Namespace) -> int:
    cluster = read_cluster(args.cluster)
    job = raise_lead(_job(args, cluster), cluster)
    script = sbatch_script(job, cluster)
    folder = Path(job.working_folder)
    show = to_stderr if args.json else print
    if args.dry_run:
        print(json.dumps({"script": script}) if args.json else script, end="")
        return 0
    if args.test_only:
        said = submit_script(script, folder, "--test-only")
        print(json.dumps({"sbatch": said}) if args.json else said)
        return 0
    if args.check and check_nodes(job, cluster, to_stderr, show):
        to_stderr("family submit: nothing was submitted")
        return 1
    return _submit(args, job, script)


def _job(args: argparse.Namespace, cluster: Cluster) -> Job:
    if args.words[:1] != ["--"]:
        got = f"; got {args.words[0]!r}" if args.words else ""
        raise BadInput(f"the command line comes after --, such as: family submit --cluster {args.cluster} -- train DATASET --out RUN{got}")
    values = {name: tuple(value) if isinstance(value, list) else value for name in options() for value in [getattr(args, name)]}
    if values["log"]:
        values["log"] = str(Path.cwd() / values["log"])
    return make_job(command=tuple(args.words[1:]), **place_of(cluster), **values)


def place_of(cluster: Cluster) -> dict:
    """Return the fields of a job that say what runs its words, and where: as here, unless the cluster's file says otherwise."""
    python = cluster.python or ("python" if cluster.container else sys.executable)
    return {"program": (python, *_OURS), "checkout": str(CHECKOUT), "working_folder": str(Path.cwd())}


def raise_lead(job: Job, cluster: Cluster) -> Job:
    """Return the job with a lead of at least twice the last checkpoint of the run that it goes on with."""
    last_s = last_checkpoint_s(job)
    lead_s = job.lead_s or cluster.lead_s
    wanted_s = -int(-2 * last_s // 1)
    if wanted_s <= lead_s:
        return job
    to_stderr(f"the last checkpoint took {last_s:.1f} s, so the ranks are told {wanted_s} s before the time limit, not {lead_s} s")
    return replace(job, lead_s=wanted_s)


def last_checkpoint_s(job: Job) -> float:
    """Return the seconds that the newest checkpoint took, of the run or of the slowest of an array's runs, or 0 if none is known."""
    return max(_last_checkpoint_s(job, words) for words in job.all_commands())


def _last_checkpoint_s(job: Job, words: tuple[str, ...]) -> float:
    run = _option(words, "--out") if words[0] in RESUMABLE else None
    if not run:
        return 0.0
    try:
        lines = (Path(job.working_folder) / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return 0.0
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:  # a line that was being written when the run was killed
            continue
        if isinstance(row, dict) and row.get("event") == "checkpoint" and isinstance(row.get("s"), int | float):
            return float(row["s"])
    return 0.0


def _submit(args: argparse.Namespace, job: Job, script: str) -> int:
    pattern = job.log or default_log(job)
    number = hand_over(job, script)
    log = log_of(pattern, job, number)
    told = {
        "job": number,
        "log": log or pattern,
        "follow": f"tail -F {shlex.quote(log)}" if log else f"squeue --job {number}",
        "cancel": f"scancel {number}",
        "next": next_command(job),
    }
    if args.json:
        print(json.dumps(told), flush=True)
    else:
        print("\n".join(f"{key + ':':8}{value}" for key, value in told.items()), flush=True)
    return _wait(number, log, args.json) if args.wait else 0


def hand_over(job: Job, script: str) -> str:
    """Submit a job's script and return its number; the folder of its log is made if need be."""
    folder = str(Path(job.log or default_log(job)).parent)
    if "%" not in folder.replace("%%", ""):
        Path(folder.replace("%%", "%")).mkdir(parents=True, exist_ok=True)  # SLURM makes no folders
    return submit(script, Path(job.working_folder))


def _wait(number: str, log: str | None, quiet: bool) -> int:
    follower = Follower(number, Path(log) if log else None, (sys.stderr if quiet else sys.stdout).buffer, to_stderr)
    try:
        return _exit_code(follower.follow())
    except KeyboardInterrupt:
        to_stderr(f"\nstopped following; job {number} goes on. To cancel it: scancel {number}")
        return 130


def _exit_code(last: State) -> int:
    if last.name in ("COMPLETED", "FAILED"):
        return last.exit_code
    return last.exit_code or 1  # cancelled, out of time or memory, a node lost


def log_of(pattern: str, job: Job, number: str) -> str | None:
    """Return the log's path, or None where there are several or SLURM alone knows its name."""
    if job.array:
        return None
    known = {"%%": "%", "%j": number, "%A": number, "%x": job.name}
    parts = re.findall(r"%.|[^%]+", pattern)
    if any(part.startswith("%") and part not in known for part in parts):
        return None
    return "".join(known.get(part, part) for part in parts)


def next_command(job: Job) -> str:
    """Return what to do once the job is done, ready to paste."""
    words = [word for word in job.command if word != "--resume"]
    run = _option(words, "--out")
    data = RESUMABLE.get(words[0])
    if data and run and len(words) > data and not any(word.startswith("-") for word in words[1 : data + 1]):
        return shlex.join(["family", "evaluate", run, words[data], "--out", f"{run}-test"])
    return f"family show {shlex.quote(run)}" if run else "squeue --me"


def _option(words, name: str) -> str | None:
    """Return the value of an option among the words of a command."""
    for k, word in enumerate(words):
        if word == name and k + 1 < len(words):
            return words[k + 1]
        if word.startswith(f"{name}="):
            return word.split("=", 1)[1]
    return None
