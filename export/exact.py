"""A model's answers in float64: what its float32 arithmetic rounds. Loads TensorFlow."""

import numpy as np
import tf_keras


def predict_exactly(model: tf_keras.Model, images: np.ndarray, batch: int = 8) -> np.ndarray:
    """Answer uint8 [n, px, px, 3] by the same layers and weights, all computed in float64: float64 [n, n_classes]."""
    image = tf_keras.Input(model.input.shape[1:], dtype="float64")
    exact = tf_keras.models.clone_model(model, image, lambda layer: type(layer).from_config({**layer.get_config(), "dtype": "float64"}))
    exact.set_weights(model.get_weights())
    return exact.predict(images.astype(np.float64), verbose=0, batch_size=batch)
