"""Optimizers: one of tf_keras for each group of variables that share a rate; one rate, loss scale and decision for all groups."""

import math
from dataclasses import dataclass

import tensorflow as tf
import tf_keras

from family.data.order import n_updates
from family.models.blocks import depths
from family.recipe import Recipe

# Decay pulls weights, not the offsets and scales of normalization, nor ranges and values of compressed weights.
_NOT_DECAYED = ["bias", "gamma", "beta", "range_", "cluster_centroids"]
_FIRST_SCALE, _GOOD_UPDATES = 2.0**15, 2000  # as in tf_keras' LossScaleOptimizer


class Lamb(tf_keras.optimizers.Optimizer):
    """Adam whose step of each array is as long, relative to the array, as the rate says: for updates of very many rows.

    What is excluded from weight decay takes Adam's own step. *Source*: You et al. 2020 (1904.00962), algorithm 2 with phi(x) = x.

    Args:
        decay: added to the step as `decay * array` before its length is set.
    """

    def __init__(self, decay: float, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-6, **options):
        super().__init__(name="Lamb", **options)
        self._learning_rate = self._build_learning_rate(0.001)
        self.decay, self.beta_1, self.beta_2, self.epsilon = decay, beta_1, beta_2, epsilon

    def build(self, var_list: list) -> None:
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self._built = True
        self._momentums = [self.add_variable_from_reference(variable, "m") for variable in var_list]
        self._velocities = [self.add_variable_from_reference(variable, "v") for variable in var_list]

    def update_step(self, gradient, variable) -> None:
        place, n_steps = self._index_dict[self._var_key(variable)], tf.cast(self.iterations + 1, variable.dtype)
        m, v = self._momentums[place], self._velocities[place]
        m.assign_add((gradient - m) * (1 - self.beta_1))
        v.assign_add((tf.square(gradient) - v) * (1 - self.beta_2))
        step = m / (1 - self.beta_1**n_steps) / (tf.sqrt(v / (1 - self.beta_2**n_steps)) + self.epsilon)
        if self._use_weight_decay(variable):
            step += self.decay * variable
            size, length = tf.norm(variable), tf.norm(step)
            step *= tf.where((size > 0) & (length > 0), tf.math.divide_no_nan(size, length), 1.0)
        variable.assign_sub(self.learning_rate * step)


class LossScale:
    """The factor of the loss that keeps float16 gradients above 0: halved when one is no number, doubled after 2,000 updates without.

    *Source*: Micikevicius et al. 2018 (1710.03740), section 3.2; the figures are tf_keras'.
    """

    def __init__(self):
        self.value = tf.Variable(_FIRST_SCALE, trainable=False)
        self.good_updates = tf.Variable(0, trainable=False, dtype=tf.int64)

    def change(self, fits: tf.Tensor) -> None:
        """Note whether an update's gradients (of all ranks) were numbers."""
        is_due, doubled = self.good_updates + 1 >= _GOOD_UPDATES, self.value * 2
        larger = tf.where(is_due & tf.math.is_finite(doubled), doubled, self.value)
        self.value.assign(tf.where(fits, larger, tf.maximum(self.value / 2, 1.0)))
        self.good_updates.assign(tf.where(fits & ~is_due, self.good_updates + 1, 0))


@dataclass(frozen=True)
class Group:
    """Variables that share a rate."""

    optimizer: tf_keras.optimizers.Optimizer
    variables: list
    places: list[int]  # among all variables
    factor: float  # of the rate
    frozen_epochs: float  # of the phase, before they learn

    def apply(self, gradients: list) -> None:
        own = [(gradients[place], variable) for place, variable in zip(self.places, self.variables, strict=True)]
        self.optimizer.apply_gradients(own, skip_gradients_aggregation=True)


class Optimizer:
    """What changes the variables of a phase; its rate is set before every update.

    The rate of a block is that of the head times `layer_decay` for every block between, the head's included. With `unfreeze_epochs`, a
    block waits for those above it: until then, nothing of it and of its optimizer changes. Without either, all is one group.
    """

    def __init__(self, recipe: Recipe, model: tf_keras.Model, variables: list, ema: bool):
        self._may_freeze = recipe.unfreeze_epochs > 0
        self._scale = LossScale() if recipe.precision == "mixed_float16" else None
        self.groups = []
        for depth, places in sorted(_places(recipe, model, variables).items()):
            own = [variables[place] for place in places]
            optimizer = _keras_optimizer(recipe, ema)
            optimizer.build(own)
            self.groups.append(Group(optimizer, own, places, recipe.layer_decay**depth, recipe.unfreeze_epochs * depth))

    @property
    def state(self) -> list:
        """The variables that decide what comes next, beside the learning ones; always in the same order."""
        scale = [self._scale.value, self._scale.good_updates] if self._scale else []
        return [variable for group in self.groups for variable in group.optimizer.variables] + scale

    @property
    def rate(self) -> float:
        """The rate of the head."""
        return self.groups[0].optimizer.learning_rate.numpy().item()

    def set_rate(self, rate: float, epochs: float = 0.0) -> None:
        """Set the head's rate, and that of the blocks below by it.

        Args:
            epochs: of the phase that are done, with the part of the one that runs; they decide which blocks learn.
        """
        for group in self.groups:
            group.optimizer.learning_rate.assign(rate * group.factor if epochs >= group.frozen_epochs else 0.0)

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """Return the loss to differentiate, the gradients of which are given to `apply`."""
        return loss * self._scale.value if self._scale else loss

    def apply(self, gradients: list) -> tf.Tensor:
        """Change the variables by gradients that are summed over ranks, in the order of the variables; return the gradient's norm.

        With float16, where the norm is no number, the update is left out, the scale of the loss is halved and the norm is given as 0,
        or as it is where there was nothing left to halve.
        """
        if self._scale is None:
            norm = tf.linalg.global_norm(gradients)
            self._change(gradients)
            return norm
        can_halve, factor = self._scale.value > 1, 1 / self._scale.value
        gradients = [gradient * factor for gradient in gradients]
        norm = tf.linalg.global_norm(gradients)
        fits = tf.math.is_finite(norm)
        self._scale.change(fits)
        tf.cond(fits, lambda: self._change(gradients), lambda: None)
        return tf.where(fits | ~can_halve, norm, 0.0)

    def finalize(self) -> None:
        """Replace the variables by their moving averages, where these are kept."""
        for group in self.groups:
            group.optimizer.finalize_variable_values(group.variables)

    def _change(self, gradients: list) -> None:
        for group in self.groups:
            if self._may_freeze:
                tf.cond(group.optimizer.learning_rate > 0, lambda group=group: group.apply(gradients), lambda: None)
            else:
                group.apply(gradients)


EMA_LEFT = 0.1  # of the first weights in a mean that is worth its name


def warn_of_sleepers(recipe: Recipe, model: tf_keras.Model, n_rows: int) -> str:
    """Return a warning where the second phase ends before `unfreeze_epochs` lets all blocks learn, or "".

    Args:
        model: of `build_variant`.
        n_rows: training rows of an epoch.
    """
    if not (recipe.unfreeze_epochs and recipe.finetune_epochs):
        return ""
    an_epoch = n_updates(n_rows, recipe.batch_size)
    planned = recipe.finetune_epochs * an_epoch
    n = min(planned, recipe.max_updates or planned)
    last_epochs = (n - 1) / an_epoch  # that are done when the last update begins
    depth_of = depths(model)
    blocks = {depth_of[layer.name] for layer in model.layers if layer.trainable_variables}
    asleep = [depth for depth in blocks if recipe.unfreeze_epochs * depth > last_epochs]
    if not asleep:
        return ""
    return (f"warning: {len(asleep)} of {len(blocks)} blocks never learn: with unfreeze_epochs = {recipe.unfreeze_epochs:g} the lowest one begins after "
            f"{recipe.unfreeze_epochs * max(blocks):g} epochs, and the phase has {n / an_epoch:.3g}. All learn with unfreeze_epochs up to "
            f"{math.floor(1000 * last_epochs / max(blocks)) / 1000:g}, or more finetune_epochs")  # fmt: skip


def warn_of_short_ema(recipe: Recipe, n_rows: int) -> str:
    """Return a warning where the mean of the weights is still mostly the weights that the second phase begins with, or "".

    Args:
        n_rows: training rows of an epoch.
    """
    planned = recipe.finetune_epochs * n_updates(n_rows, recipe.batch_size)
    n = min(planned, recipe.max_updates or planned)
    kept = recipe.ema_decay**n
    if not (recipe.ema_decay and n) or kept < EMA_LEFT:
        return ""
    return (f"warning: after {n} updates with ema_decay = {recipe.ema_decay:g}, {kept:.0%} of the mean are the weights that the phase begins with. "
            f"At most {EMA_LEFT:.0%} are left with ema_decay up to {math.floor(1000 * EMA_LEFT ** (1 / n)) / 1000:g}, or more finetune_epochs")  # fmt: skip


def _places(recipe: Recipe, model: tf_keras.Model, variables: list) -> dict[int, list[int]]:
    """Return depth -> places of the variables of that depth; all at 0 where depth makes no difference."""
    if recipe.layer_decay == 1 and recipe.unfreeze_epochs == 0:
        return {0: list(range(len(variables)))}
    depth_of = depths(model)
    depth_of = {id(variable): depth_of[layer.name] for layer in model.layers for variable in layer.trainable_variables}
    found = {}
    for place, variable in enumerate(variables):
        found.setdefault(depth_of[id(variable)], []).append(place)
    return found


def _keras_optimizer(recipe: Recipe, ema: bool) -> tf_keras.optimizers.Optimizer:
    common = {"jit_compile": False, "use_ema": ema, "ema_momentum": recipe.ema_decay or 0.99, "ema_overwrite_frequency": None}
    decay = recipe.weight_decay
    kinds = {
        "adamw": lambda: tf_keras.optimizers.AdamW(weight_decay=decay, **common),
        "sgd": lambda: tf_keras.optimizers.SGD(momentum=0.9, nesterov=True, weight_decay=decay or None, **common),
        "rmsprop": lambda: tf_keras.optimizers.RMSprop(rho=0.9, momentum=0.9, epsilon=1e-3, weight_decay=decay or None, **common),
        "lamb": lambda: Lamb(decay, **common),
    }
    optimizer = kinds[recipe.optimizer]()
    optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    return optimizer
