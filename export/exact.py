"""What a model answers in Keras, as exactly as is asked for: what exports are held to. Loads TensorFlow."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf
import tf_keras


@contextmanager
def full_float32() -> Iterator[None]:
    """Let a GPU multiply in float32: by default Keras convolves there with the 10 bits of TensorFloat-32, which no export's answers are."""
    was_on = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(was_on)


def predict_both(model: tf_keras.Model, images: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities [n, n_classes] and embeddings [n, d] of uint8 [n, px, px, 3], in the model's own type."""
    both = tf_keras.Model(model.input, [model.get_layer(name).output for name in ("probabilities", "embedding")])
    return tuple(both.predict(images.astype(model.input.dtype.as_numpy_dtype), verbose=0, batch_size=batch))


def in_float64(model: tf_keras.Model) -> tf_keras.Model:
    """Return the same layers with the same weights, which compute in float64: without what float32 rounds, but the weights."""
    image = tf_keras.Input(model.input.shape[1:], dtype="float64")
    exact = tf_keras.models.clone_model(model, image, lambda layer: type(layer).from_config({**layer.get_config(), "dtype": "float64"}))
    exact.set_weights(model.get_weights())
    return exact
