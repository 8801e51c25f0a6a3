"""SLURM's own commands: give a script to sbatch, ask how a job is, follow its log."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slurm.errors import BadInput, Failed

_OF_A_JOB = re.compile(
    r"(SLURM|SBATCH|SRUN|PMI|PMIX|PMI2|OMPI|PRTE|HYDRA|MPI)_?\w*|FAMILY_(LAUNCHER_PID|RANK_CPUS|MONITOR|INTERFACE|LEAD_S|MAX_RESTARTS)"
)
_OF_A_RANK = re.compile(r"HOROVOD_(RANK|SIZE|(LOCAL|CROSS)_(RANK|SIZE)|HOSTNAME|GLOO_\w+|CONTROLLER|CPU_OPERATIONS|JOB_ID)")
_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
_OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "NODE_FAIL", "PREEMPTED")
_TIMEOUT_S = 120


@dataclass(frozen=True)
class State:
    """What scontrol says of a job."""

    name: str  # PENDING, RUNNING, COMPLETED ...; of an array: the first of its tasks that is not over
    exit_code: int = 0  # 128 + n for signal n
    restarts: int = 0
    reason: str = ""
    nodes: str = ""

    @property
    def is_over(self) -> bool:
        return self.name in _OVER


def clean_environment(environment: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment without what an allocation or a rank left in it.

    sbatch takes SBATCH_* over the script's own lines, and hands the rest to the job, which would take it for its own.
    """
    found = os.environ if environment is None else environment
    return {name: value for name, value in found.items() if name in _KEPT or not (_OF_A_JOB.fullmatch(name) or _OF_A_RANK.fullmatch(name))}


def submit_script(script: str, folder: Path, *options: str) -> str:
    """Give sbatch a script and return what it says: with --parsable, the job's number.

    Raises:
        BadInput: no sbatch here.
        Failed: sbatch refused the script.
    """
    done = _call("sbatch", *options, text=script, folder=folder)
    if done.returncode:
        raise Failed(f"sbatch refused the job: {_one_line(done.stderr)}")
    return (done.stdout.strip() or done.stderr.strip()).removeprefix("sbatch: ")


def submit(script: str, folder: Path) -> str:
    """Submit a script and return the job's number."""
    return submit_script(script, folder, "--parsable").split(";")[0]


def cancel(job: str) -> None:
    _call("scancel", job)


def state(job: str) -> State | None:
    """Return how a job is, or None if SLURM has forgotten it."""
    done = _call("scontrol", "--oneliner", "show", "job", job)
    if done.returncode:
        if "Invalid job id" in done.stderr:
            return None
        raise Failed(f"scontrol can't tell about job {job}: {_one_line(done.stderr)}")
    found = [_state(line) for line in done.stdout.splitlines() if "JobState=" in line]
    alive = [one for one in found if not one.is_over]
    return alive[0] if alive else max(found, key=lambda one: (one.name != "COMPLETED", one.exit_code), default=None)


def _state(line: str) -> State:
    # The name comes before everything else and the comment after it; neither may pass for a state.
    words: dict[str, str] = {}
    for word in line.split(" UserId=", 1)[-1].split():
        key, _, value = word.partition("=")
        words.setdefault(key, value)
    code, _, number = words.get("ExitCode", "0:0").partition(":")
    exit_code = 128 + int(number) if int(number or 0) else int(code)
    return State(words["JobState"], exit_code, int(words.get("Restarts", 0)), words.get("Reason", ""), words.get("NodeList", ""))


class Follower:
    """Copies a job's log to a stream until the job is over."""

    def __init__(self, job: str, log: Path | None, out, say: Callable[[str], None], interval_s: float = 1.0):
        self._job, self._log, self._out, self._say, self._interval_s = job, log, out, say, interval_s
        self._position = 0
        self._said = ""

    def start_at_end(self) -> None:
        """Skip what an earlier job wrote to the same file."""
        if self._log and self._log.is_file():
            self._position = self._log.stat().st_size

    def follow(self) -> State:
        """Return the last state. A requeued job is not over: it is waited for.

        Raises:
            Failed: SLURM forgot the job before it was seen to end, or does not answer.
        """
        n_over = 0
        while True:
            now = self._ask()
            self.copy()
            self._tell(now)
            # A job on its way back into the queue looks over for a moment.
            n_over = n_over + 1 if now.is_over else 0
            if n_over == 2:
                self.copy()
                return now
            time.sleep(self._interval_s)

    def copy(self) -> None:
        """Copy what is new in the log."""
        if self._log is None or not self._log.is_file():
            return
        with open(self._log, "rb") as file:
            file.seek(self._position)
            new = file.read()
        self._position += len(new)
        self._out.write(new)
        self._out.flush()

    def _ask(self, n_tries: int = 5) -> State:
        for left in reversed(range(n_tries)):
            try:
                found = state(self._job)
            except Failed:  # a controller that is restarted or busy
                if not left:
                    raise
                time.sleep(5)
                continue
            if found is None:
                raise Failed(f"SLURM does not know job {self._job} any more, so its exit code is lost; its log tells how it ended")
            return found
        raise AssertionError

    def _tell(self, now: State) -> None:
        text = f"{now.name.lower()}" + (
            f" on {now.nodes}" if now.name == "RUNNING" else f" ({now.reason})" if now.name == "PENDING" else ""
        )
        text += f", restart {now.restarts}" if now.restarts else ""
        if text != self._said:
            self._say(f"job {self._job}: {text}")
            self._said = text


def _call(name: str, *words: str, text: str | None = None, folder: Path | None = None) -> subprocess.CompletedProcess:
    path = shutil.which(name)
    if not path:
        raise BadInput(f"no {name} on the path; submit from a login node of the cluster, or see the script with --dry-run")
    try:
        return subprocess.run(
            [path, *words], input=text, stdin=None if text is not None else subprocess.DEVNULL, capture_output=True, cwd=folder,
            env=clean_environment(), encoding="utf-8", errors="replace", timeout=_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failed(f"{name} did not answer within {_TIMEOUT_S} s; is the controller up? (scontrol ping)") from None


def _one_line(text: str) -> str:
    lines = [line.split("error: ", 1)[-1].strip() for line in text.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines)) or "it said nothing"


def to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
