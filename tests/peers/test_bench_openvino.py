"""OpenVINO as a peer of `bench --peers`: the same answers, in the precision that it is called by, and beside ours in the same rounds."""

import json

import numpy as np
import pytest

REASON = "the extra `peers` is not installed (pip install '.[peers]')"
pytest.importorskip("openvino", reason=REASON)
onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from benchmarks.measurements import read_rows  # noqa: E402
from benchmarks.peers import openvino  # noqa: E402
from export.runtime import Settings, open_session  # noqa: E402
from family.cli import is_done, main  # noqa: E402
from family.data.dataset import open_dataset  # noqa: E402
from family.data.importing import import_dataset  # noqa: E402

FREE = {"batch": "N", "pinned": False, "hint": "f32"}
PX, N_CLASSES = 16, 5


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (8, PX, PX, 3), np.uint8)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """An ONNX file of two convolutions with swish, with the inputs and outputs of a bundle's."""
    random, stored, nodes = np.random.default_rng(1), {}, []

    def add(kind: str, *inputs: str, **attributes) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"out{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    x = add("Transpose", add("Cast", "image", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    for k, (n_in, n_out) in enumerate([(3, 16), (16, 16)]):
        stored[f"w{k}"] = (random.normal(size=(n_out, n_in, 3, 3)) / (100 if k == 0 else 4)).astype(np.float32)
        x = add("Conv", x, f"w{k}", pads=[1, 1, 1, 1])
        x = add("Mul", x, add("Sigmoid", x))
    stored["dims"], stored["head"] = np.array([2, 3], np.int64), random.normal(size=(16, N_CLASSES)).astype(np.float32)
    nodes.append(helper.make_node("Squeeze", [add("GlobalAveragePool", x), "dims"], ["embedding"]))
    nodes.append(helper.make_node("Softmax", [add("MatMul", "embedding", "head")], ["probabilities"]))
    graph = helper.make_graph(
        nodes, "small", [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", PX, PX, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", n]) for name, n in (("probabilities", N_CLASSES), ("embedding", 16))],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )  # fmt: skip
    file = tmp_path_factory.mktemp("small") / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


@pytest.fixture(scope="module")
def answers(path, images):
    return open_session(str(path), Settings("fp32", "cpu", 1)).run(["probabilities"], {"image": images})[0]


@pytest.mark.parametrize("batch", ["N", "1"])
@pytest.mark.parametrize("pinned", [True, False])
def test_it_answers_as_our_fp32_does_one_at_a_time_or_together(path, images, answers, batch, pinned):
    model = openvino.OpenVINO(path, {"batch": batch, "pinned": pinned, "hint": "f32"}, 1)
    together = model.predict(images)
    np.testing.assert_allclose(together, answers, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([model.predict(image[None]) for image in images]), answers, atol=1e-5)
    np.testing.assert_allclose(together, answers, atol=1e-5, err_msg="a later answer is written over an earlier one")


def test_settings_are_the_fastest_of_those_that_the_precision_allows(path, images, answers):
    settings, tried = openvino.choose_settings(path, "fp32", 1, images, answers)
    assert (
        len(tried) == 4 and min(tried, key=lambda key: tried[key]["ms"]) == openvino.tell_settings(settings) and settings["hint"] == "f32"
    )
    assert {found["agreement"] for found in tried.values()} == {1.0}


def test_settings_that_spoil_the_answers_are_passed_over(path, images, answers, tmp_path):
    pytest.importorskip("nncf", reason=REASON)
    openvino.quantize(path, tmp_path / "int8.xml", images, "performance")
    settings, tried = openvino.choose_settings(tmp_path / "int8.xml", "int8", 1, images, answers)
    assert len(tried) == (8 if openvino.can_bf16() else 4)
    assert tried[openvino.tell_settings(settings)]["agreement"] >= max(found["agreement"] for found in tried.values()) - 0.05
    assert (openvino.OpenVINO(tmp_path / "int8.xml", settings, 1).predict(images).argmax(1) == answers.argmax(1)).mean() > 0.8


def test_what_runs_is_read_back(path, images, tmp_path):
    pytest.importorskip("nncf", reason=REASON)
    layers = openvino.executed(openvino.OpenVINO(path, FREE, 1))
    assert layers == {"Convolution": {"f32": 2}, "FullyConnected": {"f32": 1}} and openvino.why_not("fp32", layers) == ""
    assert "0 of its 3 layers" in openvino.why_not("int8", layers) and "0 of its 3 layers" in openvino.why_not("bf16", layers)
    if openvino.can_bf16():
        assert openvino.why_not("bf16", openvino.executed(openvino.OpenVINO(path, {**FREE, "hint": "bf16"}, 1))) == ""
    for preset in ("performance", "mixed"):
        int8 = tmp_path / f"{preset}.xml"
        openvino.quantize(path, int8, images, preset)
        model = openvino.OpenVINO(int8, {**FREE, "batch": "1"}, 1)
        assert openvino.why_not("int8", openvino.executed(model)) == "" and openvino.why_not("fp32", openvino.executed(model))
        assert np.abs(model.predict(images) - openvino.OpenVINO(path, FREE, 1).predict(images)).max() < 0.1


def test_a_hint_that_is_ignored_is_refused():
    assert openvino.why_not("bf16", {"Convolution": {"f32": 91}}) == "0 of its 91 layers that multiply run in bf16: {'f32': 91}"
    assert openvino.why_not("fp32", {"Convolution": {"f32": 90, "bf16": 1}}).startswith("90 of its 91")
    assert openvino.why_not("int8", {"Convolution": {"f32": 16, "u8": 75}}) == "", "what NNCF leaves in float is its choice"
    assert openvino.why_not("fp32", {}) != ""


def test_bench_compares_a_bundle_with_it(tmp_path, write_source, write_bundle, capsys):
    pytest.importorskip("nncf", reason=REASON)
    rows = [
        {"listing_id": str(k), "image": f"{k}.jpg", "category": ("cat", "dog", "art")[k % 3], "split": ("train", "val", "test")[k // 6]}
        for k in range(18)
    ]
    import_dataset(write_source(tmp_path / "src", rows), tmp_path / "data")
    bundle = write_bundle(tmp_path / "bundle", open_dataset(tmp_path / "data").ontology, schemes=("fp32", "int8"))
    words = ["bench", str(bundle), "--out", str(tmp_path / "r.jsonl"), "--data", str(tmp_path / "data"), "--samples", "300"]
    words += ["--peers", "--plain", str(bundle / "model.int8.onnx")]
    assert main([*words, "--rounds", "6", "--json"]) == 1, "its plain file takes uint8, and a plain one floats"
    assert "ended with 1" in capsys.readouterr().err
    words = words[:-2]
    assert main([*words, "--rounds", "6"]) == 0
    told = capsys.readouterr().out
    found = {row["side"]: row for row in read_rows([tmp_path / "r.jsonl"]) if row["kind"] == "peer"}
    assert list(found) == ["ours-fp32", "ours-int8", "pytorch", "openvino-fp32", "openvino-bf16", "openvino-int8", "openvino-int8-mixed"]
    fp32 = found["openvino-fp32"]
    assert (
        fp32["answers"]["max_dp"] < 1e-5
        and fp32["answers"]["agreement"] == 1
        and fp32["metrics"]["n"] == 6
        and fp32["versions"]["openvino"]
    )
    assert fp32["against"].keys() == {"fp32", "int8"} and "| OpenVINO | fp32 |" in told
    assert found["openvino-int8"]["calibrated_on"]["n"] > 0 and found["ours-int8"]["against"].keys() == {"fp32"}
    for row in found.values():
        for other in row["against"].values():
            assert 0 < other["interval"][0] <= other["ratio"] <= other["interval"][1] and other["processor_time"]["ratio"] > 0
    assert (
        is_done([*words, "--rounds", "6"])
        and not is_done([*words, "--rounds", "7"])
        and not is_done([*words, "--rounds", "6", "--threads", "2"])
    )
    assert json.dumps(found, allow_nan=False)
