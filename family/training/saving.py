"""Where a training stands, saved and restored: everything that the next update depends on."""

import dataclasses
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tf_keras

from distributed import checkpoints
from distributed.signals import Wishes
from distributed.world import World
from family.errors import ComeBack, Ended, Failure
from family.recipe import Recipe
from family.training.log import Log, read_events

FOLDER = "checkpoints"
_LEAD_VARIABLE = "FAMILY_LEAD_S"  # how long before the time limit the queue sends SIGUSR1
_RESTARTS_VARIABLE = "SLURM_RESTART_COUNT"


@dataclass
class Position:
    """Where a training stands: all that decides the next update, beside the variables. The same on all ranks."""

    phase: int = 0
    epoch: int = 0  # within the phase
    update: int = 0  # within the epoch
    step: int = 0  # updates since the beginning
    sums: list = field(default_factory=lambda: [0.0, 0.0, 0.0])  # loss, right answers, rows of the epoch, over all ranks
    best_accuracy: float = -1.0  # on training rows, of the phase
    stale_epochs: int = 0
    best_val_accuracy: float = -1.0  # of the phase
    stale_val_epochs: int = 0
    stale_rate_epochs: int = 0  # since the schedule `plateau` lowered the rate, or validation accuracy rose
    n_plateaus: int = 0  # how often it was lowered in the phase
    spent_s: float = 0.0  # in the phase, before this start


@dataclass
class Saver:
    """Saves the training at steps that all ranks agree on, and ends it there when a signal asked for it."""

    run: Path
    model: tf_keras.Model
    recipe: Recipe
    world: World
    log: Log
    wishes: Wishes
    features: Path  # where the frozen trunk's are kept
    summaries: list[dict] = field(default_factory=list)  # of the phases that have ended
    statistics: list = field(default_factory=list)  # BatchNorm's, where it trains: each rank has its own
    _saved_at: float = field(default_factory=time.monotonic)

    def wants(self) -> list[float]:
        """Return what this rank tells the others with its next update: [save, come back, end]."""
        interval_s = self.recipe.checkpoint_interval_s
        is_due = self.world.is_first and interval_s > 0 and time.monotonic() - self._saved_at >= interval_s
        return [float(is_due), float(self.wishes.come_back), float(self.wishes.end)]

    def heed(self, told: list[float], position: Position, optimizer_variables: list) -> None:
        """Do what any rank wanted; `told` is the sum over ranks.

        Raises:
            ComeBack, Ended: a signal came; the checkpoint of this step is written.
        """
        save, come_back, end = (value > 0 for value in told)
        if save or come_back or end:
            self.save(position, optimizer_variables)
        self.stop_if(come_back, end, f"a checkpoint of step {position.step} is written")

    def stop_if(self, come_back: bool, end: bool, what: str) -> None:
        if end:
            raise Ended(f"ended by SIGTERM; {what}, `--resume` goes on from there")
        if come_back:
            raise ComeBack(f"stopped by SIGUSR1; {what}, `--resume` goes on from there")

    def save(self, position: Position, optimizer_variables: list, best: bool = False) -> None:
        """Let rank 0 write a checkpoint; all ranks must call it. Saving changes nothing of the training, whenever it comes.

        Raises:
            Failure: a weight is no number; the checkpoint before is kept.
        """
        began = time.monotonic()
        means = self.world.means(self.statistics)
        problem = self._write(position, optimizer_variables, means, best) if self.world.is_first else None
        if self.world.is_first and not best and not problem:
            self._tell(position.step, time.monotonic() - began)
        self._saved_at = time.monotonic()
        problem = self.world.broadcast(problem)
        if problem:
            raise Failure(f"{problem}; try a lower rate. The last checkpoint before it is kept")

    def _write(self, position: Position, optimizer_variables: list, means: list, best: bool) -> str | None:
        """Write a checkpoint, or return what is wrong with the weights."""
        reduced = {id(variable): mean for variable, mean in zip(self.statistics, means, strict=True)}
        variables = [*self.model.variables, *optimizer_variables]
        arrays = {f"v{k}": reduced.get(id(variable), variable).numpy() for k, variable in enumerate(variables)}
        state = {"position": dataclasses.asdict(position), "summaries": self.summaries}
        try:
            if best:
                checkpoints.save_best(self.run / FOLDER, arrays, state)
            else:
                checkpoints.save(self.run / FOLDER, position.step, arrays, state, self.recipe.checkpoints_kept)
        except ValueError as error:
            return str(error)
        return None

    def _tell(self, step: int, s: float) -> None:
        self.log("checkpoint", step=step, s=s)
        lead_s = float(os.environ.get(_LEAD_VARIABLE) or "inf")
        if lead_s < 2 * s:
            self.log.warn(f"warning: a checkpoint takes {s:.0f} s and the time limit is told {lead_s:.0f} s before; raise lead_s of the cluster "
                          f"to {2 * s + 1:.0f} or more")  # fmt: skip

    def reduce_statistics(self) -> None:
        """Replace each rank's own BatchNorm statistics by their mean over ranks."""
        for variable, mean in zip(self.statistics, self.world.means(self.statistics), strict=True):
            variable.assign(mean)

    def restore(self) -> tuple[dict, Position] | None:
        """Return the newest checkpoint's arrays (rank 0's alone; the others are given them with the variables) and its position.

        Raises:
            Failure: a requeued job was restarted twice and came no further.
        """
        arrays, own = (self.world.is_first and checkpoints.load_newest(self.run / FOLDER)) or ({}, None)
        state = self.world.broadcast(own)
        step = state["position"]["step"] if state else 0
        self._refuse_standstill(step)
        self.log("resumed", step=step, ranks=self.world.size, features=self._feature_rows())
        if state is None:
            self.log.warn("no usable checkpoint: starting anew")
            return None
        assign(self.model.variables, arrays)
        self.world.broadcast_variables(self.model.variables)
        self.summaries[:] = state["summaries"]
        return arrays, Position(**state["position"])

    def restore_best(self) -> None:
        """Put the weights of the epoch with the best validation accuracy in place on all ranks."""
        found = checkpoints.load_best(self.run / FOLDER) if self.world.is_first else None
        assign(self.model.variables, found[0] if found else {})
        self.world.broadcast_variables(self.model.variables)

    def _refuse_standstill(self, step: int) -> None:
        before = read_events(self.run, "resumed")[-2:] if self.world.is_first else []
        features = self._feature_rows()
        stuck = len(before) == 2 and all((row["step"], row.get("features", 0)) == (step, features) for row in before)
        if self.world.broadcast(stuck and int(os.environ.get(_RESTARTS_VARIABLE) or 0) >= 2):
            raise Failure(f"restarted twice at step {step} without a new step: the job would never end. Give it a longer time limit, or a "
                          "shorter checkpoint_interval_s")  # fmt: skip

    def _feature_rows(self) -> int:
        """Return how many rows' features are done, which is progress too."""
        texts = [file.read_text(errors="replace") for file in self.features.rglob("*.done")]
        return sum(int(text) for text in texts if text.isdigit())


def assign(variables: list, arrays: dict[str, np.ndarray]) -> None:
    """Set variables to the arrays of the same places; nothing where there are no arrays."""
    for variable, name in zip(variables, arrays, strict=False):
        variable.assign(arrays[name])
