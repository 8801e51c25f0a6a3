"""What an ONNX file says of itself: enough to be told and asked without its bundle, and the same of the same weights."""

import json

import numpy as np
import pytest

from family.data.images import Preprocessing
from family.data.ontology import from_leaves
from family.outputs import read_json

ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")

from export.metadata import differing, metadata_of, write_metadata  # noqa: E402

TREE = from_leaves([("1", "A/B"), ("2", "A/Ç"), ("3", "D"), ("9", "A")])


@pytest.fixture
def bundle(tmp_path, write_bundle):
    dataset = {"folder": "/somewhere", "name": "photos", "ontology_digest": TREE.digest}
    return write_bundle(tmp_path / "bundle", TREE, dataset=dataset, temperature=1.5)


def test_a_file_alone_tells_labels_tree_preprocessing_and_card_to_any_runtime(bundle, tiny_answers, photo):
    card, path = read_json(bundle / "card.json"), bundle / "model.fp32.onnx"
    write_metadata(path, card, "fp32")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    labels, inner = json.loads(told["labels"]), json.loads(told["inner_nodes"])
    rebuilt = from_leaves([(row["category_id"], row["path"]) for row in labels], ids=inner)
    assert rebuilt.digest == told["ontology_digest"] == TREE.digest
    how = Preprocessing.from_card(json.loads(told["preprocessing"]))
    pixels = np.stack([np.asarray(how.resolution_px * [how.resolution_px * [[9, 200, 30]]], np.uint8)])
    assert np.allclose(session.run(["probabilities"], {"image": pixels})[0], tiny_answers(pixels, len(labels)), atol=1e-5)
    about = json.loads(told["card"])
    assert (about["name"], about["temperature"], about["dataset"]["name"], told["scheme"]) == ("b0-32-general", 1.5, "photos", "fp32")


def test_it_does_not_depend_on_when_and_where(bundle):
    card, path = read_json(bundle / "card.json"), bundle / "model.fp32.onnx"
    write_metadata(path, card, "fp32")
    once = path.read_bytes()
    elsewhere = {**card, "dataset": {**card["dataset"], "folder": "/other"}, "training": {"phases": [{"s": 3}]}, "schemes": {}, "serve": {}}
    write_metadata(path, elsewhere, "fp32")
    assert path.read_bytes() == once and b"/somewhere" not in once


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"temperature": 2.0}, ["card"]),
        ({"paths": ["A/B", "A/C", "D"]}, ["labels"]),
        ({"preprocessing": {"resolution_px": 32, "aspect": "crop", "filter": "bilinear"}}, ["preprocessing"]),
        ({"dataset": {"ontology_digest": "0"}}, ["ontology_digest", "card"]),
    ],
)
def test_what_differs_is_told(bundle, change, keys):
    card, path = read_json(bundle / "card.json"), bundle / "model.fp32.onnx"
    write_metadata(path, card, "fp32")
    model = onnx.load(path)
    assert differing(model, card, "fp32") == [] and differing(model, card, "int8") == ["scheme"]
    assert differing(model, {**card, **change}, "fp32") == keys


def test_a_card_without_a_dataset_has_no_digest():
    card = {"classes": ["1"], "paths": ["A"], "preprocessing": {}, "dataset": None}
    assert metadata_of(card, "fp32")["ontology_digest"] == ""
