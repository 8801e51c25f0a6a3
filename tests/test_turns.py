"""Sides that take turns: real processes, without TensorFlow."""

import sys
import time
from pathlib import Path

import pytest

from benchmarks.turns import Side, lengths_of_turns, standing, taking_turns
from family.errors import Failure

# Answers a turn with ten times its steps; dies of a turn of 0 steps.
WORKER = """
import sys
from pathlib import Path
from benchmarks.turns import turns
from family.machine import peak_memory_mb
from family.outputs import write_json
folder, index = Path(sys.argv[1]), int(sys.argv[2])
for turn, n_steps in turns(folder, index):
    if n_steps == 0:
        sys.exit("nothing to do")
    write_json(folder / f"done-{turn}-{index}", {"steps": 10 * n_steps, "mb": peak_memory_mb()})
"""


def stand(name: str, folder: Path, n: int = 1):
    return standing(name, [[sys.executable, "-c", WORKER, str(folder), str(index)] for index in range(n)], folder)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_until_stopped(side: Side) -> None:
    deadline = time.monotonic() + 10
    while {state(process.pid) for process in side.processes} != {"T"}:
        assert time.monotonic() < deadline, "a process runs while it is not its turn"
        time.sleep(0.01)


def test_a_side_runs_in_its_turn_alone_and_ends_with_the_block(tmp_path):
    with stand("a", tmp_path / "a", 2) as side:
        for turn, n_steps in enumerate((3, 1)):
            wait_until_stopped(side)
            found = side.take_turn(turn, n_steps)
            assert [process["steps"] for process in found] == [10 * n_steps] * 2
            assert all(5 < process["mb"] < 1000 for process in found)
        wait_until_stopped(side)
    assert all(process.returncode is not None for process in side.processes)


def test_a_process_that_dies_is_told_with_its_last_lines(tmp_path):
    with pytest.raises(Failure, match="side 'a' ended with 1:\n  nothing to do"), stand("a", tmp_path / "a") as side:
        side.take_turn(0, 0)


@pytest.mark.parametrize("sides", [2, 10**6])
def test_sides_that_memory_does_not_hold_start_anew_for_each_turn(sides):
    said, names = [], ["a", "b", *(f"more-{k}" for k in range(sides - 2))]
    with taking_turns(names, stand, Side.take_turn, 7, said.append) as (take_turn, turn_steps):
        assert turn_steps == (5 if sides == 2 else 7) and bool(said) == (sides > 2)
        for turn in range(2):
            assert [take_turn(name, turn, 2)[0]["steps"] for name in "ab"] == [20, 20]


def test_a_round_is_cut_into_turns_of_about_equal_length():
    assert [lengths_of_turns(n, 5) for n in (1, 5, 6, 20, 23)] == [[1], [5], [3, 3], [5, 5, 5, 5], [5, 5, 5, 4, 4]]
