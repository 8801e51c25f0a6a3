"""Our training step outside of the trainer's loop, so that it can be timed: the same model, input, update and rate."""

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from benchmarks.training.drawn import TAIL_STEPS, full_slices
from distributed.world import World
from family.data.dataset import Rows
from family.data.images import Preprocessing
from family.data.pipeline import training_batches
from family.models.builders import build_variant, logits_of
from family.recipe import Recipe
from family.training.losses import make_loss
from family.training.optimizers import Optimizer
from family.training.rates import learning_rate
from family.training.update import make_update


@dataclass(frozen=True)
class Step:
    """One update, by the monotonic clock: when input was asked for, when it was there, when the update had ended."""

    asked_s: float
    given_s: float
    end_s: float


class Stepper:
    """A model in training whose steps come one by one; all variables learn, BatchNorm is in training mode."""

    def __init__(self, variant: str, rows: Rows, recipe: Recipe, world: World):
        model = build_variant(variant, len(rows.ontology.leaves), recipe.resolution_px, recipe.dropout, recipe.drop_connect)
        self._model = logits_of(model)
        self._rows, self._recipe, self._world = rows, recipe, world
        self._variables = variables = self._model.trainable_variables
        self._optimizer = Optimizer(recipe, self._model, variables, ema=False)
        world.broadcast_variables([*model.variables, *self._optimizer.state])
        self._update = make_update(self._model, variables, self._optimizer, world, recipe, make_loss(recipe, rows.ontology, rows.labels))
        self._done = 0

    @property
    def is_alone(self) -> bool:
        return self._world.size == 1

    def time_sum(self, n_times: int = 5) -> float:
        """Return the seconds that ranks take to sum an update's gradients when nobody has to be waited for; 0 in a world of one."""
        if self._world.size == 1:
            return 0.0
        gradients, took = [tf.ones_like(variable) for variable in self._variables], []
        add = tf.function(lambda gradients, told: self._world.sum_gradients(gradients, told)[1])
        for _ in range(n_times + 1):
            self._world.barrier()
            began = time.monotonic()
            add(gradients, tf.zeros(6)).numpy()
            took.append(time.monotonic() - began)
        return float(np.median(took[1:]))  # the first one traced

    def time_steps(self, n_steps: int) -> float:
        """Take a step untimed and return the seconds of the next `n_steps`, whose input is read while they run."""
        return _seconds(self.steps(1 + n_steps + TAIL_STEPS), n_steps)

    def time_steps_on_one_batch(self, n_steps: int) -> float:
        """The same on one batch again and again: a training without an input pipeline."""
        (batch,) = self._batches(1)
        return _seconds(self._take(itertools.repeat(batch)), n_steps)

    def steps(self, n_steps: int) -> Iterator[Step]:
        """Take up to `n_steps` steps with an input pipeline of their own, which starts at the first one."""
        return self._take(self._batches(n_steps))

    def _batches(self, n_steps: int) -> Iterator[tuple]:
        recipe = self._recipe
        slices = full_slices(len(self._rows), recipe, n_steps, self._world)
        return training_batches(self._rows, slices, Preprocessing(recipe.resolution_px, recipe.aspect), recipe, epoch=0)

    def _take(self, batches: Iterable[tuple]) -> Iterator[Step]:
        recipe, asked_at = self._recipe, time.monotonic()
        for inputs, labels, weights, start, total in batches:
            given_at = time.monotonic()
            rate = learning_rate(self._done, 10**6, recipe.finetune_rate, recipe.batch_size, 0, recipe.schedule)
            self._optimizer.set_rate(rate)
            step, wants = tf.constant(self._done, tf.int32), tf.zeros(3)
            self._update(inputs, labels, weights, step, tf.constant(start), tf.constant(total), wants).numpy()
            self._done += 1
            yield Step(asked_at, given_at, time.monotonic())
            asked_at = time.monotonic()  # what the caller did meanwhile is no waiting


def _seconds(steps: Iterator[Step], n_steps: int) -> float:
    """Return the seconds from the end of the first step to that of the one `n_steps` later, and end the others."""
    ends_s = [next(steps).end_s for _ in range(1 + n_steps)]
    steps.close()
    return ends_s[-1] - ends_s[0]
