"""EfficientNet-Lite: EfficientNet without squeeze-and-excite, with ReLU6; no library of the stack has it.

Layers bear `efficientnet`'s names, so that a B0 file's convolutions load by name.
*Source*: EfficientNet-Lite in TensorFlow's TPU models repository (2020); block table of Tan and Le 2019, table 1.
"""

import tf_keras
from tf_keras import layers

# (kernel, repeats, filters, expansion, stride) of EfficientNet-B0's seven stages.
_STAGES = ((3, 1, 16, 1, 1), (3, 2, 24, 6, 2), (5, 2, 40, 6, 2), (3, 3, 80, 6, 2), (5, 3, 112, 6, 1), (5, 4, 192, 6, 2), (3, 1, 320, 6, 1))
_DROP_CONNECT = 0.2
_KERNEL = {"class_name": "VarianceScaling", "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"}}


def lite0_trunk(include_top: bool, weights: None, input_shape: tuple[int, int, int]) -> tf_keras.Model:
    """Return the trunk of EfficientNet-Lite0: float32 image -> feature map of 1,280 channels.

    The arguments are those of the libraries' builders; only `include_top=False, weights=None` exists.
    """
    if include_top or weights is not None:
        raise ValueError("the Lite trunk is built without head and without weights")
    image = layers.Input(input_shape)
    x = _conv(image, 32, 3, "stem", stride=2)
    n_blocks, done = sum(stage[1] for stage in _STAGES), 0
    for stage, (kernel, repeats, filters, expansion, stride) in enumerate(_STAGES, 1):
        for k in range(repeats):
            name = f"block{stage}{chr(ord('a') + k)}"
            x = _block(x, name, kernel, filters, expansion, stride if k == 0 else 1, _DROP_CONNECT * done / n_blocks)
            done += 1
    return tf_keras.Model(image, _conv(x, 1280, 1, "top"), name="lite0")


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
    if drop_rate:
        x = layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
    return layers.Add(name=f"{name}_add")([x, inputs])
