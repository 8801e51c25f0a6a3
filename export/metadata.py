"""What an ONNX file says of itself: labels, tree, preprocessing and card in its metadata, so that a file on its own can be told and asked. No TensorFlow.

Nothing in it depends on when or where the file was made: of the same weights, the same fp32 and fp16 file. Which int8 file is chosen depends on times.
"""

import json
from pathlib import Path

import onnx

# Of the card, what says which model it is. Labels and preprocessing have keys of their own.
_OF_CARD = ("schema", "name", "variant", "resolution_px", "scope", "subtrees", "label", "activation", "temperature", "n_parameters")
_OF_DATASET = ("name", "digest", "ontology_digest", "n_train")


def metadata_of(card: dict, scheme: str) -> dict[str, str]:
    """Return the metadata of a scheme's file, each value a JSON text but for the scheme and the digest.

    Returns:
        {"scheme", "labels": rows of category_id and path in the order of the classes, "inner_nodes": path -> category_id of the categories above them,
        "ontology_digest": "" where the card has none, "preprocessing", "card"}.
    """
    classes = set(card["classes"])
    dataset = card.get("dataset") if isinstance(card.get("dataset"), dict) else {}
    return {
        "scheme": scheme,
        "labels": _text([{"category_id": i, "path": p} for i, p in zip(card["classes"], card["paths"], strict=True)]),
        "inner_nodes": _text({path: node for path, node in card.get("node_ids", {}).items() if node not in classes}),
        "ontology_digest": str(dataset.get("ontology_digest", "")),
        "preprocessing": _text(card["preprocessing"]),
        "card": _text({key: card[key] for key in _OF_CARD if key in card} | {"dataset": {key: dataset[key] for key in _OF_DATASET if key in dataset}}),
    }


def write_metadata(path: Path, card: dict, scheme: str) -> None:
    """Give a file the metadata of a card, in place of what it has."""
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata_of(card, scheme))
    onnx.save(model, path)


def differing(model: onnx.ModelProto, card: dict, scheme: str) -> list[str]:
    """Return the keys whose values in a file are not those of a card."""
    found = {entry.key: entry.value for entry in model.metadata_props}
    return [key for key, value in metadata_of(card, scheme).items() if found.get(key) != value]


def _text(value) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
