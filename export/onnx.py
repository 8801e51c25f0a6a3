"""Keras to ONNX: uint8 RGB in, probabilities and embedding out, preprocessing inside. Loads TensorFlow."""

import collections
import itertools
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
import tf_keras

OPSET = 17
_COUNTER = re.compile(r"(__\d+)+(?=(:\d+)?$)")  # behind names that the converter made
CONSTANT = 128  # of the fourth channel: its weights are then about as large as the others, which int8 needs


def convert(model: tf_keras.Model, path: Path) -> None:
    """Write a model of `build_variant` as ONNX with a dynamic batch.

    Input `image` uint8 [N, px, px, 3]; outputs `probabilities` float32 [N, n_classes] and `embedding` float32 [N, d].
    """
    both = tf_keras.Model(model.input, [model.get_layer("probabilities").output, model.get_layer("embedding").output])
    signature = [tf.TensorSpec([None, *model.input.shape[1:]], tf.uint8, name="image")]

    @tf.function(input_signature=signature)
    def answer(image):
        probabilities, embedding = both(tf.cast(image, tf.float32), training=False)
        return {"probabilities": probabilities, "embedding": embedding}

    proto, _ = tf2onnx.convert.from_function(answer, signature, opset=OPSET)
    _name_batch(proto)
    _drop_idle_reshapes(proto)
    _join_product_and_bias(proto)
    fold_batchnorm(proto)
    fold_preprocessing(proto)
    fold_hard_swish(proto)
    settle(proto)
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def settle(proto: onnx.ModelProto) -> None:
    """Order and name nodes, values and stored arrays by who needs them, from the outputs back: the same weights are then the same file.

    The converter numbers what it makes, and its order and which of some equal arrays it keeps follow addresses in memory.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    names: dict[str, str] = {}
    ordered, seen = [], set()
    waiting = [(makers[value.name], False) for value in reversed(proto.graph.output)]
    while waiting:
        node, is_ready = waiting.pop()
        if is_ready:
            ordered.append(node)
            continue
        if node.output[0] in seen:
            continue
        seen.add(node.output[0])
        waiting += [(node, True), *((makers[name], False) for name in reversed(node.input) if name in makers)]
    own = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    made = [name for node in ordered for name in node.output if name not in own]
    plain_values = dict(zip(made, _without_counters(made, own), strict=True))
    for node, plain in zip(ordered, _without_counters([node.name or node.op_type for node in ordered]), strict=True):
        node.name = plain
        for place, name in enumerate(node.input):
            if name in stored:
                names.setdefault(name, f"{node.name}/{place}")
            node.input[place] = names.get(name, plain_values.get(name, name))
        node.output[:] = [plain_values.get(name, name) for name in node.output]
    tensors = [onnx.TensorProto.FromString(stored[name].SerializeToString()) for name in names if name in stored]
    for tensor in tensors:
        tensor.name = names[tensor.name]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del proto.graph.node[:], proto.graph.initializer[:], proto.graph.value_info[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(tensors)


def _without_counters(names: list[str], taken: Iterable[str] = ()) -> list[str]:
    """Return names without the converter's numbers, told apart by their order where that makes equal ones of them.

    Args:
        taken: names that others have.
    """
    taken = {*taken, *(name for name in names if not _COUNTER.search(name))}
    found: dict[str, None] = {}
    for name in names:
        plain = _COUNTER.sub("", name)
        if plain in found or (plain != name and plain in taken):
            plain = next(f"{plain}_{k}" for k in itertools.count(2) if f"{plain}_{k}" not in taken and f"{plain}_{k}" not in found)
        found[plain] = None
    return list(found)


def _name_batch(proto: onnx.ModelProto) -> None:
    """Call the free dimension N at the input and the outputs."""
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"


def fold_preprocessing(proto: onnx.ModelProto) -> bool:
    """Fold the scale and the offset of the pixels into the first convolution, exactly; say whether the graph has them where they can be.

    pixel * scale + offset is as large as the image in float, two operators of the whole picture. The scale goes into the weights. The offset can't
    go into the bias where the convolution pads with zeros, since what is padded has no offset. So the image gets a fourth channel that is the
    same everywhere (CONSTANT, in uint8), whose weights carry the offset: where the others are padded with zeros, it is too.
    """
    chain = _chain_from(proto, "image", ("Cast", "Mul", "Add", "Transpose", "Conv"))
    if chain is None:
        return False
    cast, scaled, shifted, transpose, convolution = chain
    stored = {i.name: i for i in proto.graph.initializer}
    scale, offset = (_constant_of(node, stored) for node in (scaled, shifted))
    if scale is None or offset is None or convolution.input[1] not in stored or list(_attribute(transpose, "perm")) != [0, 3, 1, 2]:
        return False
    weights = onnx.numpy_helper.to_array(stored[convolution.input[1]]).astype(np.float64)
    if weights.shape[1] != 3 or _attribute(convolution, "group", 1) != 1:
        return False
    scale, offset = (np.broadcast_to(value.ravel(), 3).astype(np.float64) for value in (scale, offset))
    carried = (weights * offset[None, :, None, None]).sum(axis=1, keepdims=True) / CONSTANT
    folded = np.concatenate([weights * scale[None, :, None, None], carried], axis=1).astype(np.float32)
    stored[convolution.input[1]].CopyFrom(onnx.numpy_helper.from_array(folded, convolution.input[1]))
    proto.graph.initializer.extend([onnx.numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int64), "fourth_channel/pads"),
                                    onnx.numpy_helper.from_array(np.array(CONSTANT, np.uint8), "fourth_channel/value")])  # fmt: skip
    # All of it on bytes, which are a quarter of floats; the cast comes last.
    pad = onnx.helper.make_node("Pad", ["image_by_channel", "fourth_channel/pads", "fourth_channel/value"], ["image_of_four"], name="fourth_channel")
    last = transpose.output[0]
    transpose.input[0], transpose.output[0], cast.input[0], cast.output[0] = "image", "image_by_channel", "image_of_four", last
    gone = (cast, scaled, shifted, transpose)
    kept = [transpose, pad, cast, *(node for node in proto.graph.node if all(node is not other for other in gone))]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    used = {name for node in copies for name in node.input}
    initializers = [i for i in proto.graph.initializer if i.name in used]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(initializers)
    del proto.graph.value_info[:]
    return True


def _join_product_and_bias(proto: onnx.ModelProto) -> None:
    """Write the head's MatMul and Add as one Gemm: int8 rounds what comes out of each operator, and logits once are enough."""
    stored = {i.name for i in proto.graph.initializer}
    users = collections.Counter(name for node in proto.graph.node for name in node.input)
    made_by = {name: node for node in proto.graph.node for name in node.output}
    gone = []
    for node in proto.graph.node:
        product, bias = node.input if node.op_type == "Add" else ("", "")
        product, bias = (bias, product) if product in stored else (product, bias)
        matmul = made_by.get(product)
        if matmul is None or matmul.op_type != "MatMul" or matmul.input[1] not in stored or bias not in stored or users[product] != 1:
            continue
        node.op_type = "Gemm"
        node.input[:] = [*matmul.input, bias]
        gone.append(matmul)
    for node in gone:
        proto.graph.node.remove(node)


def fold_batchnorm(proto: onnx.ModelProto) -> int:
    """Fold each BatchNorm behind a convolution into it, exactly but for rounding; return how many.

    The converter folds them too, but leaves some where an image is so small that a block works on single pixels.
    """
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    makers = {name: node for node in proto.graph.node for name in node.output}
    users = collections.Counter(name for node in proto.graph.node for name in node.input)
    made, gone = {}, []
    for norm in [node for node in proto.graph.node if node.op_type == "BatchNormalization"]:
        convolution = makers.get(norm.input[0])
        if convolution is None or convolution.op_type != "Conv" or users[norm.input[0]] != 1 or not all(
            name in stored for name in (*convolution.input[1:], *norm.input[1:])
        ):  # fmt: skip
            continue
        kernel, *bias = (stored[name] for name in convolution.input[1:])
        gamma, beta, mean, variance = (stored[name] for name in norm.input[1:])
        # In float32 and in this order, as the converter does: which ones it leaves differs from time to time.
        scale = gamma / np.sqrt(variance + np.float32(_attribute(norm, "epsilon", 1e-5)))
        names = [f"{convolution.name}/with_batchnorm/{part}" for part in ("kernel", "bias")]  # others may use the same array
        made[names[0]] = kernel * scale[:, None, None, None]
        made[names[1]] = ((bias[0] if bias else np.float32(0)) - mean) * scale + beta
        convolution.input[1:] = names
        convolution.output[0] = norm.output[0]
        gone.append(norm)
    for node in gone:
        proto.graph.node.remove(node)
    _replace_stored(proto, made)
    return len(gone)


def _replace_stored(proto: onnx.ModelProto, made: dict[str, np.ndarray | float]) -> None:
    """Add arrays to a graph's, as float32, and take out those that nothing uses."""
    used = {name for node in proto.graph.node for name in node.input}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend([*kept, *(onnx.numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in made.items())])


def fold_hard_swish(proto: onnx.ModelProto) -> int:
    """Take one of the four operators out of each hard-swish behind a convolution, exactly; return of how many.

    With v = x / sqrt(6), x * clip(x + 3, 0, 6) / 6 is v * clip(v + 3 / sqrt(6), 0, sqrt(6)), and the convolution gives v when its weights and bias are
    divided by sqrt(6). Each operator that is left runs in int8, and the clip is part of the addition there: B0 at 224 px takes 0.86 of the time
    that it takes with swish. As HardSigmoid, which ONNX Runtime computes in float between two marks, it would be 1.09, with the division 1.01.
    """
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    makers = {name: node for node in proto.graph.node for name in node.output}
    root, made, gone = np.sqrt(6), {}, []
    for add in [node for node in proto.graph.node if node.op_type == "Add"]:
        chain = _chain_from(proto, add.output[0], ("Clip", "Mul", "Mul"))
        convolution = makers.get(add.input[0])
        if chain is None or convolution is None or convolution.op_type != "Conv" or not all(name in stored for name in convolution.input[1:]):
            continue
        clip, sixth, product = chain
        constants = [value for name in (add.input[1], *clip.input[1:], *sixth.input) if (value := _value_of(name, stored)) is not None]
        users = [node for node in proto.graph.node if add.input[0] in node.input]
        if len(constants) != 4 or not np.allclose(constants, [3, 0, 6, 1 / 6]) or users != [add, product]:
            continue
        for place, name in enumerate(convolution.input[1:], 1):  # others may use the same array, such as a bias of zeros
            convolution.input[place] = f"{convolution.name}/over_root_6/{place}"
            made[convolution.input[place]] = stored[name] / root
        made |= {"hard_swish/offset": 3 / root, "hard_swish/highest": root}
        add.input[1], clip.input[2] = "hard_swish/offset", "hard_swish/highest"
        product.input[:] = [add.input[0], clip.output[0]]
        gone.append(sixth)
    for node in gone:
        proto.graph.node.remove(node)
    _replace_stored(proto, made)
    return len(gone)


def _value_of(name: str, stored: dict) -> float | None:
    """Return a stored number; None where a value is no stored one, or many."""
    return stored[name].item() if name in stored and stored[name].size == 1 else None


def _chain_from(proto: onnx.ModelProto, name: str, kinds: tuple[str, ...]) -> list[onnx.NodeProto] | None:
    """Return the nodes of these kinds that follow one another from a value, none of which anything else uses; None where there are others."""
    found = []
    for kind in kinds:
        users = [node for node in proto.graph.node if name in node.input]
        if len(users) != 1 or users[0].op_type != kind:
            return None
        found.append(users[0])
        name = users[0].output[0]
    return found


def _constant_of(node: onnx.NodeProto, stored: dict) -> np.ndarray | None:
    """Return the one stored input of a node of two, of one value or one for each channel."""
    values = [onnx.numpy_helper.to_array(stored[name]) for name in node.input if name in stored]
    return values[0] if len(values) == 1 and values[0].size in (1, 3) else None


def _attribute(node: onnx.NodeProto, name: str, default=None):
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _drop_idle_reshapes(proto: onnx.ModelProto) -> None:
    """Remove reshapes to the shape that is there already.

    The converter leaves two around each squeeze-and-excite; ONNX Runtime can't quantize through them.
    """
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    dims = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.value_info}
    targets = {i.name: onnx.numpy_helper.to_array(i).tolist() for i in proto.graph.initializer if i.data_type == onnx.TensorProto.INT64}
    idle = {}
    for node in proto.graph.node:
        target = targets.get(node.input[1]) if node.op_type == "Reshape" else None
        # Only the free batch dimension may be -1, and all others must be known and equal.
        if target and target[0] == -1 and target[1:] == dims.get(node.input[0], [])[1:] and all(d > 0 for d in target[1:]):
            idle[node.output[0]] = idle.get(node.input[0], node.input[0])
    kept = [node for node in proto.graph.node if not (node.op_type == "Reshape" and node.output[0] in idle)]
    for node in kept:
        for k, name in enumerate(node.input):
            node.input[k] = idle.get(name, name)
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    initializers = [i for i in proto.graph.initializer if i.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(initializers)
