"""The blocks of a model, counted from the head down: what learns at one rate and starts to learn at one time."""

import re

import tf_keras

_BLOCK = re.compile(r"(stem|top|block\d+[a-z]|block\d+_\d+|mixed_\d[a-z]|conv_7b)(?:_|$)")
# Inception-ResNet-V2 names the last layers of its blocks alone, of its stem, which ends with the second pooling, none, and not the last
# one of block8_10, which is followed by no activation.
_UNNAMED = {"max_pooling2d": "stem", "max_pooling2d_1": "stem", "custom_scale_layer_39": "block8_10"}


def block_of(layer: str) -> str | None:
    """Return the block that a layer's name tells, such as `stem`, `block1a`, `block35_7` or `top`; None where it tells none."""
    named = _BLOCK.match(layer)
    return named[1] if named else _UNNAMED.get(layer)


def depths(model: tf_keras.Model) -> dict[str, int]:
    """Return layer name -> how many blocks its own is away from the head, whose layers have 0.

    A layer whose name tells no block belongs to the next one that is told on the way to the output, and to the head behind the last.
    """
    found, told = {}, ["head"]
    for layer in reversed(model.layers):  # Keras keeps them in the order of the graph, and blocks meet in one layer each
        block = block_of(layer.name) or told[-1]
        if block != told[-1]:
            told.append(block)
        found[layer.name] = len(told) - 1
    return found
