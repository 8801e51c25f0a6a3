"""One side of `family bench --peers` in a process of its own: it prepares what it runs, or takes its turns as `benchmarks.turns` tells."""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.peers.comparing import KERAS, PLAIN, PYTORCH, SAVED_MODEL, SIDES
from benchmarks.turns import turns
from distributed.joining import join
from export.bundle import Bundle, open_bundle
from export.runtime import Predictor, Settings, open_session
from family.data.images import decode_image
from family.machine import n_cores
from family.outputs import read_json, write_json

_N_TRIAL = 64  # stored images that settings are tried on


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", required=True, choices=SIDES)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--made", type=Path, required=True, help="where sides keep what they prepared")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--plain", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--split")
    parser.add_argument("--prepare", action="store_true")
    args = parser.parse_args(words)
    join()  # which ends this process with the one that started it
    bundle = open_bundle(args.bundle)
    encoded, reference = bundle.samples("fp32")
    images = np.stack([decode_image(data, bundle.preprocessing) for data in encoded])
    told = args.made / f"{args.side}.json"
    if args.prepare:
        write_json(told, _prepare(args, bundle, images, reference))
        next(turns(args.folder))  # it waits there for its end
    side = _open(args, bundle, read_json(told), args.threads)
    inputs = [image[None].astype(side.dtype) for image in images]
    for turn, n in turns(args.folder):
        side.predict(inputs[-1])  # wakes the caches, untimed
        began, began_processor = time.perf_counter(), time.process_time()
        for k in range(turn * n, (turn + 1) * n):
            side.predict(inputs[k % len(inputs)])
        spent = {"s": time.perf_counter() - began, "processor_s": time.process_time() - began_processor}
        write_json(args.folder / f"done-{turn}-0", spent)


class _Ours:
    """The Predictor of a scheme."""

    dtype = np.uint8

    def __init__(self, bundle: Bundle, scheme: str, n_threads: int):
        self.predict = Predictor(bundle, Settings(scheme, "cpu", n_threads)).predict


class _Plain:
    """An ONNX file that takes float pixels, in ONNX Runtime as the Predictor opens it."""

    dtype = np.float32

    def __init__(self, path: Path, n_threads: int):
        self._session = open_session(str(path), Settings("fp32", "cpu", n_threads))
        self._input = self._session.get_inputs()[0].name

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return float32 [n, n_classes] probabilities of [n, px, px, 3] RGB images."""
        return self._session.run(["probabilities"], {self._input: images.astype(self.dtype, copy=False)})[0]


def _open(args: argparse.Namespace, bundle: Bundle, prepared: dict, n_threads: int):
    """Open a side as it was prepared: something with `predict`, and the `dtype` of images that it takes without converting them."""
    if args.side.startswith("ours-"):
        return _Ours(bundle, SIDES[args.side].precision, n_threads)
    if args.side == PLAIN:
        return _Plain(args.plain, n_threads)
    if args.side in (KERAS, SAVED_MODEL):
        from benchmarks.peers.tensorflow import TensorFlow

        return TensorFlow(args.run if args.side == KERAS else bundle.folder / bundle.card["saved_model"]["folder"], n_threads)
    if args.side == PYTORCH:
        from benchmarks.peers.pytorch import PyTorch

        return PyTorch(bundle.card, n_threads)
    from benchmarks.peers.openvino import OpenVINO

    return OpenVINO(_openvino_file(args, bundle), prepared["settings"], n_threads)


def _openvino_file(args: argparse.Namespace, bundle: Bundle) -> Path:
    return args.made / f"{args.side}.xml" if SIDES[args.side].preset else bundle.model_path("fp32")


def _prepare(args: argparse.Namespace, bundle: Bundle, images: np.ndarray, reference: np.ndarray) -> dict:
    """Return how a side runs, what it answers and, of a peer, how right; or why it is refused."""
    from export.verify import parity

    found = _prepare_openvino(args, bundle, images[:_N_TRIAL], reference[:_N_TRIAL]) if args.side.startswith("openvino-") else {}
    if "refused" in found:
        return found
    side = _open(args, bundle, found, args.threads)
    if args.side == PYTORCH:  # its weights are random: what it costs, not what it answers
        return {**found, "weights": "random"}
    found["answers"] = parity(reference, np.concatenate([side.predict(image[None]) for image in images]))
    if args.dataset and not args.side.startswith("ours-"):  # ours have rows of their own
        # TensorFlow's number of threads is that of its process, from its first operation on.
        everything = side if args.side in (KERAS, SAVED_MODEL) else _open(args, bundle, found, n_cores())
        found["metrics"] = _evaluate(args, bundle, everything)
    return found


def _prepare_openvino(args: argparse.Namespace, bundle: Bundle, images: np.ndarray, reference: np.ndarray) -> dict:
    from benchmarks.peers import openvino

    side, path, found = SIDES[args.side], _openvino_file(args, bundle), {}
    if side.precision == "bf16" and not openvino.can_bf16():
        return {"refused": "OpenVINO has no bf16 kernels for this processor and would compute in fp32"}
    if side.preset:
        from export.rows import calibration_rows
        from family.data.dataset import open_dataset
        from family.data.reading import decode_all

        dataset = open_dataset(args.dataset)
        rows = calibration_rows(dataset, bundle.card)[0]
        openvino.quantize(bundle.model_path("fp32"), path, decode_all(rows, bundle.preprocessing), side.preset)
        size_mb = sum(file.stat().st_size for file in (path, path.with_suffix(".bin"))) / 1e6
        found = {"calibrated_on": {"n": len(rows), "digest": dataset.digest}, "size_mb": round(size_mb, 3)}
    settings, tried = openvino.choose_settings(path, side.precision, args.threads, images, reference)
    layers = openvino.executed(openvino.OpenVINO(path, settings, args.threads))
    why = openvino.why_not(side.precision, layers)
    return {**found, "settings": settings, "tried": tried, "layers": layers, **({"refused": why} if why else {})}


def _evaluate(args: argparse.Namespace, bundle: Bundle, side) -> dict:
    """Return the metrics of a side on the rows."""
    from export.evaluate import evaluate
    from export.opening import Model
    from family.data.dataset import open_dataset

    return evaluate(Model(args.side, bundle.card, side.predict, {}), open_dataset(args.dataset), args.split)


if __name__ == "__main__":
    main(sys.argv[1:])
