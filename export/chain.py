"""Chains: a general model, then submodels of verticals, as one function from images to probabilities of the general model's leaves."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from export.bundle import card_ontology
from export.opening import Model, identify_model, open_model
from family.card import read_card
from family.chains import read_chain
from family.data.images import Preprocessing, decode_rgb, resize
from family.errors import Failure, UserError
from family.evaluation.routing import answer_hard, answer_soft, groups_of
from family.outputs import read_json

Images = dict[Preprocessing, np.ndarray]  # the same n images, uint8 [n, px, px, 3], for each way that a member wants them

PICKED = "picked.json"  # beside the chain file that `pick --chain` makes
_MOST_OFF_1 = 1e-3  # of a sum of probabilities


@dataclass(frozen=True)
class Chain:
    """An opened chain; it answers as a Model does, for the leaves of its general model. Members may differ in size and variant."""

    general: Model
    submodels: dict[str, Model]
    parts: dict[str, np.ndarray]  # int [k], the general model's class of each class of a submodel
    routing: str  # one of family.chains.ROUTINGS
    thresholds: Mapping[str, float] = field(default_factory=dict)  # of hard routing: a vertical's submodel is asked where the general model is less sure

    @property
    def member(self) -> str:
        return chain_name(self.routing, self.general.member, self.submodels, self.thresholds)

    @property
    def card(self) -> dict:
        return self.general.card

    @property
    def about(self) -> dict:
        members = {"general": self.general, **self.submodels}
        digest = chain_digest(self.routing, {name: model.about["model_sha256"] for name, model in members.items()}, self.thresholds)
        return {**self.general.about, "scheme": join_schemes([model.about["scheme"] for model in members.values()]), "model_sha256": digest}

    @property
    def hows(self) -> tuple[Preprocessing, ...]:
        """What `predict` wants of each image: one way of resizing for each member that differs from those before it."""
        return tuple(dict.fromkeys(model.how for model in (self.general, *self.submodels.values())))

    @cached_property
    def groups(self) -> np.ndarray:
        """Which classes are of which vertical, as routing wants them."""
        return groups_of(list(self.parts.values()), len(self.card["classes"]))

    @cached_property
    def limits(self) -> list[float]:
        """The threshold of each submodel, infinite where it is always asked."""
        return [self.thresholds.get(name, np.inf) for name in self.submodels]

    def answer(self, data: bytes) -> np.ndarray:
        """Return float32 [n_classes] probabilities of one encoded image, which is decoded once, and resized for those members that answer."""
        return self.predict(Resized([decode_rgb(data)]))[0]

    def predict(self, images: Images) -> np.ndarray:
        """Return float32 [n, n_classes] probabilities; with hard routing a submodel runs on the rows that are routed to it alone."""
        return self.hand_over(self.predict_general(images), images)

    def hand_over(self, general: np.ndarray, images: Images, tell: Callable[[str, int], None] | None = None) -> np.ndarray:
        """Return float32 [n, n_classes], what the chain answers where its general model gave these probabilities: submodels run here.

        Args:
            tell: is told which submodel is asked, and about how many rows.
        """
        names, parts = list(self.submodels), list(self.parts.values())

        def ask(k: int, rows: np.ndarray) -> np.ndarray:
            if tell:
                tell(names[k], len(rows))
            return self.predict_vertical(names[k], images, rows)

        return answer_soft(general, parts, ask) if self.routing == "soft" else answer_hard(general, parts, ask, self.limits, self.groups)

    def predict_general(self, images: Images) -> np.ndarray:
        """Return float32 [n, n_classes], the general model's probabilities."""
        return _answers(self.general, images[self.general.how])

    def predict_vertical(self, name: str, images: Images, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return float32 [rows, k], a submodel's probabilities of its own classes, of all rows or some."""
        model = self.submodels[name]
        return _answers(model, images.some(model.how, rows) if isinstance(images, Resized) else images[model.how][rows])


class Resized(dict):
    """Decoded images as uint8 [n, px, px, 3] by the way of resizing; each way is computed when somebody asks for it."""

    def __init__(self, images: Sequence[Image.Image]):
        self._images = images

    def __missing__(self, how: Preprocessing) -> np.ndarray:
        self[how] = self.some(how, slice(None))
        return self[how]

    def some(self, how: Preprocessing, rows: np.ndarray | slice) -> np.ndarray:
        """Return some of the images; no others are resized."""
        return self[how][rows] if how in self else np.stack([resize(self._images[k], how) for k in np.arange(len(self._images))[rows]])


def join_schemes(schemes: Sequence[str | None]) -> str | None:
    """Return what a chain's row calls its scheme: its members', the general model's first, as in int8+fp32."""
    found = list(dict.fromkeys(scheme for scheme in schemes if scheme))
    return "+".join(found) or None


def picked_schemes(path: Path) -> dict[Path, str] | None:
    """Return the scheme that each member's folder of a chain was picked in; None of a chain that `pick --chain` did not make."""
    if not (Path(path).parent / PICKED).is_file():
        return None
    serves = {folder: read_card(folder).get("serve") for folder in read_chain(path).members.values()}
    found = {folder: serve.get("scheme") for folder, serve in serves.items() if isinstance(serve, dict)}
    return found if len(found) == len(serves) and all(isinstance(scheme, str) for scheme in found.values()) else None


def read_picked(path: Path) -> dict | None:
    """Return what `pick --chain` noted of the chain that it made: {"schemes", "predicted_ms", "machine", "threads", "provider"}; None of another chain, and
    of one whose file or members were changed since."""
    try:
        told = read_json(Path(path).parent / PICKED)
    except UserError:
        return None
    schemes, predicted = (told.get(key) if isinstance(told, dict) else None for key in ("schemes", "predicted_ms"))
    if not (isinstance(schemes, dict) and isinstance(predicted, dict) and all(type(ms) in (int, float) and 0 < ms < 1e15 for ms in predicted.values())):
        return None
    chain = read_chain(path)
    if schemes.keys() != chain.members.keys() or not all(isinstance(scheme, str) for scheme in schemes.values()):
        return None
    try:
        members = {name: identify_model(folder, schemes[name])[1] for name, folder in chain.members.items()}
    except (UserError, KeyError):
        return None
    return told if chain_digest(chain.routing, members, chain.thresholds) == told.get("model_sha256") else None


def _answers(model: Model, images: np.ndarray) -> np.ndarray:
    found = np.asarray(model.predict(images))
    if found.shape != (len(images), len(model.card["classes"])):
        raise Failure(f"{model.member} answers {found.shape} for {len(images)} images and {len(model.card['classes'])} classes")
    if len(found) and not (found.min() >= 0 and np.abs(found.sum(axis=1) - 1).max() <= _MOST_OFF_1):  # so that NaN and infinity fail too
        raise Failure(f"{model.member} answers numbers that are no probabilities of its classes")
    return found


def chain_name(routing: str, general: str, verticals: Iterable[str], thresholds: Mapping[str, float]) -> str:
    """Return the name of a chain as a member."""
    return f"chain-{routing}-{general}+{'+'.join(name + (f'<{thresholds[name]:g}' if name in thresholds else '') for name in verticals)}"


def chain_digest(routing: str, members: dict[str, str], thresholds: Mapping[str, float]) -> str:
    """Return the sha256 that tells a chain from others, from its members' files by name, the general model first, and its thresholds."""
    told = [routing, *members.items(), *([dict(thresholds)] if thresholds else [])]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def is_chain(path: Path) -> bool:
    """Say whether a path names the TOML of a chain, rather than the folder of a run or a bundle."""
    return Path(path).suffix == ".toml" and not Path(path).is_dir()


def folders_of(path: Path) -> list[Path]:
    """Return the folders of a chain's members, the general model's first; of a run or a bundle, its own."""
    return list(read_chain(path).members.values()) if is_chain(path) else [path]


def identify_any(path: Path, scheme: str | None = None) -> tuple[str, str]:
    """Return the name and the digest of a run, a bundle or a chain, as `open_any` tells them, without opening it."""
    if not is_chain(path):
        return identify_model(path, scheme)
    told = read_chain(path)
    found = {name: identify_model(folder, scheme) for name, folder in told.members.items()}
    name = chain_name(told.routing, found["general"][0], told.verticals, told.thresholds)
    return name, chain_digest(told.routing, {member: sha for member, (_, sha) in found.items()}, told.thresholds)


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
    return join_members(general, submodels, told.routing, told.thresholds)


def join_members(general: Model, submodels: dict[str, Model], routing: str, thresholds: Mapping[str, float] = MappingProxyType({})) -> Chain:
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
    return Chain(general, submodels, parts, routing, thresholds)


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
