"""Smaller files: static int8 (QDQ, activations U8, weights S8 per channel, percentile ranges from training images), and fp16. No TensorFlow."""

import contextlib
import copy
import io
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer, save_and_reload_model_with_shape_infer
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.runtime import in_parts
from family.progress import progress

# Swish is Sigmoid and Mul: left in float they split the graph into islands. Softmax stays float.
OPERATORS = ("Conv", "Gemm", "MatMul", "Mul", "Sigmoid", "Add", "GlobalAveragePool", "Transpose", "Squeeze", "Clip", "Relu")
PERCENTILES = (99.999, 99.99)
KEPT_IN_FP32 = ("Softmax",)  # of fp16
N_BINS = 2048
_CHUNK = 8  # images whose activations are in memory at once


class _Chunk(CalibrationDataReader):
    """The images of one chunk, one at a time."""

    def __init__(self, images: np.ndarray):
        self._left = iter(images)

    def get_next(self) -> dict | None:
        image = next(self._left, None)
        return None if image is None else {"image": image[None]}


def quantize(fp32: Path, int8: Path, images: np.ndarray, held_back: np.ndarray) -> dict:
    """Write the int8 file of an fp32 file: the best of a few settings, by its answers on other images.

    No setting is best for every model: V2-B0 wants wider ranges, B0 narrower ones and its first block in float.

    Args:
        images: uint8 [n, px, px, 3], from training rows; the activations' ranges come from them.
        held_back: uint8 [m, px, px, 3], other training rows; settings are ranked by their divergence from fp32 on them.

    Returns:
        How it was made, with the settings that were tried, for the card.
    """
    reference = _run(fp32, held_back)
    tried = []
    with tempfile.TemporaryDirectory() as folder:
        model = save_and_reload_model_with_shape_infer(load_model_with_shape_infer(fp32))
        before, early = _before_first_conv(model), _of_first_block(model)
        for percentile, ranges in _calibrate(fp32, images, Path(folder)):
            for kept in (before, before + early) if early else (before,):
                path = Path(folder) / f"candidate-{len(tried)}.onnx"
                _write_int8(model, ranges, kept, path)
                answers = _run(path, held_back)
                tried.append({"percentile": percentile, "first_block_in_float": kept is not before, "convolutions_in_float": _count_convolutions(model, kept),
                              "divergence": _divergence(reference, answers),
                              "agreement": float((answers.argmax(1) == reference.argmax(1)).mean()), "path": path})  # fmt: skip
        best = min(tried, key=lambda candidate: candidate["divergence"])
        shutil.copyfile(best["path"], int8)
    tried = [{key: value for key, value in candidate.items() if key != "path"} for candidate in tried]
    return {"format": "QDQ", "activations": "uint8", "weights": "int8 per channel", "n_images": len(images), "n_ranked_on": len(held_back),
            "percentile": best["percentile"], "first_block_in_float": best["first_block_in_float"],
            "convolutions_in_float": best["convolutions_in_float"], "candidates": tried}  # fmt: skip


def halve(fp32: Path, fp16: Path) -> dict:
    """Write the fp16 file of an fp32 file; pixels come in as uint8 and the answers go out as float32, as of every file.

    Softmax stays in fp32: in 16 bits the probabilities of thousands of categories are coarse.

    Returns:
        How it was made, for the card.
    """
    model = onnx.load(fp32)
    onnx.save(convert_float_to_float16(model, keep_io_types=True, op_block_list=list(KEPT_IN_FP32)), fp16)
    return {"kept_in_fp32": list(KEPT_IN_FP32)}


def _write_int8(model: onnx.ModelProto, ranges, kept_in_float: list[str], path: Path) -> None:
    quantizer = QDQQuantizer(
        copy.deepcopy(model),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=kept_in_float,
        op_types_to_quantize=list(OPERATORS),
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(path))


def _run(path: Path, images: np.ndarray) -> np.ndarray:
    """Return float32 [n, n_classes] probabilities."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["probabilities"], {"image": part})[0] for part in in_parts(images)])


def _divergence(reference: np.ndarray, answers: np.ndarray) -> float:
    """Return the mean Kullback-Leibler divergence of answers from the reference, in nats."""
    tiny = 1e-9
    return float((reference * (np.log(reference + tiny) - np.log(answers + tiny))).sum(axis=1).mean())


def _calibrate(fp32: Path, images: np.ndarray, folder: Path) -> Iterator[tuple[float, object]]:
    """Collect histograms of all activations once, a few images at a time, and yield (percentile, ranges)."""
    calibrator = create_calibrator(
        fp32,
        list(OPERATORS),
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=CalibrationMethod.Percentile,
        extra_options={"num_bins": N_BINS, "percentile": PERCENTILES[0], "symmetric": False},
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a line a chunk
        for chunk in progress(list(_chunks(images)), "calibrating", unit="chunks"):
            calibrator.collect_data(_Chunk(chunk))
        for percentile in PERCENTILES:
            calibrator.collector.percentile = percentile
            yield percentile, calibrator.compute_data()


def _chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(images), _CHUNK):
        yield images[start : start + _CHUNK]


def _before_first_conv(model: onnx.ModelProto) -> list[str]:
    """Return the nodes that scale pixels: raw pixels lose more in int8 than it saves."""
    consumers: dict[str, list] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    found, wave = [], ["image"]
    while wave:
        nodes = [node for name in wave for node in consumers.get(name, []) if node.op_type != "Conv"]
        found += [node.name for node in nodes]
        wave = [name for node in nodes for name in node.output]
    return found


def _of_first_block(model: onnx.ModelProto) -> list[str]:
    """Return the nodes of the stem and of EfficientNet's first block, by the layer names that the converter keeps."""
    return [node.name for node in model.graph.node if any(part in node.name for part in ("/stem_", "/block1a_"))]


def _count_convolutions(model: onnx.ModelProto, names: list[str]) -> int:
    return sum(node.op_type == "Conv" and node.name in names for node in model.graph.node)


def choose_balanced(labels: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Return up to n row numbers, the classes as even as they go: what int8 ranges should have seen."""
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = _turns(labels[order])
    return np.sort(order[np.argsort(turn, kind="stable")][:n])


def _turns(labels: Iterable[int]) -> np.ndarray:
    """Return for each row how many rows of its class came before it."""
    seen: dict[int, int] = {}
    turns = []
    for label in labels:
        turns.append(seen.get(int(label), 0))
        seen[int(label)] = turns[-1] + 1
    return np.array(turns)
