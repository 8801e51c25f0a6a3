"""Heads on the frozen trunk's features, trained in one process as the trainer's head phase does: what ablations of losses cost minutes with."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from family.data.dataset import Dataset, Rows
from family.recipe import Recipe

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Frozen:
    """The rows of each split and their features, float32 [n, d]."""

    rows: dict[str, Rows]
    features: dict[str, np.ndarray]

    @property
    def labels(self) -> dict[str, np.ndarray]:
        return {split: rows.labels for split, rows in self.rows.items()}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what studies of heads are told."""
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("--weights", required=True, help="the pretrained trunk: as `family train` takes it")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--variant", default="v2-b0")
    parser.add_argument("--resolution", type=int, default=128, metavar="PX")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--features", type=Path, metavar="DIR", help="keep the features there, and take them from there")


def freeze(dataset: Dataset, variant: str, weights: str, recipe: Recipe, folder: Path) -> Frozen:
    """Compute the features of all splits, or find them in `folder`, where they are kept under a digest of what they depend on."""
    from distributed.loading import load_tensorflow

    load_tensorflow()
    from distributed.devices import use_devices
    from distributed.signals import Wishes
    from distributed.world import World
    from family.data.images import Preprocessing
    from family.models.builders import build_variant, trunk_of
    from family.models.weights import load_trunk
    from family.training.features import Extraction, compute_features

    world = World()
    use_devices(world)
    model = build_variant(variant, 2, recipe.resolution_px)
    load_trunk(model, weights)
    trunk, how = trunk_of(model), Preprocessing(recipe.resolution_px, recipe.aspect)
    rows = {split: dataset.rows(split) for split in SPLITS}
    features = {}
    for split in SPLITS:
        of = Extraction(trunk, rows[split], how, recipe, world, Wishes())
        found, _ = compute_features(of, folder / of.digest())
        features[split] = found.view(0)[np.arange(len(rows[split]))]
    return Frozen(rows, features)


def new_head(n_features: int, n_classes: int, recipe: Recipe):
    """Return a model features -> logits, as `build_variant` ends: dropout and a dense layer."""
    import tf_keras

    from family.models.draws import RowDropout

    tf_keras.utils.set_random_seed(recipe.seed)
    features = tf_keras.layers.Input((n_features,))
    kept = RowDropout(recipe.dropout, name="head_dropout")(features)
    return tf_keras.Model(features, tf_keras.layers.Dense(n_classes, name="logits")(kept))


def train_head(
    head, features: np.ndarray, labels: np.ndarray, ontology, recipe: Recipe, after_epoch: Callable = lambda accuracy: None
) -> int:
    """Train a head as the trainer's head phase does, to the same plateau, and return the epochs that it took.

    Args:
        after_epoch: is called before the first epoch (with None) and after each with the training accuracy.
    """
    import tensorflow as tf

    from distributed.world import World
    from family.data.order import epoch_slices, expected_draws, n_updates
    from family.data.pipeline import targets
    from family.training.losses import make_loss
    from family.training.optimizers import Optimizer
    from family.training.rates import learning_rate
    from family.training.update import make_update

    variables, n = head.trainable_variables, len(labels)
    optimizer = Optimizer(recipe, head, variables, ema=False)
    update = make_update(head, variables, optimizer, World(), recipe, make_loss(recipe, ontology, labels))
    each, draws = n_updates(n, recipe.batch_size), expected_draws(labels, recipe.sampling_power)
    best, stale, step, epoch = -1.0, 0, 0, 0
    after_epoch(None)
    while epoch < recipe.head_epochs and stale < recipe.plateau_patience:
        right = 0.0
        for own, start, total in epoch_slices(n, recipe.batch_size, recipe.seed, epoch, 0, 1, draws):
            optimizer.set_rate(learning_rate(step, recipe.head_epochs * each, recipe.head_rate, recipe.batch_size,
                                             recipe.warmup_epochs * each, "constant"))  # fmt: skip
            place = tf.constant(step), tf.constant(start), tf.constant(total)
            own = own % n
            told = update(features[own], *targets(labels[own], 1.0), *place, tf.zeros([3]))
            right, step = right + float(told[1]), step + 1
        epoch, accuracy = epoch + 1, right / n
        after_epoch(accuracy)
        best, stale = (accuracy, 0) if accuracy > best + recipe.plateau_min_gain else (best, stale + 1)
    return epoch


def logits_of_head(head, features: np.ndarray) -> np.ndarray:
    kernel, bias = head.get_weights()
    return features @ kernel + bias
