"""Proof of int8: a file that is not what it is called is refused."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
from networks import draw_images, write_network  # noqa: E402

from export.blocks import before_first_convolution  # noqa: E402
from export.calibrate import collect, min_max  # noqa: E402
from export.proof import prove, why_not_int8  # noqa: E402
from export.quantize import OPERATORS, halve, load_fp32, write_int8  # noqa: E402


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proof")
    write_network(folder / "fp32.onnx")
    model = load_fp32(folder / "fp32.onnx")
    ranges = {name: min_max(histogram) for name, histogram in collect(model, OPERATORS, draw_images(16)).items()}
    write_int8(model, ranges, before_first_convolution(model), folder / "int8.onnx")
    return folder


def test_what_was_quantized_runs_in_int8(files):
    proof = prove(files / "int8.onnx")
    assert (proof["int8_convolutions"], proof["float_convolutions"], proof["batchnorms"]) == (6, 0, 0)
    assert why_not_int8(proof, 0) == "" and proof["float_weights_mb"] < prove(files / "fp32.onnx")["float_weights_mb"]


def test_a_float_file_that_is_called_int8_is_told(files):
    proof = prove(files / "fp32.onnx")
    assert (proof["int8_convolutions"], proof["float_convolutions"]) == (0, 6)
    assert why_not_int8(proof, 0) == "6 of its 6 convolutions run in float, 0 of them on purpose"
    assert why_not_int8(proof, 6), "a file without any int8 convolution is none"


def test_a_convolution_between_whose_marks_something_stands_is_told(files, tmp_path):
    """The marks are there, and so is int8 weight, but a float operator between them keeps the convolution in float."""
    model = onnx.load(files / "int8.onnx")
    (last,) = [node for node in model.graph.node if node.name == "m/top_conv/Conv2D"]
    name = last.input[0]
    model.graph.node.insert(list(model.graph.node).index(last), onnx.helper.make_node("Erf", [name], ["between"], name="between"))
    last.input[0] = "between"
    onnx.save(model, tmp_path / "broken.onnx")
    proof = prove(tmp_path / "broken.onnx")
    assert (proof["int8_convolutions"], proof["float_convolutions"]) == (5, 1)
    assert "1 of its 6 convolutions run in float, 0 of them on purpose" in why_not_int8(proof, 0) and why_not_int8(proof, 1) == ""


def test_batchnorms_that_are_left_are_told():
    assert "2 BatchNormalizations" in why_not_int8({"int8_convolutions": 3, "float_convolutions": 0, "batchnorms": 2}, 0)


def test_half_the_bytes_give_nearly_the_same_answers_under_the_same_names(tmp_path):
    import onnxruntime

    write_network(tmp_path / "fp32.onnx", width=64)
    halve(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")
    assert (tmp_path / "fp16.onnx").stat().st_size < 0.6 * (tmp_path / "fp32.onnx").stat().st_size
    images = draw_images(6, seed=2)
    answers = []
    for path in (tmp_path / "fp32.onnx", tmp_path / "fp16.onnx"):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        answers.append(session.run(["probabilities", "embedding"], {"image": images}))
    for wanted, found in zip(*answers, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0.02, atol=0.02)
    assert (answers[0][0].argmax(1) == answers[1][0].argmax(1)).all()
