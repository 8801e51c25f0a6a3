"""Proof of int8: a file that is not what it is called is refused."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
from export.proof import prove, why_not_int8  # noqa: E402
from export.quantize import halve, quantize  # noqa: E402

PX, N_CLASSES = 32, 5
rng = np.random.default_rng(0)


def write_model(path) -> None:
    """Write a network of three convolutions as exports are: uint8 images in, probabilities and embedding out."""
    make, arrays = onnx.helper.make_node, {}

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


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proof")
    write_model(folder / "fp32.onnx")
    images = np.random.default_rng(1).integers(0, 256, (24, PX, PX, 3), np.uint8)
    made = quantize(folder / "fp32.onnx", folder / "int8.onnx", images[:16], images[16:])
    return folder, made


def test_what_was_quantized_runs_in_int8(files):
    folder, made = files
    proof = prove(folder / "int8.onnx")
    assert (proof["int8_convolutions"], proof["float_convolutions"], proof["batchnorms"]) == (3, 0, 0)
    assert made["convolutions_in_float"] == 0 and why_not_int8(proof, 0) == ""
    assert proof["float_weights_mb"] < prove(folder / "fp32.onnx")["float_weights_mb"]


def test_a_float_file_that_is_called_int8_is_told(files):
    proof = prove(files[0] / "fp32.onnx")
    assert (proof["int8_convolutions"], proof["float_convolutions"]) == (0, 3)
    assert why_not_int8(proof, 0) == "3 of its 3 convolutions run in float, 0 of them on purpose"
    assert why_not_int8(proof, 3), "a file without any int8 convolution is none"


def test_a_convolution_between_whose_marks_something_stands_is_told(files, tmp_path):
    """The marks are there, and so is int8 weight, but a float operator between them keeps the convolution in float."""
    model = onnx.load(files[0] / "int8.onnx")
    (last,) = [node for node in model.graph.node if node.name == "conv2"]
    name = last.input[0]
    model.graph.node.insert(list(model.graph.node).index(last), onnx.helper.make_node("Erf", [name], ["between"], name="between"))
    last.input[0] = "between"
    onnx.save(model, tmp_path / "broken.onnx")
    proof = prove(tmp_path / "broken.onnx")
    assert (proof["int8_convolutions"], proof["float_convolutions"]) == (2, 1)
    assert "1 of its 3 convolutions run in float, 0 of them on purpose" in why_not_int8(proof, 0) and why_not_int8(proof, 1) == ""


def test_batchnorms_that_are_left_are_told():
    assert "2 BatchNormalizations" in why_not_int8({"int8_convolutions": 3, "float_convolutions": 0, "batchnorms": 2}, 0)


def test_half_the_bytes_give_nearly_the_same_answers_under_the_same_names(files, tmp_path):
    import onnxruntime

    halve(files[0] / "fp32.onnx", tmp_path / "fp16.onnx")
    assert (tmp_path / "fp16.onnx").stat().st_size < 0.6 * (files[0] / "fp32.onnx").stat().st_size
    images = np.random.default_rng(2).integers(0, 256, (6, PX, PX, 3), np.uint8)
    answers = []
    for path in (files[0] / "fp32.onnx", tmp_path / "fp16.onnx"):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        answers.append(session.run(["probabilities", "embedding"], {"image": images}))
    for wanted, found in zip(*answers, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0.02, atol=0.02)
    assert (answers[0][0].argmax(1) == answers[1][0].argmax(1)).all()
