"""Small networks as exports are: uint8 images in, probabilities and embedding out, with every operator that int8 knows and a channel that is dead."""

from pathlib import Path

import numpy as np
import onnx

PX, N_CLASSES = 32, 5


def write_network(path: Path, block_names: bool = True, head: str = "MatMul", width: int = 16) -> None:
    """Write a stem, a block with squeeze-and-excite and a residual, and a top; without block names, nodes are called n0, n1, ..."""
    make, arrays, nodes = onnx.helper.make_node, {}, []
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> str:
        arrays[name] = (rng.normal(0, 1.5, shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        return name

    def add(kind: str, name: str, *inputs: str, **attributes) -> str:
        name = name if block_names else f"n{len(nodes)}"
        nodes.append(make(kind, list(inputs), [f"{name}:0"], name=name, **attributes))
        return f"{name}:0"

    def conv(name: str, x: str, n_in: int, n_out: int, k: int = 3, group: int = 1) -> str:
        return add("Conv", f"m/{name}/Conv2D", x, weight(f"{name}_w", n_out, n_in // group, k, k), weight(f"{name}_b", n_out), pads=[k // 2] * 4, group=group)

    def swish(name: str, x: str) -> str:
        return add("Mul", f"m/{name}/mul", x, add("Sigmoid", f"m/{name}/Sigmoid", x))

    arrays |= {"axes": np.array([2, 3], np.int64), "zero": np.float32(0), "six": np.float32(6), "scale": np.float32([0.02])}
    pixels = add("Cast", "cast", add("Transpose", "m/stem_conv/Transpose", "image", perm=[0, 3, 1, 2]), to=onnx.TensorProto.FLOAT)
    pixels = add("Mul", "scaled", pixels, "scale")
    x = swish("stem_activation", conv("stem_conv", pixels, 3, width))
    y = add("Clip", "m/block1a_activation/Relu6", conv("block1a_dwconv", x, width, width, group=width), "zero", "six")
    gate = swish("block1a_se_reduce", conv("block1a_se_reduce", add("GlobalAveragePool", "m/block1a_se_squeeze/Mean", y), width, 4, k=1))
    gate = add("Sigmoid", "m/block1a_se_expand/Sigmoid", conv("block1a_se_expand", gate, 4, width, k=1))
    y = add("Add", "m/block1a_add/add", conv("block1a_project_conv", add("Mul", "m/block1a_se_excite/mul", y, gate), width, width, k=1), x)
    y = add("Relu", "m/top_activation/Relu", conv("top_conv", y, width, 2 * width, k=1))
    arrays["block1a_dwconv_w"][3], arrays["block1a_dwconv_b"][3] = 1e-12, 1  # its bias does not fit into int32 at the scale of its weights
    pooled = add("Squeeze", "m/embedding/Squeeze", add("GlobalAveragePool", "m/embedding/Mean", y), "axes")
    if head == "Gemm":
        logits = add("Gemm", "m/logits/Gemm", pooled, weight("w", 2 * width, N_CLASSES), weight("b", N_CLASSES))
    else:
        logits = add("Add", "m/logits/BiasAdd", add("MatMul", "m/logits/MatMul", pooled, weight("w", 2 * width, N_CLASSES)), weight("b", N_CLASSES))
    last = add("Softmax", "m/probabilities/Softmax", logits)
    names = {pooled: "embedding", last: "probabilities"}
    for node in nodes:
        node.input[:], node.output[:] = ([names.get(name, name) for name in some] for some in (node.input, node.output))
    value = onnx.helper.make_tensor_value_info
    inputs = [value("image", onnx.TensorProto.UINT8, ["N", PX, PX, 3])]
    outputs = [value("probabilities", onnx.TensorProto.FLOAT, ["N", N_CLASSES]), value("embedding", onnx.TensorProto.FLOAT, ["N", 2 * width])]
    graph = onnx.helper.make_graph(nodes, "tiny", inputs, outputs, [onnx.numpy_helper.from_array(a, name) for name, a in arrays.items()])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def draw_images(n: int, seed: int = 1) -> np.ndarray:
    """Return uint8 [n, px, px, 3], each of another brightness and contrast."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 8, 8, 3)) * rng.uniform(0.2, 1, (n, 1, 1, 3))
    return coarse.repeat(PX // 8, 1).repeat(PX // 8, 2).astype(np.uint8)
