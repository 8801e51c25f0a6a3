"""`--fail-under top1.micro=0.80,levels.2.macro=0.84`: figures that a pipeline insists on."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from family.data.dataset import Rows
from family.data.ontology import Ontology
from family.errors import UserError, unknown_name
from family.evaluation.assembling import Answered, Temperature, assemble
from family.evaluation.predictions import gather_answers

_MAY_LACK = ("thirds.", "by.")  # what rows may have none of, though the tree and the columns have it
_N_MADE_UP = 200  # as many as a column may have values, see family.evaluation.groups


def parse_wanted(text: str) -> dict[str, float]:
    """Return the wanted least value of each metric, by its path in metrics.json.

    Raises:
        UserError: a part is not NAME=NUMBER.
    """
    found = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            raise UserError(f"--fail-under {part!r}: wanted NAME=NUMBER, as in top1.micro=0.80,levels.2.macro=0.84") from None
        if not name.strip() or found[name.strip()] != found[name.strip()]:
            raise UserError(f"--fail-under {part!r}: wanted NAME=NUMBER, as in top1.micro=0.80,levels.2.macro=0.84")
    return found


def find_short(metrics: dict, wanted: dict[str, float]) -> list[str]:
    """Return a line for each metric that is below what is wanted, with both numbers.

    Raises:
        UserError: there is no metric of that name.
    """
    found = numbers(metrics)
    check_names([name for name in wanted if not name.startswith(_MAY_LACK)], found)
    return [_tell_short(name, found.get(name), least) for name, least in wanted.items() if found.get(name) is None or found[name] < least]


def _tell_short(name: str, got: float | None, least: float) -> str:
    return f"{name} is {'nothing, since no row counts for it' if got is None else f'{got:.4f}'}, wanted at least {least:g}"


def check_names(wanted: Iterable[str], known: Iterable[str]) -> None:
    """Refuse the name of a metric that there is not.

    Raises:
        UserError: names the nearest one.
    """
    known = set(known)
    for name in wanted:
        if name not in known:
            raise unknown_name("metric", name, known)


def expected_names(ontology: Ontology, columns: dict[str, np.ndarray], with_filing: bool) -> set[str]:
    """Return the names of the metrics that an evaluation will have, so that a wrong one is told before hours of work.

    They are those of a few made-up answers in the same tree, put together as real ones are.

    Args:
        columns: str [n] each, what groups are made by.
    """
    n, n_classes = _N_MADE_UP, len(ontology.leaves)
    labels = (np.arange(n) * max(1, n_classes // n) % n_classes).astype(np.int32)
    rows = Rows(Path("."), ontology, np.arange(n).astype(str), np.full(n, ""), labels)
    answered = Answered(rows, *gather_answers([np.random.default_rng(0).dirichlet(np.ones(n_classes), n)], rows))
    values = {name: np.resize(np.unique(column), n) for name, column in columns.items()}
    about = dict.fromkeys(("member", "dataset", "digest", "split", "scope"), "") | {"notes": []}
    made_up = assemble(about, answered, answered if with_filing else None, Temperature(1.0, ""), np.ones(n_classes, int), values)
    return set(numbers(made_up.findings.metrics))


def numbers(metrics: dict, path: str = "") -> dict[str, float | None]:
    """Return the number of each metric by its path in nested dictionaries; None where it has no value."""
    found = {}
    for key, value in metrics.items():
        if isinstance(value, dict):
            found |= numbers(value, f"{path}{key}.")
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            found[f"{path}{key}"] = value
    return found
