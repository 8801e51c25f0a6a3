"""Kill trainings at random points, resume them, and hold that they end with the bits of one that was left alone.

    python tests/kills.py --kills 20 --ranks 1,2 --out benchmarks/results/kills.json

takes about 20 minutes on two cores. The tests run a few of the same.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from trainings import EXACT, events, family, kill, last_step, start, wait_until, weights_of

RECIPE = [*EXACT, "--set", "finetune_epochs=8", "--set", "checkpoint_interval_s=0.001"]
KILLS_OF_A_RUN = 5


def killed_run(dataset: Path, run: Path, ranks: int, n_kills: int, n_steps: int, seed: int, recipe: list = RECIPE) -> list[dict]:
    """Train a run through kills at random steps, each a random moment after the step; return a row for each kill."""
    draw = random.Random(seed)
    after = sorted(draw.sample(range(1, n_steps - 1), n_kills))
    rows = []
    for wanted in after:
        process = start("train", dataset, "--out", run, *recipe, "--ranks", ranks, "--resume")
        wait_until(lambda wanted=wanted: len(events(run, "resumed")) > len(rows) and last_step(run, "checkpoint") >= wanted, process, f"step {wanted}")
        time.sleep(draw.uniform(0, 0.4))
        kill(process)
        rows.append({"ranks": ranks, "run": run.name, "killed_after_step": last_step(run, "checkpoint")})
    family("train", dataset, "--out", run, *recipe, "--ranks", ranks, "--resume")
    resumed = [row["step"] for row in events(run, "resumed")][1:]
    return [{**row, "resumed_at_step": step} for row, step in zip(rows, resumed, strict=True)]


def same_bits(one: Path, other: Path) -> bool:
    ones, others = weights_of(one), weights_of(other)
    return ones.keys() == others.keys() and all(np.array_equal(ones[name], others[name]) for name in ones)


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20, help="at each number of ranks")
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(words)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        family("data", "synth", folder / "dataset", "--listings", 80, "--categories", 12)
        for ranks in map(int, args.ranks.split(",")):
            alone = folder / f"alone-{ranks}"
            family("train", folder / "dataset", "--out", alone, *RECIPE, "--ranks", ranks)
            for number in range(-(-args.kills // KILLS_OF_A_RUN)):
                run = folder / f"run-{ranks}-{number}"
                found = killed_run(folder / "dataset", run, ranks, KILLS_OF_A_RUN, last_step(alone, "checkpoint"), seed=number)
                rows += [{**row, "same_bits": same_bits(alone, run)} for row in found]
                print(json.dumps(rows[-KILLS_OF_A_RUN:]), flush=True)
                args.out.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


if __name__ == "__main__":
    main(sys.argv[1:])
