"""What `family bench` times: files and chains, opened as they are served, with what opening costs and whether they answer as they did. No TensorFlow."""

import argparse
import io
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measurements import identify, identify_bundle
from benchmarks.timing.loading import measure_loading
from benchmarks.timing.pipeline import Pipeline, pipeline_of, pipeline_of_chain
from export.bundle import open_bundle
from export.chain import folders_of, is_chain, open_chain, picked_schemes, read_picked
from export.opening import say_settings
from export.runtime import Predictor, Settings
from family.card import read_card
from family.errors import UserError


@dataclass(frozen=True)
class Member:
    """A file that is timed, or a chain of files."""

    fixed: dict  # the fields of its rows that every scenario shares
    pipeline: Pipeline
    images: list[bytes]  # encoded, as its bundle stores them
    asked: Counter = field(default_factory=Counter)  # of a chain, how many images each submodel was asked about, and by "" all of them
    submodels: tuple[str, ...] = ()
    predicted_ms: dict | None = None  # of a chain that `pick` made here, what it expected
    memory_mb: dict[int, float] = field(default_factory=dict)  # images of a query -> the most memory of a process that answered up to as many


def schemes_of(path: Path, asked: str | None) -> list[str | None]:
    """Return the schemes of a bundle, or those that all members of a chain have; of them the one that is asked for, if any. Of a bundle that `pick`
    copied, what was picked; None alone of a chain that it made: each member in the scheme that was picked, which may differ."""
    if is_chain(path) and asked is None and picked_schemes(path):
        return [None]
    if not is_chain(path) and asked is None and isinstance(served(path).get("scheme"), str):
        return [served(path)["scheme"]]
    first, *others = (list(open_bundle(folder).schemes) for folder in folders_of(path))
    return [scheme for scheme in first if asked in (None, scheme) and all(scheme in other for other in others)]


def served(path: Path) -> dict:
    """Return what `pick` chose for a bundle, or for a chain's general model: {"scheme", "threads", "provider", "machine", ...}; empty of others."""
    serve = read_card(folders_of(path)[0]).get("serve")
    return serve if isinstance(serve, dict) else {}


def settings_of(path: Path, scheme: str | None, args: argparse.Namespace) -> Settings:
    """Return how a bundle or a chain is run: as the command line says, else as `pick` chose, else on one core by the provider that works."""
    serve = served(path)
    threads = args.threads if args.threads is not None else serve.get("threads", 1)
    return Settings(scheme or serve.get("scheme") or "fp32", args.provider or serve.get("provider") or "auto", threads)


def asked_for(args: argparse.Namespace) -> list[tuple[Path, str | None]]:
    """Return each bundle or chain with each scheme.

    Raises:
        UserError: none has the scheme that was asked for.
    """
    found = [(path, scheme) for path in args.bundles for scheme in schemes_of(path, args.scheme)]
    if not found:
        raise UserError(f"no bundle has the scheme {args.scheme!r}")
    return found


def open_member(path: Path, scheme: str | None, args: argparse.Namespace, shared: dict) -> Member:
    """Open a bundle or a chain, with what its rows tell of it: what opening costs, and whether it gives the answers that its bundles hold."""
    used = settings_of(path, scheme, args)
    is_told = is_chain(path) and scheme is None  # by each member, as it is opened
    if served(path) and None in (args.scheme, args.provider, args.threads) and not is_told:  # else the caller chose
        say_settings(served(path), used)
    fixed = {"bundle": os.path.relpath(path, args.out.parent), "threads": used.n_threads, **shared}
    if is_chain(path):
        chain, asked = open_chain(path, scheme, used.provider, used.n_threads), Counter()
        identity = identify(chain.card, chain.about["scheme"], "latency", chain.member, chain.about["model_sha256"])
        pipeline = pipeline_of_chain(chain, asked)
    schemes = dict.fromkeys(folders_of(path), scheme) if scheme else picked_schemes(path)
    own = [Predictor(open_bundle(folder), Settings(one, used.provider, used.threads)) for folder, one in schemes.items()]
    if not is_chain(path):
        identity, pipeline = identify_bundle(own[0].bundle, scheme, "latency"), pipeline_of(own[0])
    stored = [predictor.bundle.samples(predictor.settings.scheme) for predictor in own]
    cards = [predictor.bundle.card for predictor in own]
    cost = measure_loading(path.resolve(), scheme, own[0].provider, used.n_threads, args.batch)
    memory_mb = {int(batch): held for batch, held in cost.pop("memory_mb").items()}
    fixed |= {
        **identity,
        "image_px": _median_px(stored[0][0]),
        "size_mb": round(sum(predictor.bundle.schemes[predictor.settings.scheme]["size_mb"] for predictor in own), 3),
        "n_parameters": sum(card.get("n_parameters") or 0 for card in cards) or None,
        "n_classes": len(cards[0]["classes"]),
        "preprocessing": cards[0]["preprocessing"],
        "provider": own[0].provider,
        **cost,
        "peak_memory_mb": memory_mb[1],
        "agreement": min(_agreement(predictor, *found) for predictor, found in zip(own, stored, strict=True)),
        "n_stored": min(len(images) for images, _ in stored),  # all of them were asked
    }
    if not is_chain(path):
        return Member(fixed, pipeline, stored[0][0], memory_mb=memory_mb)
    return Member(fixed, pipeline, stored[0][0], asked, tuple(chain.submodels), _predicted(read_picked(path), fixed), memory_mb)


def _predicted(picked: dict | None, fixed: dict) -> dict | None:
    """Return what `pick --chain` expected of a chain that it made, where it is timed as it was picked."""
    here = {"machine": fixed["machine"]["name"], "threads": fixed["threads"], "provider": fixed["provider"], "model_sha256": fixed["model_sha256"]}
    return picked["predicted_ms"] if picked and all(picked.get(key) == value for key, value in here.items()) else None


def _median_px(images: list[bytes]) -> int:
    """Return the median of the images' longer sides: decoding costs what it costs because of it."""
    return int(np.median([max(Image.open(io.BytesIO(data)).size) for data in images]))


def _agreement(predictor, images: list[bytes], answers: np.ndarray) -> float:
    """Return the share of stored inputs that get the stored answer's best class."""
    best = [int(predictor.predict_bytes(data).argmax()) for data in images]
    return float(np.mean(np.array(best) == answers.argmax(axis=1)))
