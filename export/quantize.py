"""Static int8: QDQ, activations U8, weights S8 per channel, percentile ranges from training images. No TensorFlow."""

import contextlib
import copy
import io
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer, save_and_reload_model_with_shape_infer

from family.progress import progress

# Swish is Sigmoid and Mul: left in float they split the graph into islands. Softmax stays float.
OPERATORS = ("Conv", "Gemm", "MatMul", "Mul", "Sigmoid", "Add", "GlobalAveragePool", "Transpose", "Squeeze", "Clip", "Relu")
PERCENTILE = 99.999
N_BINS = 2048
_CHUNK = 8  # images whose activations are in memory at once


class _Chunk(CalibrationDataReader):
    """The images of one chunk, one at a time."""

    def __init__(self, images: np.ndarray):
        self._left = iter(images)

    def get_next(self) -> dict | None:
        image = next(self._left, None)
        return None if image is None else {"image": image[None]}


def quantize(fp32: Path, int8: Path, images: np.ndarray) -> dict:
    """Write the int8 file of an fp32 file.

    Args:
        images: uint8 [n, px, px, 3], from training rows.

    Returns:
        How it was made, for the card.
    """
    ranges = _calibrate(fp32, images)
    model = save_and_reload_model_with_shape_infer(load_model_with_shape_infer(fp32))
    quantizer = QDQQuantizer(
        copy.deepcopy(model),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=_left_in_float(model),
        op_types_to_quantize=list(OPERATORS),
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(int8))
    return {"format": "QDQ", "activations": "uint8", "weights": "int8 per channel", "calibration": f"percentile {PERCENTILE}", "n_images": len(images)}


def _calibrate(fp32: Path, images: np.ndarray):
    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            fp32,
            list(OPERATORS),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"num_bins": N_BINS, "percentile": PERCENTILE, "symmetric": False},
        )
        chunks = list(_chunks(images))
        for chunk in progress(chunks, "calibrating", unit="chunks"):
            with contextlib.redirect_stdout(io.StringIO()):  # it prints a line a chunk
                calibrator.collect_data(_Chunk(chunk))
        with contextlib.redirect_stdout(io.StringIO()):
            return calibrator.compute_data()


def _chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(images), _CHUNK):
        yield images[start : start + _CHUNK]


def _left_in_float(model: onnx.ModelProto) -> list[str]:
    """Return the nodes before the first convolution: scaling raw pixels loses more in int8 than it saves."""
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
