"""The search for an int8 file: ranges, and what stays in float, by divergence from fp32 against time. No labels are used. No TensorFlow.

No setting is best for every model: of EfficientNetV2-B0 everything may be in int8, B0 wants its first and its last block in float.
"""

import csv
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from export.blocks import before_first_convolution, count_convolutions, find_blocks
from export.calibrate import N_BINS, RANGES, collect, memory_mb
from export.proof import MOST_IN_FLOAT
from export.quantize import OPERATORS, Ranges, load_fp32, write_int8
from export.runtime import Settings, in_parts, open_session, weight_bits
from export.speed import compare_speed
from family.evaluation.metrics import micro_macro
from family.machine import cpu_flags
from family.progress import progress

EXCHANGE = 5  # a file that takes 1 % longer must diverge about 5 % less
NEGLIGIBLE = 0.02  # nats, of joined halves; of two files that diverge less, the faster one: on photos of Caltech-101 such files diverge by 0.005
N_RUNGS = 4  # sets of blocks in float, each holding the one before
N_RIVALS = 8  # that the next rung is chosen among
PRICE = 1.05  # that a block in float must lower the divergence by, about 5 %, while nothing is timed
N_PROBED_ON = 64  # images that a block's sensitivity is measured on
N_TIMED_ON = 8  # images that go round in a comparison of times
N_OPENED, N_ROUNDS = 3, 21  # sessions of a file that is timed, and turns of all
SAME_TIME = 0.05  # a file against itself came out up to this far from 1 on a machine with other work
N_REPORTED_ON = 1000  # validation images, at most
COLUMNS = ("chosen", "ranges", "blocks_in_float", "format", "convolutions_in_float", "n_images", "divergence", "agreement", "size_mb", "relative_time",
           "val_micro", "val_macro")  # fmt: skip


@dataclass(frozen=True)
class Trials:
    """What every candidate is made of and held against."""

    model: onnx.ModelProto
    ranges: dict[str, Ranges]  # by the name in RANGES
    means: dict[str, np.ndarray]  # float64 [n_channels] of each tensor that has a range
    blocks: dict[str, list[str]]  # block -> its nodes
    always: list[str]  # nodes that are in float in every candidate
    images: np.ndarray  # uint8 [n, px, px, 3]
    reference: np.ndarray  # float32 [n, n_classes], of fp32
    n_weight_bits: int
    folder: Path
    calibration_mb: float = 0.0  # that the histograms and one image's activations took

    def kept(self, blocks: Collection[str]) -> list[str]:
        return self.always + [name for block in blocks for name in self.blocks[block]]

    def stays_int8(self, blocks: Collection[str]) -> bool:
        return count_convolutions(self.model, self.kept(blocks)) <= MOST_IN_FLOAT * count_convolutions(self.model)

    def write(self, row: dict, name: str = "candidate") -> Path:
        """Write the file of a row, over the last one of this name."""
        path = self.folder / f"{name}.onnx"
        write_int8(self.model, self.ranges[row["ranges"]], self.kept(row["blocks_in_float"]), path, form=row["format"], n_weight_bits=self.n_weight_bits,
                   means=self.means)  # fmt: skip
        return path

    def measure(self, ranges: str, blocks: Collection[str] = (), form: str = "QDQ", n: int | None = None) -> dict:
        """Return the row of a candidate, judged on the first n images."""
        row = {"ranges": ranges, "blocks_in_float": list(blocks), "format": form}
        path = self.write(row)
        reference, answers = self.reference[:n], _answer(path, self.images[:n])
        row |= {
            # ONNX Runtime itself makes a lone one between marks int8, per tensor: what it does to the answers is in the divergence.
            "convolutions_in_float": count_convolutions(self.model, self.kept(blocks)),
            "n_images": len(answers),
            "divergence": _divergence(reference, answers),
            "agreement": float((answers.argmax(1) == reference.argmax(1)).mean()),
            "size_mb": round(path.stat().st_size / 1e6, 3),
            "relative_time": None,
            "chosen": False,
        }
        return row

    def compare_time(self, base: dict, other: dict) -> tuple[float, bool]:
        """Return the time of one candidate over that of another, one thread, single images, in turns; and whether they differ.

        Seconds are the processor's: on a machine with other work, two runs on a wall clock were up to 0.4 apart, by this one 0.06. What is left is how a
        session lies in memory, so both are opened anew N_OPENED times, and the median counts.
        """
        paths = [str(path) for path in (self.write(base, "base"), self.write(other))]
        found = []
        for _ in range(N_OPENED):
            sides = [partial(_predict, open_session(path, Settings(provider="cpu", threads=1))) for path in paths]
            found.append(compare_speed(*sides, self.images[:N_TIMED_ON], time.thread_time, N_ROUNDS // N_OPENED)["ratio"])
        ratio = 1 / float(np.median(found))
        return ratio, abs(ratio - 1) > SAME_TIME


def search(fp32: Path, calibration: np.ndarray, ranked_on: np.ndarray, folder: Path) -> tuple[Trials, list[dict]]:
    """Try int8 files of an fp32 file; the row with "chosen" is the one to take.

    Args:
        calibration: uint8 [n, px, px, 3], from training rows; the activations' ranges come from them.
        ranked_on: uint8 [m, px, px, 3], other training rows; candidates are ranked by their divergence from fp32 on halves of them, joined.
        folder: for files in the making.

    Returns:
        What writes a row's file, and the rows of all candidates, probes among them.
    """
    model = load_fp32(fp32)
    histograms = collect(model, OPERATORS, calibration)
    ranges = {name: {tensor: read(histogram) for tensor, histogram in histograms.items()} for name, read in RANGES.items()}
    means = {tensor: histogram.means for tensor, histogram in histograms.items()}
    judged_on = join_halves(ranked_on)
    trials = Trials(model, ranges, means, find_blocks(model), before_first_convolution(model), judged_on, _answer(fp32, judged_on),
                    weight_bits(cpu_flags())[0], folder, memory_mb(histograms.values(), len(calibration)))  # fmt: skip
    rows = [trials.measure(name) for name in RANGES]
    rungs, probes = _climb(trials, min(rows, key=_diverging)["ranges"])
    pairs = [(name, blocks) for blocks in rungs for name in RANGES]
    rows += [trials.measure(name, blocks) for name, blocks in progress(pairs, "int8 candidates", unit="candidates")]
    return trials, [*probes, *_choose(trials, rows)]


def join_halves(images: np.ndarray) -> np.ndarray:
    """Return the left half of each image beside the right half of another.

    A run knows its training rows too well: of B0 on Caltech-101, 97 % of them have a category above 0.95, and what int8 does to such answers tells little
    of what it does to unseen photos. Of 25 files of B0, divergences on joined halves were those on validation rows times a factor within 15 %
    (standard deviation); on whole training rows within 54 %, and their order differed most among the best. Of V2-B0 21 % and 11 %.
    """
    middle, joined = images.shape[2] // 2, images.copy()
    joined[:, :, middle:] = np.roll(images, len(images) // 2, axis=0)[:, :, middle:]
    return joined


def _climb(trials: Trials, ranges: str) -> tuple[list[list[str]], list[dict]]:
    """Return sets of blocks to keep in float, each holding the one before, and the rows of all probes.

    Each block is probed alone, and with the one behind it: what lies between two blocks is in float where both are (of B0 neither stem nor block1a matters
    alone, and nothing matters as much as both). Then the ladder grows by what lowers the divergence most, of the N_RIVALS that did so at first.
    """
    blocks = list(trials.blocks)
    units = [[block] for block in blocks] + [list(pair) for pair in zip(blocks, blocks[1:], strict=False)]
    probe = partial(trials.measure, ranges, n=_n_probed_on(trials.images))
    probes = [probe(unit) for unit in progress(units, "sensitivity", unit="probes") if trials.stays_int8(unit)]
    rivals = [row["blocks_in_float"] for row in sorted(probes, key=_priced)[:N_RIVALS]]
    rungs: list[list[str]] = []
    found, rows = probes, [*probes]
    while found:
        rungs.append(min(found, key=_priced)["blocks_in_float"])
        larger = [sorted({*rungs[-1], *unit}, key=blocks.index) for unit in rivals if not set(unit) <= set(rungs[-1])]
        found = [probe(more) for more in larger if trials.stays_int8(more)] if len(rungs) < N_RUNGS else []
        rows += found
    return rungs, rows


def _n_probed_on(images: np.ndarray) -> int:
    """Return how many images a probe takes: as many pixels as N_PROBED_ON have at 224 px, and at least 8."""
    return max(8, min(N_PROBED_ON, N_PROBED_ON * 224**2 // images.shape[1] ** 2))


def _priced(row: dict) -> float:
    return row["divergence"] * PRICE ** len(row["blocks_in_float"])


def _choose(trials: Trials, rows: list[dict]) -> list[dict]:
    """Time the least diverging ranges of each set of blocks and mark the choice; return all rows, with one of the other format."""
    best: dict[tuple, dict] = {}
    for row in sorted(rows, key=_diverging):
        best.setdefault(tuple(row["blocks_in_float"]), row)
    base = best[()]
    for row in progress(best.values(), "timing", unit="candidates"):
        row["relative_time"] = 1.0 if row is base else trials.compare_time(base, row)[0]
    chosen = min(best.values(), key=score)
    other = trials.measure(chosen["ranges"], chosen["blocks_in_float"], "QOperator")
    ratio, differs = trials.compare_time(chosen, other)
    other["relative_time"] = chosen["relative_time"] * ratio
    # QDQ, which any runtime reads, unless the other is shown to be faster.
    (other if differs and score(other) < score(chosen) else chosen)["chosen"] = True
    return [*rows, other]


def score(row: dict) -> float:
    """Return what the choice has least of. Labels have no part in it."""
    return max(row["divergence"], NEGLIGIBLE) * row["relative_time"] ** EXCHANGE


def report_accuracy(trials: Trials, rows: list[dict], images: np.ndarray, labels: np.ndarray) -> None:
    """Note the accuracy of those that were timed on validation rows, for the reader: the choice was made before.

    Args:
        images: uint8 [n, px, px, 3].
        labels: int [n], classes.
    """
    some = np.random.default_rng(0).permutation(len(labels))[:N_REPORTED_ON]
    timed = [row for row in rows if row["relative_time"] is not None]
    for row in progress(timed, "accuracy of candidates", unit="candidates"):
        right = _answer(trials.write(row), images[some]).argmax(1) == labels[some]
        row |= {f"val_{kind}": share for kind, share in micro_macro(right, labels[some]).items()}


def write_candidates(path: Path, rows: list[dict]) -> None:
    """Write rows as CSV, the chosen one first, then by divergence; what was not measured is empty."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for row in sorted(rows, key=lambda row: (not row["chosen"], row["relative_time"] is None, -row["n_images"], row["divergence"])):
            writer.writerow({**row, "blocks_in_float": " ".join(row["blocks_in_float"])})


def summary(trials: Trials, rows: list[dict], n_calibration: int) -> dict:
    """Return how the chosen file was made, for the card."""
    (chosen,) = (row for row in rows if row["chosen"])
    bits, why = weight_bits(cpu_flags())
    return {
        **{key: chosen[key] for key in ("ranges", "blocks_in_float", "format", "convolutions_in_float", "divergence", "agreement", "relative_time")},
        "activations": "uint8", "weights": "int8 per channel", "biases": "corrected for the rounding of weights, where a node has its own",
        "weight_bits": bits, "weight_bits_because": why,
        "n_candidates": len(rows), "n_calibrated_on": n_calibration, "n_ranked_on": len(trials.images),
        "ranked_by": f"max(divergence, {NEGLIGIBLE}) * relative_time ** {EXCHANGE}, on halves of training rows that ranges do not come from, joined, without "
                     "labels",
        "calibration_mb": round(trials.calibration_mb, 1),
        "histograms": f"at most {N_BINS} bins a tensor, of one image's activations at a time",
    }  # fmt: skip


def tell_choice(made: dict, rows: Iterable[dict]) -> str:
    """Say what was chosen, against everything in int8."""
    base = min((row for row in rows if not row["blocks_in_float"]), key=_diverging)
    kept = ", ".join(made["blocks_in_float"]) or "nothing"
    return (f"int8: of {made['n_candidates']} candidates {made['format']} with ranges of {made['ranges']} and {kept} in float: divergence "
            f"{made['divergence']:.4f} at {made['relative_time']:.2f} times the time of all in int8, which has {base['divergence']:.4f}")  # fmt: skip


def _answer(path: Path, images: np.ndarray) -> np.ndarray:
    """Return float32 [n, n_classes] probabilities."""
    session = open_session(str(path), Settings(provider="cpu"))
    return np.concatenate([_predict(session, part) for part in in_parts(images)])


def _predict(session, images: np.ndarray) -> np.ndarray:
    return session.run(["probabilities"], {"image": images})[0]


def _divergence(reference: np.ndarray, answers: np.ndarray) -> float:
    """Return the mean Kullback-Leibler divergence of answers from the reference, in nats; infinite where an answer is no number."""
    tiny = 1e-9
    found = float((reference * (np.log(reference + tiny) - np.log(answers + tiny))).sum(axis=1).mean())
    return max(found, 0.0) if np.isfinite(found) else float("inf")


def _diverging(row: dict) -> float:
    return row["divergence"]
