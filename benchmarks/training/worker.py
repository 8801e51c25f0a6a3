"""One side of `family bench train` in a process of its own: ours, Keras' `fit`, or a peer. It takes its turns as `benchmarks.turns` tells."""

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.training.drawn import enough_rows, timed_recipe
from benchmarks.training.sides import KERAS_FIT, ONE_BATCH, OURS, PEERS
from benchmarks.turns import turns
from distributed.joining import join
from family.data.dataset import Rows, open_dataset
from family.machine import peak_memory_mb
from family.outputs import write_json
from family.recipe import Recipe


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", required=True, choices=(OURS, ONE_BATCH, KERAS_FIT, *PEERS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--resolution", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    args = parser.parse_args(words)
    join()  # which ends this process with the one that started it
    recipe = timed_recipe(args.resolution, args.batch_size)
    rows = enough_rows(open_dataset(args.dataset).rows("train"), args.batch_size)
    start = _start_peer if args.side in PEERS else _start_tensorflow
    time_steps, conditions = start(args.side, args.variant, rows, recipe)
    time_steps(1)  # traced, and the allocator has seen its sizes
    for turn, n_steps in turns(args.folder):
        s = time_steps(n_steps)
        write_json(args.folder / f"done-{turn}-0", {"s": s, "peak_memory_mb": peak_memory_mb(), "conditions": conditions})


def _start_peer(side: str, variant: str, rows: Rows, recipe: Recipe) -> tuple[Callable[[int], float], dict]:
    module, _, name = PEERS[side].side.partition(":")
    peer = getattr(importlib.import_module(module), name)(variant, rows, recipe)
    return peer.time_steps, peer.conditions


def _start_tensorflow(side: str, variant: str, rows: Rows, recipe: Recipe) -> tuple[Callable[[int], float], dict]:
    from distributed.loading import load_tensorflow
    from distributed.world import World

    load_tensorflow()
    from distributed.devices import use_devices

    world = World()
    conditions = {"devices": use_devices(world)}
    if side == KERAS_FIT:
        from benchmarks.training.keras_fit import KerasFit

        return KerasFit(variant, rows, recipe).time_steps, conditions
    from benchmarks.training.stepping import Stepper

    stepper = Stepper(variant, rows, recipe, world)
    return stepper.time_steps_on_one_batch if side == ONE_BATCH else stepper.time_steps, conditions


if __name__ == "__main__":
    main(sys.argv[1:])
