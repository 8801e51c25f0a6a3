"""Preprocessing inside the first convolution: the same answers, borders included, from a graph without it."""

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")
import onnxruntime as ort  # noqa: E402

from export.onnx import fold_preprocessing  # noqa: E402
from export.verify import hostile_images  # noqa: E402

PX = 24
make = onnx.helper.make_node


def graph(scale, offset, pads=(0, 0, 1, 1), also=(), group: int = 1) -> onnx.ModelProto:
    """Return what the converter writes before the second layer."""
    rng = np.random.default_rng(0)
    arrays = {"scale": np.float32(scale), "offset": np.float32(offset), "b": rng.normal(0, 1, 9).astype(np.float32),
              "w": rng.normal(0, 0.3, (9, 3 // group, 3, 3)).astype(np.float32)}  # fmt: skip
    nodes = [make("Cast", ["image"], ["x0"], to=onnx.TensorProto.FLOAT), make("Mul", ["x0", "scale"], ["x1"]), make("Add", ["x1", "offset"], ["x2"]),
             make("Transpose", ["x2"], ["x3"], perm=[0, 3, 1, 2]),
             make("Conv", ["x3", "w", "b"], ["y"], pads=list(pads), strides=[2, 2], group=group), *also]  # fmt: skip
    value = onnx.helper.make_tensor_value_info
    outputs = [value(node.output[0], onnx.TensorProto.FLOAT, ["N", "a", "b", "c"]) for node in (nodes[4], *also)]
    made = onnx.helper.make_graph(nodes, "g", [value("image", onnx.TensorProto.UINT8, ["N", PX, PX, 3])], outputs,
                                  [onnx.numpy_helper.from_array(a, name) for name, a in arrays.items()])  # fmt: skip
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)


def answer(model: onnx.ModelProto) -> np.ndarray:
    onnx.checker.check_model(model)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(["y"], {"image": hostile_images(PX)})[0]


@pytest.mark.parametrize(
    ("scale", "offset"),
    [([0.0171, 0.0175, 0.0174], [-2.1, -2.0, -1.8]), (1 / 128, -0.992), ([0.01] * 3, [0.0, 0.0, 0.0])],
)
@pytest.mark.parametrize("pads", [(0, 0, 1, 1), (1, 1, 1, 1), (0, 0, 0, 0)])
def test_folded_answers_are_the_same_at_the_border_too(scale, offset, pads):
    model = graph(scale, offset, pads)
    wanted = answer(model)
    assert fold_preprocessing(model)
    np.testing.assert_allclose(answer(model), wanted, atol=2e-5)
    assert [node.op_type for node in model.graph.node] == ["Transpose", "Pad", "Cast", "Conv"]
    assert {i.name for i in model.graph.initializer} == {"w", "b", "fourth_channel/pads", "fourth_channel/value"}
    assert not fold_preprocessing(model), "there is nothing left to fold"


@pytest.mark.parametrize(
    "model",
    [
        graph(0.01, 0.5, also=[make("Relu", ["x1"], ["z"])]),
        graph(0.01, 0.5, group=3),
        graph(np.full((1, PX, PX, 1), 0.01), 0.5),
    ],
)
def test_what_can_not_be_folded_stays_as_it_is(model):
    before = model.SerializeToString()
    assert not fold_preprocessing(model) and model.SerializeToString() == before
