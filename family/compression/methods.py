"""What `family compress` can do to a trained model: each method trains a copy of it, and gives the weights back."""

from collections.abc import Callable
from dataclasses import dataclass

import tf_keras

from family.compression.quantizing import Quantized
from family.compression.sparse import Clustered, Pruned, describe
from family.data.dataset import Rows
from family.data.images import Preprocessing
from family.data.order import choose_balanced, n_updates
from family.data.reading import decode_all
from family.recipe import Recipe

N_CALIBRATION = 128  # training rows from which the first ranges come


@dataclass(frozen=True)
class Compression:
    """A copy of a model that trains in its place, and what to do when it has trained: the model has its weights then, and `finish` tells of them."""

    model: tf_keras.Model
    finish: Callable[[], dict]


def begin(recipe: Recipe, model: tf_keras.Model, train: Rows, how: Preprocessing) -> Compression:
    """Return the copy of a trained model that the recipe's `compression` trains."""
    return METHODS[recipe.compression](recipe, model, train, how)


def _quantize(recipe: Recipe, model: tf_keras.Model, train: Rows, how: Preprocessing) -> Compression:
    rows = train.take(choose_balanced(train.labels, N_CALIBRATION))
    images = decode_all(rows, how)
    copy = Quantized(model, images)

    def finish() -> dict:
        copy.finish()
        return {"ranges": copy.ranges(), "n_calibration": len(images)}

    return Compression(copy.model, finish)


def _prune(recipe: Recipe, model: tf_keras.Model, train: Rows, how: Preprocessing) -> Compression:
    updates = recipe.finetune_epochs * n_updates(len(train), recipe.batch_size)
    passes = min(updates, recipe.max_updates or updates) * recipe.accumulate
    return _told(recipe, model, Pruned(model, recipe.sparsity, passes))


def _cluster(recipe: Recipe, model: tf_keras.Model, train: Rows, how: Preprocessing) -> Compression:
    return _told(recipe, model, Clustered(model, recipe.n_clusters))


def _told(recipe: Recipe, model: tf_keras.Model, copy: Pruned | Clustered) -> Compression:
    before = describe(model)

    def finish() -> dict:
        copy.finish()
        return {**describe(model), "compressed_mb_before": before["compressed_mb"]}

    return Compression(copy.model, finish)


METHODS = {"qat": _quantize, "prune": _prune, "cluster": _cluster}
