"""Quantized graphs in the form QDQ: a QuantizeLinear and a DequantizeLinear around each tensor that the runtime shall hold in int8.

What is marked, and with which scales, is what ONNX Runtime's tool does (a test holds the two together). That takes 3.5 s for a file of B0, a channel at
a time; this takes 0.1 s, and a search writes fifty.
"""

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

import numpy as np
import onnx
from onnx import helper, numpy_helper

from family.errors import Failure

_MOVING = ("Transpose", "Squeeze")  # values that they don't change
_CLIPPING = ("Clip", "Relu")
_WEIGHING = {"Conv": 0, "Gemm": 1, "MatMul": 1}  # and the axis of the weights' channels
_WIDEST_BIAS = (2**31 - 1) / 1.0001  # in steps: int32, with some room


def write_qdq(
    model: onnx.ModelProto, ranges: dict[str, tuple[float, float]], kept_in_float: Collection[str], operators: Collection[str], n_weight_bits: int = 8,
    means: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> onnx.ModelProto:  # fmt: skip
    """Return a model whose nodes of these operators compute in int8, but for those that are kept in float.

    Args:
        means: float [n_channels] of activations, for the correction of biases; see `_corrected`.

    Raises:
        Failure: an activation has no range.
    """
    kept = set(kept_in_float)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    quantized = {node.name for node in nodes if node.op_type in operators and node.name not in kept}
    nodes = _drop_idle_clippings(nodes, quantized, ranges, model)
    stored = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    marked: dict[str, tuple[np.float32, np.uint8]] = {}  # activation -> scale, zero point
    constants: list[onnx.NodeProto] = []
    new: dict[str, np.ndarray] = {}
    for node in nodes:
        if node.name not in quantized or (node.op_type in (*_MOVING, *_CLIPPING) and node.input[0] not in marked):
            continue  # what only passes values on is in float behind float
        taken = node.input if node.op_type not in (*_MOVING, *_CLIPPING) else node.input[:1]
        for name in (name for name in taken if name and name not in stored):
            marked.setdefault(name, _scale_of(name, ranges))
        output = node.output[0]
        marked.setdefault(output, marked[node.input[0]] if node.op_type in _MOVING else _scale_of(output, ranges))
        if any(name in stored for name in taken):
            constants += _quantize_constants(node, stored, marked, 127 if n_weight_bits == 8 else 64, means.get(node.input[0]), new)
    return _assemble(model, constants, nodes, marked, new)


def _drop_idle_clippings(nodes: list, quantized: set[str], ranges: dict, model: onnx.ModelProto) -> list:
    """Leave out each Relu or Clip right behind a quantized node whose bounds the range of its output keeps anyway, since uint8 saturates there."""
    stored = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    uses = [name for node in nodes for name in node.input] + [value.name for value in model.graph.output]
    producer = {name: node for node in nodes for name in node.output}
    left = []
    for node in nodes:
        before = producer.get(node.input[0]) if node.op_type in _CLIPPING else None
        if (before is None or not {node.name, before.name} <= quantized or before.op_type in (*_MOVING, *_CLIPPING)
                or uses.count(node.input[0]) > 1 or not _is_idle(node, stored, ranges)):  # fmt: skip
            left.append(node)
        else:
            before.output[0] = node.output[0]
    return left


def _is_idle(node: onnx.NodeProto, stored: dict, ranges: dict) -> bool:
    low, high = (0.0, np.inf) if node.op_type == "Relu" else (float(stored[name]) if name in stored else None for name in node.input[1:3])
    if low is None or high is None or node.output[0] not in ranges:
        return False
    least, most = ranges[node.output[0]]
    return low <= min(least, 0) and max(most, 0) <= high


def _scale_of(name: str, ranges: dict) -> tuple[np.float32, np.uint8]:
    """Return scale and zero point of uint8 for a range, which zero, as what images are padded with, always belongs to.

    Raises:
        Failure: the activation has no range.
    """
    if name not in ranges:
        raise Failure(f"int8: no range for the activation {name!r}; there are ranges for {len(ranges)}")
    low, high = np.float32(min(ranges[name][0], 0)), np.float32(max(ranges[name][1], 0))
    scale = np.float64(high - low) / 255
    if scale < np.finfo(np.float32).tiny:
        return np.float32(1), np.uint8(0)
    return np.float32(scale), np.uint8(np.round(-low / scale))


def _quantize_constants(
    node, stored: dict, marked: dict, most: int, means: np.ndarray | None, new: dict[str, np.ndarray]
) -> Iterable[onnx.NodeProto]:  # fmt: skip
    """Let a node take its constants from int8, and return the nodes that make them float again.

    Args:
        most: the largest weight.
        means: float [n_channels] of what comes in, or None.
        new: gets the arrays.
    """
    if node.op_type not in _WEIGHING or node.input[1] not in stored:
        for k, name in enumerate(node.input):
            if name in stored:
                scale, zero = _scale_of(name, {name: (stored[name].min(), stored[name].max())})
                values = np.clip(np.round(stored[name] / scale) + zero, 0, 255).astype(np.uint8)
                node.input[k] = f"{node.name}/constant{k}"
                yield _dequantize(node.input[k], values, scale, zero, None, new)
        return
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if attributes.get("alpha", 1) != 1 or attributes.get("beta", 1) != 1:
        raise Failure(f"int8: {node.name} has alpha or beta, which is not quantized")
    axis = 0 if attributes.get("transB") else _WEIGHING[node.op_type]
    bias = stored[node.input[2]] if len(node.input) > 2 and node.input[2] in stored else None
    weights, step = stored[node.input[1]], marked[node.input[0]][0]
    scale = _weight_scale(weights, axis, most, step, bias)
    shape = [-1 if k == axis else 1 for k in range(weights.ndim)]
    values = np.round(weights / scale.reshape(shape)).astype(np.int8)
    node.input[1] = f"{node.name}/weights"
    yield _dequantize(node.input[1], values, scale, np.zeros(len(scale), np.int8), axis, new)
    if bias is not None:
        if means is not None:
            bias = _corrected(bias, values * scale.reshape(shape) - weights, axis, means)
        scale = step * scale
        node.input[2] = f"{node.name}/bias"
        steps = np.clip(np.round(bias / scale.astype(np.float64)), -(2**31 - 1), 2**31 - 1).astype(np.int32)  # the correction may pass the room that was left
        yield _dequantize(node.input[2], steps, scale, np.zeros(len(scale), np.int32), 0, new)


def _corrected(bias: np.ndarray, errors: np.ndarray, axis: int, means: np.ndarray) -> np.ndarray:
    """Return the bias less what rounded weights add to each channel on average.

    Padding counts as if it were the mean. Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2.

    Args:
        errors: float of the weights' shape, rounded less exact.
    """
    of_inputs = np.moveaxis(errors, axis, 0)
    of_inputs = of_inputs.reshape(*of_inputs.shape[:2], -1).sum(axis=2)  # [n_out, n_in of a group]
    n_out, n_in = of_inputs.shape
    if len(means) % n_in:
        raise Failure(f"int8: means of {len(means)} channels, where weights have {n_in} inputs")
    groups = means.reshape(-1, 1, n_in)
    return bias - (of_inputs.reshape(len(groups), -1, n_in) * groups).sum(axis=2).reshape(n_out)


def _weight_scale(weights: np.ndarray, axis: int, most: int, step: np.float32, bias: np.ndarray | None) -> np.ndarray:
    """Return float32 [n_channels], so large that the bias, in steps of the input times this, fits into int32 too."""
    largest = np.abs(weights).max(axis=tuple(k for k in range(weights.ndim) if k != axis)).astype(np.float64)
    scale = np.where(largest / most < np.finfo(np.float32).tiny, 1.0, largest / most)
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias.astype(np.float64)) / _WIDEST_BIAS / step)
    return scale.astype(np.float32)


def _dequantize(name: str, values: np.ndarray, scale, zero, axis: int | None, new: dict[str, np.ndarray]) -> onnx.NodeProto:
    new |= {f"{name}/int8": values, f"{name}/scale": np.asarray(scale), f"{name}/zero": np.asarray(zero)}
    where = {} if axis is None else {"axis": axis}
    return helper.make_node("DequantizeLinear", [f"{name}/int8", f"{name}/scale", f"{name}/zero"], [name], name=f"{name}/dequantize", **where)


def _assemble(model: onnx.ModelProto, constants: list, nodes: list, marked: dict, new: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Put the marks right behind what they mark: NAME keeps its name behind them, and is NAME/float before."""
    placed = [*constants]
    for node in nodes:
        placed.append(node)
        for k, name in enumerate(node.output):
            if name not in marked:
                continue
            node.output[k] = f"{name}/float"
            new |= {f"{name}/scale": np.asarray(marked[name][0]), f"{name}/zero": np.asarray(marked[name][1])}
            scale = [f"{name}/scale", f"{name}/zero"]
            placed.append(helper.make_node("QuantizeLinear", [f"{name}/float", *scale], [f"{name}/int8"], name=f"{name}/quantize"))
            placed.append(helper.make_node("DequantizeLinear", [f"{name}/int8", *scale], [name], name=f"{name}/dequantize"))
    used = {name for node in placed for name in node.input}
    arrays = [i for i in model.graph.initializer if i.name in used] + [numpy_helper.from_array(value, name) for name, value in new.items()]
    graph = helper.make_graph(placed, model.graph.name, model.graph.input, model.graph.output, arrays)
    made = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version, producer_name="family export")
    onnx.checker.check_model(made)
    return made
