"""A job: what runs, and what is asked of SLURM for it. The fields are the option list."""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from slurm.errors import BadInput, unknown
from slurm.quoting import one_line
from slurm.units import parse_memory, parse_time

_RANGES = {
    "nodes": (1, 100_000),
    "gpus_per_node": (0, 64),
    "tasks_per_node": (0, 4096),
    "tasks": (0, 1_000_000),
    "cpus_per_task": (0, 4096),
    "time_min": (0, 366 * 24 * 60),
    "memory_gb": (0, 1_000_000),
    "array_limit": (0, 1_000_000),
    "max_restarts": (0, 10_000),
    "lead_s": (0, 65_535),
}
_ARRAY = re.compile(r"\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*")
_AFTER = re.compile(r"(\d+(?:_\d+)?)(?::(\w+))?")
_KINDS = ("after", "afterany", "afterok", "afternotok", "aftercorr")


def _option(flag: str, default, text: str, metavar: str | None = None, parse: Callable | None = None):
    """Return a field that `family submit` offers as an option."""
    return field(default=default, metadata={"flag": flag, "help": text, "metavar": metavar, "parse": parse or type(default)})


@dataclass(frozen=True)
class Job:
    """One job. Empty texts and zeros leave the choice to the cluster's file, or else to SLURM.

    The fields without a flag are filled by the command: the words after `--`, what runs them, and where.
    """

    command: tuple[str, ...]
    program: tuple[str, ...]  # comes before the words: python -P -m family.cli
    checkout: str  # goes on PYTHONPATH
    working_folder: str  # relative paths of the words start here
    commands: tuple[tuple[int, tuple[str, ...]], ...] = ()  # of an array: the words of each task by its number, instead of `command`
    name: str = _option("--name", "family", "of the job", "NAME")
    nodes: int = _option("--nodes", 1, "how many nodes", "N")
    gpus_per_node: int = _option("--gpus-per-node", 0, "GPUs of each node; one rank each", "G")
    tasks_per_node: int = _option("--tasks-per-node", 0, "ranks of each node (default: its GPUs, or 1)", "T")
    tasks: int = _option("--tasks", 0, "ranks over all nodes, where they don't divide evenly; instead of --tasks-per-node", "N")
    cpus_per_task: int = _option("--cpus-per-task", 0, "cores of each rank", "C")
    time_min: int = _option("--time", 0, "the time limit: minutes, HH:MM:SS or D-HH:MM:SS", "TIME", parse_time)
    memory_gb: float = _option("--memory", 0.0, "of each node: 64, 64G or 512M", "GB", parse_memory)
    array: str = _option("--array", "", "run once for each number; {task} in the words is replaced by it", "0-9,20")
    array_limit: int = _option("--array-limit", 0, "array tasks that run at the same time", "N")
    after: tuple[str, ...] = _option("--after", (), f"start after a job; KIND: {', '.join(_KINDS)} (default afterok)", "JOBID[:KIND]", str)
    max_restarts: int = _option("--max-restarts", 20, "how often the job may put itself back into the queue (default 20)", "N")
    lead_s: int = _option("--lead", 0, "seconds before the time limit at which ranks are told (default: the cluster's)", "SECONDS")
    log: str = _option("--log", "", "the log file; %%j is the job's number (default NAME-%%j.log)", "FILE")
    partition: str = _option("--partition", "", "instead of the cluster's", "NAME")
    account: str = _option("--account", "", "instead of the cluster's", "NAME")
    qos: str = _option("--qos", "", "instead of the cluster's", "NAME")
    constraint: str = _option("--constraint", "", "instead of the cluster's", "FEATURES")
    reservation: str = _option("--reservation", "", "instead of the cluster's", "NAME")
    nodelist: str = _option("--nodelist", "", "these nodes", "NODES")
    exclude: str = _option("--exclude", "", "not these nodes", "NODES")
    exclusive: bool = _option("--exclusive", False, "share the nodes with no other job")
    begin: str = _option("--begin", "", "not before this time, as sbatch writes it", "TIME")
    comment: str = _option("--comment", "", "kept with the job", "TEXT")
    mail_user: str = _option("--mail-user", "", "whom SLURM writes to", "ADDRESS")
    mail_type: str = _option("--mail-type", "", "about what, such as END,FAIL", "EVENTS")

    def __post_init__(self):
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise BadInput(f"{flag_of(name)}: wanted {low} to {high}; got {getattr(self, name)}")
        if not self.command and not self.commands:
            raise BadInput("no command line: give it after --, such as -- train DATASET --out RUN")
        for name in options():
            if isinstance(getattr(self, name), str):
                one_line(flag_of(name), getattr(self, name))
        self._check_tasks()
        self._check_array()
        _check_log(self.log)
        self.dependency()

    def tasks_of_each_node(self) -> int:
        """Return the ranks of each node, where they divide evenly."""
        return self.tasks_per_node or self.gpus_per_node or 1

    def n_tasks(self) -> int:
        return self.tasks or self.nodes * self.tasks_of_each_node()

    def all_commands(self) -> list[tuple[str, ...]]:
        """Return the command lines that the job runs: one, or one for each task of an array."""
        return [words for _, words in self.commands] or [self.command]

    def dependency(self) -> str:
        """Return the value of sbatch's --dependency."""
        kinds = []
        for text in self.after:
            found = _AFTER.fullmatch(text)
            if not found:
                raise BadInput(f"--after {text!r}: wanted a job's number, or JOBID:KIND")
            kind = found[2] or "afterok"
            if kind not in _KINDS:
                raise unknown("kind of dependency", kind, _KINDS)
            kinds.append(f"{kind}:{found[1]}")
        return ",".join(kinds)

    def _check_tasks(self) -> None:
        if self.tasks and self.tasks_per_node:
            raise BadInput("--tasks and --tasks-per-node: give one of them")
        if self.tasks and self.tasks < self.nodes:
            raise BadInput(f"--tasks {self.tasks}: wanted at least one for each of the {self.nodes} nodes")
        if self.gpus_per_node and self.n_tasks() > self.nodes * self.gpus_per_node:
            raise BadInput(f"{self.n_tasks()} ranks on {self.nodes * self.gpus_per_node} GPUs; wanted one GPU for each rank")

    def _check_array(self) -> None:
        if self.array and not _ARRAY.fullmatch(self.array):
            raise BadInput(f"--array {self.array!r}: wanted numbers and ranges, such as 0-9 or 1,3,5-20:5 (and --array-limit N)")
        if self.commands and self.array != ",".join(str(task) for task, _ in self.commands):
            raise BadInput(f"--array {self.array!r}: wanted the numbers of the tasks that have command lines")
        if self.array_limit and not self.array:
            raise BadInput("--array-limit needs --array")


def _check_log(log: str) -> None:
    if "\\" in log:
        raise BadInput(f"--log {log!r}: SLURM reads a backslash in a file name as an instruction; name another file")


def options() -> dict[str, dataclasses.Field]:
    """Return the fields that are options of `family submit`, by name."""
    return {f.name: f for f in dataclasses.fields(Job) if "flag" in f.metadata}


def flag_of(name: str) -> str:
    return options()[name].metadata["flag"]


def make_job(**values) -> Job:
    """Make a job of options, for programs that submit many.

    Raises:
        BadInput: an option that there is not, with the list of those that there are.
    """
    names = [f.name for f in dataclasses.fields(Job)]
    for name in values:
        if name not in names:
            raise unknown("option", name, names)
    return Job(**values)
