"""The trainer: phases of epochs of updates. What a rank decides alone is nothing; what it draws alone is nothing."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras

from distributed.signals import Wishes
from distributed.world import World
from family.data.dataset import Rows
from family.data.images import Preprocessing
from family.data.order import epoch_slices, expected_draws, n_updates, rank_slice
from family.data.pipeline import at_least_one_row, plain_batches, targets, training_batches
from family.errors import Failure
from family.evaluation.calibration import TemperatureFit
from family.machine import forget_peak_memory, mapped_memory_mb, peak_memory_mb
from family.models.builders import at_resolution, head_of, logits_of, trunk_of
from family.progress import progress
from family.recipe import Recipe
from family.training.features import Extraction, compute_features
from family.training.log import Log
from family.training.losses import make_loss
from family.training.optimizers import Optimizer, warn_of_short_ema, warn_of_sleepers
from family.training.rates import learning_rate, lowered
from family.training.saving import Position, Saver, assign
from family.training.stages import in_epoch
from family.training.update import make_update

_STEPS_TOLD = 100  # the first ones are all in metrics.jsonl, later every so many
_AGREED_EVERY = 50  # updates, where they don't agree by themselves


@dataclass(frozen=True)
class Job:
    """What one training works with."""

    run: Path
    model: tf_keras.Model
    train: Rows
    val: Rows | None
    how: Preprocessing
    recipe: Recipe
    world: World
    wishes: Wishes = field(default_factory=Wishes)
    teacher: Callable | None = None  # of the second phase
    shared_features: Path | None = None  # a folder of several runs; None: in the run folder, until the run has ended

    @property
    def log(self) -> Log:
        return Log(self.run, self.world.is_first)


@dataclass(frozen=True)
class Phase:
    """A part of the training with its own variables, rate and batches."""

    name: str
    model: tf_keras.Model  # the batches' inputs -> logits
    variables: list
    batches: Callable[[list, int], Iterator[tuple]]  # (slices, epoch) -> batches
    epochs: int
    rate: float
    schedule: str
    stops_on_plateau: bool  # of training accuracy
    # Every rank computes whole updates and sums nothing: for a head on features that takes a few milliseconds, and waiting for one
    # another's sums 60 on CPUs (an epoch of Caltech-101 at two ranks: 10 s with sums). They agree on signals every so often.
    is_whole: bool = False
    val_patience: int = 0  # epochs without a better validation accuracy that end it; 0: never
    keeps_best: bool = False  # ends with the weights of the best validation accuracy
    ema: bool = False
    teacher: Callable | None = None  # images -> probabilities


def train_phases(job: Job, has_trunk: bool, resume: bool) -> list[dict]:
    """Train all phases and return a summary of each; `metrics.jsonl` in the run folder tells every epoch.

    Raises:
        ComeBack, Ended: a signal came; a checkpoint is written.
        Failure: the loss became no number.
    """
    names = (["head"] if job.recipe.head_epochs else []) + (["finetune"] if job.recipe.finetune_epochs else [])
    saver = Saver(job.run, job.model, job.recipe, job.world, job.log, job.wishes, _features_folder(job) if "head" in names else job.run)
    arrays, position = (saver.restore() if resume else None) or ({}, Position())
    for warning in (warn_of_sleepers(job.recipe, job.model, len(job.train)), warn_of_short_ema(job.recipe, len(job.train))):
        if warning:
            job.log.warn(warning)
    for number, name in enumerate(names):
        if number < position.phase:
            continue
        phase = None  # and with it what it holds, such as features
        forget_peak_memory()
        began = time.monotonic()
        phase = _head_phase(job, saver) if name == "head" else _finetune_phase(job, has_trunk, saver)
        ready = time.monotonic()
        summary = _run_phase(job, phase, position, arrays, saver)
        summary |= {"features_s": ready - began} if name == "head" else {}  # of this start; features that were there take no time
        summary |= {"peak_memory_mb": peak_memory_mb(), "mapped_mb": mapped_memory_mb()}  # of this rank's process
        job.log("phase", **summary)
        saver.summaries.append(summary)
        arrays, position = {}, Position(phase=number + 1, step=position.step)
        saver.save(position, [])
        shutil.rmtree(job.run / "features", ignore_errors=True)
    return saver.summaries


def _extraction(job: Job) -> Extraction:
    return Extraction(trunk_of(job.model), job.train, job.how, job.recipe, job.world, job.wishes)


def _features_folder(job: Job) -> Path:
    return job.shared_features / _extraction(job).digest() if job.shared_features else job.run / "features"


def _head_phase(job: Job, saver: Saver) -> Phase:
    """Train the head on features that the frozen trunk computes once."""
    of = _extraction(job)
    features, complete = compute_features(of, saver.features)
    if not complete:
        come_back, end = job.world.sum([job.wishes.come_back, job.wishes.end]) > 0
        saver.stop_if(come_back, end, "the features so far are kept")

    def batches(slices, epoch):
        for own, weight, start, total in (at_least_one_row(*part) for part in slices):
            rows = own % len(job.train)
            yield features.view(epoch)[rows], *targets(job.train.labels[rows], weight), start, total

    head = head_of(job.model)
    recipe = job.recipe
    return Phase("head", head, head.trainable_variables, batches, recipe.head_epochs, recipe.head_rate, "constant",
                 stops_on_plateau=True, is_whole=True)  # fmt: skip


def _finetune_phase(job: Job, has_trunk: bool, saver: Saver) -> Phase:
    """Train everything; BatchNorm stays in inference mode on a pretrained trunk, which its statistics belong to."""
    recipe = job.recipe
    frozen = recipe.batchnorm == "inference" or (recipe.batchnorm == "auto" and has_trunk)
    for layer in job.model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.trainable = not frozen
            layer.momentum = recipe.batchnorm_momentum or layer.momentum
            saver.statistics += [] if frozen else [layer.moving_mean, layer.moving_variance]

    def batches(slices, epoch):
        seen = in_epoch(recipe, epoch)
        return training_batches(job.train, slices, replace(job.how, resolution_px=seen.resolution_px), seen, epoch)

    model = logits_of(job.model)
    return Phase("finetune", model, model.trainable_variables, batches, recipe.finetune_epochs, recipe.finetune_rate, recipe.schedule,
                 stops_on_plateau=False, val_patience=recipe.val_patience, keeps_best=recipe.weights_kept == "best",
                 ema=recipe.ema_decay > 0, teacher=job.teacher)  # fmt: skip


@dataclass(frozen=True)
class Learner:
    """What a phase learns with."""

    optimizer: Optimizer
    update_in: Callable[[int], Callable]  # epoch -> update
    updates_an_epoch: int
    n_updates: int  # of the whole phase


def _run_phase(job: Job, phase: Phase, position: Position, arrays: dict, saver: Saver) -> dict:
    """Train a phase from `position` to its end; return its summary."""
    stopped, row = "epochs", {}
    began = time.monotonic() - position.spent_s
    learner = _start_learner(job, phase, arrays)
    while position.epoch < phase.epochs and position.epoch * learner.updates_an_epoch < learner.n_updates:
        row = _run_epoch(job, phase, learner, position, saver, began)
        is_best = _note_epoch(position, row, job.recipe)
        if phase.keeps_best and is_best:
            saver.save(position, learner.optimizer.state, best=True)
        # All ranks saw the same sums; rank 0 decides all the same, so that no rounding can part them.
        stopped, position.n_plateaus = job.world.broadcast((_why_to_stop(phase, position, job.recipe), position.n_plateaus))
        if stopped != "epochs":
            break
    if phase.ema:
        learner.optimizer.finalize()
    if phase.keeps_best:
        saver.restore_best()
    summary = {"phase": phase.name, "epochs": position.epoch, "steps": position.step, "stopped_by": stopped,
               "train_accuracy": row.get("accuracy", 0.0)}  # fmt: skip
    summary["val_accuracy"] = _final_val_accuracy(job, phase, position, row)
    summary["s"] = time.monotonic() - began
    return summary


def _final_val_accuracy(job: Job, phase: Phase, position: Position, last: dict) -> float | None:
    """Return the validation accuracy of the weights that a phase ends with, which most phases know already."""
    if job.val is None:
        return None
    if phase.keeps_best and position.best_val_accuracy >= 0:
        return position.best_val_accuracy
    if "val_accuracy" in last and not phase.ema:
        return last["val_accuracy"]
    return evaluate_rows(job, job.val, to_the_end=True)[0]


def _start_learner(job: Job, phase: Phase, arrays: dict) -> Learner:
    """Make the optimizer anew, since the variables of another phase are not its variables; give all ranks the same values."""
    recipe = job.recipe
    optimizer = Optimizer(recipe, phase.model, phase.variables, phase.ema)
    variables = [*job.model.variables, *optimizer.state]
    if arrays and len(arrays) not in (len(variables), len(job.model.variables)):
        raise Failure(
            f"the checkpoint holds {len(arrays)} arrays and this training has {len(variables)}: it is of another recipe or version"
        )
    if len(arrays) == len(variables):  # a checkpoint of a phase's end holds no optimizer
        assign(variables, arrays)
    job.world.broadcast_variables(variables)
    updates_an_epoch = n_updates(len(job.train), recipe.batch_size)
    planned = phase.epochs * updates_an_epoch
    loss = make_loss(recipe, job.train.ontology, job.train.labels)

    @cache
    def update_at(px: int, dropout: float) -> Callable:
        model = at_resolution(phase.model, px) if px else phase.model
        world = World() if phase.is_whole else job.world
        return make_update(model, phase.variables, optimizer, world, recipe, loss, phase.teacher)

    def update_in(epoch: int) -> Callable:
        if phase.name == "head":
            return update_at(0, recipe.dropout)
        seen = in_epoch(recipe, epoch)
        phase.model.get_layer("head_dropout").rate = seen.dropout  # which the update's first call, in this epoch, traces
        return update_at(seen.resolution_px, seen.dropout)

    return Learner(optimizer, update_in, updates_an_epoch, min(planned, recipe.max_updates or planned))


def _run_epoch(job: Job, phase: Phase, learner: Learner, position: Position, saver: Saver, phase_began: float) -> dict:
    """Run the updates of an epoch that are left, and return what it came to over all ranks."""
    recipe, world, began = job.recipe, job.world, time.monotonic()
    first = position.epoch * learner.updates_an_epoch
    draws = expected_draws(job.train.labels, recipe.sampling_power)
    rank, size = (0, 1) if phase.is_whole else (world.rank, world.size)
    slices = epoch_slices(len(job.train), recipe.batch_size, recipe.seed, position.epoch, rank, size, draws)
    slices = slices[position.update : learner.n_updates - first]
    warmup = recipe.warmup_epochs * learner.updates_an_epoch
    what = f"{phase.name} epoch {position.epoch + 1}/{phase.epochs}"
    if not world.is_first:  # the first rank tells of the whole world, the others their own logs of themselves
        print(f"rank {world.rank}: {what}, from step {position.step}, {sum(len(own) for own, *_ in slices)} rows", flush=True)
    update = learner.update_in(position.epoch)
    for inputs, labels, weights, start, total in progress(
        phase.batches(slices, position.epoch), what, len(slices), "updates", world.is_first
    ):
        done = first + position.update
        epochs = done / learner.updates_an_epoch
        peak = lowered(phase.rate, phase.schedule, epochs, position.n_plateaus, recipe)
        rate = learning_rate(done, learner.n_updates, peak, recipe.batch_size, warmup, phase.schedule)
        learner.optimizer.set_rate(rate, epochs)
        step, wants = tf.constant(position.step, tf.int32), tf.constant(saver.wants(), tf.float32)
        told = update(inputs, labels, weights, step, tf.constant(start), tf.constant(total), wants).numpy().tolist()
        position.update += 1
        position.step += 1
        position.spent_s = time.monotonic() - phase_began
        check_finite(told[0], told[-1], phase.name, position, rate)
        position.sums = [a + b for a, b in zip(position.sums, told[:3], strict=True)]
        if position.step <= _STEPS_TOLD or position.step % _STEPS_TOLD == 0:
            job.log("step", phase=phase.name, step=position.step, loss=told[0] / told[2], rate=rate)
        agreed = _agree(world, saver, position) if phase.is_whole else told[3:-1]
        saver.heed(agreed, position, learner.optimizer.state)
    saver.reduce_statistics()
    loss, right, rows = position.sums
    row = {"phase": phase.name, "epoch": position.epoch + 1, "step": position.step, "loss": loss / rows, "accuracy": right / rows,
           "rate": learner.optimizer.rate, "s": time.monotonic() - began}  # fmt: skip
    row["images_per_s"] = sum(total for *_, total in slices) / row["s"]
    if job.val is not None and not phase.stops_on_plateau:
        row["val_accuracy"], *told = evaluate_rows(job, job.val)
        saver.heed([0.0, *told], position, learner.optimizer.state)  # which goes on with this evaluation
    job.log("epoch", **row)
    position.epoch, position.update, position.sums = position.epoch + 1, 0, [0.0, 0.0, 0.0]
    return row


def _agree(world: World, saver: Saver, position: Position) -> list[float]:
    """Return what ranks want, summed over them, at updates where it is time to ask; nothing at the others."""
    return world.sum(saver.wants()).tolist() if position.step % _AGREED_EVERY == 0 else [0.0, 0.0, 0.0]


def check_finite(loss: float, norm: float, phase: str, position: Position, rate: float) -> None:
    """Hold that an update's loss and gradient are numbers; they are the same on all ranks, so all stop at one step.

    Raises:
        Failure: they are not. Nothing is saved after such an update, so the last checkpoint is a good one.
    """
    if not (np.isfinite(loss) and np.isfinite(norm)):
        what = f"the loss became {loss}" if not np.isfinite(loss) else f"the gradient's norm became {norm}"
        raise Failure(f"{what} at step {position.step} (epoch {position.epoch + 1} of the {phase} phase, rate {rate:.3g}); try a lower rate. "
                      "The last checkpoint before it is kept")  # fmt: skip


def _note_epoch(position: Position, row: dict, recipe: Recipe) -> bool:
    """Note an epoch's accuracies; say whether its validation accuracy is the best of the phase."""
    if row["accuracy"] > position.best_accuracy + recipe.plateau_min_gain:
        position.best_accuracy, position.stale_epochs = row["accuracy"], 0
    else:
        position.stale_epochs += 1
    is_best = row.get("val_accuracy", -1.0) > position.best_val_accuracy
    position.stale_val_epochs = 0 if is_best else position.stale_val_epochs + 1
    position.best_val_accuracy = max(position.best_val_accuracy, row.get("val_accuracy", -1.0))
    position.stale_rate_epochs = 0 if is_best else position.stale_rate_epochs + 1
    if recipe.schedule == "plateau" and position.stale_rate_epochs >= recipe.plateau_rate_epochs:
        position.stale_rate_epochs, position.n_plateaus = 0, position.n_plateaus + 1
    return is_best


def _why_to_stop(phase: Phase, position: Position, recipe: Recipe) -> str:
    # Views take turns, and the plain one is the easiest: an epoch is compared with the last one of its view.
    if phase.stops_on_plateau and position.stale_epochs >= recipe.plateau_patience * recipe.feature_views:
        return "plateau"
    if phase.val_patience and position.stale_val_epochs >= phase.val_patience:
        return "validation"
    return "epochs"


def evaluate_rows(job: Job, rows: Rows, to_the_end: bool = False) -> tuple[float, float, float]:
    """Return the top-1 accuracy, counted over all ranks, and how many ranks were asked to come back or to end meanwhile.

    A rank that was asked stops early, and the accuracy is of no use then, unless it has to go `to_the_end`.
    """
    right = seen = 0
    for labels, probabilities in answer_rows(job, rows):
        right, seen = right + int((probabilities.argmax(1) == labels).sum()), seen + len(labels)
        if not to_the_end and (job.wishes.come_back or job.wishes.end):
            break
    right, seen, come_back, end = job.world.sum([right, seen, job.wishes.come_back, job.wishes.end])
    return float(right / max(1, seen)), come_back, end


def fit_temperature(job: Job) -> float | None:
    """Return the temperature of the smallest negative log-likelihood on the validation rows, of all ranks together; None without such rows."""
    if job.val is None:
        return None
    fit = TemperatureFit()
    for labels, probabilities in answer_rows(job, job.val):
        fit.add(probabilities, labels)
    fit.sums = job.world.sum(fit.sums.ravel()).reshape(fit.sums.shape)
    return fit.temperature()


def answer_rows(job: Job, rows: Rows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (int labels [n], float32 probabilities [n, n_classes]) of this rank's share of the rows; each row is one rank's."""
    start, stop = rank_slice(len(rows), job.world.rank, job.world.size)
    own = rows.take(np.arange(start, stop))
    predict, seen = _predict_function(job.model), 0
    for images in plain_batches(own, job.how, 32) if len(own) else ():
        yield own.labels[seen : seen + len(images)], predict(images).numpy()
        seen += len(images)


def _predict_function(model: tf_keras.Model) -> Callable:
    # One trace a model, kept on it: evaluation runs after every epoch, and its last batch is smaller.
    if not hasattr(model, "_family_predict"):
        signature = [tf.TensorSpec([None, *model.input.shape[1:]], tf.uint8)]
        answer = tf.function(
            lambda images: tf.cast(model(tf.cast(images, tf.float32), training=False), tf.float32), input_signature=signature
        )
        object.__setattr__(model, "_family_predict", answer)
    return model._family_predict
