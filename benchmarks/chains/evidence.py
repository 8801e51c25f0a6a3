"""What each member answers on validation rows: enough to tell how right any chain of them would be, without running it."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from family.errors import UserError
from family.outputs import whole_file

_ABOUT = b"family"


@dataclass(frozen=True)
class General:
    """A general model's answers to n rows."""

    best: np.ndarray  # int32 [n], classes
    sure: np.ndarray  # float32 [n], the probability of the best
    route: np.ndarray  # int32 [n], the vertical with the largest sum, by its place; -1 for none of them


@dataclass(frozen=True)
class Submodel:
    """A submodel's answers to the same rows, whatever they are of."""

    vertical: str
    best: np.ndarray  # int32 [n], classes of the general model


@dataclass(frozen=True)
class Evidence:
    """Members are told apart by the sha256 of their file."""

    verticals: tuple[str, ...]
    truth: np.ndarray  # int32 [n], classes
    levels: tuple[np.ndarray, ...]  # of each level, int [n_classes], the node of each class; the last one's nodes are the classes
    generals: dict[str, General]
    submodels: dict[str, Submodel]
    dataset: dict  # name, digest, split


def write_evidence(path: Path, evidence: Evidence) -> None:
    """Write it as Parquet, a row an image, whole or not at all."""
    columns = {"truth": evidence.truth}
    for sha, general in evidence.generals.items():
        columns |= {f"{sha}.best": general.best, f"{sha}.sure": general.sure, f"{sha}.route": general.route}
    columns |= {f"{sha}.best": submodel.best for sha, submodel in evidence.submodels.items()}
    about = {
        "schema": 1, "verticals": evidence.verticals, "dataset": evidence.dataset, "levels": [node_of.tolist() for node_of in evidence.levels],
        "generals": list(evidence.generals), "submodels": {sha: submodel.vertical for sha, submodel in evidence.submodels.items()},
    }  # fmt: skip
    table = pa.table(columns).replace_schema_metadata({_ABOUT: json.dumps(about).encode()})
    with whole_file(path) as partial:
        pa.parquet.write_table(table, partial, compression="zstd")


def read_evidence(path: Path) -> Evidence:
    """Read what `write_evidence` wrote.

    Raises:
        UserError: it is missing or holds something else.
    """
    try:
        table = pa.parquet.read_table(path)
        about = json.loads(table.schema.metadata[_ABOUT])
        values = {name: table[name].to_numpy() for name in table.column_names}
        evidence = Evidence(
            tuple(about["verticals"]), values["truth"], tuple(np.array(node_of) for node_of in about["levels"]),
            {sha: General(*(values[f"{sha}.{name}"] for name in ("best", "sure", "route"))) for sha in about["generals"]},
            {sha: Submodel(vertical, values[f"{sha}.best"]) for sha, vertical in about["submodels"].items()}, about["dataset"],
        )  # fmt: skip
        _check(evidence)
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no answers of members: {error}; `family bench BUNDLE... --chains --data DATASET` writes them") from error
    return evidence


def _check(evidence: Evidence) -> None:
    """Refuse answers that point outside of the tree."""
    n_classes = min((len(node_of) for node_of in evidence.levels), default=0)
    classes = [evidence.truth, *(member.best for member in (*evidence.generals.values(), *evidence.submodels.values()))]
    if not n_classes or any(len(some) and not (some.min() >= 0 and some.max() < n_classes) for some in classes):
        raise ValueError("classes that its tree does not have")
    if any(len(g.route) and not (g.route.min() >= -1 and g.route.max() < len(evidence.verticals)) for g in evidence.generals.values()):
        raise ValueError("routes to verticals that it does not name")
