"""`family bench train`: our training step and our head phase against plain Keras `fit`, in turns on this machine."""

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from family.errors import UserError

KEYS = ("images_per_s", "keras_fit_images_per_s", "ratio", "head_phase")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variant", default="b0", help="see `family list variants` (default b0)")
    parser.add_argument("--resolution", type=int, default=128, metavar="PX", help="of the images (default 128)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="rows of one update (default 32)")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="timed in each turn (default 10)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each side (default 5)")
    parser.add_argument("--head-epochs", type=int, default=10, metavar="N", help="of the head phase (default 10)")
    parser.add_argument("--head-limit", type=float, default=120, metavar="SECONDS",
                        help="Keras' head phase is estimated from so many seconds of it (default 120)")  # fmt: skip
    parser.add_argument("--dataset", type=Path, help="train on its rows (default: made-up listings, drawn for it)")
    parser.add_argument("--out", type=Path, metavar="RESULTS.jsonl", help="add the measurement to it")
    parser.add_argument("--machine", metavar="NAME", help="what to call this machine (default: its processor and cores)")
    parser.add_argument("--json", action="store_true", help="print the measurement as one JSON object")


def run(args: argparse.Namespace) -> int:
    _refuse(args)
    from benchmarks.measurements import append_rows

    with contextlib.redirect_stdout(sys.stderr):
        row = measure(args)
    if args.out:
        append_rows(args.out, [row], same_setting)
    if args.json:
        json.dump({**{key: row[key] for key in KEYS}, **row}, sys.stdout)
        print()
    else:
        _print(row)
    return 0


def _refuse(args: argparse.Namespace) -> None:
    from family.models.variants import variant

    variant(args.variant)
    wrong = [name for name in ("batch_size", "steps", "rounds", "head_epochs") if getattr(args, name) < 1]
    if wrong:
        raise UserError(f"--{wrong[0].replace('_', '-')} {getattr(args, wrong[0])}: wanted at least 1")


def measure(args: argparse.Namespace) -> dict:
    """Time both sides in turns and return the measurement."""
    from benchmarks.drawn import dataset_or_made_up, enough_rows
    from benchmarks.machine import describe_machine, now
    from benchmarks.measurements import SCHEMA
    from distributed.loading import load_tensorflow
    from distributed.world import World

    load_tensorflow()
    from benchmarks.stepping import timed_recipe
    from distributed.devices import use_devices

    world = World()
    devices = use_devices(world)
    recipe = timed_recipe(args.resolution, args.batch_size)
    with dataset_or_made_up(args.dataset) as dataset:
        rows = enough_rows(dataset.rows("train"), args.batch_size)
        rounds = _time_steps(args, rows, recipe, world)
        head = _time_head_phase(args, rows, recipe, world)
    return {
        "schema": SCHEMA,
        "kind": "training",
        "at": now(),
        **summarize(rounds),
        "head_phase": head,
        "rounds": rounds,
        "variant": args.variant,
        "resolution_px": args.resolution,
        "batch_size": args.batch_size,
        "steps": args.steps,
        "n_classes": len(rows.ontology.leaves),
        "dataset": "made up" if args.dataset is None else dataset.about["name"],
        "machine": describe_machine(args.machine),
        "devices": devices,
        "versions": training_versions(),
    }


def training_versions() -> dict[str, str]:
    """Return the versions of what trains."""
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("tensorflow", "tf-keras", "efficientnet", "horovod")}


def summarize(rounds: list[dict]) -> dict:
    """Return the medians of the rounds, of their ratios, and the ratios' range."""
    ratios = [row["images_per_s"] / row["keras_fit_images_per_s"] for row in rounds]
    medians = {key: float(np.median([row[key] for row in rounds])) for key in ("images_per_s", "keras_fit_images_per_s")}
    return {**medians, "ratio": float(np.median(ratios)), "spread": {"ratio_min": min(ratios), "ratio_max": max(ratios)}}


def _time_steps(args: argparse.Namespace, rows, recipe, world) -> list[dict]:
    """Take turns, the first side changing from round to round; both are traced before the first."""
    from benchmarks.keras_fit import KerasFit
    from benchmarks.stepping import Stepper

    ours, theirs = Stepper(args.variant, rows, recipe, world), KerasFit(args.variant, rows, recipe)
    sides = {
        "images_per_s": lambda n: _rate(list(ours.steps(n + 1)), recipe.batch_size),
        "keras_fit_images_per_s": lambda n: theirs.images_per_s(n + 1),
    }
    for name, side in sides.items():
        began = time.monotonic()
        side(1)
        _say(f"{'our step' if name == 'images_per_s' else 'Keras fit'}: traced and warm after {time.monotonic() - began:.0f} s")
    rounds = []
    for number in range(args.rounds):
        order = list(sides) if number % 2 == 0 else list(sides)[::-1]
        found = {name: sides[name](args.steps) for name in order}
        rounds.append({name: found[name] for name in sides} | {"first": order[0]})
        _say(f"round {number + 1} of {args.rounds}: ours {found['images_per_s']:.2f}, fit {found['keras_fit_images_per_s']:.2f} images/s")
    return rounds


def _rate(steps: list, batch_size: int) -> float:
    """Return images/s from the end of the first step to the end of the last."""
    return (len(steps) - 1) * batch_size / (steps[-1].end_s - steps[0].end_s)


def _time_head_phase(args: argparse.Namespace, rows, recipe, world) -> dict:
    """Time our head phase (features once, then epochs on them) and a frozen trunk under `fit`, each from a fresh model."""
    from benchmarks.keras_fit import time_frozen_fit

    _say(f"head phase of {args.head_epochs} epochs on {len(rows)} images: ours")
    ours = time_our_head_phase(args, rows, recipe, world)
    _say(f"head phase: ours {ours:.1f} s; now `fit` with a frozen trunk")
    theirs = time_frozen_fit(args.variant, rows, recipe, args.head_epochs, args.head_limit)
    _say(f"head phase: fit {theirs['keras_fit_s']:.1f} s" + (" (estimated)" if theirs["keras_fit_estimated"] else ""))
    return {"s": ours, "keras_fit_s": theirs["keras_fit_s"], "ratio": theirs["keras_fit_s"] / ours, "epochs": args.head_epochs,
            "n_images": len(rows), **theirs}  # fmt: skip


def time_our_head_phase(args: argparse.Namespace, rows, recipe, world) -> float:
    """Return the seconds of the trainer's head phase, tracing and extraction included, without an early stop."""
    import tempfile
    from dataclasses import replace

    from family.data.images import Preprocessing
    from family.models.builders import build_variant
    from family.training.trainer import Job, train_phases

    head_only = replace(recipe, head_epochs=args.head_epochs, finetune_epochs=0, plateau_patience=10**6, checkpoint_interval_s=0.0)
    model = build_variant(args.variant, len(rows.ontology.leaves), recipe.resolution_px, recipe.dropout, recipe.drop_connect)
    with tempfile.TemporaryDirectory(prefix="family-bench-") as folder:
        job = Job(run=Path(folder), model=model, train=rows, val=None, how=Preprocessing(recipe.resolution_px, recipe.aspect),
                  recipe=head_only, world=world)  # fmt: skip
        began = time.monotonic()
        train_phases(job, has_trunk=True, resume=False)
        return time.monotonic() - began


def same_setting(old: dict, new: dict) -> bool:
    """Say whether a new row measures the same on the same machine, so that it replaces the old one."""
    fields = ("kind", "variant", "resolution_px", "batch_size", "batch_per_rank", "scaling", "dataset")
    there = [old.get(field) for field in fields] == [new.get(field) for field in fields]
    machines = [[row.get("machine", {}).get(field) for field in ("name", "cpu", "cores", "gpu")] for row in (old, new)]
    return there and machines[0] == machines[1]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print(row: dict) -> None:
    spread, head = row["spread"], row["head_phase"]
    print(f"{row['variant']} at {row['resolution_px']} px, {row['batch_size']} images a step, {len(os.sched_getaffinity(0))} cores")
    print(f"training step: {row['images_per_s']:.1f} images/s, Keras fit {row['keras_fit_images_per_s']:.1f}; ratio {row['ratio']:.3f}"
          f" ({spread['ratio_min']:.3f} to {spread['ratio_max']:.3f} over {len(row['rounds'])} rounds)")  # fmt: skip
    estimated = " (estimated)" if head["keras_fit_estimated"] else ""
    print(f"head phase of {head['epochs']} epochs on {head['n_images']} images: {head['s']:.1f} s, Keras fit with a frozen trunk"
          f" {head['keras_fit_s']:.1f} s{estimated}; {head['ratio']:.1f} times as fast")  # fmt: skip
