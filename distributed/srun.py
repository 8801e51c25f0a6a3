"""What `srun` tells a task about its step: the nodes, the tasks on each, and which one this is. Pure functions of the environment."""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

N_PORTS = 32  # tried one after the other, where another job on the node holds the first
_FIRST_PORT, _LAST_PORT = 20_000, 32_000  # below the ports that Linux gives away by itself (32768 and up)


@dataclass(frozen=True)
class Step:
    """A task's place in its SLURM step."""

    name: str  # of the job's step, as every task of it says it
    rank: int
    node: int  # index in `nodes`
    local_rank: int
    nodes: tuple[str, ...]
    tasks: tuple[int, ...]  # of each node

    @property
    def size(self) -> int:
        return sum(self.tasks)

    @property
    def local_size(self) -> int:
        return self.tasks[self.node]

    @property
    def cross_rank(self) -> int:
        """The place of this node among those that have a task of this local rank."""
        return sum(n > self.local_rank for n in self.tasks[: self.node])

    @property
    def cross_size(self) -> int:
        return sum(n > self.local_rank for n in self.tasks)

    @property
    def ports(self) -> list[int]:
        """Where the rendezvous may be: the same list for every task of the step, another one for another step."""
        first = _FIRST_PORT + zlib.crc32(self.name.encode()) % (_LAST_PORT - _FIRST_PORT)
        return list(range(first, first + N_PORTS))


def read_step(environment: Mapping[str, str]) -> Step | None:
    """Return this task's place in its step, or None outside of `srun`.

    A batch script is a step too, and has SLURM_PROCID: only a task of `srun` knows its step's number of tasks.

    Raises:
        ValueError: the variables contradict one another.
    """
    if "SLURM_STEP_NUM_TASKS" not in environment or "SLURM_PROCID" not in environment:
        return None
    nodes = tuple(expand_nodes(environment["SLURM_STEP_NODELIST"]))
    tasks = tuple(expand_counts(environment["SLURM_STEP_TASKS_PER_NODE"]))
    step = Step(
        name=f"{environment['SLURM_JOB_ID']}.{environment['SLURM_STEP_ID']}",
        rank=int(environment["SLURM_PROCID"]),
        node=int(environment["SLURM_NODEID"]),
        local_rank=int(environment["SLURM_LOCALID"]),
        nodes=nodes,
        tasks=tasks,
    )
    if len(nodes) != len(tasks) or step.size != int(environment["SLURM_STEP_NUM_TASKS"]):
        raise ValueError(
            f"SLURM tells of {len(nodes)} nodes, tasks {tasks} on them, and {environment['SLURM_STEP_NUM_TASKS']} tasks in all"
        )
    return step


def expand_counts(text: str) -> list[int]:
    """Expand SLURM's counts by node: `2(x3),1` is [2, 2, 2, 1]."""
    counts = []
    for item in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", item)
        if not found:
            raise ValueError(f"not a list of counts as SLURM writes it: {text!r}")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts


def expand_nodes(text: str) -> list[str]:
    """Expand a node list: `gpu[01-03,7]-a,login` is gpu01-a, gpu02-a, gpu03-a, gpu7-a, login."""
    names = []
    for item in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        parts = [_expand_part(part) for part in re.findall(r"\[[^\]]*\]|[^\[]+", item)]
        names += ["".join(chosen) for chosen in product(*parts)]
    if not names:
        raise ValueError(f"not a node list as SLURM writes it: {text!r}")
    return names


def _expand_part(part: str) -> list[str]:
    if not part.startswith("["):
        return [part]
    numbers = []
    for item in part[1:-1].split(","):
        first, dash, last = item.partition("-")
        width = len(first)
        numbers += [f"{n:0{width}d}" for n in range(int(first), int(last) + 1)] if dash else [first]
    return numbers
