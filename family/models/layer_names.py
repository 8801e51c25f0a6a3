"""What a layer's name tells of its place in a model. No TensorFlow: exports read the same names off ONNX graphs."""

import re

_BLOCK = re.compile(r"(stem|top|block\d+[a-z]|block\d+_\d+|mixed_\d[a-z]|conv_7b)(?:_|$)")
# Inception-ResNet-V2 names the last layers of its blocks alone, of its stem, which ends with the second pooling, none, and not the last
# one of block8_10, which is followed by no activation.
_UNNAMED = {"max_pooling2d": "stem", "max_pooling2d_1": "stem", "custom_scale_layer_39": "block8_10"}


def block_of(layer: str) -> str | None:
    """Return the block that a layer's name tells, such as `stem`, `block1a`, `block35_7` or `top`; None where it tells none."""
    named = _BLOCK.match(layer)
    return named[1] if named else _UNNAMED.get(layer)
