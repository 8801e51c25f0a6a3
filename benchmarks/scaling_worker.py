"""One process of `family bench scaling`: a Horovod rank, or a trainer on its own. It takes its turns by files in a folder.

The controller writes `turn-K` with a number of steps; the process runs one step untimed and writes `armed-K-INDEX`; the controller writes `go-K` with a
start time; the process runs its timed steps from then on and writes `done-K-INDEX`. After `stop-K` it writes `idle-K-INDEX`.
It waits for its next turn until the controller kills it.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from family.outputs import whole_file, write_json

_POLL_S = 0.01
TAIL_STEPS = 10  # whose input is being read while the timed ones run; trainers on their own take them, until the last has ended


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--resolution", type=int, required=True)
    parser.add_argument("--batch-per-rank", type=int, required=True)
    args = parser.parse_args(words)
    stepper = _start(args)
    for _ in stepper.steps(2):
        pass  # traced, and the allocator has seen its sizes
    sum_s = stepper.time_sum()
    _touch(args.folder / f"ready-{args.index}")
    for turn, n_steps in _turns(args.folder):
        _take_turn(args, stepper, turn, n_steps, sum_s)


def _start(args: argparse.Namespace):
    from distributed.joining import join
    from distributed.loading import load_tensorflow
    from family.models.variants import expected_step_ms, variant

    world = join(step_ms=expected_step_ms(variant(args.variant), args.resolution, args.batch_per_rank))
    load_tensorflow()
    from benchmarks.drawn import enough_rows
    from benchmarks.stepping import Stepper, timed_recipe
    from distributed.devices import use_devices
    from family.data.dataset import open_dataset

    use_devices(replace(world, local_rank=args.index))
    recipe = replace(timed_recipe(args.resolution, args.batch_per_rank * world.size), seed=args.index if world.size == 1 else 0)
    rows = enough_rows(open_dataset(args.dataset).rows("train"), recipe.batch_size)
    return Stepper(args.variant, rows, recipe, world)


def _turns(folder: Path) -> Iterator[tuple[int, int]]:
    turn = 0
    while True:
        yield turn, _read_when_there(folder / f"turn-{turn}")
        turn += 1


def _take_turn(args: argparse.Namespace, stepper, turn: int, n_steps: int, sum_s: float) -> None:
    steps = stepper.steps(1 + n_steps + TAIL_STEPS)
    next(steps)
    _touch(args.folder / f"armed-{turn}-{args.index}")
    start_s = _read_when_there(args.folder / f"go-{turn}")
    time.sleep(max(0.0, start_s - time.monotonic()))
    before = resource.getrusage(resource.RUSAGE_SELF)
    timed = [next(steps) for _ in range(n_steps)]
    after = resource.getrusage(resource.RUSAGE_SELF)
    write_json(args.folder / f"done-{turn}-{args.index}", {
        "s": timed[-1].end_s - start_s,
        "sum_s": sum_s,
        "waited_s": sum(step.given_s - step.asked_s for step in timed),
        "step_ends_s": [step.end_s - start_s for step in timed],
        "user_s": after.ru_utime - before.ru_utime,
        "system_s": after.ru_stime - before.ru_stime,
        "page_faults": after.ru_minflt - before.ru_minflt,
    })  # fmt: skip
    for _ in steps if stepper.is_alone else ():  # ranks would have to stop at one step; their input goes on all the same
        if (args.folder / f"stop-{turn}").exists():
            break
    steps.close()
    _touch(args.folder / f"idle-{turn}-{args.index}")


def _read_when_there(path: Path) -> float:
    while not path.exists():
        time.sleep(_POLL_S)
    return json.loads(path.read_text())


def _touch(path: Path) -> None:
    with whole_file(path) as partial:
        partial.touch()


if __name__ == "__main__":
    main(sys.argv[1:])
