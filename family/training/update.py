"""One update: forward, backward, sum over ranks, apply. Gradients are sums over rows divided by the rows of all ranks."""

from collections.abc import Callable

import tensorflow as tf
import tf_keras

from distributed.world import World
from family.models.draws import Draws, drawing
from family.recipe import Recipe

_LossScale = tf_keras.mixed_precision.LossScaleOptimizer


def make_optimizer(recipe: Recipe, variables: list, ema: bool) -> tf_keras.optimizers.Optimizer:
    """Return a built optimizer; its rate is set before every update."""
    common = {"jit_compile": False, "use_ema": ema, "ema_momentum": recipe.ema_decay or 0.99, "ema_overwrite_frequency": None}
    common["weight_decay"] = recipe.weight_decay or None
    kinds = {
        "adamw": lambda: tf_keras.optimizers.AdamW(**{**common, "weight_decay": recipe.weight_decay}),
        "sgd": lambda: tf_keras.optimizers.SGD(momentum=0.9, nesterov=True, **common),
        "rmsprop": lambda: tf_keras.optimizers.RMSprop(rho=0.9, momentum=0.9, epsilon=1e-3, **common),
    }
    optimizer = kinds[recipe.optimizer]()
    # Decay pulls weights, not the offsets and scales of normalization.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(variables)
    return _LossScale(optimizer) if recipe.precision == "mixed_float16" else optimizer


def state_of(optimizer: tf_keras.optimizers.Optimizer) -> list:
    """Return the variables that decide what an optimizer does next."""
    if not isinstance(optimizer, _LossScale):
        return optimizer.variables
    return [*optimizer.variables, optimizer._loss_scale.current_loss_scale, optimizer.dynamic_counter]  # which `variables` leaves out


def make_update(
    model: tf_keras.Model, variables: list, optimizer, world: World, recipe: Recipe, loss: Callable, teacher: Callable | None = None
) -> Callable:
    """Return `update(inputs, labels, weights, step, start, total, wants) -> float32 [4 + n]`.

    The answer, equal on all ranks, holds the sums over the rows of the update of loss, right answers and rows, then the sums over
    ranks of `wants` (float32 [n]), then the norm of the gradient, which is no number when any part of it is none. With float16, where
    a gradient is too large for the scale of the loss, the update is left out, the scale is halved and the norm is given as 0.

    Args:
        model: inputs -> logits.
        variables: those that learn.
        loss: of `family.training.losses.make_loss`, which tells what `labels` and `weights`, both [n, 2], hold.
        teacher: inputs -> float32 [n, n_classes], probabilities at the recipe's `distill_temperature`.
    """

    scales = isinstance(optimizer, _LossScale)

    def differentiate(inputs, labels, weights, step, start, total):
        """Return the gradients and [loss, right, rows] of some rows of the update."""
        draws = Draws(tf.constant(recipe.seed, tf.int32), step, start, total)
        inputs = tf.cast(inputs, tf.float32)
        taught = teacher(inputs) if teacher else None
        with tf.GradientTape() as tape, drawing(draws):
            logits = tf.cast(model(inputs, training=True), tf.float32)
            losses = loss(logits, labels, weights, taught)
            mean = tf.reduce_sum(losses) / tf.cast(total, tf.float32)
            scaled = optimizer.get_scaled_loss(mean) if scales else mean
        right = tf.cast(tf.argmax(logits, -1, tf.int32)[:, None] == labels, tf.float32) * weights
        return tape.gradient(scaled, variables), tf.stack([tf.reduce_sum(losses), tf.reduce_sum(right), tf.reduce_sum(weights)])

    def accumulate(inputs, labels, weights, step, start, total):
        """Differentiate a part of the rows after the other; memory holds the activations of one part."""
        n_rows = tf.shape(labels)[0]
        part = -(-n_rows // recipe.accumulate)

        def add(first, gradients, sums):
            rows = slice(first, first + part)
            more, more_sums = differentiate(inputs[rows], labels[rows], weights[rows], step, start + first, total)
            return first + part, [a + b for a, b in zip(gradients, more, strict=True)], sums + more_sums

        begin = (tf.constant(0), [tf.zeros_like(variable) for variable in variables], tf.zeros([3]))
        _, gradients, sums = tf.while_loop(lambda first, *_: first < n_rows, add, begin)
        return gradients, sums

    # Any number of rows: without this, the last and smaller update of an epoch costs a second trace, 12 s for B0.
    kind = tf.uint8 if len(model.input.shape) == 4 else tf.float32
    scalar = tf.TensorSpec([], tf.int32)
    rows = [tf.TensorSpec([None, *model.input.shape[1:]], kind), tf.TensorSpec([None, 2], tf.int32), tf.TensorSpec([None, 2], tf.float32)]

    @tf.function(input_signature=[*rows, scalar, scalar, scalar, tf.TensorSpec([None], tf.float32)])
    def update(inputs, labels, weights, step, start, total, wants):
        learn = differentiate if recipe.accumulate == 1 else accumulate
        gradients, sums = learn(inputs, labels, weights, step, start, total)
        gradients, told = world.sum_gradients(gradients, tf.concat([sums, wants], 0), recipe.gradient_compression)
        if scales:  # after the sum, which all ranks see: they leave out the same updates
            can_halve = optimizer.loss_scale > 1
            gradients = optimizer.get_unscaled_gradients(gradients)
        norm = tf.linalg.global_norm(gradients)
        if scales:
            norm = tf.where(tf.math.is_finite(norm) | ~can_halve, norm, 0.0)
        optimizer.apply_gradients(zip(gradients, variables, strict=True), skip_gradients_aggregation=True)
        return tf.concat([told, [norm]], 0)

    return update
