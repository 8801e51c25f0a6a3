"""Chains: a general model, then submodels of verticals, as one function from images to probabilities of the general model's leaves."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.bundle import card_ontology
from export.opening import Model, identify_model, open_model
from family.chains import read_chain
from family.data.images import Preprocessing, decode_sizes
from family.errors import Failure, UserError
from family.evaluation.routing import answer_hard, answer_soft

Images = dict[Preprocessing, np.ndarray]  # the same n images, uint8 [n, px, px, 3], for each way that a member wants them


@dataclass(frozen=True)
class Chain:
    """An opened chain; it answers as a Model does, for the leaves of its general model. Members may differ in size and variant."""

    general: Model
    submodels: dict[str, Model]
    parts: dict[str, np.ndarray]  # int [k], the general model's class of each class of a submodel
    routing: str  # one of family.chains.ROUTINGS

    @property
    def member(self) -> str:
        return _name(self.routing, self.general.member, self.submodels)

    @property
    def card(self) -> dict:
        return self.general.card

    @property
    def about(self) -> dict:
        members = {name: model.about["model_sha256"] for name, model in {"general": self.general, **self.submodels}.items()}
        return {**self.general.about, "model_sha256": _digest(self.routing, members)}

    @property
    def hows(self) -> tuple[Preprocessing, ...]:
        """What `predict` wants of each image: one way of resizing for each member that differs from those before it."""
        return tuple(dict.fromkeys(model.how for model in (self.general, *self.submodels.values())))

    def answer(self, data: bytes) -> np.ndarray:
        """Return float32 [n_classes] probabilities of one encoded image, which is decoded once."""
        return self.predict({how: image[None] for how, image in decode_sizes(data, self.hows).items()})[0]

    def predict(self, images: Images) -> np.ndarray:
        """Return float32 [n, n_classes] probabilities; with hard routing a submodel runs on the rows that are routed to it alone."""
        names = list(self.submodels)
        answer = {"hard": answer_hard, "soft": answer_soft}[self.routing]
        return answer(
            self.predict_general(images), list(self.parts.values()), lambda k, rows: self.predict_vertical(names[k], images, rows)
        )

    def predict_general(self, images: Images) -> np.ndarray:
        """Return float32 [n, n_classes], the general model's probabilities."""
        return _answers(self.general, images[self.general.how])

    def predict_vertical(self, name: str, images: Images, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return float32 [rows, k], a submodel's probabilities of its own classes, of all rows or some."""
        model = self.submodels[name]
        return _answers(model, images[model.how][rows])


def _answers(model: Model, images: np.ndarray) -> np.ndarray:
    found = np.asarray(model.predict(images))
    if found.shape != (len(images), len(model.card["classes"])):
        raise Failure(f"{model.member} answers {found.shape} for {len(images)} images and {len(model.card['classes'])} classes")
    if not (np.isfinite(found).all() and (found >= 0).all() and np.allclose(found.sum(1), 1, atol=1e-3)):
        raise Failure(f"{model.member} answers numbers that are no probabilities of its classes")
    return found


def _name(routing: str, general: str, verticals: Iterable[str]) -> str:
    return f"chain-{routing}-{general}+{'+'.join(verticals)}"


def _digest(routing: str, members: dict[str, str]) -> str:
    """Return the sha256 that tells a chain from others, from its members' files by name, the general model first."""
    return hashlib.sha256(json.dumps([routing, *members.items()]).encode()).hexdigest()


def is_chain(path: Path) -> bool:
    """Say whether a path names the TOML of a chain, rather than the folder of a run or a bundle."""
    return Path(path).suffix == ".toml" and not Path(path).is_dir()


def identify_any(path: Path, scheme: str | None = None) -> tuple[str, str]:
    """Return the name and the digest of a run, a bundle or a chain, as `open_any` tells them, without opening it."""
    if not is_chain(path):
        return identify_model(path, scheme)
    told = read_chain(path)
    found = {name: identify_model(folder, scheme) for name, folder in {"general": told.general, **told.verticals}.items()}
    return _name(told.routing, found["general"][0], told.verticals), _digest(told.routing, {name: sha for name, (_, sha) in found.items()})


def open_any(path: Path, scheme: str | None = None, provider: str | None = None, threads: int | None = None) -> Model | Chain:
    """Open a run, a bundle or the TOML of a chain.

    Raises:
        UserError: it is none of them.
    """
    opened = open_chain if is_chain(path) else open_model
    return opened(path, scheme, provider, threads)


def open_chain(path: Path, scheme: str | None = None, provider: str | None = None, threads: int | None = None) -> Chain:
    """Open a chain file and its members; the settings are those of every member.

    Raises:
        UserError: it is no chain, a member can't be opened, or the members don't belong together.
    """
    told = read_chain(path)
    general = open_model(told.general, scheme, provider, threads)
    submodels = {name: open_model(folder, scheme, provider, threads) for name, folder in told.verticals.items()}
    return join_members(general, submodels, told.routing)


def join_members(general: Model, submodels: dict[str, Model], routing: str) -> Chain:
    """Make a chain of opened members.

    Raises:
        UserError: the general model does not cover its tree, the members were trained on different trees, a submodel has a leaf that the
            general model does not have, or two have the same one.
    """
    for model in (general, *submodels.values()):
        _check_card(model)
    card = general.card
    if card.get("subtrees"):
        raise UserError(f"{general.member} covers the scope {card['scope']!r} alone; the general model of a chain covers the whole tree")
    digest = _ontology_digest(general)
    if card_ontology(card).digest != digest:
        raise UserError(f"{general.member}: its categories are not those of the ontology digest in its card; train it again")
    owner: dict[str, str] = {}
    for name, model in submodels.items():
        if _ontology_digest(model) != digest:
            raise UserError(
                f"{name} ({model.member}) was trained on the tree {_ontology_digest(model)[:12]}, {general.member} on {digest[:12]}; "
                "the members of a chain need one tree"
            )
        _check_leaves(name, model, general)
        shared = [leaf for leaf in model.card["classes"] if leaf in owner]
        if shared:
            raise UserError(f"{name} and {owner[shared[0]]} overlap in {_some(shared)}; a leaf belongs to one vertical")
        owner |= dict.fromkeys(model.card["classes"], name)
    class_of = {leaf: k for k, leaf in enumerate(card["classes"])}
    parts = {name: np.array([class_of[leaf] for leaf in model.card["classes"]]) for name, model in submodels.items()}
    return Chain(general, submodels, parts, routing)


def _check_card(model: Model) -> None:
    """Refuse a card whose tree is no tree: cards come from anywhere."""
    node_ids = model.card.get("node_ids", {})
    texts = [*model.card["classes"], *model.card["paths"], *(node_ids.values() if isinstance(node_ids, dict) else [None])]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"the card of {model.member} holds classes, paths or node ids that are no text; export it again")


def _ontology_digest(model: Model) -> str:
    dataset = model.card.get("dataset")
    digest = dataset.get("ontology_digest") if isinstance(dataset, dict) else None
    if not isinstance(digest, str):
        raise UserError(f"the card of {model.member} has no ontology digest, so its tree can't be compared; train and export it again")
    return digest


def _check_leaves(name: str, model: Model, general: Model) -> None:
    """Refuse a submodel with classes that are no leaves of the general model, or that stand twice."""
    leaves = list(zip(model.card["classes"], model.card["paths"], strict=True))
    known = set(zip(general.card["classes"], general.card["paths"], strict=True))
    foreign = [leaf for leaf, path in leaves if (leaf, path) not in known]
    if foreign:
        raise UserError(f"{name} ({model.member}) has {_some(foreign)}, which are no leaves of {general.member}")
    if not leaves or len(set(leaves)) < len(leaves):
        raise UserError(f"{name} ({model.member}) has {'a class twice' if leaves else 'no classes'}; export it again")


def _some(names: Iterable[str]) -> str:
    names = list(map(str, names))
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
