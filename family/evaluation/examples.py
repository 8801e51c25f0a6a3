"""Rows of answers as plain data with paths, for tables and galleries."""

from dataclasses import dataclass

import numpy as np

from family.data.dataset import Rows
from family.evaluation.mistakes import KINDS, Mistakes, tell_why
from family.evaluation.predictions import Answers

MAX_ERRORS = 2000
N_RIGHT = 24
SEED = 0


@dataclass(frozen=True)
class Examples:
    """Makes each row's object once, so that what refers to a row refers to the same object."""

    rows: Rows
    answers: Answers  # by image
    mistakes: Mistakes
    made: dict[int, dict]  # by row, those that were asked for

    def error(self, place: int) -> dict:
        """Return the mistake at a place of `mistakes.rows`."""
        row = int(self.mistakes.rows[place])
        if row not in self.made:
            told, kind = describe(self.rows, self.answers, row), int(self.mistakes.kinds[place])
            best, true = map(float, self.answers.tempered[row])
            usual = float(self.mistakes.usual[self.answers.top[row, 0]])
            why = tell_why(kind, told["true_path"], told["answer_path"], best, true, usual)
            self.made[row] = {**told, "kind": KINDS[kind], "why": why}
        return self.made[row]

    def surest(self, places: np.ndarray, n: int) -> list[dict]:
        """Return the errors at up to n of these places, those whose answers are surest, one of a listing."""
        rows = self.mistakes.rows[places]
        order = places[np.lexsort((rows, -self.answers.top_probabilities[rows, 0]))]
        _, first = np.unique(self.rows.listing_ids[self.mistakes.rows[order[: 20 * n]]].astype(str), return_index=True)
        return [self.error(int(place)) for place in order[np.sort(first)[:n]]]

    def all_made(self) -> list[dict]:
        """Return every error that was asked for, the surest answers first."""
        order = sorted(self.made, key=lambda row: (-self.answers.top_probabilities[row, 0], row))
        return [self.made[row] for row in order]


def describe(rows: Rows, answers: Answers, row: int) -> dict:
    """Return a row with its truth, its answer and the best classes, by ids and paths; probabilities are the member's own."""
    leaves, path_of = rows.ontology.leaves, rows.ontology.path_of
    true, best = leaves[answers.labels[row]], leaves[answers.top[row, 0]]
    top = zip(answers.top[row], answers.top_probabilities[row], strict=True)
    return {
        "listing_id": str(rows.listing_ids[row]), "image": str(rows.images[row]),
        "true_id": true, "true_path": path_of[true], "answer_id": best, "answer_path": path_of[best],
        "probability": float(answers.top_probabilities[row, 0]), "true_probability": float(answers.true_probabilities[row]),
        "top": [{"path": path_of[leaves[k]], "probability": float(p)} for k, p in top],
    }  # fmt: skip


def choose_errors(examples: Examples) -> None:
    """Ask for MAX_ERRORS errors less those that others asked for: of each kind the same number, half the surest, half drawn."""
    mistakes, left = examples.mistakes, max(0, MAX_ERRORS - len(examples.made))
    generator = np.random.default_rng(SEED)
    for kind in range(len(KINDS)):
        places = np.flatnonzero(mistakes.kinds == kind)
        n = left // len(KINDS)
        order = places[np.argsort(-examples.answers.top_probabilities[mistakes.rows[places], 0], kind="stable")]
        sure, others = order[: n - n // 2], order[n - n // 2 :]
        for place in (*sure, *generator.permutation(others)[: n // 2]):
            examples.error(int(place))


def choose_right(rows: Rows, answers: Answers) -> list[dict]:
    """Return N_RIGHT rows that are answered right, drawn: half of the surer half of them, half of the others; the surest first."""
    right = np.flatnonzero(answers.top[:, 0] == answers.labels)
    order = right[np.argsort(-answers.top_probabilities[right, 0], kind="stable")]
    generator = np.random.default_rng(SEED)
    middle = (len(order) + 1) // 2
    drawn = [np.sort(generator.permutation(len(part))[: N_RIGHT // 2]) for part in (order[:middle], order[middle:])]
    chosen = np.concatenate([order[:middle][drawn[0]], order[middle:][drawn[1]]])
    return [describe(rows, answers, int(row)) for row in chosen]
