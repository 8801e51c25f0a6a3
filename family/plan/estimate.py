"""Roughly how long a plan takes and how much room, from a table of variants measured on one machine; corrected by what steps took."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from family.card import read_card
from family.data.dataset import Dataset
from family.data.order import n_updates
from family.data.splits import SPLITS
from family.machine import cpu_model, n_cores
from family.models.variants import expected_step_ms, variant
from family.plan.members import Member
from family.plan.sharing import sharing
from family.plan.steps import AT_ONCE, DONE, Step, Told
from family.recipe import Recipe, read_recipe

LOG = "steps.jsonl"
_START_S = 20  # TensorFlow, building and tracing
_FORWARD = 1 / 3  # of a training step
_SERVED = 1 / 8  # ONNX Runtime's, of a training step
_HEAD_UPDATE_S = 0.003
_DECODE_S = 0.004
_TIMED, _LEAST_TIMED_S = 700, 6.0  # images that `bench` answers for a file: timed, to warm up, compared; how long it times at least, throughput too
_BYTES_OF_A_SAMPLE_PX = 0.25  # a JPEG's bytes for each of its pixels
_N_SAMPLES = 256


@dataclass(frozen=True)
class Work:
    """What a member has to do: its variant's size, its recipe as resolved, and its rows."""

    recipe: Recipe
    step_s: float  # of a training step of one row, on all cores here
    n_parameters: int
    n_features: int
    px: int
    rows: dict[str, int]  # by split
    taught_s: float = 0.0  # of its teachers' answers to one row
    finds_features: bool = False  # of the frozen trunk, which an earlier member computes

    @property
    def forward_s(self) -> float:
        return self.step_s * _FORWARD

    def train_s(self) -> float:
        recipe, n = self.recipe, self.rows["train"]
        spent_s = _START_S
        if recipe.head_epochs:
            seen = (0 if self.finds_features else n * recipe.feature_views) + self.rows["val"]
            spent_s += seen * self.forward_s + self._updates(recipe.head_epochs) * _HEAD_UPDATE_S
        if recipe.finetune_epochs:
            spent_s += self._updates(recipe.finetune_epochs) * min(recipe.batch_size, n) * (self.step_s + self.taught_s)
            spent_s += recipe.finetune_epochs * self.rows["val"] * self.forward_s
        return spent_s

    def _updates(self, epochs: int) -> int:
        planned = epochs * n_updates(self.rows["train"], self.recipe.batch_size)
        return min(planned, self.recipe.max_updates or planned)

    def export_s(self) -> float:
        # Converting and quantizing grow with the graph.
        return _START_S + 10 + 8e-6 * self.n_parameters + 2 * self.rows["val"] * self._answer_s

    def evaluate_s(self) -> float:
        return 2 + self.rows["test"] * self._answer_s

    def bench_s(self, n_schemes: int, n_rows: int) -> float:
        """Return the seconds of timing a bundle's files and of their answers to so many rows."""
        cores = n_cores()
        timed_s = max(_TIMED * (self.step_s * cores * _SERVED + _DECODE_S), _LEAST_TIMED_S)
        return n_schemes * (timed_s + 5 + n_rows * self._answer_s)

    @property
    def _answer_s(self) -> float:
        return self.step_s * _SERVED + _DECODE_S

    def run_bytes(self) -> float:
        # A checkpoint holds the weights and the optimizer's two means of each.
        return 4 * self.n_parameters * (1 + 3 * self.recipe.checkpoints_kept)

    def bundle_bytes(self, schemes: Iterable[str]) -> float:
        files = sum(self.n_parameters * (1 if scheme == "int8" else 4) for scheme in schemes)
        return files + _N_SAMPLES * _BYTES_OF_A_SAMPLE_PX * (2 * self.px) ** 2

    def features_bytes(self) -> float:
        """Return the room that the head phase needs until it ends; where members share it, until they are all trained."""
        return 4 * self.rows["train"] * self.n_features * self.recipe.feature_views if self.recipe.head_epochs else 0


def work_of(member: Member, dataset: Dataset, cores: int) -> Work:
    """Return what a member has to do.

    Raises:
        UserError: an unknown variant, recipe or scope.
    """
    row, recipe = variant(member.variant), read_recipe(member.recipe, member.settings)
    px = recipe.resolution_px or row.resolution_px
    n_classes = len(dataset.scope(member.scope).leaves)
    n_parameters = row.n_parameters + (n_classes - 1000) * (row.n_features + 1)
    return Work(recipe, _step_s(member.variant, px, cores), n_parameters, row.n_features, px, count_rows(dataset, member.scope))


def _step_s(name: str, px: int, cores: int) -> float:
    return expected_step_ms(variant(name), px, 1) / 1000 / cores


def works_of(members: list[Member], dataset: Dataset, cores: int, here: bool = True) -> list[Work]:
    """Return what each member of a plan has to do beside the others: teachers answer its rows, and features may be there already.

    Args:
        here: as in `plan`.

    Raises:
        UserError: as `work_of`, or a teacher's card can't be read.
    """
    first_of = sharing(members) if here else {}
    works: dict[str, Work] = {}
    for member in members:
        taught_s = sum(works[name].forward_s if name in works else _forward_s(Path(name), cores) for name in member.teacher)
        finds = first_of.get(member.folder, member.folder) != member.folder
        works[member.folder] = replace(work_of(member, dataset, cores), taught_s=taught_s, finds_features=finds)
    return list(works.values())


def _forward_s(teacher: Path, cores: int) -> float:
    """Return the seconds of a run's answer to one row, in TensorFlow."""
    card = read_card(teacher)
    return _step_s(card["variant"], card["resolution_px"], cores) * _FORWARD


def count_rows(dataset: Dataset, scope: str) -> dict[str, int]:
    """Return split -> its number of images in a scope.

    Raises:
        UserError: the scope is not in the tree.
    """
    leaves = pa.array(dataset.scope(scope).leaves)
    splits = pc.filter(dataset.table["split"], pc.is_in(dataset.table["category"], leaves)).to_pylist()
    return {split: splits.count(split) for split in SPLITS}


def with_times(steps: list[Step], members: list[Member], works: list[Work]) -> list[Step]:
    """Return the steps with the seconds that each is expected to take on this machine."""
    schemes = [len(member.schemes.split(",")) for member in members]
    # For chains, each member answers the validation rows of the whole tree.
    n_val = max((work.rows["val"] for work in works), default=0) if any("--chains" in step.words for step in steps) else 0
    timed_s = sum(work.bench_s(n, work.rows["test"] + n_val) for work, n in zip(works, schemes, strict=True))
    of_all = {"bench": timed_s, "report": 3.0}
    of_all["evaluate"] = sum(work.evaluate_s() for work in works)  # of a chain: about as much as its members, which may be all
    of_one: dict[str, Callable[[Work], float]] = {"train": Work.train_s, "export": Work.export_s, "evaluate": Work.evaluate_s}
    times = [of_one[step.stage](works[step.member - 1]) if step.member else of_all[step.stage] for step in steps]
    return [replace(step, expected_s=s) for step, s in zip(steps, times, strict=True)]


def room_bytes(steps: Iterable[Step], members: list[Member], works: list[Work], here: bool = True) -> float:
    """Return the disk that the steps fill at most.

    Features that members share are there until all of these are trained, once for all; those of another member until its head phase ends,
    here of one training at a time, on a cluster of many.
    """
    first_of = sharing(members)
    total, passing = 0.0, [0.0]
    shared: dict[str, float] = {}
    for step in (step for step in steps if step.member):
        member, work = members[step.member - 1], works[step.member - 1]
        if step.stage == "train":
            total += work.run_bytes()
            if "--features" in step.words:
                shared[first_of[member.folder]] = work.features_bytes()
            else:
                passing.append(work.features_bytes())
        elif step.stage == "export":
            total += work.bundle_bytes(member.schemes.split(","))
    return total + sum(shared.values()) + (max(passing) if here else sum(passing))


class Clock(Told):
    """Tells how far a plan is and about how long it will take, by what its steps took so far on this machine."""

    def __init__(self, steps: list[Step], n_members: int, log: Path, now: Callable[[], float]):
        """`steps` are all, in their order; `now` gives seconds. What ended before is read from `log`, and what ends is added to it."""
        self._steps, self._n_members, self._log, self._now = steps, n_members, log, now
        self._left: dict[tuple, Step] = {}
        self._began = now()
        self._begun: dict[tuple, bool] = {}  # words -> whether an earlier start is gone on with
        self._machine = f"{cpu_model()}, {n_cores()} cores"
        self._rows = _read(log)

    def expect(self, steps: Iterable[Step]) -> None:
        """Take the steps that are to be run."""
        self._left = {step.words: step for step in steps}

    def left_s(self) -> float:
        """Return about how many seconds the steps take that have not ended."""
        return sum(step.expected_s * self._factor(step.stage) / AT_ONCE.get(step.stage, 1) for step in list(self._left.values()))

    def _factor(self, stage: str) -> float:
        """Return what the steps of a stage took over what was expected of them; 1 while none has ended."""
        rows = [row for row in self._rows if row["stage"] == stage and row["machine"] == self._machine and row["whole"]]
        expected_s = sum(row["expected_s"] for row in rows)
        return sum(row["s"] for row in rows) / expected_s if expected_s else 1.0

    @property
    def is_corrected(self) -> bool:
        return any(row["machine"] == self._machine and row["stage"] == "train" and row["whole"] for row in self._rows)

    def begins(self, k: int, n: int, step: Step) -> None:
        place = f", member {step.member} of {self._n_members}" if step.member else ""
        print(f"\n[{k} of {n}{place}, {span(self._now() - self._began)}, about {span(self.left_s())} left] {step}", flush=True)
        self._begun[step.words] = output_of(step).exists()

    def passed_over(self, step: Step) -> None:
        self._left.pop(step.words, None)

    def ended(self, step: Step, answer: str, s: float) -> None:
        self._left.pop(step.words, None)
        row = {"step": str(step), "stage": step.stage, "answer": answer, "s": round(s, 2), "expected_s": round(step.expected_s, 2),
               "machine": self._machine, "whole": answer == DONE and not self._begun.pop(step.words, False)}  # fmt: skip
        self._rows.append(row)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def output_of(step: Step) -> Path:
    """Return what a step writes."""
    return Path(step.words[step.words.index("--out") + 1])


def _read(log: Path) -> list[dict]:
    """Return the rows of earlier starts; a line that a kill cut short is passed over."""
    rows = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def span(s: float) -> str:
    """Return a time as a person would say it."""
    if s < 90:
        return f"{s:.0f} s"
    return f"{s / 60:.0f} min" if s < 5400 else f"{s / 3600:.1f} h"


def size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
