"""How many times as fast one file of a bundle is as another, of any two bundles: paired rounds, one thread.

python -m benchmarks.peers.versus BUNDLE SCHEME BUNDLE SCHEME [--rounds 200] [--threads 1]

Prints one JSON object: the time of the second over that of the first, by the clock and by processor time.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import describe_machine, now
from benchmarks.studies.parts import exit_code_of
from export.bundle import open_bundle
from export.runtime import Predictor, Settings
from export.speed import compare_speed
from family.errors import UserError

N_IMAGES = 32


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.versus", description=__doc__.splitlines()[0])
    for which in ("first", "second"):
        parser.add_argument(which, type=Path, metavar="BUNDLE")
        parser.add_argument(f"{which}_scheme", metavar="SCHEME")
    parser.add_argument("--rounds", type=int, default=200, metavar="N", help="at least 6 (default 200)")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    args = parser.parse_args()
    return exit_code_of(lambda: json.dump(measure(args), sys.stdout, indent=1))


def measure(args: argparse.Namespace) -> dict:
    """Return {"first", "second", "wall", "processor", "machine"}; each file gets the stored images of the first bundle, at its own resolution."""
    if args.rounds < 6:
        raise UserError(f"--rounds {args.rounds}: fewer than 6 have no 95 % interval")
    encoded = open_bundle(args.first).samples(args.first_scheme)[0][:N_IMAGES]
    sides, told = [], {}
    for which in ("first", "second"):
        bundle, scheme = open_bundle(getattr(args, which)), getattr(args, f"{which}_scheme")
        predictor = Predictor(bundle, Settings(scheme, "cpu", args.threads))
        sides.append((predictor, np.concatenate([predictor.decode(data) for data in encoded])))
        told[which] = {"name": bundle.card["name"], "scheme": scheme, "sha256": bundle.schemes[scheme]["sha256"]}

    def run(side: int):
        predictor, pixels = sides[side]
        return lambda turn: predictor.predict(pixels[int(turn[0])][None])

    numbers = np.arange(len(encoded))  # what goes round in the comparison: the place of an image
    clocks = {"wall": time.perf_counter, "processor": time.process_time}
    found = {name: compare_speed(run(1), run(0), numbers, clock, args.rounds) for name, clock in clocks.items()}
    about = {"schema": 1, "kind": "versus", "at": now(), "provider": "cpu", "threads": args.threads, "batch": 1}
    return {**about, **told, **found, "machine": describe_machine()}


if __name__ == "__main__":
    sys.exit(main())
