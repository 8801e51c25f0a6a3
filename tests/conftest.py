"""Shared parts: photos that differ, source folders as users bring them, and a bundle whose model is a few lines of arithmetic."""

import csv
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# A busy machine is no failure, and the same examples each time: a change is told by what it breaks. Others are looked for by
# make test ARGS="-m hypothesis --hypothesis-profile=search"
settings.register_profile("family", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("family")

REPOSITORY = Path(__file__).parent.parent
LEAVES = (
    ("laptop", "Electronics/Computers/Laptops"),
    ("tower", "Electronics/Computers/Desktops"),
    ("phone", "Electronics/Phones"),
    ("cat", "Animals/Pets/Cats"),
    ("dog", "Animals/Pets/Dogs"),
    ("art", "Art"),
)


@pytest.fixture(scope="session")
def photo():
    """Draw a photo that is a function of its seed; two seeds look nothing alike."""

    def draw(seed: int, size: tuple[int, int] = (64, 48), file_format: str = "JPEG", **options) -> bytes:
        cells = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC).save(buffer, file_format, **options)
        return buffer.getvalue()

    return draw


@pytest.fixture(scope="session")
def write_source(photo):
    """Write a source folder of (listing_id, image, category, more columns ...) rows; images that are missing get a photo each."""

    def write(folder: Path, rows: list[dict], ontology=LEAVES, images: dict[str, bytes] | None = None) -> Path:
        folder.mkdir(parents=True)
        with open(folder / "listings.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        if ontology:
            with open(folder / "ontology.csv", "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("category_id", "path"), *ontology])
        wanted = {row["image"]: photo(k) for k, row in enumerate(rows)} | (images or {})
        for name, data in wanted.items():
            if data is not None:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
        return folder

    return write


@pytest.fixture(scope="session")
def run_python():
    """Run a fresh interpreter at the root of the repository."""

    def run(*words: str, **options) -> subprocess.CompletedProcess:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        return subprocess.run(
            [sys.executable, *words], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120, **options
        )

    return run


@pytest.fixture(scope="session")
def open_page(tmp_path_factory):
    """Open a page in a real browser without a screen and return the HTML of what it became."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    switches = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    profile = f"--user-data-dir={tmp_path_factory.mktemp('browser')}"

    def open_one(page: Path) -> str:
        command = [browser, *switches.split(), profile, "--dump-dom", page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    return open_one


def _tiny_weights(n_classes: int) -> np.ndarray:
    """Return float32 [3, n_classes]: the whole model, from the mean colour to the logits."""
    return np.random.default_rng(n_classes).normal(0, 12, (3, n_classes)).astype(np.float32)


def _tiny_answers(images: np.ndarray, n_classes: int) -> np.ndarray:
    """Answer as the tiny bundle does, in NumPy: softmax of the mean colour times the weights."""
    logits = (images.astype(np.float64).mean(axis=(1, 2)) / 255 - 0.5) @ _tiny_weights(n_classes).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _write_tiny_model(path: Path, px: int, n_classes: int) -> None:
    """Write an ONNX file with the inputs and outputs of the contract."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    constants = {"scale": np.float32(1 / 255), "middle": np.float32(0.5), "weights": _tiny_weights(n_classes)}
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "middle"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", px, px, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", n_classes]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 3]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, doc_string=path.name)
    checker.check_model(model)
    save(model, path)


@pytest.fixture(scope="session")
def tiny_answers():
    """Return the tiny bundle's arithmetic in NumPy: (uint8 images, number of classes) -> probabilities."""
    return _tiny_answers


@pytest.fixture(scope="session")
def write_bundle(photo):
    """Write a bundle that answers by mean colour for the leaves of a tree; the card changes as told."""
    pytest.importorskip("onnx", reason="onnx is not installed, so no model can be written")
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed, so no bundle can be run")
    from export.bundle import sha256_of, write_samples
    from family.card import write_card
    from family.data.images import Preprocessing, decode_image

    def write(folder: Path, ontology, px: int = 32, schemes=("fp32",), **changes) -> Path:
        folder.mkdir(parents=True)
        how = Preprocessing(px)
        entries = {}
        for scheme in schemes:
            path = folder / f"model.{scheme}.onnx"
            _write_tiny_model(path, px, len(ontology.leaves))
            entries[scheme] = {"file": path.name, "sha256": sha256_of(path), "size_mb": round(path.stat().st_size / 1e6, 3)}
        images = [photo(1000 + k) for k in range(4)]
        answers = _tiny_answers(np.stack([decode_image(i, how) for i in images]), len(ontology.leaves))
        write_samples(folder, images, dict.fromkeys({"fp32", "int8", *schemes}, answers))
        card = {
            "schema": 1, "kind": "bundle", "name": f"b0-{px}-general", "variant": "b0", "resolution_px": px, "scope": "general",
            "subtrees": None, "label": "", "classes": list(ontology.leaves), "paths": [ontology.path_of[i] for i in ontology.leaves],
            "node_ids": ontology.id_of, "preprocessing": how.card(), "n_parameters": 18, "schemes": entries, "training": {"trained": True},
        }  # fmt: skip
        write_card(folder, {**card, **changes})
        return folder

    return write


from family_of_three import family_of_three  # noqa: E402, F401  the fixture: bundles of a general model and two submodels
from slurm_cluster import slurm  # noqa: E402, F401  the fixture: a real two-node SLURM, started on first use
