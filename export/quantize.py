"""Smaller files: int8, with the ranges and the nodes in float that are given, and fp16. No TensorFlow."""

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer, save_and_reload_model_with_shape_infer
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.qdq import write_qdq
from export.runtime import open_on_cpu, session_options

Ranges = dict[str, tuple[float, float]]  # of activations, by the ONNX tensor's name

# Swish is Sigmoid and Mul: left in float they split the graph into islands. Softmax stays float.
OPERATORS = ("Conv", "Gemm", "MatMul", "Mul", "Sigmoid", "Add", "GlobalAveragePool", "Transpose", "Squeeze", "Clip", "Relu")
KEPT_IN_FP32 = ("Softmax",)  # of fp16
MOST_IN_FP16 = float(np.finfo(np.float16).max)


def load_fp32(path: Path) -> onnx.ModelProto:
    """Open a file with inferred types and shapes, as `write_int8` and `collect` want it."""
    return save_and_reload_model_with_shape_infer(load_model_with_shape_infer(path))


def write_int8(
    model: onnx.ModelProto, ranges: Ranges, kept_in_float: Collection[str], path: Path, *, form: str = "QDQ", n_weight_bits: int = 8,
    means: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:  # fmt: skip
    """Write a model with activations in uint8, weights in int8 per channel and biases in int32.

    Args:
        model: of `load_fp32`; it stays as it is.
        ranges: of each float tensor that goes into or comes out of OPERATORS, but for those between nodes that are kept in float.
        kept_in_float: names of nodes.
        form: "QDQ", marks around float operators, which any runtime reads, or "QOperator", int8 operators, most of them ONNX Runtime's own: the same
            answers from a smaller file.
        n_weight_bits: 8, or 7 where two products of 8 bits overflow, see `runtime.weight_bits`.
        means: float [n_channels] of activations, by which biases are corrected for the rounding of weights; of none, none is.

    Raises:
        Failure: an activation has no range.
    """
    marked = write_qdq(model, ranges, kept_in_float, OPERATORS, n_weight_bits, means)
    onnx.save(marked if form == "QDQ" else _fuse(marked), path)


def _fuse(marked: onnx.ModelProto) -> onnx.ModelProto:
    """Return what ONNX Runtime makes of a QDQ graph, before it lays it out for the processor at hand.

    Its own tool for this form fails on a channel whose weights are nearly zero (1.26: the scale that it corrects for the bias has no axis).
    """
    with tempfile.TemporaryDirectory() as folder:
        options = session_options()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = f"{folder}/fused.onnx"
        open_on_cpu(marked.SerializeToString(), options)
        fused = onnx.load(options.optimized_model_filepath)
    used = [opset for opset in fused.opset_import if opset.domain in {node.domain for node in fused.graph.node}]
    del fused.opset_import[:]
    fused.opset_import.extend(used)
    return fused


def halve(fp32: Path, fp16: Path) -> dict:
    """Write the fp16 file of an fp32 file; pixels come in as uint8 and the answers go out as float32, as of every file.

    Softmax stays in fp32: in 16 bits the probabilities of thousands of categories are coarse.

    Returns:
        How it was made, for the card.
    """
    model = onnx.load(fp32)
    onnx.save(convert_float_to_float16(model, keep_io_types=True, op_block_list=list(KEPT_IN_FP32)), fp16)
    return {"kept_in_fp32": list(KEPT_IN_FP32)}
