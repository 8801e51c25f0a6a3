"""Build a variant as one flat Keras model: image -> (pixels scaled) -> trunk -> embedding -> logits -> probabilities."""

import importlib
from collections.abc import Callable

import tensorflow as tf
import tf_keras
from tf_keras import layers

from family.models.activations import swapping
from family.models.draws import RowDropout
from family.models.variants import Variant, check_activation, resolution_of, variant

_DROP_CONNECT = 0.2  # of every EfficientNet, V2 and Lite: survival 0.8


def build_variant(
    name: str,
    n_classes: int = 1000,
    resolution_px: int | None = None,
    dropout: float | None = None,
    drop_connect: float | None = None,
    activation: str = "",
) -> tf_keras.Model:
    """Return the Keras model of a variant.

    Its input `image` is float32 [N, resolution_px, resolution_px, 3] RGB in 0..255; its output float32 [N, n_classes]
    probabilities. Layers `embedding` and `logits` stand before them. Weights are random; see `family.models.weights`.

    Args:
        dropout: before the head; None is the published rate.
        drop_connect: stochastic depth, rising linearly from 0 at the first block to this after the last; None is the published 0.2.
        activation: in the place of the trunk's swish, one of `variants.ACTIVATIONS`; "" is the variant's own. Layers keep their names.

    Raises:
        UserError: no such variant, the resolution is too small for it, or it has no swish.
    """
    row = variant(name)
    check_activation(row, activation)
    px = resolution_of(row, resolution_px)
    tf_keras.backend.reset_uids()  # unnamed layers (Inception-ResNet-V2) get the same names in every process
    image = layers.Input((px, px, 3), name="image")
    scaled = layers.Rescaling(list(row.scale), list(row.offset), name="preprocessing")(image)
    base = library_trunk(row, px)
    replace = _replacement(base, _DROP_CONNECT if drop_connect is None else drop_connect)
    features = _rebuild(base, scaled, swapping(activation, replace) if activation else replace)
    embedding = layers.GlobalAveragePooling2D(name="embedding")(features)
    kept = RowDropout(row.dropout if dropout is None else dropout, name="head_dropout")(embedding)
    # float32 under any policy: in 16 bits the best answers tie, and a loss of thousands of classes is coarse.
    logits = layers.Dense(n_classes, dtype="float32", name="logits")(kept)
    return tf_keras.Model(image, layers.Softmax(dtype="float32", name="probabilities")(logits), name=name)


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


def at_resolution(model: tf_keras.Model, px: int) -> tf_keras.Model:
    """Return a model for images of px x px, sharing the layers."""
    if model.input.shape[1] == px:
        return model
    image = layers.Input((px, px, *model.input.shape[3:]))
    return tf_keras.Model(image, _rebuild(model, image, lambda layer: layer), name=f"{model.name}_{px}")


def soften_residuals(model: tf_keras.Model, gamma: float) -> None:
    """Set the scale of the last BatchNorm of each residual branch, so that a deep model begins near the identity.

    With random weights each branch adds as much as there is already: in V2-L, after 79 of them, a change in the seventh digit decides the answer.
    Inception-ResNet-V2 has no such BatchNorm: it scales its branches itself, by 0.1 to 1, and stays as it is.
    *Source*: Goyal et al. 2017 (1706.02677), section 5.1, with 0.
    """
    for layer in model.layers:
        if isinstance(layer, layers.Add):
            end = model.get_layer(f"{layer.name.removesuffix('add')}project_bn")
            end.gamma.assign(tf.fill(end.gamma.shape, gamma))


def rebuilt(model: tf_keras.Model, replace: Callable) -> tf_keras.Model:
    """Return a model whose layers are `replace(layer)` of another one's: the same, which are shared then, or others in their place."""
    image = layers.Input(model.input.shape[1:], name="image")
    return tf_keras.Model(image, _rebuild(model, image, replace), name=model.name)


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
        node = layer.inbound_nodes[0]  # the first use; shared layers have more
        inputs = tf.nest.map_structure(lambda tensor: made[id(tensor)], node.input_tensors)
        made[id(layer.output)] = replace(layer)(inputs)
    return made[id(base.outputs[0])]


def _replacement(base: tf_keras.Model, drop_connect: float) -> Callable:
    """Return a function that copies a library's layer, or gives our own for it."""
    # `efficientnet` and Keras divide by the number of blocks before scaling: B7's last block would be dropped at 0.68, not at 0.2.
    blocks = [layer.name.removesuffix("project_conv") for layer in base.layers if layer.name.endswith("project_conv")]
    n_dropouts = 0

    def replace(layer):
        nonlocal n_dropouts
        if isinstance(layer, layers.Dropout):  # `efficientnet`'s FixedDropout is one too
            n_dropouts += 1
            rate = drop_connect * blocks.index(layer.name.removesuffix("drop")) / len(blocks)
            return RowDropout(rate, per_image=True, index=n_dropouts, name=layer.name)
        # Squeeze-and-excite pools and reshapes to [N, 1, 1, C]; pooling with kept dimensions says the same with one
        # operation less, which an exported graph otherwise pays for in transposes.
        if layer.name.endswith("se_squeeze"):
            return layers.GlobalAveragePooling2D(keepdims=True, name=layer.name)
        if layer.name.endswith("se_reshape"):
            return layers.Activation("linear", name=layer.name)
        return type(layer).from_config(layer.get_config())

    return replace
