"""Build a variant as one flat Keras model: image -> (pixels scaled) -> trunk -> embedding -> logits -> probabilities."""

import importlib
from collections.abc import Callable

import tensorflow as tf
import tf_keras
from tf_keras import layers

from family.models.draws import RowDropout
from family.models.variants import Variant, variant


def build_variant(
    name: str,
    n_classes: int = 1000,
    resolution_px: int | None = None,
    dropout: float | None = None,
    drop_connect: float | None = None,
) -> tf_keras.Model:
    """Return the Keras model of a variant.

    Its input `image` is float32 [N, resolution_px, resolution_px, 3] RGB in 0..255; its output float32 [N, n_classes]
    probabilities. Layers `embedding` and `logits` stand before them. Weights are random; see `family.models.weights`.

    Args:
        dropout: before the head; None is the published rate.
        drop_connect: stochastic depth of the last block, rising linearly from 0; None is the library's rate.
    """
    row = variant(name)
    px = resolution_px or row.resolution_px
    tf_keras.backend.reset_uids()  # unnamed layers (Inception-ResNet-V2) get the same names in every process
    image = layers.Input((px, px, 3), name="image")
    scaled = layers.Rescaling(list(row.scale), list(row.offset), name="preprocessing")(image)
    features = _rebuild(library_trunk(row, px), scaled, _replacement(drop_connect))
    embedding = layers.GlobalAveragePooling2D(name="embedding")(features)
    kept = RowDropout(row.dropout if dropout is None else dropout, name="head_dropout")(embedding)
    logits = layers.Dense(n_classes, name="logits")(kept)
    return tf_keras.Model(image, layers.Softmax(name="probabilities")(logits), name=name)


def trunk_of(model: tf_keras.Model) -> tf_keras.Model:
    """Return the part image -> embedding, sharing the layers."""
    return tf_keras.Model(model.input, model.get_layer("embedding").output, name="trunk")


def head_of(model: tf_keras.Model) -> tf_keras.Model:
    """Return the part embedding -> logits, sharing the layers."""
    embedding = layers.Input(model.get_layer("embedding").output.shape[1:])
    kept = model.get_layer("head_dropout")(embedding)
    return tf_keras.Model(embedding, model.get_layer("logits")(kept), name="head")


def logits_of(model: tf_keras.Model) -> tf_keras.Model:
    """Return the part image -> logits, sharing the layers."""
    return tf_keras.Model(model.input, model.get_layer("logits").output, name="logits")


def library_trunk(row: Variant, px: int, weights: str | None = None) -> tf_keras.Model:
    """Return a library's own trunk; `weights` other than None makes the library download them."""
    module, _, function = row.builder.partition(":")
    build = getattr(importlib.import_module(module), function)
    options = {"include_preprocessing": False} if row.keep_preprocessing_out else {}
    return build(include_top=False, weights=weights, input_shape=(px, px, 3), **options)


def _rebuild(base: tf_keras.Model, start, replace: Callable) -> tf.Tensor:
    """Apply the layers of a functional model, each passed through `replace`, to another input."""
    made = {id(base.inputs[0]): start}
    for layer in base.layers:
        if isinstance(layer, layers.InputLayer):
            continue
        (node,) = layer.inbound_nodes
        inputs = tf.nest.map_structure(lambda tensor: made[id(tensor)], node.input_tensors)
        made[id(layer.output)] = replace(layer)(inputs)
    return made[id(base.outputs[0])]


def _replacement(drop_connect: float | None) -> Callable:
    """Return a function that copies a library's layer, or gives our own for it."""
    n_dropouts = 0

    def replace(layer):
        nonlocal n_dropouts
        if isinstance(layer, layers.Dropout):  # `efficientnet`'s FixedDropout is one too
            n_dropouts += 1
            rate = layer.rate if drop_connect is None else layer.rate / 0.2 * drop_connect  # the libraries' own is 0.2
            return RowDropout(rate, per_image=layer.noise_shape is not None, index=n_dropouts, name=layer.name)
        # Squeeze-and-excite pools and reshapes to [N, 1, 1, C]; pooling with kept dimensions says the same with one
        # operation less, which an exported graph otherwise pays for in transposes.
        if layer.name.endswith("se_squeeze"):
            return layers.GlobalAveragePooling2D(keepdims=True, name=layer.name)
        if layer.name.endswith("se_reshape"):
            return layers.Activation("linear", name=layer.name)
        return type(layer).from_config(layer.get_config())

    return replace
