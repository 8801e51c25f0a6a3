"""Preprocessing, BatchNorm and a part of hard-swish inside convolutions: the same answers, borders included, from a graph without them.

And one file from the same weights, however the converter ordered and named what it made.
"""

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")
import onnxruntime as ort  # noqa: E402

from export.onnx import _without_counters, fold_batchnorm, fold_hard_swish, fold_preprocessing, settle  # noqa: E402
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


def hard_swishes(three: float = 3.0, also=()) -> onnx.ModelProto:
    """Return two convolutions with a hard-swish behind each as the converter writes it, which share their bias and all constants."""
    rng = np.random.default_rng(0)
    arrays = {"w1": rng.normal(0, 0.02, (8, 3, 3, 3)), "w2": rng.normal(0, 0.3, (8, 8, 1, 1)), "bias": rng.normal(0, 1, 8), "3": three, "0": 0.0,
              "6": 6.0, "1/6": 1 / 6}  # fmt: skip
    nodes = [make("Cast", ["image"], ["f"], to=onnx.TensorProto.FLOAT), make("Transpose", ["f"], ["h0"], perm=[0, 3, 1, 2])]
    for k in (1, 2):
        nodes += [make("Conv", [f"h{k - 1}", f"w{k}", "bias"], [f"c{k}"], name=f"conv{k}"), make("Add", [f"c{k}", "3"], [f"a{k}"]),
                  make("Clip", [f"a{k}", "0", "6"], [f"r{k}"]), make("Mul", ["1/6", f"r{k}"], [f"m{k}"]),
                  make("Mul", [f"c{k}", f"m{k}"], [f"h{k}"])]  # fmt: skip
    value = onnx.helper.make_tensor_value_info
    outputs = [value(name, onnx.TensorProto.FLOAT, ["N", 8, "h", "w"]) for name in ("h2", *(node.output[0] for node in also))]
    made = onnx.helper.make_graph([*nodes, *also], "g", [value("image", onnx.TensorProto.UINT8, ["N", PX, PX, 3])], outputs,
                                  [onnx.numpy_helper.from_array(np.asarray(a, np.float32), name) for name, a in arrays.items()])  # fmt: skip
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)


def test_a_folded_hard_swish_gives_the_same_with_one_operator_less():
    model, images = hard_swishes(), {"image": hostile_images(PX)}
    (wanted,) = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(["h2"], images)
    assert fold_hard_swish(model) == 2
    onnx.checker.check_model(model)
    (found,) = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(["h2"], images)
    assert np.ptp(wanted) > 3, "all three pieces of it are met"
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    assert [node.op_type for node in model.graph.node] == ["Cast", "Transpose", *["Conv", "Add", "Clip", "Mul"] * 2]
    assert {"1/6", "3", "6", "bias"}.isdisjoint(tensor.name for tensor in model.graph.initializer)
    assert fold_hard_swish(model) == 0


@pytest.mark.parametrize(
    ("model", "n"),
    [
        (hard_swishes(three=2.5), 0),
        (hard_swishes(also=[make("Relu", ["c1"], ["z"])]), 1),  # what else reads the convolution would see other numbers
        (hard_swishes(also=[make("Relu", ["a1"], ["z"])]), 1),
    ],
)
def test_what_is_no_hard_swish_of_a_convolution_alone_stays(model, n):
    kept = model.SerializeToString()
    assert fold_hard_swish(model) == n and (model.SerializeToString() == kept) == (n == 0)


def batchnorm(source: str, *users: onnx.NodeProto) -> onnx.ModelProto:
    """Return a graph that ends with a BatchNorm of a value."""
    model = graph(0.01, 0.5, also=[make("BatchNormalization", [source, "gamma", "beta", "mean", "variance"], ["z"], epsilon=1e-3), *users])
    rng = np.random.default_rng(1)
    arrays = {name: rng.uniform(0.5, 2, 9 if source == "y" else 3).astype(np.float32) for name in ("gamma", "beta", "mean", "variance")}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


def test_batchnorm_is_folded_into_its_convolution():
    model = batchnorm("y")
    del model.graph.output[:1]  # else the convolution's own value is told too
    ask = {"image": hostile_images(PX)}
    wanted = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(["z"], ask)[0]
    assert fold_batchnorm(model) == 1
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node][-1] == "Conv" and not {"w", "gamma"} & {i.name for i in model.graph.initializer}
    found = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(["z"], ask)[0]
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())


def test_batchnorm_of_what_others_use_stays():
    assert fold_batchnorm(batchnorm("y", make("Relu", ["y"], ["also"]))) == 0
    assert fold_batchnorm(batchnorm("x3")) == 0, "of no convolution"


@pytest.mark.parametrize("seed", range(5))
def test_the_same_graph_is_the_same_file_in_whatever_order_it_was_made(seed):
    """The converter's order of nodes, its names of constants and which of equal ones it keeps follow addresses in memory."""

    def made() -> onnx.ModelProto:
        model = graph([0.0171, 0.0175, 0.0174], [-2.1, -2.0, -1.8], also=[make("Relu", ["y"], ["z"]), make("Neg", ["y"], ["t"]), make("Abs", ["y"], ["u"])])
        for k, node in enumerate(model.graph.node):
            node.name = f"node{k}__7"
        del model.graph.initializer[2:]
        arrays = {"w": np.ones((9, 3, 3, 3), np.float32), "b": np.ones(9, np.float32)}
        model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in arrays.items())
        return model

    model, other, rng = made(), made(), np.random.default_rng(seed)
    names = {tensor.name: f"const_fold_opt__{rng.integers(1e6)}" for tensor in other.graph.initializer}
    for node in other.graph.node:
        node.name = node.name.replace("__7", f"__{rng.integers(1e6)}")
        node.input[:] = [names.get(name, name) for name in node.input]
    tensors, nodes = list(other.graph.initializer), list(other.graph.node)
    for tensor in tensors:
        tensor.name = names[tensor.name]
    shuffled = [onnx.TensorProto.FromString(tensors[k].SerializeToString()) for k in rng.permutation(len(tensors))]
    waiting, ready, ordered = list(nodes), {"image"}, []
    while waiting:
        able = [node for node in waiting if all(name in ready or name in names.values() for name in node.input)]
        ordered.append(able[rng.integers(len(able))])
        waiting.remove(ordered[-1])
        ready |= set(ordered[-1].output)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del other.graph.initializer[:], other.graph.node[:]
    other.graph.initializer.extend(shuffled)
    other.graph.node.extend(copies)
    assert other.SerializeToString(deterministic=True) != model.SerializeToString(deterministic=True)
    wanted = answer(model)
    settle(model)
    settle(other)
    assert other.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert (answer(other) == wanted).all() and len(other.graph.node) == len(nodes)


def test_names_lose_the_converters_numbers_and_stay_apart():
    assert _without_counters(["a__7", "a", "a__9:0", "b__1__2", "b__3", "c", "c"], {"b_2"}) == ["a_2", "a", "a:0", "b", "b_3", "c", "c_2"]
    assert _without_counters(["embedding__4"], {"embedding"}) == ["embedding_2"], "an output of the graph has that name"


def test_nodes_without_names_keep_arrays_of_their_own():
    value = onnx.helper.make_tensor_value_info
    nodes = [make("Add", ["x", "three"], ["s"]), make("Mul", ["s", "five"], ["y__3"]), make("Identity", ["y__3"], ["y"])]
    arrays = [onnx.numpy_helper.from_array(np.float32(number), name) for number, name in ((3, "three"), (5, "five"))]
    made = onnx.helper.make_graph(nodes, "g", [value("x", onnx.TensorProto.FLOAT, ["N"])], [value("y", onnx.TensorProto.FLOAT, ["N"])], arrays)
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    settle(model)
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(["y"], {"x": np.float32([1, 2])})[0].tolist() == [20, 25]
