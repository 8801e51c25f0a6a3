"""What a model costs, read off its built graph: parameters, multiply-adds, features."""

import math

import tf_keras
from tf_keras import layers

_MULTIPLYING = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


def count(model: tf_keras.Model) -> dict[str, int]:
    """Return what a model of `build_variant` costs, at the resolution that it was built for.

    A multiply-add is one product with its sum in a Conv2D, DepthwiseConv2D or Dense layer, for one image. Biases, BatchNorm (which
    folds into the convolution before it), activations, pooling and additions are not counted, as in the papers' tables.

    Returns:
        {"parameters": all arrays, BatchNorm's statistics included; "trainable": those that gradients reach; "multiply_adds";
        "n_features": width of the embedding}.

    Raises:
        ValueError: a layer has weights and is of a kind that this does not count.
    """
    return {
        "parameters": model.count_params(),
        "trainable": sum(math.prod(weight.shape) for weight in model.trainable_weights),
        "multiply_adds": sum(multiply_adds(layer) for layer in model.layers if layer.weights),
        "n_features": model.get_layer("embedding").output.shape[-1],
    }


def multiply_adds(layer: layers.Layer) -> int:
    """Return the multiply-adds of one layer with weights for one image: the kernel's size at every place of the output."""
    if isinstance(layer, layers.BatchNormalization):
        return 0
    if type(layer) not in _MULTIPLYING:  # not isinstance: a transposed convolution is a Conv2D to Keras
        raise ValueError(f"{layer.name}: the multiply-adds of {type(layer).__name__} are not known here")
    return math.prod(layer.weights[0].shape) * math.prod(layer.output.shape[1:-1])
