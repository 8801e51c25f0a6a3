"""EfficientNet-Lite 0 to 4: EfficientNet without squeeze-and-excite, with ReLU6; no library of the stack has it.

Layers bear `efficientnet`'s names, so that the convolutions of B0's file load into Lite0 by name, and B1's into Lite1.
*Source*: EfficientNet-Lite in TensorFlow's TPU models repository (2020); block table of Tan and Le 2019, table 1.
"""

import math
from functools import partial

import tf_keras
from tf_keras import layers

# (kernel, repeats, filters, expansion, stride) of EfficientNet-B0's seven stages.
_STAGES = ((3, 1, 16, 1, 1), (3, 2, 24, 6, 2), (5, 2, 40, 6, 2), (3, 3, 80, 6, 2), (5, 3, 112, 6, 1), (5, 4, 192, 6, 2), (3, 1, 320, 6, 1))
_DROP_CONNECT = 0.2
_KERNEL = {"class_name": "VarianceScaling", "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"}}


def _trunk(width: float, depth: float, include_top: bool, weights: None, input_shape: tuple[int, int, int]) -> tf_keras.Model:
    """Return the trunk of an EfficientNet-Lite: float32 image -> feature map of 1,280 channels.

    Stem, head and the repeats of the first and last stage are the same at every size. The arguments from `include_top` on are those of
    the libraries' builders; only `include_top=False, weights=None` exists.
    """
    if include_top or weights is not None:
        raise ValueError("the Lite trunks are built without head and without weights")
    image = layers.Input(input_shape)
    x = _conv(image, 32, 3, "stem", stride=2)
    repeats = [stage[1] if stage in (_STAGES[0], _STAGES[-1]) else math.ceil(stage[1] * depth) for stage in _STAGES]
    done = 0
    for stage, (kernel, _, filters, expansion, stride) in enumerate(_STAGES):
        for k in range(repeats[stage]):
            name, drop_rate = f"block{stage + 1}{chr(ord('a') + k)}", _DROP_CONNECT * done / sum(repeats)
            x = _block(x, name, kernel, _round_filters(filters * width), expansion, stride if k == 0 else 1, drop_rate)
            done += 1
    return tf_keras.Model(image, _conv(x, 1280, 1, "top"))


# Width and depth of the published sizes; the width of stem and head is fixed.
lite0_trunk = partial(_trunk, 1.0, 1.0)
lite1_trunk = partial(_trunk, 1.0, 1.1)
lite2_trunk = partial(_trunk, 1.1, 1.2)
lite3_trunk = partial(_trunk, 1.2, 1.4)
lite4_trunk = partial(_trunk, 1.4, 1.8)


def _round_filters(filters: float) -> int:
    """Return the nearest multiple of 8, or the next one where that is more than a tenth below."""
    nearest = max(8, int(filters + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * filters else nearest


def _conv(x, filters: int, kernel: int, name: str, stride: int = 1, activate: bool = True):
    x = layers.Conv2D(filters, kernel, stride, "same", use_bias=False, kernel_initializer=_KERNEL, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_activation")(x) if activate else x


def _block(inputs, name: str, kernel: int, filters: int, expansion: int, stride: int, drop_rate: float):
    """Return an inverted bottleneck: expand, depthwise, project, and the shortcut where shapes agree."""
    x = inputs
    if expansion > 1:
        x = _conv(x, inputs.shape[-1] * expansion, 1, f"{name}_expand")
    x = layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, depthwise_initializer=_KERNEL, name=f"{name}_dwconv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    x = layers.ReLU(6.0, name=f"{name}_activation")(x)
    x = _conv(x, filters, 1, f"{name}_project", activate=False)
    if stride > 1 or inputs.shape[-1] != filters:
        return x
    x = layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
    return layers.Add(name=f"{name}_add")([x, inputs])
