"""`family bench --peers`: a bundle's model through other runtimes, in the same rounds on the same images as our files."""

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.training.sides import check_installed, is_installed, versions
from benchmarks.turns import Side, standing
from export.bundle import Bundle, open_bundle, sha256_of
from export.speed import interval_of_median
from family.card import read_card
from family.errors import UserError
from family.outputs import read_json
from family.progress import progress

OURS = ("fp32", "int8")  # our schemes that are in the rounds
PLAIN, KERAS, SAVED_MODEL, PYTORCH = "plain-fp32", "keras", "saved-model", "pytorch"
PYTORCH_VARIANTS = tuple(f"b{size}" for size in range(8))  # that efficientnet_pytorch has
LEAST_ROUNDS = 6  # fewer have no 95 % interval of a median
_TURN_S, _MOST_AT_ONCE = 0.1, 8  # of images in a turn, as `export.speed`; here in processor time


@dataclass(frozen=True)
class Peer:
    """Another way to run a bundle's model; `benchmarks.peers.worker` opens it."""

    name: str
    title: str
    precision: str
    packages: tuple[str, ...] = ()  # that it needs beside ONNX Runtime, most of them of the extra `peers`
    preset: str | None = None  # of NNCF; wants training rows


_ROWS = (
    Peer(PLAIN, "plain export, ONNX Runtime", "fp32"),
    Peer(SAVED_MODEL, "SavedModel, TensorFlow", "fp32", ("tensorflow",)),
    Peer(KERAS, "Keras, a traced call", "fp32", ("tensorflow",)),
    Peer(PYTORCH, "PyTorch, the same architecture with random weights", "fp32", ("torch", "efficientnet_pytorch")),
    Peer("openvino-fp32", "OpenVINO", "fp32", ("openvino",)),
    Peer("openvino-bf16", "OpenVINO", "bf16", ("openvino",)),
    Peer("openvino-int8", "OpenVINO, NNCF's default preset", "int8", ("openvino", "nncf"), "performance"),
    Peer("openvino-int8-mixed", "OpenVINO, NNCF's mixed preset", "int8", ("openvino", "nncf"), "mixed"),
)
_OURS_ROWS = tuple(Peer(f"ours-{scheme}", "ours", scheme) for scheme in OURS)
SIDES = {row.name: row for row in (*_OURS_ROWS, *_ROWS)}


def check(args: argparse.Namespace, dataset) -> None:
    """Refuse what can't be compared, before anything is timed.

    Raises:
        UserError: says what is missing or doesn't fit.
    """
    if args.plain and not (args.peers and len(args.bundles) == 1):
        raise UserError(f"--plain {args.plain} is a peer of one bundle: give one, and --peers")
    if args.plain and not args.plain.is_file():
        raise UserError(f"--plain {args.plain} is missing; `python -m benchmarks.peers.plain RUN {args.plain}` writes it")
    if args.run_folder and not (args.peers and len(args.bundles) == 1):
        raise UserError(f"--run {args.run_folder} is a peer of one bundle: give one, and --peers")
    if not args.peers:
        return
    if args.rounds < LEAST_ROUNDS:
        raise UserError(f"--rounds {args.rounds}: fewer than {LEAST_ROUNDS} have no 95 % interval")
    if args.provider not in (None, "auto", "cpu"):
        raise UserError(f"--peers compares on the CPU; leave out --provider {args.provider}")
    if args.scheme:
        raise UserError(f"--peers compares with fp32 and int8; leave out --scheme {args.scheme}")
    for folder in args.bundles:
        bundle = open_bundle(folder)
        bundle.model_path("fp32")  # or an error: peers are made of it
        if all(name.startswith("ours-") for name in _sides_here(args, bundle, dataset)):
            check_installed(package for row in _ROWS for package in row.packages)  # which tells what is missing
        if args.run_folder and read_card(args.run_folder)["name"] != bundle.card["name"]:
            raise UserError(f"--run {args.run_folder} is {read_card(args.run_folder)['name']}, and the bundle is of {bundle.card['name']}")
        if dataset:
            dataset.scope_of(bundle.card)


def measure(args: argparse.Namespace, dataset) -> list[dict]:
    """Compare each bundle with its peers, and add the rows to the results as they come."""
    from benchmarks.measurements import append_rows

    if dataset is None:
        _say("without --data nothing can be calibrated: NNCF's int8 is left out")
    rows = []
    missing = sorted({package for row in _ROWS for package in row.packages if not is_installed(Peer("", "", "", (package,)))})
    if missing:
        _say(f"not installed, so left out: what needs {', '.join(missing)}; pip install '.[peers]' adds what peers need")
    for folder in args.bundles:
        found = _measure_bundle(args, open_bundle(folder), dataset)
        append_rows(args.out, found, same_measurement)
        rows += found
    return rows


def done(args: argparse.Namespace, rows: list[dict], is_here: Callable[[dict], bool], dataset) -> bool:
    """Say whether each bundle was compared so, on this machine and with the versions that are installed.

    Args:
        is_here: of a row, whether its machine is this one.
    """
    known = {_setting(row) for row in rows if row["kind"] == "peer" and is_here(row) and row["rounds"] >= args.rounds}
    for bundle in map(open_bundle, args.bundles):
        for name in _sides_here(args, bundle, dataset):
            if _setting(_about(args, bundle, SIDES[name], dataset)) not in known:
                return False
    return True


def wanted_sides(bundle: Bundle, is_calibrated: bool, has_plain: bool, has_run: bool = False) -> list[str]:
    """Return the names of the sides that a bundle has: our files first."""
    there = {PLAIN: has_plain, KERAS: has_run, SAVED_MODEL: "saved_model" in bundle.card, PYTORCH: bundle.card.get("variant") in PYTORCH_VARIANTS}
    ours = [f"ours-{scheme}" for scheme in OURS if scheme in bundle.schemes]
    return ours + [row.name for row in _ROWS if (is_calibrated or not row.preset) and there.get(row.name, True)]


def _sides_here(args: argparse.Namespace, bundle: Bundle, dataset) -> list[str]:
    """Return the sides that a bundle has and whose packages are installed."""
    wanted = wanted_sides(bundle, dataset is not None, args.plain is not None, args.run_folder is not None)
    return [name for name in wanted if is_installed(SIDES[name])]


def _measure_bundle(args: argparse.Namespace, bundle: Bundle, dataset) -> list[dict]:
    from benchmarks.machine import describe_machine, now

    names = _sides_here(args, bundle, dataset)
    with tempfile.TemporaryDirectory(prefix="family-bench-") as temporary:
        folder = Path(temporary)
        words = _words(args, bundle, folder)
        prepared = {}
        for name in names:
            _say(f"{bundle.card['name']}: preparing {name}")
            with _stand(name, folder / f"{name}-prepared", [*words, "--prepare"]):
                prepared[name] = read_json(folder / f"{name}.json")
        load = [os.getloadavg()[0]]
        running = [name for name in names if "refused" not in prepared[name]]
        n_images, rounds = _time(running, lambda name: _stand(name, folder / name, words), args.rounds)
        load.append(os.getloadavg()[0])
    machine = describe_machine(args.machine)
    shared = {"at": now(), "machine": machine, "batch": 1, "rounds": args.rounds, "images_a_round": n_images, "load_before_and_after": load}
    return [_row(args, bundle, SIDES[name], dataset, shared, prepared[name], rounds) for name in names]


def _words(args: argparse.Namespace, bundle: Bundle, folder: Path) -> list[str]:
    from benchmarks.timing.members import settings_of

    words = ["--bundle", str(bundle.folder.resolve()), "--made", str(folder), "--threads", str(settings_of(bundle.folder, "fp32", args).n_threads)]
    words += ["--plain", str(args.plain.resolve())] if args.plain else []
    words += ["--run", str(args.run_folder.resolve())] if args.run_folder else []
    return words + (["--dataset", str(args.data.resolve()), "--split", args.split] if args.data else [])


def _stand(name: str, folder: Path, words: list[str]) -> AbstractContextManager[Side]:
    command = [sys.executable, "-m", "benchmarks.peers.worker", "--side", name, "--folder", str(folder), *words]
    return standing(name, [command], folder, environment={"NNCF_CI": "1"})  # or NNCF tells its makers that it runs


def _time(names: list[str], stand: Callable[[str], AbstractContextManager[Side]], n_rounds: int) -> tuple[int, list[dict]]:
    """Return the images of a turn, and of each round what each side's turn took."""
    with ExitStack() as stack:
        sides = {name: stack.enter_context(stand(name)) for name in names}
        warm_s = [sides[name].take_turn(0, 2)[0]["processor_s"] / 2 for name in names]
        n_images = int(np.clip(_TURN_S / max(np.median(warm_s), 1e-9), 1, _MOST_AT_ONCE))
        return n_images, time_rounds(lambda name, turn: sides[name].take_turn(1 + turn, n_images)[0], names, n_rounds)


def time_rounds(take_turn: Callable[[str, int], dict], names: list[str], n_rounds: int) -> list[dict[str, dict]]:
    """Return what each side's turn gave in each round; the order within a round is drawn.

    Args:
        take_turn: (side, number of the round) -> {"s", "processor_s"}.
    """
    rounds = []
    for turn in progress(range(n_rounds), "comparing", unit="rounds"):
        order = random.Random(turn).sample(names, len(names))
        spent = {name: take_turn(name, turn) for name in order}
        rounds.append({name: spent[name] for name in names})
    return rounds


def compare(rounds: list[dict[str, dict]], name: str, other: str) -> dict:
    """Return a side's time over another's: {"ratio", "interval"}, the median over rounds with its 95 % interval, and the same of `processor_time`.

    Processor time, of all threads, leaves out what a busy machine lets a side wait.
    """

    def of(key: str) -> dict:
        ratios = [found[name][key] / found[other][key] for found in rounds]
        return {"ratio": float(np.median(ratios)), "interval": interval_of_median(ratios)}

    return {**of("s"), "processor_time": of("processor_s")}


def _about(args: argparse.Namespace, bundle: Bundle, side: Peer, dataset) -> dict:
    """Return what a row is of."""
    from benchmarks.measurements import identify_bundle
    from benchmarks.timing.members import settings_of

    scheme = side.precision if side in _OURS_ROWS else "fp32"  # of our file, which a peer is made of
    return {
        **identify_bundle(bundle, scheme, "peer"),
        "bundle": os.path.relpath(bundle.folder, args.out.parent),
        "side": side.name,
        "title": side.title,
        "precision": side.precision,
        "preset": side.preset,
        "versions": versions(side) if side.packages else {"onnxruntime": onnxruntime.__version__},
        "threads": settings_of(bundle.folder, scheme, args).n_threads,
        "file_sha256": sha256_of(args.plain) if side.name == PLAIN else None,
        "dataset": {"name": dataset.about["name"], "digest": dataset.digest, "split": args.split} if dataset else None,
    }


def _row(args: argparse.Namespace, bundle: Bundle, side: Peer, dataset, shared: dict, prepared: dict, rounds: list[dict]) -> dict:
    row = {**_about(args, bundle, side, dataset), **shared, "refused": None, **prepared, "against": {}, "model_ms": None}
    if row["refused"]:
        return row
    others = [scheme for scheme in OURS if f"ours-{scheme}" in rounds[0] and side.name != f"ours-{scheme}"]
    row["against"] = {
        scheme: {"model_sha256": bundle.schemes[scheme]["sha256"], **compare(rounds, side.name, f"ours-{scheme}")} for scheme in others
    }
    row["model_ms"] = 1000 * float(np.median([found[side.name]["s"] for found in rounds])) / shared["images_a_round"]
    return row


def _setting(row: dict) -> tuple:
    """Return what must be equal for a row to measure the same."""
    dataset = row["dataset"] or {}
    fields = [row.get(key) for key in ("side", "model_sha256", "file_sha256", "threads", "preset")]
    return (*map(str, fields), str(sorted(row["versions"].items())), str(dataset.get("digest")), str(dataset.get("split")))


def same_measurement(old: dict, new: dict) -> bool:
    """Say whether a new row measures what an old one did; of a bundle that was exported anew, it takes the place of the old one's."""

    def key(row: dict) -> list:
        return [
            *(row.get(name) for name in ("kind", "bundle", "side", "threads")),
            *(row["machine"].get(name) for name in ("name", "cpu", "cores")),
        ]

    return old["kind"] == new["kind"] and key(old) == key(new)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
