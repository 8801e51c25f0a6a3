"""Sides of a comparison take turns on one machine: processes of their own, stopped (SIGSTOP) while it is not their turn.

Both halves talk by files in the side's folder. A process writes `ready-INDEX` once it is traced and warm; the controller writes `turn-K` with a
number of steps, the process runs them and writes `done-K-INDEX`. It waits for its next turn until the controller kills it.
"""

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from distributed.launch import started
from family.errors import Failure
from family.outputs import read_json, whole_file

POLL_S = 0.05
OWN_POLL_S = 0.01  # of a process that waits for its turn
TAIL_LINES = 12
TURN_STEPS = 5  # a round goes to and fro in turns this short: a shared machine's speed wanders by 10 % within a minute
Found = TypeVar("Found")


@dataclass(frozen=True)
class Side:
    """The processes of one side; they hold still (stopped, without using a core) while it is not their turn."""

    name: str
    folder: Path
    processes: list[subprocess.Popen]

    def wait_for(self, stem: str) -> list[Path]:
        """Wait until each process has written its file `stem-INDEX`.

        Raises:
            Failure: one of them ended; shows its last lines.
        """
        files = [self.folder / f"{stem}-{index}" for index in range(len(self.processes))]
        while not all(file.exists() for file in files):
            for index, process in enumerate(self.processes):
                if process.poll() is not None:
                    raise Failure(f"process {index} of the side {self.name!r} ended with {process.returncode}:\n{self._last_lines(index)}")
            time.sleep(POLL_S)
        return files

    def _last_lines(self, index: int) -> str:
        lines = (self.folder / "logs" / f"rank-{index}.log").read_text(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])

    def say(self, name: str, text: str = "") -> None:
        with whole_file(self.folder / name) as partial:
            partial.write_text(text)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let the processes run, and stop them again; they must have no children then, which a signal would not reach."""
        self.signal(signal.SIGCONT)
        yield
        self.signal(signal.SIGSTOP)

    def signal(self, number: signal.Signals) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def take_turn(self, turn: int, n_steps: int) -> list[dict]:
        """Run one turn and return what each process measured."""
        with self.awake():
            self.say(f"turn-{turn}", str(n_steps))
            return [read_json(file) for file in self.wait_for(f"done-{turn}")]


@contextmanager
def standing(name: str, commands: list[list[str]], folder: Path, joined: bool = False, environment: dict | None = None) -> Iterator[Side]:
    """Start a side's processes, one for each command, let them trace and warm up, and give them, stopped.

    Args:
        joined: as the ranks of one world.
    """
    folder.mkdir()
    with started(commands, folder / "logs", joined=joined, environment=environment) as processes:
        side = Side(name, folder, processes)
        side.wait_for("ready")
        side.signal(signal.SIGSTOP)
        yield side


@contextmanager
def taking_turns(
    names: list[str],
    stand: Callable[[str, Path], AbstractContextManager[Side]],
    take_turn: Callable[[Side, int, int], Found],
    n_steps: int,
    say: Callable[[str], None],
) -> Iterator[tuple[Callable[[str, int, int], Found], int]]:
    """Give a function that runs a turn of a side, by its name, and the steps that a turn should have at most.

    One set of processes serves all turns of its side, where memory holds the sides at once; otherwise each turn starts anew, and is long.

    Args:
        stand: (name, a folder to make) -> a side, as `standing` gives it.
        take_turn: (side, number of the turn, steps) -> what it measured.
        n_steps: of a turn whose processes start anew.
    """
    with tempfile.TemporaryDirectory(prefix="family-bench-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        sides = {names[0]: stack.enter_context(stand(names[0], folder / names[0]))}
        if _has_room_beside(sides[names[0]], len(names) - 1):
            sides |= {name: stack.enter_context(stand(name, folder / name)) for name in names[1:]}
            yield lambda name, turn, n: take_turn(sides[name], turn, n), TURN_STEPS
            return
        stack.close()
        say("memory does not hold the sides at once: each turn starts its processes anew")

        def start_and_take_turn(name: str, turn: int, n: int) -> Found:
            with stand(name, folder / f"{name}-{turn}") as side:
                return take_turn(side, 0, n)

        yield start_and_take_turn, n_steps


def lengths_of_turns(n_steps: int, turn_steps: int) -> list[int]:
    """Cut a round's steps into turns of about equal length, of at most `turn_steps`."""
    n_turns = -(-n_steps // turn_steps)
    return [n_steps // n_turns + (turn < n_steps % n_turns) for turn in range(n_turns)]


def _has_room_beside(side: Side, n_others: int) -> bool:
    """Say whether memory is available for others that hold as much as a side does; it grows a little after its first steps."""
    held_kb = sum(_read_kb(Path(f"/proc/{process.pid}/status"), "VmHWM") for process in side.processes)
    return _read_kb(Path("/proc/meminfo"), "MemAvailable") > 1.15 * held_kb * n_others


def _read_kb(path: Path, key: str) -> int:
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{key}:"))


def turns(folder: Path, index: int = 0) -> Iterator[tuple[int, int]]:
    """Say that this process is ready, and yield (number, steps) of its turns, without end."""
    touch(folder / f"ready-{index}")
    turn = 0
    while True:
        yield turn, read_when_there(folder / f"turn-{turn}")
        turn += 1


def read_when_there(path: Path) -> float:
    while not path.exists():
        time.sleep(OWN_POLL_S)
    return json.loads(path.read_text())


def touch(path: Path) -> None:
    with whole_file(path) as partial:
        partial.touch()
