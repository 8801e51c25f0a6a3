"""Bundle folders: card.json, labels.json, one ONNX file a scheme, and stored inputs with their answers."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from family.card import read_card
from family.data.images import Preprocessing
from family.data.ontology import Ontology, from_leaves
from family.errors import UserError, unknown_name

SAMPLES = "samples.parquet"
CANDIDATES = "candidates.csv"  # that the search for int8 tried


@dataclass(frozen=True)
class Bundle:
    """An opened bundle."""

    folder: Path
    card: dict

    @property
    def schemes(self) -> dict[str, dict]:
        """Scheme -> {"file", "sha256", "size_mb", ...} of the files that were not refused."""
        return self.card["schemes"]

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing.from_card(self.card["preprocessing"])

    @property
    def ontology(self) -> Ontology:
        return card_ontology(self.card)

    def model_path(self, scheme: str) -> Path:
        """Return a scheme's ONNX file, checked against the card's sha256.

        Raises:
            UserError: no such scheme, or the file is missing or was changed.
        """
        if scheme not in self.schemes:
            raise unknown_name(f"scheme of {self.folder}", scheme, self.schemes)
        path = self.folder / self.schemes[scheme]["file"]
        if not path.is_file():
            raise UserError(f"{path} is missing")
        found = sha256_of(path)
        if found != self.schemes[scheme]["sha256"]:
            raise UserError(
                f"{path} is not the file of the card: sha256 {found[:12]}..., the card says {self.schemes[scheme]['sha256'][:12]}..."
            )
        return path

    def samples(self, scheme: str) -> tuple[list[bytes], np.ndarray]:
        """Return the stored encoded images and a scheme's answers to them, float32 [n, n_classes].

        Raises:
            UserError: they are not there, or not those of the card.
        """
        try:
            path, wanted = self.folder / SAMPLES, self.card.get("files", {}).get(SAMPLES)  # which older cards don't tell
            if wanted is not None and sha256_of(path) != wanted:
                raise UserError(f"{path} is not the file of the card, so what is stored there proves nothing")
            table = pa.parquet.read_table(path)
            return table["image"].to_pylist(), np.array(table[f"probabilities.{scheme}"].to_pylist(), np.float32)
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise UserError(f"{self.folder}/{SAMPLES} holds no answers of {scheme}: {error}; export the run anew") from error


def open_bundle(folder: Path) -> Bundle:
    """Open a bundle.

    Raises:
        UserError: it is none, or its file names leave the folder.
    """
    folder = Path(folder)
    card = read_card(folder)
    if not card.get("schemes"):
        raise UserError(f"{folder} is a run, not a bundle: `family export {folder} --out BUNDLE` makes one")
    for entry in card["schemes"].values():
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("file", "sha256")):
            raise UserError(f"{folder}: a scheme of the card has no file or no sha256; export it again")
        if Path(entry["file"]).name != entry["file"]:
            raise UserError(f"{folder}: the card names the file {entry['file']!r}, which is outside of the bundle")
    return Bundle(folder, card)


def card_ontology(card: dict) -> Ontology:
    """Return the tree of a card's classes.

    Raises:
        UserError: they are in another order than its leaves, so that an answer would be told as two categories.
    """
    ids = {path: node for path, node in card.get("node_ids", {}).items() if node not in card["classes"]}
    tree = from_leaves(zip(card["classes"], card["paths"], strict=True), ids=ids)
    if list(tree.leaves) != list(card["classes"]):
        raise UserError(f"the classes of {card.get('name')} are not in the order of their tree's leaves; export it anew")
    return tree


def write_samples(folder: Path, images: list[bytes], answers: dict[str, np.ndarray]) -> None:
    """Store encoded images and each scheme's answers, float32 [n, n_classes]: a machine may compute one right and another wrong."""
    columns = {"image": pa.array(images, pa.binary())}
    columns |= {f"probabilities.{scheme}": pa.array(found.tolist(), pa.list_(pa.float32())) for scheme, found in answers.items()}
    pa.parquet.write_table(pa.table(columns), folder / SAMPLES)


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
