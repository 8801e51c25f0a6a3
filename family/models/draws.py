"""Random draws without state: a mask is a function of (seed, step, layer, row of the update).

A rank draws for all rows of the update and keeps its own, so that ranks, resumes and one process draw the same. The layers of
Keras and `efficientnet` keep their state inside an op, where no checkpoint reaches it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import tensorflow as tf
import tf_keras


@dataclass(frozen=True)
class Draws:
    """Where in the training a forward pass stands; scalar int32 tensors."""

    seed: tf.Tensor
    step: tf.Tensor
    start: tf.Tensor  # the place of this rank's first row in the update
    total: tf.Tensor  # rows of the update, over all ranks


_current: list[Draws] = []


@contextmanager
def drawing(draws: Draws) -> Iterator[None]:
    """Let the dropout layers called inside use these draws."""
    _current.append(draws)
    try:
        yield
    finally:
        _current.pop()


class RowDropout(tf_keras.layers.Layer):
    """Dropout (or, per image, stochastic depth) with masks from the current draws.

    Args:
        rate: the share that is dropped.
        per_image: drop whole feature maps of an image (stochastic depth) instead of single features.
        index: the layer's own number, so that layers draw differently.
    """

    def __init__(self, rate: float, per_image: bool = False, index: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.per_image, self.index = float(rate), per_image, index

    def call(self, inputs, training=False):
        if not training or self.rate == 0:
            return inputs
        if not _current:
            raise RuntimeError(f"{self.name}: a training pass needs `with drawing(...)`")
        draws = _current[-1]
        inner = [1] * (inputs.shape.rank - 1) if self.per_image else inputs.shape[1:]
        uniform = tf.random.stateless_uniform(
            tf.concat([[draws.total], inner], 0), tf.stack([draws.seed * 1009 + self.index, draws.step]), alg="philox"
        )
        own = uniform[draws.start : draws.start + tf.shape(inputs)[0]]
        return inputs * tf.cast(own >= self.rate, inputs.dtype) / (1 - self.rate)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "per_image": self.per_image, "index": self.index}
