"""Keras to ONNX: uint8 RGB in, probabilities and embedding out, preprocessing inside. Loads TensorFlow."""

from pathlib import Path

import onnx
import tensorflow as tf
import tf2onnx
import tf_keras

OPSET = 17


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
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def _name_batch(proto: onnx.ModelProto) -> None:
    """Call the free dimension N at the input and the outputs."""
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"


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
