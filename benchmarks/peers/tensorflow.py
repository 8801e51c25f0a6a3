"""A run in Keras and a SavedModel, as a process that has TensorFlow would answer with them: sides of `family bench --peers`."""

from pathlib import Path

import numpy as np

from family.card import FILE as CARD


class TensorFlow:
    """The traced call of a run's Keras model, or the signature of a SavedModel that takes pixels."""

    dtype = np.uint8

    def __init__(self, folder: Path, n_threads: int):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(n_threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        if (folder / CARD).is_file():
            from family.training.runs import load_calibrated

            model, _ = load_calibrated(folder)
            traced = tf.function(lambda images: model(tf.cast(images, tf.float32), training=False))
            self._call = lambda images: traced(tf.constant(images)).numpy()
        else:
            from export.savedmodel import PIXELS, read_saved_model

            signature = read_saved_model(folder)[PIXELS]
            self._call = lambda images: signature(images)["probabilities"]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return float32 [n, n_classes] probabilities of uint8 [n, px, px, 3] RGB images."""
        return self._call(images)
