"""int8 graphs: what ONNX Runtime's tool writes, at a fraction of its time; blocks in float; the other format; what is refused."""

import copy

import numpy as np
import pytest

ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("sympy", reason="sympy, which ONNX Runtime's quantizer imports, is not installed")
from networks import draw_images, write_network  # noqa: E402
from onnxruntime.quantization import CalibrationMethod, QuantType  # noqa: E402
from onnxruntime.quantization.calibrate import TensorsData  # noqa: E402
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer  # noqa: E402

from export.blocks import before_first_convolution, count_convolutions, find_blocks  # noqa: E402
from export.calibrate import collect, min_max, percentile  # noqa: E402
from export.proof import prove  # noqa: E402
from export.qdq import _corrected  # noqa: E402
from export.quantize import OPERATORS, load_fp32, write_int8  # noqa: E402
from export.runtime import weight_bits  # noqa: E402
from family.errors import Failure  # noqa: E402


@pytest.fixture(scope="module", params=["MatMul", "Gemm"])
def network(tmp_path_factory, request):
    """A network, its ranges, and what arranges pixels."""
    path = tmp_path_factory.mktemp("network") / "fp32.onnx"
    write_network(path, head=request.param)
    model = load_fp32(path)
    histograms = collect(model, OPERATORS, draw_images(12))
    return model, {name: min_max(histogram) for name, histogram in histograms.items()}, before_first_convolution(model)


def answers(path, names=("probabilities", "embedding")) -> list[np.ndarray]:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(list(names), {"image": draw_images(8, seed=5)})


def write_by_tool(model, ranges, kept, path, reduce_range: bool = False) -> None:
    quantizer = QDQQuantizer(
        copy.deepcopy(model), per_channel=True, reduce_range=reduce_range, weight_qType=QuantType.QInt8, activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, {name: tuple(map(np.float32, ends)) for name, ends in ranges.items()}),
        nodes_to_quantize=[], nodes_to_exclude=kept, op_types_to_quantize=list(OPERATORS),
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True})  # fmt: skip
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(path))


@pytest.mark.parametrize("blocks", [(), ("stem",), ("block1a",), ("stem", "top"), ("head",), ("stem", "block1a", "top")])
@pytest.mark.parametrize("n_bits", [8, 7])
def test_answers_are_those_of_the_file_that_onnx_runtimes_tool_writes(network, tmp_path, blocks, n_bits):
    model, ranges, kept = network
    before = model.SerializeToString()
    kept = kept + [name for block in blocks for name in find_blocks(model)[block]]
    write_int8(model, ranges, kept, tmp_path / "ours.onnx", n_weight_bits=n_bits)
    assert model.SerializeToString() == before
    write_by_tool(model, ranges, kept, tmp_path / "tool.onnx", reduce_range=n_bits == 7)
    # Of 7 bits, the tool takes one from what is added to logits too, which nothing multiplies.
    step = 0 if n_bits == 8 or "MatMul" not in {node.op_type for node in model.graph.node} else 0.01
    for ours, theirs in zip(answers(tmp_path / "ours.onnx"), answers(tmp_path / "tool.onnx"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=step)
    ours, theirs = prove(tmp_path / "ours.onnx"), prove(tmp_path / "tool.onnx")
    assert ours["operators"] == theirs["operators"]
    # A lone convolution between marks, the clipping behind it apart, is made int8 by the runtime itself.
    lone = "top" in blocks and "block1a" not in blocks
    assert ours["float_convolutions"] == count_convolutions(model, kept) - lone and ours["int8_convolutions"] + ours["float_convolutions"] == 6
    weights = [onnx.numpy_helper.to_array(i) for i in onnx.load(tmp_path / "ours.onnx").graph.initializer if i.name.endswith("weights/int8")]
    assert max(np.abs(w.astype(int)).max() for w in weights) == (127 if n_bits == 8 else 64)


@pytest.mark.parametrize(
    ("n_in", "n_out", "groups", "axis"), [(6, 8, 1, 0), (6, 6, 6, 0), (6, 4, 2, 0), (6, 4, 1, 1)], ids=["conv", "depthwise", "groups", "gemm"]
)
def test_a_corrected_bias_takes_away_what_rounded_weights_add_on_average(n_in, n_out, groups, axis):
    rng = np.random.default_rng(0)
    exact, x, bias = rng.normal(size=(n_out, n_in // groups)), rng.normal(3, 1, (50, n_in)), rng.normal(size=n_out)
    rounded = np.round(exact * 4) / 4

    def compute(weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
        of_group = n_out // groups
        return np.stack([x[:, k // of_group * (n_in // groups) :][:, : n_in // groups] @ weights[k] + bias[k] for k in range(n_out)], axis=1)

    errors = (rounded - exact)[..., None, None] if axis == 0 else (rounded - exact).T
    found = compute(rounded, _corrected(bias, errors, axis, x.mean(0))).mean(0)
    np.testing.assert_allclose(found, compute(exact, bias).mean(0), atol=1e-12)
    assert np.abs(compute(rounded, bias).mean(0) - found).max() > 0.05


def test_corrected_biases_bring_the_mean_of_the_embedding_nearer(network, tmp_path):
    model, ranges, kept = network
    means = {name: found.means for name, found in collect(model, OPERATORS, draw_images(12)).items()}
    onnx.save(model, tmp_path / "fp32.onnx")
    (exact,) = answers(tmp_path / "fp32.onnx", ["embedding"])
    shifts = []
    for n, some in enumerate(({}, means)):
        write_int8(model, ranges, kept, tmp_path / f"{n}.onnx", n_weight_bits=7, means=some)
        shifts.append(np.abs((answers(tmp_path / f"{n}.onnx", ["embedding"])[0] - exact).mean(axis=0)).mean())
    assert shifts[1] < 0.8 * shifts[0]


def test_a_wide_range_keeps_a_clip_that_a_narrow_one_makes_idle(network, tmp_path):
    """Ranges may come from elsewhere: 0 to 9 behind a Clip to 6 must not let 7 through."""
    model, ranges, kept = network
    name = "m/block1a_activation/Relu6:0"
    for high, n_clips in ((5.0, 0), (9.0, 1)):
        write_int8(model, {**ranges, name: (0, high)}, kept, tmp_path / "int8.onnx")
        assert sum(node.op_type == "Clip" for node in onnx.load(tmp_path / "int8.onnx").graph.node) == n_clips


def test_both_formats_give_the_same_answers_and_one_is_smaller(network, tmp_path):
    model, ranges, kept = network
    kept = kept + find_blocks(model)["stem"]
    for form in ("QDQ", "QOperator"):
        write_int8(model, ranges, kept, tmp_path / f"{form}.onnx", form=form)
    for one, other in zip(answers(tmp_path / "QDQ.onnx"), answers(tmp_path / "QOperator.onnx"), strict=True):
        np.testing.assert_array_equal(one, other)
    fused = onnx.load(tmp_path / "QOperator.onnx")
    assert sum(node.op_type == "QLinearConv" for node in fused.graph.node) == 5
    assert {opset.domain for opset in fused.opset_import} == {"", "com.microsoft"}
    assert (tmp_path / "QOperator.onnx").stat().st_size < (tmp_path / "QDQ.onnx").stat().st_size


def test_a_range_that_is_missing_is_named(network, tmp_path):
    model, ranges, kept = network
    ranges = {name: ends for name, ends in ranges.items() if "block1a_add" not in name}
    with pytest.raises(Failure, match="no range for the activation 'm/block1a_add/add:0'"):
        write_int8(model, ranges, kept, tmp_path / "int8.onnx")


def test_blocks_are_told_by_names_and_what_tells_none_belongs_to_what_follows(network, tmp_path):
    model, _, idle = network
    blocks = find_blocks(model)
    assert list(blocks) == ["stem", "block1a", "top", "head"] and set(idle) == {"m/stem_conv/Transpose", "cast", "scaled"}
    assert sorted(sum(blocks.values(), []) + idle) == sorted(node.name for node in model.graph.node)
    renamed = onnx.ModelProto.FromString(model.SerializeToString())
    for node in renamed.graph.node:  # as Inception-ResNet-V2, which names the last layers of its blocks alone
        node.name = {"m/block1a_dwconv/Conv2D": "m/conv2d_7/Conv2D"}.get(node.name, node.name)
    assert "m/conv2d_7/Conv2D" in find_blocks(renamed)["block1a"]


def test_without_block_names_each_convolution_begins_one(tmp_path):
    write_network(tmp_path / "fp32.onnx", block_names=False)
    model = load_fp32(tmp_path / "fp32.onnx")
    blocks = find_blocks(model)
    assert list(blocks) == [node.name for node in model.graph.node if node.op_type == "Conv"]
    assert all(count_convolutions(model, names) == 1 for names in blocks.values())


@pytest.mark.parametrize(
    ("flags", "architecture", "bits", "why"),
    [({"avx2", "avx512_vnni"}, "x86_64", 8, "avx512_vnni"), ({"avx_vnni"}, "x86_64", 8, "avx_vnni"), ({"avx2", "avx512f"}, "x86_64", 7, "without VNNI"),
     (set(), "AMD64", 7, "saturate"), ({"asimd"}, "aarch64", 8, "without saturation"), (set(), "arm64", 8, "arm64")],
)  # fmt: skip
def test_weights_lose_a_bit_where_products_would_overflow(flags, architecture, bits, why):
    found = weight_bits(flags, architecture)
    assert found[0] == bits and why in found[1]


def test_narrower_ranges_cut(network, tmp_path):
    model, ranges, kept = network
    narrow = {name: (low / 4, high / 4) for name, (low, high) in ranges.items()}
    for name, some in (("wide", ranges), ("narrow", narrow)):
        write_int8(model, some, kept, tmp_path / f"{name}.onnx")
    (wide,), (cut,) = (answers(tmp_path / f"{name}.onnx", ["embedding"]) for name in ("wide", "narrow"))
    assert cut.max() <= 1.01 * narrow["embedding"][1] < wide.max()
    assert percentile(50)(collect(model, OPERATORS, draw_images(4))["embedding"])[1] < ranges["embedding"][1]
