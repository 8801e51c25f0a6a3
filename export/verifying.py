"""`family verify`: recompute what a bundle's card claims, on this machine: files, tree, shapes, operators, and the answers to the stored inputs."""

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from family.errors import Failure, UserError

AGREEMENT = 0.99  # of the best classes on the stored inputs
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")  # ONNX Runtime's own operators; another one would be somebody's library


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--provider", default="auto", help="auto (default), cpu, cuda or tensorrt")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    checks = list(verify(args.bundle, args.provider))
    wrong = [check for check in checks if check["holds"] is False]
    if args.json:
        json.dump({"bundle": str(args.bundle), "holds": not wrong, "checks": checks}, sys.stdout)
        print()
    else:
        for check in checks:
            mark = {True: "ok   ", False: "WRONG", None: "     "}[check["holds"]]
            print(f"{mark} {check['what']}: {check['told']}")
    if wrong:
        raise Failure(f"{args.bundle}: {len(wrong)} of {len(checks)} claims don't hold: {', '.join(check['what'] for check in wrong)}; export the run anew")
    return 0


def verify(folder: Path, provider: str = "auto") -> Iterator[dict]:
    """Yield `{"what", "holds", "told"}` of each claim; `holds` is None where it can't be recomputed here, and `told` says why.

    Raises:
        UserError: the folder is no bundle that this version reads.
    """
    from export.bundle import card_ontology, open_bundle

    bundle = open_bundle(folder)
    card = bundle.card
    yield _check("tree", card_ontology(card).digest == card["dataset"]["ontology_digest"], f"{len(card['classes'])} categories") if _has_tree(card) else (
        _unknown("tree", "the card does not tell its digest")
    )
    yield from _files(folder, card)
    for scheme in bundle.schemes:
        try:
            path = bundle.model_path(scheme)
        except UserError as error:
            yield _check(f"{scheme} file", False, str(error))
            continue
        yield _check(f"{scheme} file", True, "sha256 as the card says")
        checks = list(_graph(path, scheme, card))
        yield from checks
        if checks[0]["holds"] is False:
            yield _check(f"{scheme} answers", False, "not asked for: such a graph is not opened")
            continue
        yield from _proof(path, scheme, card)
        yield from _answers(bundle, scheme, provider)


def _has_tree(card: dict) -> bool:
    return isinstance(card.get("dataset"), dict) and "ontology_digest" in card["dataset"] and not card.get("subtrees")


def _files(folder: Path, card: dict) -> Iterator[dict]:
    """Check the other files: their sha256 where the card has it, and the labels."""
    from export.bundle import sha256_of

    for name, sha256 in card.get("files", {}).items():
        path = folder / name
        found = sha256_of(path) if path.is_file() and path.resolve().is_relative_to(folder.resolve()) else None
        wrong = "is missing, or no file of the bundle" if found is None else f"sha256 {found[:12]}, the card says {sha256[:12]}"
        told = "sha256 as the card says" if found == sha256 else wrong
        yield _check(name, found == sha256, told)
    try:
        labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        same = [(row["category_id"], row["path"]) for row in labels] == list(zip(card["classes"], card["paths"], strict=True))
        yield _check("labels", same, f"{len(labels)} rows {'in the order of the' if same else 'that are not the'} card's classes")
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield _check("labels", False, f"labels.json can't be read: {error}")


def _graph(path: Path, scheme: str, card: dict) -> Iterator[dict]:
    """Check what a file computes with: inputs, outputs, operators; it loads nothing from elsewhere."""
    if importlib.util.find_spec("onnx") is None:
        yield _unknown(f"{scheme} graph", "onnx is not installed here")
        return
    import onnx

    from export.proof import count_operators, opset_of

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own, whose name its versions change
        yield _check(f"{scheme} graph", False, f"it can't be read: {str(error).splitlines()[0][:160]}")
        return
    outside = sorted(set(_from_elsewhere(model.graph)))
    yield _check(f"{scheme} graph", not outside, f"stands alone, opset {opset_of(model)}" if not outside else f"needs {', '.join(outside[:3])} from elsewhere")
    px, n = card["preprocessing"]["resolution_px"], len(card["classes"])
    found = {value.name: _shape(value) for value in [*model.graph.input, *model.graph.output]}
    right = found.get("image") == ("uint8", (px, px, 3)) and found.get("probabilities") == ("float32", (n,)) and "embedding" in found
    shown = ", ".join(f"{name} {kind} [N, {', '.join(map(str, dims))}]" for name, (kind, dims) in found.items())
    yield _check(f"{scheme} inputs and outputs", right, shown)
    claimed = card["schemes"][scheme].get("operators")
    if claimed:
        counted = count_operators(path)
        told = f"{sum(counted.values())} of {len(counted)} kinds" if counted == claimed else f"counted {counted}, the card says {claimed}"
        yield _check(f"{scheme} operators", counted == claimed, told)


def _from_elsewhere(graph) -> Iterator[str]:
    """Yield what a graph, or one inside of it, does not bring along: the operators of a library, and arrays that lie in other files."""
    import onnx

    external = onnx.TensorProto.EXTERNAL
    yield from (tensor.name for tensor in graph.initializer if tensor.data_location == external)
    for node in graph.node:
        if node.domain not in DOMAINS:
            yield f"{node.domain}.{node.op_type}"
        for attribute in node.attribute:
            yield from (tensor.name or node.name for tensor in (attribute.t, *attribute.tensors) if tensor.data_location == external)
            for inner in (attribute.g, *attribute.graphs):
                yield from _from_elsewhere(inner)


def _proof(path: Path, scheme: str, card: dict) -> Iterator[dict]:
    """Check that an int8 file runs in int8 here too."""
    if scheme != "int8":
        return
    made = card["schemes"][scheme].get("made")
    in_float = made.get("convolutions_in_float") if isinstance(made, dict) else None
    if type(in_float) is not int or in_float < 0:
        yield _unknown("int8 proof", "the card does not tell how many convolutions were left in float on purpose")
        return
    if importlib.util.find_spec("onnx") is None:
        yield _unknown("int8 proof", "onnx is not installed here")
        return
    from export.proof import prove, why_not_int8

    try:
        found = prove(path)
    except Exception as error:  # ONNX Runtime raises several kinds of its own
        yield _check("int8 proof", False, f"ONNX Runtime can't open it: {str(error).splitlines()[0][:160]}")
        return
    why = why_not_int8(found, in_float)
    told = why or f"{found['int8_convolutions']} convolutions in int8, {found['float_convolutions']} in float on purpose, as ONNX Runtime opens it"
    yield _check("int8 proof", not why, told)


def _shape(value) -> tuple[str, tuple]:
    """Return the kind and the dimensions after the first of an input or output."""
    import onnx

    kind = value.type.tensor_type
    dims = tuple(dim.dim_value or dim.dim_param or "?" for dim in kind.shape.dim[1:])
    return onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, dims


def _answers(bundle, scheme: str, provider: str) -> Iterator[dict]:
    """Check that this machine answers the stored inputs as the exporting one did."""
    from export.runtime import Predictor, Settings

    try:
        images, stored = bundle.samples(scheme)
    except UserError as error:
        yield _check(f"{scheme} answers", False, str(error))
        return
    try:
        predictor = Predictor(bundle, Settings(scheme, provider))
        answers = np.stack([predictor.predict_bytes(data) for data in images])
    except Exception as error:  # whatever keeps it from answering, it is not what the card claims
        yield _check(f"{scheme} answers", False, f"it can't be run: {str(error).splitlines()[0]}")
        return
    if stored.shape != answers.shape:
        yield _check(f"{scheme} answers", False, f"the stored ones are of shape {stored.shape}, and the model's are {answers.shape}")
        return
    agreement, largest = float((answers.argmax(1) == stored.argmax(1)).mean()), float(np.abs(answers - stored).max())
    told = f"{agreement:.1%} of {len(images)} stored inputs have the stored best category, max |dp| {largest:.1e}, on {predictor.provider}"
    yield _check(f"{scheme} answers", agreement >= AGREEMENT, told)


def _check(what: str, holds: bool, told: str) -> dict:
    return {"what": what, "holds": holds, "told": told}


def _unknown(what: str, why: str) -> dict:
    return {"what": what, "holds": None, "told": f"not recomputed: {why}"}
