"""The smallest network that is like an export, for tests of what happens to files."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from export.blocks import before_first_convolution
from export.calibrate import RANGES, collect
from export.quantize import OPERATORS, load_fp32, write_int8

PX, N_CLASSES = 32, 5


def quantize_plainly(fp32: Path, int8: Path, images: np.ndarray) -> None:
    """Write int8 without a search: ranges of all values, everything in int8 but the scaling of pixels."""
    model = load_fp32(fp32)
    ranges = {name: RANGES["min-max"](histogram) for name, histogram in collect(model, OPERATORS, images).items()}
    write_int8(model, ranges, before_first_convolution(model), int8)


def write_model(path: Path) -> None:
    """Write a network of three convolutions as exports are: uint8 images in, probabilities and embedding out."""
    make, arrays, rng = onnx.helper.make_node, {}, np.random.default_rng(0)

    def weight(name: str, *shape: int) -> str:
        arrays[name] = (rng.normal(0, 1, shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        return name

    nodes = [make("Cast", ["image"], ["float"], name="cast", to=onnx.TensorProto.FLOAT),
             make("Transpose", ["float"], ["x0"], name="first", perm=[0, 3, 1, 2])]  # fmt: skip
    for k, (n_in, n_out) in enumerate(((3, 16), (16, 16), (16, 32))):
        inputs = [f"x{k}", weight(f"w{k}", n_out, n_in, 3, 3), weight(f"b{k}", n_out)]
        nodes += [make("Conv", inputs, [f"c{k}"], name=f"conv{k}", pads=[1, 1, 1, 1]), make("Relu", [f"c{k}"], [f"x{k + 1}"], name=f"relu{k}")]
    arrays["axes"] = np.array([2, 3], np.int64)
    nodes += [make("GlobalAveragePool", ["x3"], ["pooled"], name="pool"), make("Squeeze", ["pooled", "axes"], ["embedding"], name="squeeze"),
              make("Gemm", ["embedding", weight("w", 32, N_CLASSES), weight("b", N_CLASSES)], ["logits"], name="head"),
              make("Softmax", ["logits"], ["probabilities"], name="softmax")]  # fmt: skip
    value = onnx.helper.make_tensor_value_info
    inputs = [value("image", onnx.TensorProto.UINT8, ["N", PX, PX, 3])]
    outputs = [value("probabilities", onnx.TensorProto.FLOAT, ["N", N_CLASSES]), value("embedding", onnx.TensorProto.FLOAT, ["N", 32])]
    graph = onnx.helper.make_graph(nodes, "tiny", inputs, outputs, [onnx.numpy_helper.from_array(a, name) for name, a in arrays.items()])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)


def spread_answers(path: Path, pixels: np.ndarray) -> None:
    """Centre and scale the head of a network of random weights, which else gives all images one answer."""
    model = onnx.load(path)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = onnx.numpy_helper.to_array(stored["w"])
    embedding = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["embedding"], {"image": pixels})[0]
    logits = embedding @ weights
    scale = 2 / logits.std(axis=0)
    stored["w"].CopyFrom(onnx.numpy_helper.from_array(weights * scale, "w"))
    stored["b"].CopyFrom(onnx.numpy_helper.from_array(-logits.mean(axis=0) * scale, "b"))
    onnx.save(model, path)
