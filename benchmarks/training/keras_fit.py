"""The other side of `family bench train`: plain Keras as its guides have it, compile and fit, on the same library's model."""

import time

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

from family.data.crops import read_cropped, row_draws
from family.data.dataset import Rows
from family.data.images import Preprocessing, decode_image
from family.data.order import epoch_order
from family.models.builders import library_trunk
from family.models.variants import variant
from family.recipe import Recipe


class _Clock(tf_keras.callbacks.Callback):
    """Note when each step ended; end the training after some time."""

    def __init__(self, limit_s: float = float("inf")):
        super().__init__()
        self.limit_s, self.began_s, self.ends_s = limit_s, time.monotonic(), []

    def on_train_batch_end(self, batch, logs=None):
        self.ends_s.append(time.monotonic())
        self.model.stop_training = self.ends_s[-1] - self.began_s > self.limit_s


def library_model(name: str, n_classes: int, recipe: Recipe, trainable_trunk: bool) -> tf_keras.Model:
    """Return image -> logits of the library's own layers, its dropout and stochastic depth included."""
    row, px = variant(name), recipe.resolution_px
    trunk = library_trunk(row, px)
    trunk.trainable = trainable_trunk
    image = layers.Input((px, px, 3))
    scaled = layers.Rescaling(list(row.scale), list(row.offset))(image)
    # Keras' guide to transfer learning: a frozen trunk is called in inference mode.
    features = trunk(scaled) if trainable_trunk else trunk(scaled, training=False)
    kept = layers.Dropout(recipe.dropout)(layers.GlobalAveragePooling2D()(features))
    return tf_keras.Model(image, layers.Dense(n_classes)(kept))


def compile_as_ours(model: tf_keras.Model, recipe: Recipe, rate: float) -> None:
    """Compile with the kind of optimizer that our recipe names, at a rate for these batches."""
    optimizer = tf_keras.optimizers.AdamW(rate * recipe.batch_size / 256, weight_decay=recipe.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])


def fit_input(rows: Rows, recipe: Recipe, augmented: bool, n_epochs: int = 1) -> tf.data.Dataset:
    """Return endless (uint8 images, labels) batches of full size, decoded and cropped by our functions, in our order of so many epochs."""
    how, px = Preprocessing(recipe.resolution_px, recipe.aspect), recipe.resolution_px

    def read(row: int) -> np.ndarray:
        if augmented:
            return read_cropped(rows, int(row), how, recipe, row_draws(recipe.seed, 0, int(row)))
        return decode_image(rows.read(row), how)

    def decode(row, label):
        return tf.ensure_shape(tf.numpy_function(read, [row], tf.uint8, stateful=False), (px, px, 3)), label

    order = np.concatenate([epoch_order(len(rows), recipe.seed, epoch) for epoch in range(n_epochs)])
    data = tf.data.Dataset.from_tensor_slices((order, rows.labels[order])).repeat()
    return data.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(recipe.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


class KerasFit:
    """A compiled model with its input; each turn is one call of `fit`."""

    def __init__(self, name: str, rows: Rows, recipe: Recipe):
        self._model = library_model(name, len(rows.ontology.leaves), recipe, trainable_trunk=True)
        compile_as_ours(self._model, recipe, recipe.finetune_rate)
        self._data = fit_input(rows, recipe, augmented=True)

    def time_steps(self, n_steps: int) -> float:
        """Fit a step untimed and return the seconds of the next `n_steps`."""
        clock = _Clock()
        self._model.fit(self._data, steps_per_epoch=1 + n_steps, epochs=1, verbose=0, callbacks=[clock])
        return clock.ends_s[-1] - clock.ends_s[0]


class FrozenFit:
    """A compiled model whose trunk is frozen, as Keras' guide to transfer learning has it."""

    def __init__(self, name: str, rows: Rows, recipe: Recipe, trunk: tf_keras.Model):
        """Take the weights of the trunk from a model of `build_variant`, by the layers' names."""
        self.model = library_model(name, len(rows.ontology.leaves), recipe, trainable_trunk=False)
        copy_weights(trunk, self.model)
        compile_as_ours(self.model, recipe, recipe.head_rate)
        self._rows, self._recipe = rows, recipe

    def time_epochs(self, n_epochs: int, limit_s: float) -> dict:
        """Time `fit` for so many epochs; past the limit it is ended, and the rest is estimated from the steps so far.

        Returns:
            {"keras_fit_s", "keras_fit_estimated", "keras_fit_steps", "keras_fit_timed_steps"}
        """
        recipe = self._recipe
        steps_an_epoch = -(-len(self._rows) // recipe.batch_size)
        n_steps = steps_an_epoch * n_epochs
        data, clock = fit_input(self._rows, recipe, augmented=False, n_epochs=n_epochs), _Clock(limit_s)
        self.model.fit(data, steps_per_epoch=steps_an_epoch, epochs=n_epochs, verbose=0, callbacks=[clock])
        n_timed, first_s, later_s = len(clock.ends_s), clock.ends_s[0] - clock.began_s, clock.ends_s[-1] - clock.ends_s[0]
        return {
            "keras_fit_s": first_s + later_s / max(1, n_timed - 1) * (n_steps - 1),  # the first one was traced, too
            "keras_fit_estimated": n_timed < n_steps,
            "keras_fit_steps": n_steps,
            "keras_fit_timed_steps": n_timed,
        }


def copy_weights(ours: tf_keras.Model, theirs: tf_keras.Model) -> None:
    """Give a library's trunk, which is a layer of `theirs`, the weights of the layers of the same names."""
    (trunk,) = [layer for layer in theirs.layers if isinstance(layer, tf_keras.Model)]
    for layer in trunk.layers:
        if layer.weights:
            layer.set_weights(ours.get_layer(layer.name).get_weights())
