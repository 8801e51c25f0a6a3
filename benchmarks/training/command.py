"""`family bench train`: our training step and our head phase against plain Keras `fit`, and against peers, in turns on this machine."""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from benchmarks.training.sides import KERAS_FIT, ONE_BATCH, OURS, TITLES, Peer, usable_peers, versions
from benchmarks.turns import Side, lengths_of_turns, standing, taking_turns
from family.errors import UserError

KEYS = ("images_per_s", "keras_fit_images_per_s", "ratio", "head_phase")
HEAD_LISTINGS = 2000  # made up for the head phase, whose time on few images is that of tracing


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variant", default="b0", help="see `family list variants` (default b0)")
    parser.add_argument("--resolution", type=int, default=128, metavar="PX", help="of the images (default 128)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="rows of one update (default 32)")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="timed of each side in a round (default 20)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="each in turns of a few steps (default 5)")
    parser.add_argument("--peers", action="store_true", help="time PyTorch too (`pip install '.[peers]'`)")
    parser.add_argument("--head-epochs", type=int, default=20, metavar="N", help="of the head phase (default 20; 0 leaves it out)")
    parser.add_argument("--head-limit", type=float, default=120, metavar="SECONDS",
                        help="Keras' head phase is estimated from so many seconds of it (default 120)")  # fmt: skip
    parser.add_argument("--weights", default="none", help="of the head phase's trunk: none (default, random ones), imagenet, noisy-student, "
                        "a file or a run")  # fmt: skip
    parser.add_argument("--dataset", type=Path, help="train on its rows (default: made-up listings, drawn for it)")
    parser.add_argument("--out", type=Path, metavar="RESULTS.jsonl", help="add the measurement to it")
    parser.add_argument("--machine", metavar="NAME", help="what to call this machine (default: its processor and cores)")
    parser.add_argument("--json", action="store_true", help="print the measurement as one JSON object")


def run(args: argparse.Namespace) -> int:
    from benchmarks.measurements import append_rows

    peers = _check(args)
    with contextlib.redirect_stdout(sys.stderr):
        row = measure(args, peers)
    if args.out:
        append_rows(args.out, [row], same_setting)
    if args.json:
        json.dump({**{key: row[key] for key in KEYS}, **row}, sys.stdout)
        print()
    else:
        _print(row)
    return 0


def _check(args: argparse.Namespace) -> list[Peer]:
    """Return the peers to time.

    Raises:
        UserError: an argument is out of its range, or peers can't be timed here.
    """
    from benchmarks.machine import describe_machine
    from family.models.sources import check_source
    from family.models.variants import resolution_of, variant

    resolution_of(variant(args.variant), args.resolution)
    check_source(variant(args.variant), args.weights)
    least = {"batch_size": 1, "steps": 1, "rounds": 1, "head_epochs": 0}
    wrong = [name for name in least if getattr(args, name) < least[name]]
    if wrong:
        raise UserError(f"--{wrong[0].replace('_', '-')} {getattr(args, wrong[0])}: wanted at least {least[wrong[0]]}")
    return usable_peers(args.variant, describe_machine()["gpu"]) if args.peers else []


def measure(args: argparse.Namespace, peers: list[Peer]) -> dict:
    """Time all sides in turns, then the memory of ours, then the head phase, and return the measurement."""
    from benchmarks.machine import describe_machine, now
    from benchmarks.measurements import SCHEMA
    from benchmarks.training.drawn import LISTINGS, dataset_or_made_up

    with dataset_or_made_up(args.dataset, HEAD_LISTINGS if args.head_epochs else LISTINGS) as dataset:
        folder, names = dataset.folder.resolve(), [OURS, KERAS_FIT, *(peer.name for peer in peers)]
        rounds, told = _time_rounds(args, names, folder)
        memory_mb = {"peak_memory_mb": told[OURS]["peak_memory_mb"], "peak_memory_without_input_mb": _memory_on_one_batch(args, folder)}
        head = _measure_head_phase(args, dataset) if args.head_epochs else None
        n_classes, about = len(dataset.ontology.leaves), dataset.about
    return {
        "schema": SCHEMA,
        "kind": "training",
        "at": now(),
        **summarize(rounds, [peer.name for peer in peers]),
        **memory_mb,
        "head_phase": head,
        "rounds": rounds,
        "variant": args.variant,
        "resolution_px": args.resolution,
        "batch_size": args.batch_size,
        "steps": args.steps,
        "n_classes": n_classes,
        "dataset": "made up" if args.dataset is None else about["name"],
        "machine": describe_machine(args.machine),
        "devices": told[OURS]["conditions"]["devices"],
        "conditions": {peer.name: {**told[peer.name]["conditions"], "versions": versions(peer)} for peer in peers},
        "versions": training_versions(),
    }


def training_versions() -> dict[str, str]:
    """Return the versions of what trains."""
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("tensorflow", "tf-keras", "efficientnet", "horovod")}


def summarize(rounds: list[dict], peers: list[str] = ()) -> dict:
    """Return the medians of the rounds, and the median and range of their ratios: ours over Keras', and ours over each peer's."""
    found = {"images_per_s": _median(rounds, OURS), rate_key(KERAS_FIT): _median(rounds, KERAS_FIT), **_ratio(rounds, KERAS_FIT)}
    return {**found, "peers": {name: {"images_per_s": _median(rounds, name), **_ratio(rounds, name)} for name in peers}}


def _median(rounds: list[dict], name: str) -> float:
    return float(np.median([row[rate_key(name)] for row in rounds]))


def _ratio(rounds: list[dict], name: str) -> dict:
    ratios = [row[rate_key(OURS)] / row[rate_key(name)] for row in rounds]
    return {"ratio": float(np.median(ratios)), "spread": {"ratio_min": min(ratios), "ratio_max": max(ratios)}}


def rate_key(name: str) -> str:
    """Return the key under which a round has the rate of a side."""
    return "images_per_s" if name == OURS else f"{name}_images_per_s"


def _time_rounds(args: argparse.Namespace, names: list[str], dataset: Path) -> tuple[list[dict], dict[str, dict]]:
    """Return images/s of each side in each round, and what each told in its last turn; the side that begins changes from turn to turn."""
    rounds, turn, told = [], 0, {}

    def stand(name: str, folder: Path) -> AbstractContextManager[Side]:
        return _standing(args, dataset, name, folder)

    with taking_turns(names, stand, Side.take_turn, args.steps, _say) as (take_turn, turn_steps):
        for number in range(args.rounds):
            times_s = dict.fromkeys(names, 0.0)
            for n_steps in lengths_of_turns(args.steps, turn_steps):
                first = turn % len(names)
                for name in names[first:] + names[:first]:
                    (told[name],) = take_turn(name, turn, n_steps)
                    times_s[name] += told[name]["s"]
                turn += 1
            rounds.append({rate_key(name): args.steps * args.batch_size / s for name, s in times_s.items()})
            shown = ", ".join(f"{TITLES[name]} {rounds[-1][rate_key(name)]:.2f}" for name in names)
            _say(f"round {number + 1} of {args.rounds}: {shown} images/s")
    return rounds, told


@contextlib.contextmanager
def _standing(args: argparse.Namespace, dataset: Path, name: str, folder: Path) -> Iterator[Side]:
    words = ["--side", name, "--folder", str(folder), "--dataset", str(dataset), "--variant", args.variant,
             "--resolution", str(args.resolution), "--batch-size", str(args.batch_size)]  # fmt: skip
    began = time.monotonic()
    with standing(name, [[sys.executable, "-m", "benchmarks.training.worker", *words]], folder) as side:
        _say(f"{TITLES[name]}: traced and warm after {time.monotonic() - began:.0f} s")
        yield side


def _memory_on_one_batch(args: argparse.Namespace, dataset: Path) -> float:
    """Return the peak memory of our training when it reads no input: one batch, as many steps."""
    with (
        tempfile.TemporaryDirectory(prefix="family-bench-") as folder,
        _standing(args, dataset, ONE_BATCH, Path(folder) / ONE_BATCH) as side,
    ):
        return side.take_turn(0, args.steps)[0]["peak_memory_mb"]


def _measure_head_phase(args: argparse.Namespace, dataset) -> dict:
    from benchmarks.training.drawn import timed_recipe
    from distributed.loading import load_tensorflow
    from distributed.world import World

    load_tensorflow()
    from benchmarks.training.head_phase import head_recipe, measure_head_phase
    from distributed.devices import use_devices

    use_devices(World())
    recipe = head_recipe(timed_recipe(args.resolution, args.batch_size), args.head_epochs)
    return measure_head_phase(dataset, args.variant, args.weights, recipe, args.head_limit, _say)


def same_setting(old: dict, new: dict) -> bool:
    """Say whether a new row measures the same on the same machine, so that it replaces the old one."""
    fields = ("kind", "variant", "resolution_px", "batch_size", "batch_per_rank", "scaling", "dataset")
    there = [old.get(field) for field in fields] == [new.get(field) for field in fields]
    there = there and _head_setting(old) == _head_setting(new)
    there = there and sorted(old.get("peers", ())) == sorted(new.get("peers", ()))
    machines = [[row.get("machine", {}).get(field) for field in ("name", "cpu", "cores", "gpu")] for row in (old, new)]
    return there and machines[0] == machines[1]


def _head_setting(row: dict) -> tuple:
    head = row.get("head_phase") or {}
    return tuple(head.get(field) for field in ("epochs", "n_images", "weights"))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print(row: dict) -> None:
    print(f"{row['variant']} at {row['resolution_px']} px, {row['batch_size']} images a step, {len(os.sched_getaffinity(0))} cores")
    print(f"training step: {row['images_per_s']:.1f} images/s")
    rates = {KERAS_FIT: {**row, "images_per_s": row[rate_key(KERAS_FIT)]}, **row["peers"]}
    for name, other in rates.items():
        spread = other["spread"]
        print(f"{TITLES[name]}: {other['images_per_s']:.1f} images/s; ratio {other['ratio']:.3f} "
              f"({spread['ratio_min']:.3f} to {spread['ratio_max']:.3f} over {len(row['rounds'])} rounds){_settings(row, name)}")  # fmt: skip
    print(f"peak memory: {row['peak_memory_mb']:.0f} MB, without an input pipeline {row['peak_memory_without_input_mb']:.0f} MB")
    if row["head_phase"]:
        _print_head_phase(row["head_phase"])


def _settings(row: dict, name: str) -> str:
    found = row["conditions"].get(name)
    return f"; {found['memory_format']}, swish {found['swish']}, the fastest of {len(found['tried_images_per_s'])}" if found else ""


def _print_head_phase(head: dict) -> None:
    estimated = " (estimated)" if head["keras_fit_estimated"] else ""
    print(f"head phase of {head['epochs']} epochs on {head['n_images']} images: {head['s']:.1f} s, Keras fit with a frozen trunk"
          f" {head['keras_fit_s']:.1f} s{estimated}; {head['ratio']:.1f} times as fast")  # fmt: skip
    print(f"with {' and '.join(head['views_s'])} views: {', '.join(f'{s:.1f}' for s in head['views_s'].values())} s")
    accuracy = head["accuracy"]
    if accuracy is None:
        print("accuracies are not known: the dataset has no test rows")
    elif head["keras_fit_estimated"]:
        print(f"accuracy on {accuracy['n_images']} test images: ours {accuracy['ours']:.1%}; fit was cut short after "
              f"{head['keras_fit_timed_steps']} of {head['keras_fit_steps']} steps, so its own is not known (--head-limit)")  # fmt: skip
    else:
        low, high = (100 * end for end in accuracy["interval"])
        print(f"accuracy on {accuracy['n_images']} test images: ours {accuracy['ours']:.1%}, fit's {accuracy['keras_fit']:.1%}; difference "
              f"{100 * accuracy['difference']:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})")  # fmt: skip
