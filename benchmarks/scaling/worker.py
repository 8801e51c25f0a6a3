"""One process of `family bench scaling`: a Horovod rank, or a trainer on its own. It takes its turns by files in a folder.

Beside the files of `benchmarks.turns`: after one step untimed it writes `armed-K-INDEX`; the controller writes `go-K` with a start time; the
process runs its timed steps from then on and writes `done-K-INDEX`. After `stop-K` it writes `idle-K-INDEX`.
"""

import argparse
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.training.drawn import TAIL_STEPS, enough_rows, timed_recipe
from benchmarks.turns import read_when_there, touch, turns
from family.outputs import write_json


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
    for turn, n_steps in turns(args.folder, args.index):
        _take_turn(args, stepper, turn, n_steps, sum_s)


def _start(args: argparse.Namespace):
    from distributed.joining import join
    from distributed.loading import load_tensorflow
    from family.models.variants import expected_step_ms, variant

    world = join(step_ms=expected_step_ms(variant(args.variant), args.resolution, args.batch_per_rank))
    load_tensorflow()
    from benchmarks.training.stepping import Stepper
    from distributed.devices import use_devices
    from family.data.dataset import open_dataset

    use_devices(replace(world, local_rank=args.index))
    recipe = replace(timed_recipe(args.resolution, args.batch_per_rank * world.size), seed=args.index if world.size == 1 else 0)
    rows = enough_rows(open_dataset(args.dataset).rows("train"), recipe.batch_size)
    return Stepper(args.variant, rows, recipe, world)


def _take_turn(args: argparse.Namespace, stepper, turn: int, n_steps: int, sum_s: float) -> None:
    steps = stepper.steps(1 + n_steps + TAIL_STEPS)
    next(steps)
    touch(args.folder / f"armed-{turn}-{args.index}")
    start_s = read_when_there(args.folder / f"go-{turn}")
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
    # Trainers on their own take the tail until the last has ended; ranks would have to stop at one step, and their input goes on all the same.
    for _ in steps if stepper.is_alone else ():
        if (args.folder / f"stop-{turn}").exists():
            break
    steps.close()
    touch(args.folder / f"idle-{turn}-{args.index}")


if __name__ == "__main__":
    main(sys.argv[1:])
