"""Open whatever answers: a bundle (ONNX Runtime) or a run (TensorFlow), as one function from images to probabilities."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from family.card import member_name, read_card
from family.data.dataset import Dataset, open_dataset
from family.data.images import Preprocessing, decode_image
from family.errors import UserError
from family.machine import cpu_model


@dataclass(frozen=True)
class Model:
    """Something that answers: uint8 [n, px, px, 3] -> float32 [n, n_classes]."""

    member: str
    card: dict
    predict: Callable[[np.ndarray], np.ndarray]
    about: dict  # what ran: scheme, provider, threads, sha256, or the run

    @property
    def how(self) -> Preprocessing:
        return Preprocessing.from_card(self.card["preprocessing"])

    def answer(self, data: bytes) -> np.ndarray:
        """Return float32 [n_classes] probabilities of one encoded image."""
        return self.predict(decode_image(data, self.how)[None])[0]


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options that apply wherever a bundle is read."""
    parser.add_argument("--scheme", help="fp32, fp16 or int8 (default: what `pick` chose, else fp32)")
    parser.add_argument("--provider", help="auto, cpu, cuda or tensorrt (default: what `pick` chose, else auto)")
    parser.add_argument("--threads", type=int, help="of the model (default: what `pick` chose, else all cores)")


def find_dataset(given: Path | None, card: dict) -> Dataset:
    """Open the dataset that was given, or else the one that the run was trained on."""
    folder = given or Path(card["dataset"]["folder"])
    if not (folder / "dataset.json").is_file():
        raise UserError(f"the dataset {folder} is not here; give one with --calibrate DATASET")
    return open_dataset(folder)


def identify_model(folder: Path, scheme: str | None = None) -> tuple[str, str]:
    """Return the member's name and the sha256 of its file, as `open_model` tells them, without opening it."""
    from export.bundle import open_bundle, sha256_of
    from export.runtime import default_settings

    card = read_card(folder)
    if not card.get("schemes"):
        return member_name(card), sha256_of(Path(folder) / "weights.h5")
    bundle = open_bundle(folder)
    scheme = default_settings(bundle, scheme, None, None).scheme
    bundle.model_path(scheme)  # or an error: it is not the card's
    return member_name(card, scheme), bundle.schemes[scheme]["sha256"]


def open_model(folder: Path, scheme: str | None = None, provider: str | None = None, threads: int | None = None) -> Model:
    """Open a bundle or a run.

    Raises:
        UserError: it is neither.
    """
    card = read_card(folder)
    return _open_bundle(folder, scheme, provider, threads) if card.get("schemes") else _open_run(folder)


def _open_bundle(folder: Path, scheme, provider, threads) -> Model:
    from export.bundle import open_bundle
    from export.runtime import Predictor, default_settings

    bundle = open_bundle(folder)
    predictor = Predictor(bundle, default_settings(bundle, scheme, provider, threads))
    used = predictor.settings
    if bundle.card.get("serve") and None in (scheme, provider, threads):  # else the caller chose
        say_settings(bundle.card["serve"], used)
    about = {
        "scheme": used.scheme,
        "provider": predictor.provider,
        "threads": used.n_threads,
        "model_sha256": bundle.schemes[used.scheme]["sha256"],
    }
    return Model(member_name(bundle.card, used.scheme), bundle.card, predictor.predict, about)


def say_settings(picked: dict, used) -> None:
    """Say which settings are used, and warn where they were measured on another processor."""
    print(
        f"running {used.scheme} with {used.n_threads} threads; picked: {picked.get('scheme')} with {picked.get('threads')} on {picked.get('machine')}",
        file=sys.stderr,
    )
    if picked.get("cpu") not in (None, cpu_model()):
        print(
            f"warning: it was measured on {picked['cpu']}, this is {cpu_model()}: run `family bench` and `family pick` here",
            file=sys.stderr,
        )


def _open_run(folder: Path) -> Model:
    from export.bundle import sha256_of
    from family.training.runs import WEIGHTS, load_calibrated

    model, card = load_calibrated(folder)

    def predict(images: np.ndarray) -> np.ndarray:
        return model.predict_on_batch(images.astype(np.float32))

    return Model(member_name(card), card, predict, {"scheme": None, "provider": "tensorflow", "model_sha256": sha256_of(folder / WEIGHTS)})
