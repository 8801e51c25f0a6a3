"""int8 of a run that was trained with roundings: its own ranges, and no search. No TensorFlow."""

import sys
from pathlib import Path

import onnx

from export.blocks import before_first_convolution, count_convolutions
from export.quantize import load_fp32, write_int8
from export.runtime import weight_bits
from family.machine import cpu_flags

_GATES = ("Sigmoid", "HardSigmoid")
_OF_STEM = (*_GATES, "Mul", "Clip", "Relu")


def quantize_learned(fp32: Path, int8: Path, ranges: dict[str, list[float]]) -> dict:
    """Write the int8 file of a run with the ranges that it learned.

    Args:
        ranges: of the run's card, layer -> [low, high] of its output; `layer/linear` of a convolution before its own activation.

    Returns:
        How it was made, for the card.

    Raises:
        Failure: the file needs a range that was not learned.
    """
    model = load_fp32(fp32)
    kept = before_first_convolution(model) + stem(model)
    bits, why = weight_bits(cpu_flags())
    known = tensor_ranges(model, ranges)
    if bits != 8:
        print(f"warning: weights get {bits} bits, and were trained with 8: {why}", file=sys.stderr)
    write_int8(model, known, kept, int8, n_weight_bits=bits)
    return {"format": "QDQ", "activations": "uint8", "weights": "int8 per channel", "weight_bits": bits, "weight_bits_because": why, "ranges": "learned",
            "n_ranges": len(known), "convolutions_in_float": count_convolutions(model, kept)}  # fmt: skip


def tensor_ranges(model: onnx.ModelProto, ranges: dict[str, list[float]]) -> dict[str, tuple[float, float]]:
    """Return tensor -> (low, high) of a graph whose tensors bear the names of their layers, `model/LAYER/OPERATION:0`."""
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    found: dict[str, tuple[float, float]] = {}
    for node in model.graph.node:
        output = node.output[0]
        layer = output.split("/")[1] if "/" in output else output
        if node.op_type in _GATES:
            found[output] = (0.0, 1.0)
        elif node.op_type in ("Conv", "MatMul", "Gemm") and f"{layer}/linear" in ranges:
            found[output] = tuple(ranges[f"{layer}/linear"])
        elif layer in ranges:
            found[output] = tuple(ranges[layer])
    for node in model.graph.node:  # the largest of some values lies where they lie
        if node.op_type == "MaxPool" and node.input[0] in found:
            found.setdefault(node.output[0], found[node.input[0]])
    for node in model.graph.node:  # a range that learned may pass the bound of its rectifier by rounding, which would have to stay in the file then
        if node.op_type in ("Clip", "Relu") and node.output[0] in found:
            bounds = [float(stored[name]) for name in node.input[1:] if name in stored] or [0.0]
            found[node.output[0]] = (max(found[node.output[0]][0], bounds[0]), min([found[node.output[0]][1], *bounds[1:]]))
    for node in model.graph.node:  # what only a rectifier sees is rounded behind it, and has its range
        if node.op_type in ("Clip", "Relu") and node.output[0] in found:
            found.setdefault(node.input[0], found[node.output[0]])
    for node in model.graph.node:  # a product before its bias: what the sum's range leaves for it
        bias = [stored[name] for name in node.input if name in stored]
        product = [name for name in node.input if name not in stored]
        if node.op_type == "Add" and bias and node.output[0] in found and product[0] in found:
            low, high = found[node.output[0]]
            found[product[0]] = (min(0.0, low - float(bias[0].max())), max(0.0, high - float(bias[0].min())))
    return found


def stem(model: onnx.ModelProto) -> list[str]:
    """Return the nodes of the first convolution and of its activation, which train in float."""
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    names, tensors = [first.name], {first.output[0]}
    for node in model.graph.node:
        if node.op_type in _OF_STEM and tensors & set(node.input) and set(node.input) <= tensors | {i.name for i in model.graph.initializer}:
            names.append(node.name)
            tensors.add(node.output[0])
    return names
