"""The head phase of `family bench train`: ours, features once and then epochs on them, against `fit` with a frozen trunk."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tf_keras

from benchmarks.training.drawn import enough_rows
from benchmarks.training.keras_fit import FrozenFit
from distributed.world import World
from family.data.dataset import Dataset, Rows
from family.data.images import Preprocessing
from family.data.pipeline import plain_batches
from family.errors import UserError
from family.evaluation.paired import micro_interval
from family.models.builders import build_variant
from family.models.sources import NONE
from family.models.weights import load_trunk
from family.recipe import Recipe
from family.training.log import read_events
from family.training.trainer import Job, train_phases

VIEWS = (1, 2, 3)  # of an image; each costs a pass of the trunk


@dataclass(frozen=True)
class HeadPhase:
    """What both sides train: a new head on the same frozen trunk, with the same rows, rate, loss and number of epochs."""

    variant: str
    weights: str  # of the trunk, see `--weights`; `none` for random ones
    rows: Rows
    recipe: Recipe

    @property
    def how(self) -> Preprocessing:
        return Preprocessing(self.recipe.resolution_px, self.recipe.aspect)

    def build(self) -> tf_keras.Model:
        """Return our model with the trunk's weights, random ones from the recipe's seed, and a new head."""
        recipe = self.recipe
        tf_keras.utils.set_random_seed(recipe.seed)
        model = build_variant(self.variant, len(self.rows.ontology.leaves), recipe.resolution_px, recipe.dropout, recipe.drop_connect)
        if self.weights != NONE:
            load_trunk(model, self.weights)
        return model


def head_recipe(recipe: Recipe, n_epochs: int) -> Recipe:
    """Return a recipe of the head phase alone, without what Keras' side has not: an early stop, a warm-up, smoothed labels, checkpoints."""
    return replace(recipe, head_epochs=n_epochs, finetune_epochs=0, plateau_patience=10**6, warmup_epochs=0.0, label_smoothing=0.0,
                   checkpoint_interval_s=0.0)  # fmt: skip


def measure_head_phase(dataset: Dataset, variant: str, weights: str, recipe: Recipe, limit_s: float, say: Callable[[str], None]) -> dict:
    """Time our head phase with one and more views, then `fit`'s, and compare the accuracies on test rows.

    Args:
        recipe: of `head_recipe`.
        limit_s: after which `fit` is ended, and estimated from its steps so far.
    """
    phase = HeadPhase(variant, weights, enough_rows(dataset.rows("train"), recipe.batch_size), recipe)
    test, right, timed = _test_rows(dataset), {}, {}
    what = f"head phase of {recipe.head_epochs} epochs on {len(phase.rows)} images"
    for n_views in VIEWS:
        model = phase.build()
        timed[n_views] = time_ours(phase, model, n_views)
        say(f"{what}: ours with {n_views} view{'s' * (n_views > 1)} {timed[n_views]['s']:.1f} s")
        if n_views == 1 and test:
            right["ours"] = right_rows(model, test, phase.how)
    fit = FrozenFit(variant, phase.rows, recipe, phase.build())
    theirs = fit.time_epochs(recipe.head_epochs, limit_s)
    say(f"{what}: fit {theirs['keras_fit_s']:.1f} s" + (" (estimated)" if theirs["keras_fit_estimated"] else ""))
    if test and not theirs["keras_fit_estimated"]:
        right["keras_fit"] = right_rows(fit.model, test, phase.how)
    return {
        **timed[1],
        **theirs,
        "ratio": theirs["keras_fit_s"] / timed[1]["s"],
        "epochs": recipe.head_epochs,
        "n_images": len(phase.rows),
        "weights": Path(weights).name,
        "views_s": {str(n_views): found["s"] for n_views, found in timed.items()},
        "accuracy": compare(right, test.listing_ids) if test else None,
    }


def time_ours(phase: HeadPhase, model: tf_keras.Model, n_views: int) -> dict[str, float]:
    """Run the trainer's head phase and return its seconds, tracing and extraction included, and those of its epochs alone."""
    recipe = replace(phase.recipe, feature_views=n_views)
    with tempfile.TemporaryDirectory(prefix="family-bench-") as folder:
        job = Job(run=Path(folder), model=model, train=phase.rows, val=None, how=phase.how, recipe=recipe, world=World())
        began = time.monotonic()
        train_phases(job, has_trunk=True, resume=False)
        s = time.monotonic() - began
        return {"s": s, "epochs_s": sum(epoch["s"] for epoch in read_events(job.run, "epoch"))}


def _test_rows(dataset: Dataset) -> Rows | None:
    try:
        return dataset.rows("test")
    except UserError:
        return None


def right_rows(model: tf_keras.Model, rows: Rows, how: Preprocessing) -> np.ndarray:
    """Return which rows a model of images in 0..255 files rightly, bool [n]."""
    answers = [model.predict_on_batch(images.numpy().astype(np.float32)).argmax(1) for images in plain_batches(rows, how, 32)]
    return np.concatenate(answers) == rows.labels


def compare(right: dict[str, np.ndarray], listing_ids: np.ndarray) -> dict:
    """Return the accuracies and, where both sides have one, ours less the other's with its 95 % interval, listings being the unit.

    Args:
        right: side -> bool [n].
    """
    found = {"n_images": len(listing_ids), **{side: float(hits.mean()) for side, hits in right.items()}}
    if len(right) == 2:
        difference = right["ours"].astype(int) - right["keras_fit"].astype(int)
        _, listings = np.unique(listing_ids, return_inverse=True)
        found |= {"difference": float(difference.mean()), "interval": micro_interval(difference, listings)}
    return found
