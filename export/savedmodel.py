"""Keras to a SavedModel as TensorFlow Serving wants it: pixels, encoded images or tf.Examples in, probabilities and embedding out. Loads TensorFlow."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from google.protobuf import message
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from export.exact import full_float32
from export.runtime import part_size
from export.verify import FUSED, MAX_DE, MAX_DP, MAX_DP_FUSED, Answers, differences
from family.data.images import Preprocessing
from family.errors import UserError

VERSION = "1"  # Serving loads the highest number below `saved_model`
FEATURE = "image/encoded"  # of a tf.Example
PIXELS, ENCODED, EXAMPLES = "serving_default", "encoded", "examples"
AGREEMENT = 0.98  # of encoded images: TensorFlow resizes to other pixels by up to 1/255
# What TensorFlow's own decoder leaves undone, and the bundle's does. Stored images have none of it, so the agreement that is told leaves it out.
UNLIKE = "encoded images are JPEG, PNG, GIF or BMP; they are not turned by their EXIF orientation, and transparency is dropped, not laid over white"

# What the signatures compute with, of all members and all ways to resize, and what there is beside them.
OPERATORS = {
    "AddV2", "AvgPool", "BiasAdd", "Cast", "ConcatV2", "Const", "Conv2D", "DecodeImage", "DecodeJpeg", "DepthwiseConv2dNative", "EnsureShape",
    "Equal", "ExpandDims", "FloorDiv", "FusedBatchNormV3", "Identity", "IdentityN", "Less", "LogicalAnd", "MatMul", "Max", "MaxPool", "Maximum",
    "Mean", "Minimum", "Mul", "NoOp", "Pack", "Pad", "PadV2", "ParseExampleV2", "ReadVariableOp", "RealDiv", "Relu", "Relu6", "Reshape", "Round",
    "ScaleAndTranslate", "Shape", "Sigmoid", "Softmax", "Square", "Squeeze", "StatefulPartitionedCall", "StatelessIf", "StatelessWhile",
    "StridedSlice", "Sub", "Substr", "Sum", "TensorListFromTensor", "TensorListGetItem", "TensorListReserve", "TensorListSetItem", "TensorListStack",
}  # fmt: skip

OBJECTS = {"_generic_user_object", "trackable_list_wrapper", "signature_map", "variable", "bare_concrete_function", "captured_tensor"}


def write_saved_model(model: tf_keras.Model, how: Preprocessing, folder: Path) -> None:
    """Write a model of `build_variant`.

    Signatures: `serving_default`, `image` uint8 [N, px, px, 3] RGB; `encoded`, `encoded` string [N], JPEG, PNG, GIF or BMP files; `examples`,
    `examples` string [N], serialized tf.Examples with the feature `image/encoded`. Each gives `probabilities` float32 [N, n_classes] and
    `embedding` float32 [N, d].
    """
    both = tf_keras.Model(model.input, [model.get_layer("probabilities").output, model.get_layer("embedding").output])
    module = tf.Module()
    module.kept = both.variables  # and not the model: Keras would trace its training passes too
    px = how.resolution_px

    @tf.function(input_signature=[tf.TensorSpec([None, px, px, 3], tf.uint8, name="image")])
    def of_pixels(image):
        probabilities, embedding = both(tf.cast(image, tf.float32), training=False)
        return {"probabilities": probabilities, "embedding": embedding}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="encoded")])
    def of_encoded(encoded):
        return of_pixels(tf.map_fn(lambda data: decode(data, how), encoded, fn_output_signature=tf.TensorSpec([px, px, 3], tf.uint8)))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def of_examples(examples):
        return of_encoded(tf.io.parse_example(examples, {FEATURE: tf.io.FixedLenFeature([], tf.string)})[FEATURE])

    tf.saved_model.save(module, str(folder), {PIXELS: of_pixels, ENCODED: of_encoded, EXAMPLES: of_examples})


def decode(data: tf.Tensor, how: Preprocessing) -> tf.Tensor:
    """Return uint8 [px, px, 3] of encoded bytes: `family.data.images.decode_image` in TensorFlow's operators, see UNLIKE."""
    # The default way to decode a JPEG is a fast one that is off by one level on average.
    image = tf.cond(
        tf.io.is_jpeg(data),
        lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(data, channels=3, expand_animations=False),
    )
    image = tf.cast(tf.ensure_shape(image, [None, None, 3]), tf.float32)
    px = how.resolution_px
    if how.aspect == "crop":
        side = tf.minimum(tf.shape(image)[0], tf.shape(image)[1])
        top, left = (tf.shape(image)[0] - side) // 2, (tf.shape(image)[1] - side) // 2
        image = image[top : top + side, left : left + side]
    if how.aspect == "pad":
        # As `ImageOps.pad`: the longer side becomes px, the rest is grey.
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        inner = tf.maximum(1, tf.cast(tf.round(size * px / tf.reduce_max(size)), tf.int32))
        image = tf.image.resize(image, inner, how.filter, antialias=True) - 128.0
        top, left = (px - inner[0]) // 2, (px - inner[1]) // 2
        image = tf.pad(image, [[top, px - inner[0] - top], [left, px - inner[1] - left], [0, 0]]) + 128.0
    else:
        image = tf.image.resize(image, [px, px], how.filter, antialias=True)
    return tf.ensure_shape(tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8), [px, px, 3])


def check_saved_model(folder: Path) -> None:
    """Hold that a SavedModel is of the kind that `write_saved_model` writes, before it is loaded: loading runs what a graph of TensorFlow 1 or a resource
    begins with, and asking runs operators, of which TensorFlow has some that read and write files.

    Raises:
        UserError: it can't be read, or holds more than that.
    """
    try:
        if folder.resolve() != folder.parent.parent.resolve() / folder.parent.name / folder.name:
            raise UserError(f"{folder} is a link, so it is not loaded")
        found = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    except (OSError, message.DecodeError) as error:
        raise UserError(f"{folder} is no SavedModel: {error}") from None
    if len(found.meta_graphs) != 1 or not found.meta_graphs[0].HasField("object_graph_def"):
        raise UserError(f"{folder} is no SavedModel of TensorFlow 2 with one graph, so it is not loaded")
    (graph,) = found.meta_graphs
    nodes = graph.object_graph_def.nodes
    kinds = {node.user_object.identifier if node.HasField("user_object") else str(node.WhichOneof("kind")) for node in nodes}
    others = sorted(kinds - OBJECTS) + sorted(_operators(graph) - OPERATORS)
    if others:
        raise UserError(f"{folder} holds {', '.join(others[:5])}, which no export of ours does, so it is not loaded")


def _operators(graph: meta_graph_pb2.MetaGraphDef) -> set[str]:
    """Return the operators of all functions that an object of the graph names, and of those that these call."""
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    waiting = list(graph.object_graph_def.concrete_functions)
    for node in graph.object_graph_def.nodes:
        waiting += [node.bare_concrete_function.concrete_function_name, node.captured_tensor.concrete_function, *node.function.concrete_functions]
    used: set[str] = set()
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in functions and name not in seen:
            seen.add(name)
            for node in functions[name].node_def:
                used.update({node.op} - functions.keys())
                waiting += [node.op, *_called(node.attr)]
    return used


def _called(attributes) -> Iterator[str]:
    """Yield the names of the functions in a node's attributes, and in theirs."""
    for value in attributes.values():
        for function in (value.func, *value.list.func):
            if function.name:
                yield function.name
                yield from _called(function.attr)


def read_saved_model(folder: Path) -> dict[str, Callable]:
    """Return the signatures: each takes one array, and returns {"probabilities", "embedding"} as arrays.

    Raises:
        UserError: it is none that an export of ours may be, and is not loaded.
    """
    check_saved_model(folder)
    loaded = tf.saved_model.load(str(folder))

    def ask(name: str, argument: str) -> Callable:
        return lambda values: {key: value.numpy() for key, value in loaded.signatures[name](**{argument: tf.constant(values)}).items()}

    answers = {PIXELS: ask(PIXELS, "image"), ENCODED: ask(ENCODED, "encoded"), EXAMPLES: ask(EXAMPLES, "examples")}
    answers[PIXELS].keep = loaded  # its variables live as long as it does
    return answers


def make_example(data: bytes) -> bytes:
    """Return a serialized tf.Example of one encoded image."""
    return tf.train.Example(features=tf.train.Features(feature={FEATURE: tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))})).SerializeToString()


def why_unlike(found: dict) -> str:
    """Return why a SavedModel of which `compare` found this does not give the bundle's answers, or ""."""
    wrong = []
    if not found["max_dp"] <= MAX_DP_FUSED:
        wrong.append(f"max |dp| {found['max_dp']:.1e} from pixels (allowed {MAX_DP_FUSED:.0e})")
    if not found["max_de"] <= FUSED * MAX_DE:
        wrong.append(f"embeddings from pixels differ by {found['max_de']:.1e} of their largest value (allowed {FUSED * MAX_DE:.0e})")
    if found["encoded_agreement"] < AGREEMENT:
        wrong.append(f"{found['encoded_agreement']:.1%} of encoded images have the same best category (at least {AGREEMENT:.0%})")
    if not found["examples_max_dp"] <= MAX_DP:
        wrong.append(f"max |dp| {found['examples_max_dp']:.1e} from tf.Examples against encoded images (allowed {MAX_DP:.0e})")
    return ", ".join(wrong)


def compare(folder: Path, images: list[bytes], pixels: np.ndarray, answers: Answers) -> dict:
    """Compare a SavedModel with the bundle's answers.

    Args:
        images, pixels: encoded images, and uint8 [n, px, px, 3] of them as the bundle decodes them.
        answers: the bundle's.

    Returns:
        {"n", "max_dp" and "max_de" of the pixels' signature (as `verify.compare` has them), "encoded_agreement", "encoded_max_dp", "examples_max_dp"
        against the encoded ones}
    """
    with full_float32():
        return _compare(read_saved_model(folder), images, pixels, answers)


def _compare(signatures: dict[str, Callable], images: list[bytes], pixels: np.ndarray, answers: Answers) -> dict:
    batch = part_size(pixels.shape[1])

    def answer(name: str, values) -> Answers:
        parts = [signatures[name](values[k : k + batch]) for k in range(0, len(values), batch)]
        return tuple(np.concatenate([part[output] for part in parts]) for output in ("probabilities", "embedding"))

    dp, de = differences(answers, answer(PIXELS, pixels))
    encoded, examples = answer(ENCODED, images)[0], answer(EXAMPLES, [make_example(data) for data in images])[0]
    return {
        "n": len(images),
        "max_dp": float(dp.max()),
        "max_de": float(de.max()),
        "encoded_agreement": float((encoded.argmax(1) == answers[0].argmax(1)).mean()),
        "encoded_max_dp": float(np.abs(encoded - answers[0]).max()),
        "examples_max_dp": float(np.abs(examples - encoded).max()),
    }
