"""`family bench scaling`: images/s of Horovod ranks against as many trainers on their own at the same time, in short turns."""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np

from benchmarks.turns import Side, lengths_of_turns, standing, taking_turns
from export.speed import interval_of_median
from family.errors import UserError
from family.outputs import read_json, whole_file

START_DELAY_S = 0.3  # from the last process being ready to the common start
# A turn of the other side may be long; a rank that dies is seen by watching, not by Gloo's timeout.
PATIENCE = {"HOROVOD_GLOO_TIMEOUT_SECONDS": "86400"}
RANKS, ALONE = "ranks", "alone"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ranks", default="1,2", metavar="N,N", help="how many, one row each (default 1,2)")
    parser.add_argument("--variant", default="b0", help="see `family list variants` (default b0)")
    parser.add_argument("--resolution", type=int, default=224, metavar="PX", help="of the images (default 224)")
    parser.add_argument("--batch-per-rank", type=int, default=32, metavar="N", help="rows of a rank in one update (default 32)")
    parser.add_argument(
        "--strong", action="store_true", help="strong scaling: the ranks share --batch-per-rank rows (default: each has as many)"
    )
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="timed of each side in a round (default 20)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="each in turns of a few steps (default 3)")
    parser.add_argument("--dataset", type=Path, help="train on its rows (default: made-up listings, drawn for it)")
    parser.add_argument("--out", type=Path, metavar="RESULTS.jsonl", help="add the measurements to it")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw where the time of a step goes")
    parser.add_argument("--machine", metavar="NAME", help="what to call this machine (default: its processor and cores)")
    parser.add_argument("--json", action="store_true", help="print the measurements as one JSON object")


def run(args: argparse.Namespace) -> int:
    from benchmarks.measurements import append_rows
    from benchmarks.training.command import same_setting
    from benchmarks.training.drawn import dataset_or_made_up

    counts = _read_counts(args)
    rows = []
    with dataset_or_made_up(args.dataset) as dataset:
        for n in counts:
            own = argparse.Namespace(**{**vars(args), "batch_per_rank": rows_of_a_rank(args, n)})
            rows.append(describe(own, n, measure(own, dataset.folder.resolve(), n), dataset.about["name"]))
            if args.out:
                append_rows(args.out, rows[-1:], lambda old, new: same_setting(old, new) and old.get("ranks") == new["ranks"])
    if args.picture:
        with whole_file(args.picture) as partial:
            partial.write_text(draw(rows), encoding="utf-8")
    if args.json:
        json.dump({"rows": rows}, sys.stdout)
        print()
    else:
        for row in rows:
            _print(row)
    return 0


def rows_of_a_rank(args: argparse.Namespace, n: int) -> int:
    """Return the rows of a rank in one update: the same at any number of ranks, or its share of them."""
    return max(1, args.batch_per_rank // n) if args.strong else args.batch_per_rank


def draw(rows: list[dict]) -> str:
    """Draw where the time of a step goes, a bar for each number of ranks."""
    from family.pages.charts import bars, standalone

    entries = []
    for row in rows:
        each = f"of {row['cores_per_rank']} core{'s' * (row['cores_per_rank'] > 1)}, {row['batch_per_rank']} rows each"
        entries.append({"label": f"{row['ranks']} rank{'s' * (row['ranks'] > 1)} {each}", "parts": row["step_ms"]})
    return standalone(
        bars(entries, title="Where the time of a step goes", x_label="milliseconds of a step; computing includes waiting for one another")
    )


def _read_counts(args: argparse.Namespace) -> list[int]:
    from family.models.variants import variant

    variant(args.variant)
    words = args.ranks.split(",")
    if not all(word.strip().isdigit() and int(word) > 0 for word in words):
        raise UserError(f"--ranks {args.ranks}: wanted numbers of ranks such as 1,2")
    wrong = [name for name in ("batch_per_rank", "steps", "rounds") if getattr(args, name) < 1]
    if wrong:
        raise UserError(f"--{wrong[0].replace('_', '-')} {getattr(args, wrong[0])}: wanted at least 1")
    return sorted({int(word) for word in words})


def measure(args: argparse.Namespace, dataset: Path, n: int) -> list[dict]:
    """Return the pairs of turns of `n` ranks and of `n` trainers on their own; the side that begins changes from pair to pair."""
    names, pairs = [RANKS, ALONE], []

    def stand(name: str, folder: Path) -> AbstractContextManager[Side]:
        return _standing(args, dataset, n, name, folder)

    with taking_turns(names, stand, take_turn, args.steps, _say) as (take, turn_steps):
        lengths = lengths_of_turns(args.steps, turn_steps) * args.rounds
        for turn, n_steps in enumerate(lengths):
            found = {}
            for name in names if turn % 2 == 0 else names[::-1]:
                found[name] = summarize_turn(take(name, turn, n_steps), args.batch_per_rank, name)
            pairs.append(found)
            rates = ", ".join(f"{n} {_what(name, n)} {found[name]['images_per_s']:.2f} images/s" for name in names)
            _say(f"turn {turn + 1} of {len(lengths)}: {rates}")
    return pairs


@contextmanager
def _standing(args: argparse.Namespace, dataset: Path, n: int, name: str, folder: Path) -> Iterator[Side]:
    words = ["--folder", str(folder), "--dataset", str(dataset), "--variant", args.variant, "--resolution", str(args.resolution),
             "--batch-per-rank", str(args.batch_per_rank)]  # fmt: skip
    commands = [[sys.executable, "-m", "benchmarks.scaling.worker", "--index", str(index), *words] for index in range(n)]
    began = time.monotonic()
    with standing(name, commands, folder, joined=name == RANKS, environment=PATIENCE) as side:
        _say(f"{n} {_what(name, n)}: traced and warm after {time.monotonic() - began:.0f} s")
        yield side


def take_turn(side: Side, turn: int, n_steps: int) -> list[dict]:
    """Run one turn of processes that start at one moment, and return what each measured."""
    with side.awake():
        side.say(f"turn-{turn}", str(n_steps))
        side.wait_for(f"armed-{turn}")
        side.say(f"go-{turn}", str(time.monotonic() + START_DELAY_S))
        found = [read_json(file) for file in side.wait_for(f"done-{turn}")]
        side.say(f"stop-{turn}")
        side.wait_for(f"idle-{turn}")
    return found


def summarize_turn(processes: list[dict], batch_per_rank: int, name: str) -> dict:
    """Return images/s of a turn: of ranks together, of trainers on their own summed; and where the time went."""
    images = [batch_per_rank * len(process["step_ends_s"]) for process in processes]
    times_s = [process["s"] for process in processes]
    each = [n / s for n, s in zip(images, times_s, strict=True)]
    total_s = sum(times_s)
    return {
        "images_per_s": sum(images) / max(times_s) if name == RANKS else sum(each),
        "waited_for_input": sum(process["waited_s"] for process in processes) / total_s,
        "step_s": max(times_s) / len(processes[0]["step_ends_s"]),
        "sum_s": max(process["sum_s"] for process in processes),
        "user_s": sum(process["user_s"] for process in processes),
        "system_s": sum(process["system_s"] for process in processes),
        "page_faults": sum(process["page_faults"] for process in processes),
        "each_images_per_s": each,
    }


def summarize(n: int, pairs: list[dict]) -> dict:
    """Return the row of `n` ranks: medians over the pairs of turns, and how sure the median of their ratios is."""
    ratios = [pair[RANKS]["images_per_s"] / pair[ALONE]["images_per_s"] for pair in pairs]
    return {
        "ranks": n,
        "images_per_s": float(np.median([pair[RANKS]["images_per_s"] for pair in pairs])),
        "efficiency": float(np.median(ratios)),
        "interval": interval_of_median(ratios),
        "alone_images_per_s": float(np.median([pair[ALONE]["images_per_s"] for pair in pairs])),
        "step_ms": _parts_of_a_step([pair[RANKS] for pair in pairs]),
        "waited_for_input": {name: float(np.median([pair[name]["waited_for_input"] for pair in pairs])) for name in pairs[0]},
        "system_share": {name: float(np.median([_system_share(pair[name]) for pair in pairs])) for name in pairs[0]},
        "turns": pairs,
    }


def _parts_of_a_step(turns: list[dict]) -> dict[str, float]:
    """Return milliseconds of a step: input and sums as they were measured, the rest is computing and waiting for one another."""
    step_ms, input_ms, sum_ms = (
        1000 * float(np.median(values))
        for values in ([t["step_s"] for t in turns], [t["waited_for_input"] * t["step_s"] for t in turns], [t["sum_s"] for t in turns])
    )
    return {"computing": max(0.0, step_ms - input_ms - sum_ms), "waiting for input": input_ms, "all-reduce": sum_ms}


def _system_share(turn: dict) -> float:
    return turn["system_s"] / max(1e-9, turn["system_s"] + turn["user_s"])


def describe(args: argparse.Namespace, n: int, pairs: list[dict], dataset: str) -> dict:
    """Return the measurement of `n` ranks."""
    from benchmarks.machine import describe_machine, now
    from benchmarks.measurements import SCHEMA
    from benchmarks.training.command import training_versions

    return {
        **summarize(n, pairs),
        "schema": SCHEMA,
        "kind": "scaling",
        "at": now(),
        "variant": args.variant,
        "resolution_px": args.resolution,
        "batch_per_rank": args.batch_per_rank,
        "scaling": "strong" if args.strong else "weak",
        "steps": args.steps,
        "cores_per_rank": max(1, len(os.sched_getaffinity(0)) // n),
        "dataset": "made up" if args.dataset is None else dataset,
        "machine": describe_machine(args.machine),
        "versions": training_versions(),
    }


def _what(name: str, n: int) -> str:
    return f"rank{'s' * (n > 1)}" if name == RANKS else f"trainer{'s' * (n > 1)} on {'their' if n > 1 else 'its'} own"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print(row: dict) -> None:
    n = row["ranks"]
    what = f"{n} rank{'s' * (n > 1)} of {row['cores_per_rank']} core{'s' * (row['cores_per_rank'] > 1)}: {row['images_per_s']:.2f} images/s"
    parts = ", ".join(f"{name} {ms:.0f}" for name, ms in row["step_ms"].items())
    low_high = "too few turns for an interval" if row["interval"] is None else "95 % interval {:.3f} to {:.3f}".format(*row["interval"])
    print(f"{what}, on their own {row['alone_images_per_s']:.2f}; efficiency {row['efficiency']:.3f} "
          f"({low_high}, {len(row['turns'])} pairs of turns); ms of a step: {parts}")  # fmt: skip
