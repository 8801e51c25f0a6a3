"""Let members answer validation rows, for `pick --chain`. NumPy, Pillow and ONNX Runtime."""

from collections.abc import Sequence

import numpy as np

from benchmarks.chains.evidence import Evidence, General, Submodel
from export.chain import join_members
from family.data.reading import read_sizes
from family.errors import UserError
from family.evaluation.predictions import level_maps
from family.evaluation.routing import route
from family.progress import progress

ANSWERED = "val"  # the rows by which chains are picked
_BATCH = 32


def gather(models: Sequence, dataset, split: str = ANSWERED) -> Evidence:
    """Let general models and submodels answer a split's rows; each image is decoded once.

    Args:
        models: `export.opening.Model`s of one tree.

    Raises:
        UserError: there is no general model or no submodel, or they don't belong together.
    """
    generals = [model for model in models if not model.card.get("subtrees")]
    submodels = [model for model in models if model.card.get("subtrees")]
    check_cards([model.card for model in models])
    verticals = tuple(dict.fromkeys(model.card["scope"] for model in submodels))
    parts = _parts_of(generals, submodels, verticals)
    ontology = dataset.scope_of(generals[0].card)
    rows = dataset.rows(split, ontology)
    found: dict[str, list[np.ndarray]] = {_sha(model): [] for model in models}
    hows = dict.fromkeys(model.how for model in models)
    firsts = [next(parts[_sha(m)] for m in submodels if m.card["scope"] == name) for name in verticals]
    for images in progress(read_sizes(rows, hows, _BATCH), "answering", total=-(-len(rows) // _BATCH), unit="batches"):
        for model in generals:
            answers = model.predict(images[model.how])
            found[_sha(model)].append(np.stack([answers.argmax(1), answers.max(1), route(answers, firsts)], axis=1))
        for model in submodels:
            found[_sha(model)].append(parts[_sha(model)][model.predict(images[model.how]).argmax(1)])
    joined = {sha: np.concatenate(answers) for sha, answers in found.items()}
    return Evidence(
        verticals,
        rows.labels.astype(np.int32),
        tuple(np.asarray(node_of) for node_of, _ in level_maps(ontology)),
        {_sha(m): General(*(joined[_sha(m)][:, k].astype(kind) for k, kind in enumerate((np.int32, np.float32, np.int32)))) for m in generals},
        {_sha(m): Submodel(m.card["scope"], joined[_sha(m)].astype(np.int32)) for m in submodels},
        {"name": dataset.about["name"], "digest": dataset.digest, "split": split},
    )


def check_cards(cards: Sequence[dict]) -> None:
    """Raises:
    UserError: there is no general model or no submodel among these.
    """
    if len({bool(card.get("subtrees")) for card in cards}) < 2:
        raise UserError("a chain is made of a general model and of submodels of verticals; give bundles of both")


def _sha(model) -> str:
    return model.about["model_sha256"]


def _parts_of(generals: list, submodels: list, verticals: Sequence[str]) -> dict[str, np.ndarray]:
    """Return for each submodel, by its sha256, the general model's class of each of its classes."""
    found = {}
    for general in generals:
        for model in submodels:
            others = {name: next(m for m in submodels if m.card["scope"] == name) for name in verticals if name != model.card["scope"]}
            parts = join_members(general, {model.card["scope"]: model, **others}, "hard").parts  # or an error: they don't belong together
            found[_sha(model)] = parts[model.card["scope"]]
    for name in verticals:
        leaves = {tuple(sorted(found[_sha(m)])) for m in submodels if m.card["scope"] == name}
        if len(leaves) > 1:
            raise UserError(f"the submodels of {name} know different categories; train them on one dataset")
    return found
