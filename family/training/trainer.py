"""The trainer: phases of epochs of updates. What a rank decides alone is nothing; what it draws alone is nothing."""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras

from distributed import checkpoints
from distributed.world import World
from family.data.dataset import Rows
from family.data.images import Preprocessing
from family.data.order import epoch_slices, n_updates, rank_slice
from family.data.pipeline import plain_batches, training_batches
from family.errors import Failure
from family.models.builders import head_of, logits_of, trunk_of
from family.progress import progress
from family.recipe import Recipe
from family.training.features import compute_features
from family.training.rates import learning_rate
from family.training.update import make_optimizer, make_update


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
    stops_on_plateau: bool
    ema: bool


@dataclass
class Position:
    """Where a training stands: all that decides the next update, beside the variables."""

    phase: int = 0
    epoch: int = 0  # within the phase
    update: int = 0  # within the epoch
    step: int = 0  # updates since the beginning
    sums: list = field(default_factory=lambda: [0.0, 0.0, 0.0])  # this rank's loss, right answers, rows of the epoch
    best_accuracy: float = -1.0
    stale_epochs: int = 0


def train_phases(job: Job, has_trunk: bool, resume: bool) -> list[dict]:
    """Train all phases and return a summary of each; `metrics.jsonl` in the run folder tells every epoch."""
    names = (["head"] if job.recipe.head_epochs else []) + (["finetune"] if job.recipe.finetune_epochs else [])
    restored = _restore(job) if resume else None
    position = Position(**restored[1]["position"]) if restored else Position()
    summaries = restored[1]["summaries"] if restored else []
    for number, name in enumerate(names):
        if number < position.phase:
            continue
        phase = _head_phase(job) if name == "head" else _finetune_phase(job, has_trunk)
        summaries.append(_run_phase(job, phase, position, restored, summaries))
        restored = None
        position = Position(phase=number + 1, step=position.step)
        _checkpoint(job, position, [], summaries)
    shutil.rmtree(job.run / "features", ignore_errors=True)
    return summaries


def _head_phase(job: Job) -> Phase:
    """Train the head on features that the frozen trunk computes once."""
    features = compute_features(trunk_of(job.model), job.train, job.how, job.run / "features", job.world)

    def batches(slices, epoch):
        for own, start, total in slices:
            weight = np.full(max(1, len(own)), float(len(own) > 0), np.float32)
            own = own if len(own) else np.zeros(1, np.int64)
            yield features[own], job.train.labels[own], weight, start, total

    head = head_of(job.model)
    recipe = job.recipe
    return Phase("head", head, head.trainable_variables, batches, recipe.head_epochs, recipe.head_rate, "constant", True, False)


def _finetune_phase(job: Job, has_trunk: bool) -> Phase:
    """Train everything; BatchNorm stays in inference mode on a pretrained trunk, which its statistics belong to."""
    recipe = job.recipe
    frozen = recipe.batchnorm == "inference" or (recipe.batchnorm == "auto" and has_trunk)
    for layer in job.model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.trainable = not frozen
            layer.momentum = recipe.batchnorm_momentum or layer.momentum

    def batches(slices, epoch):
        return training_batches(job.train, slices, job.how, recipe, epoch)

    model = logits_of(job.model)
    return Phase("finetune", model, model.trainable_variables, batches, recipe.finetune_epochs, recipe.finetune_rate,
                 recipe.schedule, False, recipe.ema_decay > 0)  # fmt: skip


@dataclass(frozen=True)
class Learner:
    """What a phase learns with."""

    optimizer: tf_keras.optimizers.Optimizer
    update: Callable
    updates_an_epoch: int
    n_updates: int  # of the whole phase


def _run_phase(job: Job, phase: Phase, position: Position, restored, summaries: list[dict]) -> dict:
    """Train a phase from `position` to its end; return its summary."""
    began, stopped, accuracy = time.monotonic(), "epochs", 0.0
    learner = _start_learner(job, phase, restored)
    saver = _Saver(job, position, learner.optimizer, summaries)
    while position.epoch < phase.epochs and position.epoch * learner.updates_an_epoch < learner.n_updates:
        accuracy = _run_epoch(job, phase, learner, position, saver)
        plateau = _is_plateau(position, accuracy, job.recipe)
        position.epoch, position.update, position.sums = position.epoch + 1, 0, [0.0, 0.0, 0.0]
        # All ranks saw the same sums; rank 0 decides all the same, so that no rounding can part them.
        if job.world.broadcast(phase.stops_on_plateau and plateau):
            stopped = "plateau"
            break
    if phase.ema:
        learner.optimizer.finalize_variable_values(phase.variables)
    summary = {"phase": phase.name, "epochs": position.epoch, "steps": position.step, "stopped_by": stopped, "train_accuracy": accuracy}
    summary["val_accuracy"] = evaluate_rows(job, job.val) if job.val is not None else None
    summary["s"] = time.monotonic() - began
    _log(job, {"event": "phase", **summary})
    return summary


def _start_learner(job: Job, phase: Phase, restored) -> Learner:
    """Make the optimizer anew, since the variables of another phase are not its variables; give all ranks the same values."""
    recipe = job.recipe
    optimizer = make_optimizer(recipe, phase.variables, phase.ema)
    variables = [*job.model.variables, *optimizer.variables]
    if restored and len(restored[0]) == len(variables):  # a checkpoint of a phase's end holds no optimizer
        _assign(variables, restored[0])
    job.world.broadcast_variables(variables)
    updates_an_epoch = n_updates(len(job.train), recipe.batch_size)
    planned = phase.epochs * updates_an_epoch
    update = make_update(phase.model, phase.variables, optimizer, job.world, recipe)
    return Learner(optimizer, update, updates_an_epoch, min(planned, recipe.max_updates or planned))


def _run_epoch(job: Job, phase: Phase, learner: Learner, position: Position, saver: "_Saver") -> float:
    """Run the updates of an epoch that are left, and return its training accuracy over all ranks."""
    recipe, world, began = job.recipe, job.world, time.monotonic()
    first = position.epoch * learner.updates_an_epoch
    slices = epoch_slices(len(job.train), recipe.batch_size, recipe.seed, position.epoch, world.rank, world.size)
    slices = slices[position.update : learner.n_updates - first]
    warmup = recipe.warmup_epochs * learner.updates_an_epoch
    what = f"{phase.name} epoch {position.epoch + 1}/{phase.epochs}"
    for inputs, labels, weights, start, total in progress(
        phase.batches(slices, position.epoch), what, len(slices), "updates", world.is_first
    ):
        rate = learning_rate(first + position.update, learner.n_updates, phase.rate, recipe.batch_size, warmup, phase.schedule)
        learner.optimizer.learning_rate.assign(rate)
        step = tf.constant(position.step, tf.int32)
        sums = learner.update(inputs, labels, weights, step, tf.constant(start), tf.constant(total)).numpy()
        position.sums = [a + float(b) for a, b in zip(position.sums, sums, strict=True)]
        position.update += 1
        position.step += 1
        saver.save_if_due()
    loss, right, rows = _checked_sums(job, phase, position)
    _reduce_statistics(job)
    row = {"event": "epoch", "phase": phase.name, "epoch": position.epoch + 1, "step": position.step, "loss": loss / rows, "accuracy": right / rows,
           "rate": learner.optimizer.learning_rate.numpy().item(), "s": time.monotonic() - began}  # fmt: skip
    row["images_per_s"] = sum(total for *_, total in slices) / row["s"]
    if job.val is not None and not phase.stops_on_plateau:
        row["val_accuracy"] = evaluate_rows(job, job.val)
    _log(job, row)
    return right / rows


def _checked_sums(job: Job, phase: Phase, position: Position) -> tuple[float, float, float]:
    """Return loss, right answers and rows of the epoch, summed over ranks.

    Raises:
        Failure: the loss is no number.
    """
    loss, right, rows = job.world.sum(position.sums)
    if not np.isfinite(loss):
        raise Failure(f"the loss became {loss} in epoch {position.epoch + 1} of the {phase.name} phase, by step {position.step}; try a lower rate. "
                      "The last checkpoint before it is kept")  # fmt: skip
    return loss, right, rows


class _Saver:
    """Saves a checkpoint when the interval has passed; all ranks agree on the step."""

    EVERY = 8  # updates between asking all ranks, which costs a message

    def __init__(self, job: Job, position: Position, optimizer, summaries: list[dict]):
        self._job, self._position, self._optimizer, self._summaries = job, position, optimizer, summaries
        self._saved_at = time.monotonic()

    def save_if_due(self) -> None:
        interval_s = self._job.recipe.checkpoint_interval_s
        if interval_s <= 0 or self._position.step % self.EVERY:
            return
        if self._job.world.broadcast(time.monotonic() - self._saved_at >= interval_s):
            _checkpoint(self._job, self._position, self._optimizer.variables, self._summaries)
            self._saved_at = time.monotonic()


def _is_plateau(position: Position, accuracy: float, recipe: Recipe) -> bool:
    """Note an epoch's training accuracy and say whether it stopped rising."""
    if accuracy > position.best_accuracy + recipe.plateau_min_gain:
        position.best_accuracy, position.stale_epochs = float(accuracy), 0
    else:
        position.stale_epochs += 1
    return position.stale_epochs >= recipe.plateau_patience


def evaluate_rows(job: Job, rows: Rows) -> float:
    """Return the top-1 accuracy; each rank takes its share, and right answers are summed."""
    start, stop = rank_slice(len(rows), job.world.rank, job.world.size)
    own = rows.take(np.arange(start, stop))
    predict = _predict_function(job.model)
    right, seen = 0, 0
    for images in plain_batches(own, job.how, 32) if len(own) else ():
        answers = predict(images).numpy()
        right += int((answers == own.labels[seen : seen + len(answers)]).sum())
        seen += len(answers)
    right, seen = job.world.sum(np.array([right, seen]))
    return float(right / seen)


def _predict_function(model: tf_keras.Model) -> Callable:
    # One trace a model, kept on it: evaluation runs after every epoch, and its last batch is smaller.
    if not hasattr(model, "_family_predict"):
        signature = [tf.TensorSpec([None, *model.input.shape[1:]], tf.uint8)]
        answer = tf.function(
            lambda images: tf.argmax(model(tf.cast(images, tf.float32), training=False), -1, tf.int32), input_signature=signature
        )
        object.__setattr__(model, "_family_predict", answer)
    return model._family_predict


def _reduce_statistics(job: Job) -> None:
    job.world.average_variables([v for v in job.model.non_trainable_variables if "moving_" in v.name])


def _checkpoint(job: Job, position: Position, optimizer_variables: list, summaries: list[dict]) -> None:
    """Let rank 0 write everything that the next update depends on."""
    sums = job.world.sum(position.sums)
    _reduce_statistics(job)
    if not job.world.is_first or not np.isfinite(sums[0]):
        return
    variables = [*job.model.variables, *optimizer_variables]
    arrays = {f"v{k}": variable.numpy() for k, variable in enumerate(variables)}
    # The sums of all ranks go to rank 0 on resume, so that the number of ranks may change.
    state = {"position": {**dataclasses.asdict(position), "sums": sums.tolist()}, "summaries": summaries}
    checkpoints.save(job.run / "checkpoints", position.step, arrays, state)
    _log(job, {"event": "checkpoint", "step": position.step})


def _restore(job: Job):
    """Put the newest checkpoint's weights in place and return (arrays, state), or None."""
    found = job.world.broadcast(checkpoints.load_newest(job.run / "checkpoints") if job.world.is_first else None)
    if found is None:
        _log(job, {"event": "resumed", "step": 0})
        if job.world.is_first and (job.run / "checkpoints").is_dir():
            print("no usable checkpoint: starting anew")
        return None
    _assign(job.model.variables, {name: found[0][name] for name in list(found[0])[: len(job.model.variables)]})
    if not job.world.is_first:
        found[1]["position"]["sums"] = [0.0, 0.0, 0.0]
    _log(job, {"event": "resumed", "step": found[1]["position"]["step"]})
    return found


def _assign(variables: list, arrays: dict[str, np.ndarray]) -> None:
    for k, variable in enumerate(variables):
        variable.assign(arrays[f"v{k}"])


def _log(job: Job, row: dict) -> None:
    """Append a row to metrics.jsonl and show it; rank 0 only."""
    if not job.world.is_first:
        return
    with open(job.run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    _log_to_tensorboard(job.run / "tensorboard", row)
    if row["event"] == "epoch":
        val = f", validation {row['val_accuracy']:.1%}" if "val_accuracy" in row else ""
        print(f"{row['phase']} epoch {row['epoch']}: loss {row['loss']:.3f}, training accuracy {row['accuracy']:.1%}{val}, "
              f"{row['images_per_s']:.0f} images/s", flush=True)  # fmt: skip


def _log_to_tensorboard(folder: Path, row: dict) -> None:
    if row["event"] != "epoch":
        return
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=row["step"]):
        for name in ("loss", "accuracy", "val_accuracy", "rate", "images_per_s"):
            if name in row:
                tf.summary.scalar(f"{row['phase']}/{name}", row[name])
    writer.close()
