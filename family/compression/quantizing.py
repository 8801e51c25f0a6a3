"""Quantization-aware training: a copy of a model whose weights and activations are rounded as an int8 file rounds them.

BatchNorm is folded into the convolutions first, since that is what gets rounded. The ranges of activations start from calibration and learn. TFMOT's
wrapper puts the roundings in; its own rules are not used: they lack `Multiply`, keep one range for all channels of a depthwise kernel, and follow
activations by a moving average of what a rank happens to see.
*Source*: Jacob et al. 2018 (1712.05877); ranges that learn by their logarithm: Jain et al. 2019 (1903.08066).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from tf_keras import layers

from family.models.draws import RowDropout
from family.progress import progress

PERCENTILE = 99.999  # of an activation's values that its first range holds
GAIN = 10.0  # of a range's logarithm over its variable: in 500 updates at a rate of 2.5e-5 it moves by an eighth at most
_N_BINS = 2048
_CHUNK = 8  # images whose activations are in memory at once
_WEIGHTED = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)
_PASSING = (layers.Rescaling, layers.Softmax, layers.MaxPooling2D, RowDropout)  # whose output needs no range of its own
Ranges = dict[str, tuple[float, float]]


class ChannelRounding(tfmot.quantization.keras.quantizers.Quantizer):
    """Round weights to -127..127 times a scale for each channel: that of its largest weight, as ONNX Runtime chooses it.

    Args:
        is_depthwise: the channels are the last but one axis, [h, w, channels, 1].
    """

    def __init__(self, is_depthwise: bool):
        self.is_depthwise = is_depthwise

    def build(self, tensor_shape, name, layer):
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        flat = inputs[..., 0] if self.is_depthwise else inputs
        largest = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(flat), axis=list(range(flat.shape.rank - 1))), 1e-9))
        rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(flat, -largest, largest, num_bits=8, narrow_range=True)
        return rounded[..., None] if self.is_depthwise else rounded

    def get_config(self):
        return {"is_depthwise": self.is_depthwise}


class LearnedRange(tfmot.quantization.keras.quantizers.Quantizer):
    """Round activations to 256 steps of a range that learns with the weights, by the gradient of what lies outside."""

    def __init__(self, low: float, high: float):
        self.low, self.high = low, high

    def build(self, tensor_shape, name, layer):
        return {end: layer.add_weight(name=f"range_{end}", shape=(), initializer="zeros", trainable=True) for end in ("low", "high")}

    def __call__(self, inputs, training, weights, **kwargs):
        return tf.quantization.fake_quant_with_min_max_vars(inputs, *self.ends(weights), num_bits=8)

    def ends(self, weights: dict) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the range as it is by now; its ends keep their signs, and a 0 stays."""
        return self.low * tf.exp(GAIN * weights["low"]), self.high * tf.exp(GAIN * weights["high"])

    def get_config(self):
        return {"low": self.low, "high": self.high}


@dataclass(frozen=True)
class Rounding(tfmot.quantization.keras.QuantizeConfig):
    """What the wrapper rounds of a layer: the weights of this name, and the output where it has a range."""

    kernel: str | None
    output: LearnedRange | None

    def get_weights_and_quantizers(self, layer):
        return [(getattr(layer, self.kernel), ChannelRounding(self.kernel == "depthwise_kernel"))] if self.kernel else []

    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        if self.kernel:
            setattr(layer, self.kernel, quantize_weights[0])

    def set_quantize_activations(self, layer, quantize_activations):
        pass

    def get_output_quantizers(self, layer):
        return [self.output] if self.output else []

    def get_config(self):
        return {"kernel": self.kernel}


class RoundedGate(layers.Layer):
    """The sigmoid of a tensor, or (swish) the tensor times it, with the sigmoid rounded to 256 steps of 0..1, as a file computes it."""

    def __init__(self, is_swish: bool, **kwargs):
        super().__init__(**kwargs)
        self.is_swish = is_swish

    def call(self, inputs):
        gate = tf.quantization.fake_quant_with_min_max_args(tf.sigmoid(inputs), 0.0, 1.0, num_bits=8)
        return inputs * gate if self.is_swish else gate

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "is_swish": self.is_swish}


@dataclass(frozen=True)
class _Step:
    """One layer of the copy: which tensors of the model it takes and stands for, and what is rounded of it."""

    name: str  # of its range
    layer: layers.Layer
    inputs: object  # a key, or a list of keys
    output: object  # a key
    kernel: str | None = None
    has_range: bool = False

    def fresh(self) -> layers.Layer:
        """Return the layer, or a copy of one that has no weights: another use of the same would hide the first."""
        return self.layer if self.layer.weights else type(self.layer).from_config(self.layer.get_config())


@dataclass(frozen=True)
class _Copied:
    """The weights of a layer's copy, with BatchNorm folded in, and where they go back to."""

    variables: list  # kernel and bias of the copy
    source: layers.Layer
    batchnorm: layers.BatchNormalization | None


class Quantized:
    """A model with roundings, which trains in the place of another one.

    Args:
        model: of `build_variant`, trained.
        images: uint8 [n, px, px, 3], training rows from which the first ranges come.
    """

    def __init__(self, model: tf_keras.Model, images: np.ndarray):
        self._source = model
        self._copied: list[_Copied] = []
        self._steps = list(self._plan(model))
        probe = self._assemble(_Step.fresh, [step for step in self._steps if step.has_range])
        first = calibrate(probe, images)
        self._ranges = {name: LearnedRange(*ends) for name, ends in first.items()}
        self._wrappers: dict[str, layers.Layer] = {}
        self.model = self._assemble(self._wrap)

    def ranges(self) -> Ranges:
        """Return name -> (low, high) as they are by now. A name is that of the layer whose output it is: a folded convolution bears its BatchNorm's,
        and one with an activation of its own has `/linear` behind it before the activation."""
        return {name: tuple(float(end) for end in own.ends(self._wrappers[name]._output_quantizer_vars)) for name, own in self._ranges.items()}

    def finish(self) -> None:
        """Give the weights back to the model, whose BatchNorm adds the bias from here on and changes nothing else."""
        for copied in self._copied:
            kernel, bias = (variable.numpy() for variable in copied.variables)
            if copied.batchnorm is None:
                copied.source.set_weights([kernel, bias])
                continue
            copied.source.set_weights([kernel])
            norm = copied.batchnorm
            one, zero = np.ones_like(bias), np.zeros_like(bias)
            norm.set_weights([*([one] if norm.scale else []), bias, zero, one - norm.epsilon])

    def _plan(self, model: tf_keras.Model) -> Iterator[_Step]:
        """Yield the layers of the copy, in the order of the graph."""
        users: dict[int, list] = {}
        for layer in model.layers[1:]:
            for tensor in tf.nest.flatten(layer.input):
                users.setdefault(id(tensor), []).append(layer)
        norms = {id(layer.input): layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)}
        in_float = {id(model.input)}  # pixels, and what the first convolution makes of them: it scales them, and stays in float
        for layer in model.layers[1:]:
            keys, output = tf.nest.map_structure(id, layer.input), id(layer.output)
            is_float = isinstance(keys, int) and keys in in_float
            if isinstance(layer, layers.BatchNormalization):
                continue  # it is in its convolution
            if not isinstance(layer, _WEIGHTED):
                in_float |= {output} if isinstance(layer, layers.Rescaling) else set()
                yield _activated(layer.name, layer, keys, output, is_float)
                continue
            norm = norms.get(output)
            last, activation = norm or layer, _activation_of(layer)
            output = id(last.output)
            copy = _fold(layer, norm)
            self._copied.append(_Copied([copy.weights[0], copy.bias], layer, norm))
            kernel = None if is_float else "depthwise_kernel" if isinstance(layer, layers.DepthwiseConv2D) else "kernel"
            # A rectifier behind a convolution is part of it in a file: only what comes out of it is rounded.
            following = [_activation_of(user) for user in users[output]] if activation is None else [activation]
            has_range = not is_float and following != ["relu"]
            if activation is None:
                in_float |= {output} if is_float else set()
                yield _Step(last.name, copy, keys, output, kernel, has_range)
                continue
            yield _Step(f"{last.name}/linear", copy, keys, f"{output}/linear", kernel, has_range)
            yield _activated(last.name, layers.Activation(layer.activation, name=last.name), f"{output}/linear", output, is_float)

    def _wrap(self, step: _Step) -> layers.Layer:
        if step.kernel is None and not step.has_range:
            return step.fresh()
        own = self._ranges[step.name] if step.has_range else None
        self._wrappers[step.name] = tfmot.quantization.keras.QuantizeWrapperV2(step.fresh(), Rounding(step.kernel, own), name=step.name)
        return self._wrappers[step.name]

    def _assemble(self, made_of: Callable, told: list[_Step] | None = None) -> tf_keras.Model:
        """Return the model of the steps, or one of several outputs, by name."""
        image = layers.Input(self._source.input.shape[1:], name="image")
        made = {id(self._source.input): image}
        for step in self._steps:
            made[step.output] = made_of(step)(tf.nest.map_structure(made.__getitem__, step.inputs))
        if told is not None:
            return tf_keras.Model(image, {step.name: made[step.output] for step in told})
        return tf_keras.Model(image, made[id(self._source.output)], name=self._source.name)


def _activated(name: str, layer: layers.Layer, keys, output, is_float: bool) -> _Step:
    """Return the step of a layer without weights."""
    activation = _activation_of(layer)
    if activation in ("swish", "sigmoid") and not is_float:
        gate = RoundedGate(activation == "swish", name=name)
        return _Step(name, gate, keys, output, has_range=activation == "swish")
    is_passing = isinstance(layer, _PASSING) or (isinstance(layer, layers.Activation) and activation is None)
    return _Step(name, layer, keys, output, has_range=not is_passing)


def _activation_of(layer: layers.Layer) -> str | None:
    """Return the activation that a layer is or ends with: swish, sigmoid, relu (of any bound) or another's name; None for none."""
    if isinstance(layer, layers.ReLU):
        return "relu"
    name = getattr(getattr(layer, "activation", None), "__name__", None)
    return {"linear": None, "silu": "swish", "relu6": "relu"}.get(name, name)


def _fold(layer: layers.Layer, norm: layers.BatchNormalization | None) -> layers.Layer:
    """Return a copy of a layer with weights, without activation, with a bias, and with the BatchNorm behind it folded in."""
    copy = type(layer).from_config({**layer.get_config(), "activation": "linear", "use_bias": True, "name": f"{layer.name}_folded"})
    copy.build(layer.input.shape)
    kernel, *bias = (array.astype(np.float64) for array in layer.get_weights())
    bias = bias[0] if bias else np.zeros(copy.bias.shape)
    if norm is not None:
        *gamma, beta, mean, variance = (array.astype(np.float64) for array in norm.get_weights())
        scale = (gamma[0] if gamma else 1.0) / np.sqrt(variance + norm.epsilon)
        kernel, bias = kernel * (scale[:, None] if isinstance(layer, layers.DepthwiseConv2D) else scale), beta + (bias - mean) * scale
    copy.set_weights([kernel, bias])
    return copy


def calibrate(probe: tf_keras.Model, images: np.ndarray) -> Ranges:
    """Return name -> (low, high) of a model's outputs: the shortest range around 0 outside of which there is 1 value in 100,000 at either end.

    Args:
        probe: float32 images -> {name: tensor}.
        images: uint8 [n, px, px, 3]; they are gone over twice, a few at a time, for the extent and for a histogram of each output.
    """
    chunks = [images[k : k + _CHUNK].astype(np.float32) for k in range(0, len(images), _CHUNK)]

    @tf.function
    def extent(chunk):
        return {name: tf.stack([tf.reduce_min(value), tf.reduce_max(value)]) for name, value in probe(chunk, training=False).items()}

    @tf.function
    def histogram(chunk, ends):
        return {name: tf.histogram_fixed_width(value, ends[name], _N_BINS) for name, value in probe(chunk, training=False).items()}

    extents = [extent(chunk) for chunk in progress(chunks, "extents", unit="chunks")]
    ends = {name: np.array([min(found[name][0].numpy() for found in extents), max(found[name][1].numpy() for found in extents)]) for name in extents[0]}
    counts = dict.fromkeys(ends, 0)
    for chunk in progress(chunks, "calibrating", unit="chunks"):
        for name, found in histogram(chunk, {name: tf.constant(pair) for name, pair in ends.items()}).items():
            counts[name] = counts[name] + found.numpy().astype(np.int64)
    return {name: _range_of(counts[name], *ends[name]) for name in ends}


def _range_of(counts: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Return the range of a histogram's percentile, made to hold 0, which a padded border is."""
    edges = np.linspace(low, high, len(counts) + 1)
    share = np.cumsum(counts) / counts.sum()
    outside = 1 - PERCENTILE / 100
    first, last = int(np.searchsorted(share, outside, "right")), int(np.searchsorted(share, 1 - outside))
    low, high = min(0.0, edges[first]), max(0.0, edges[min(last + 1, len(counts))])
    return float(low), float(high if high > low else low + 1e-6)
