"""`family verify`: recompute what a bundle's card claims, on this machine: files, tree, shapes, operators, and the answers to the stored inputs."""

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from family.data.images import decode_image
from family.errors import Failure, UserError, first_line, unknown_name
from family.progress import next_command

AGREEMENT = 0.99  # of the best classes on the stored inputs
TYPICAL_DP = 0.05  # of the median over stored inputs of max |dp|, where other kernels may round otherwise: smaller schemes, and any on a GPU
TYPICAL_DC = 0.01  # of the median cosine of embeddings with fp32's, where other kernels may round otherwise
MARKS = {True: "ok   ", False: "WRONG", None: "     "}
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")  # ONNX Runtime's own operators; another one would be somebody's library


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--scheme", help="answers of this one alone are asked for (default: of all)")
    parser.add_argument("--provider", default="auto", help="auto (default), cpu, cuda or tensorrt")
    parser.add_argument("--threads", type=int, default=0, help="of the model (default: all cores)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    checks = []
    for check in verify(args.bundle, args.scheme, args.provider, args.threads):
        checks.append(check)
        if not args.json:
            print(f"{MARKS[check['holds']]} {check['what']}: {check['told']}", flush=True)
    wrong = [check for check in checks if check["holds"] is False]
    if args.json:
        json.dump({"bundle": str(args.bundle), "holds": not wrong, "checks": checks}, sys.stdout)
        print()
    if wrong:
        raise Failure(f"{args.bundle}: {len(wrong)} of {len(checks)} claims don't hold: {', '.join(check['what'] for check in wrong)}; export the run anew")
    if not args.json:
        print(next_command("bench", args.bundle, "--out", "results.jsonl"))
    return 0


def verify(folder: Path, only: str | None = None, provider: str = "auto", threads: int = 0) -> Iterator[dict]:
    """Yield `{"what", "holds", "told"}` of each claim; `holds` is None where it can't be recomputed here, and `told` says why.

    Args:
        only: the scheme whose answers are asked for; None: all.

    Raises:
        UserError: the folder is no bundle that this version reads, or has no such scheme.
    """
    from export.bundle import card_ontology, open_bundle

    bundle = open_bundle(folder)
    card = bundle.card
    if only is not None and only not in bundle.schemes:
        raise unknown_name(f"scheme of {folder}", only, bundle.schemes)
    yield _check("tree", card_ontology(card).digest == card["dataset"]["ontology_digest"], f"{len(card['classes'])} categories") if _has_tree(card) else (
        _unknown("tree", "its digest is of the whole tree, of which a submodel has a part" if card.get("subtrees") else "the card does not tell its digest")
    )
    files = list(_files(folder, card))
    yield from files
    sound = []  # schemes whose graphs may be opened
    for scheme in bundle.schemes:
        try:
            path = bundle.model_path(scheme)
        except UserError as error:
            yield _check(f"{scheme} file", False, str(error))
            continue
        mb, claimed = round(path.stat().st_size / 1e6, 3), bundle.schemes[scheme].get("size_mb")
        yield _check(f"{scheme} file", mb == claimed, "sha256 and size as the card says" if mb == claimed else f"{mb} MB, the card says {claimed}")
        checks = list(_graph(path, scheme, card))
        yield from checks
        if checks[0]["holds"] is False:
            yield _check(f"{scheme} answers", False, "not asked for: such a graph is not opened")
            continue
        sound.append(scheme)
        yield from _proof(path, scheme, card)
        for claim, where in (("parity", "the run"), ("gate", "the validation images"), ("speed", "the machine that exported it")):
            if claim in bundle.schemes[scheme]:
                yield _unknown(f"{scheme} {claim}", f"it takes {where}")
        if only in (None, scheme):
            yield from _answers(bundle, scheme, provider, threads)
    for scheme in sound:
        if only in (None, scheme) and "embedding_cosine" in bundle.schemes[scheme]:
            yield _embeddings(bundle, scheme, sound)
    if "saved_model" in card:
        wrong = {check["what"] for check in files if check["holds"] is False}
        unlike = wrong | {name for name in _there(folder) if name not in card.get("files", {})}
        yield from _saved_model(bundle, sorted(name for name in unlike if name.startswith("saved_model/")), sound)


def _has_tree(card: dict) -> bool:
    return isinstance(card.get("dataset"), dict) and "ontology_digest" in card["dataset"] and not card.get("subtrees")


def _files(folder: Path, card: dict) -> Iterator[dict]:
    """Check the other files: their sha256 where the card has it, and the labels."""
    from export.bundle import sha256_of

    if "files" not in card:
        yield _check("files", False, "the card tells no sha256 of the labels and of the stored inputs")
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
    known = {"card.json", "made_of.json", "labels.json", *card.get("files", {}), *(entry["file"] for entry in card["schemes"].values())}
    if others := [name for name in _there(folder) if name not in known]:
        yield _unknown("other files", f"the card tells nothing of {', '.join(others[:5])}{' and more' * (len(others) > 5)}")


def _there(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


def _graph(path: Path, scheme: str, card: dict) -> Iterator[dict]:
    """Check what a file computes with: inputs, outputs, operators; it loads nothing from elsewhere."""
    if importlib.util.find_spec("onnx") is None:
        yield _unknown(f"{scheme} graph", "onnx is not installed here")
        return
    import onnx

    from export.metadata import differing
    from export.proof import count_operators, opset_of

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own, whose name its versions change
        yield _check(f"{scheme} graph", False, f"it can't be read: {first_line(error)}")
        return
    if opset_of(model) is None:
        yield _check(f"{scheme} graph", False, "it names no version of ONNX's operators, or is empty")
        return
    outside = sorted(set(_from_elsewhere(model.graph)))
    opset, claimed = opset_of(model), card["schemes"][scheme].get("opset")
    told = f"needs {', '.join(outside[:3])} from elsewhere" if outside else f"stands alone, opset {opset}"
    yield _check(f"{scheme} graph", not outside, told)
    if claimed not in (None, opset):
        yield _check(f"{scheme} opset", False, f"{opset}, the card says {claimed}")
    if model.metadata_props:
        wrong = differing(model, card, scheme)
        told = f"{', '.join(wrong)} differ from the card's" if wrong else "labels, tree, preprocessing and card, as the card says"
        yield _check(f"{scheme} metadata", not wrong, told)
    else:
        yield _unknown(f"{scheme} metadata", "the file has none; it was exported by an earlier version")
    px, n = card["preprocessing"]["resolution_px"], len(card["classes"])
    found = {value.name: _shape(value) for value in [*model.graph.input, *model.graph.output]}
    embedding, _ = found.get("embedding", ("", ()))
    right = found.get("image") == ("uint8", (px, px, 3)) and found.get("probabilities") == ("float32", (n,)) and embedding == "float32"
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
        yield _check("int8 proof", False, "the card does not tell how many convolutions were left in float on purpose, so it proves nothing")
        return
    if importlib.util.find_spec("onnx") is None:
        yield _unknown("int8 proof", "onnx is not installed here")
        return
    from export.proof import prove, why_not_int8

    try:
        found = prove(path)
    except Exception as error:  # ONNX Runtime raises several kinds of its own
        yield _check("int8 proof", False, f"ONNX Runtime can't open it: {first_line(error)}")
        return
    claimed = card["schemes"][scheme].get("proof", {})
    differ = [f"{found[key]} {key.replace('_', ' ')}, the card says {claimed.get(key)}" for key in ("int8_convolutions", "float_convolutions", "batchnorms")
              if isinstance(claimed, dict) and claimed.get(key) != found[key]]  # fmt: skip
    why = why_not_int8(found, in_float) or "; ".join(differ)
    told = why or f"{found['int8_convolutions']} convolutions in int8, {found['float_convolutions']} in float on purpose, as ONNX Runtime opens it"
    yield _check("int8 proof", not why, told)
    others = [key.replace("_", " ") for key in ("operators", "transposes", "float_weights_mb") if isinstance(claimed, dict) and claimed.get(key) != found[key]]
    if others:
        yield _unknown("int8 optimized graph", f"{', '.join(others)} are not as the card says: processors lay graphs out differently")


def _shape(value) -> tuple[str, tuple]:
    """Return the kind and the dimensions after the first of an input or output."""
    import onnx

    kind = value.type.tensor_type
    if not kind.elem_type:
        return "untyped", ()
    dims = tuple(dim.dim_value or dim.dim_param or "?" for dim in kind.shape.dim[1:])
    return onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, dims


def _saved_model(bundle, unlike: list[str], sound: list[str]) -> Iterator[dict]:
    """Check that the SavedModel answers as fp32 did, where TensorFlow is; `unlike` are its files that are not the card's."""
    if unlike:
        yield _check("saved_model answers", False, f"not asked for: {', '.join(unlike[:3])}: not as the card says, so it is not loaded")
    elif "fp32" not in sound:
        yield _unknown("saved_model answers", "the bundle has no fp32 that it can be held against")
    elif importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("tf_keras") is None:
        yield _unknown("saved_model answers", "TensorFlow is not installed here")
    else:
        from export.runtime import Predictor, Settings
        from export.savedmodel import VERSION, check_saved_model, compare, why_unlike

        place = bundle.folder / "saved_model" / VERSION
        try:
            check_saved_model(place)
            images, stored = bundle.samples("fp32")
            pixels = np.stack([decode_image(data, bundle.preprocessing) for data in images])
            embeddings = Predictor(bundle, Settings("fp32", "cpu")).embed(pixels)
            found = compare(place, images, pixels, (stored, embeddings))
        except Exception as error:  # whatever keeps it from answering, it is not what the card claims
            yield _check("saved_model answers", False, f"it can't be run: {first_line(error)}")
            return
        why = why_unlike(found)
        yield _check("saved_model answers", not why, why or f"max |dp| {found['max_dp']:.1e} from fp32's stored ones, max |de| {found['max_de']:.1e} of "
                     f"|e| from its embeddings here, on {found['n']} images")  # fmt: skip


def _answers(bundle, scheme: str, provider: str, threads: int) -> Iterator[dict]:
    """Check that this machine answers the stored inputs as the exporting one did."""
    from export.runtime import Predictor, Settings
    from export.verify import MAX_DP_FUSED

    try:
        images, stored = bundle.samples(scheme)
    except UserError as error:
        yield _check(f"{scheme} answers", False, str(error))
        return
    try:
        predictor = Predictor(bundle, Settings(scheme, provider, threads))
        answers = np.stack([predictor.predict_bytes(data) for data in images])
    except Exception as error:  # whatever keeps it from answering, it is not what the card claims
        yield _check(f"{scheme} answers", False, f"it can't be run: {first_line(error)}")
        return
    if stored.shape != answers.shape:
        yield _check(f"{scheme} answers", False, f"the stored ones are of shape {stored.shape}, and the model's are {answers.shape}")
        return
    agreement, dps = float((answers.argmax(1) == stored.argmax(1)).mean()), np.abs(answers - stored).max(axis=1)
    is_exact = scheme == "fp32" and predictor.provider == "cpu"
    found, allowed, what = (dps.max(), MAX_DP_FUSED, "max |dp|") if is_exact else (np.median(dps), TYPICAL_DP, "max |dp| of the median image")
    told = (f"{agreement:.1%} of {len(images)} stored inputs have the stored best category (at least {AGREEMENT:.0%}), {what} {found:.1e} (at most "
            f"{allowed:.0e}), on {predictor.provider}")  # fmt: skip
    yield _check(f"{scheme} answers", bool(agreement >= AGREEMENT and found <= allowed), told)


def _embeddings(bundle, scheme: str, sound: list[str]) -> dict:
    """Check that a smaller scheme turns embeddings no further away from fp32's than it did when it was exported."""
    from export.runtime import Predictor, Settings
    from export.verify import embedding_cosine

    if "fp32" not in sound:
        return _unknown(f"{scheme} embeddings", "the bundle has no fp32 that they can be held against")
    try:
        claimed = float(bundle.schemes[scheme]["embedding_cosine"]["median"])
        pixels = np.stack([decode_image(data, bundle.preprocessing) for data in bundle.samples(scheme)[0]])
        found = embedding_cosine(*(Predictor(bundle, Settings(name, "cpu")).embed(pixels) for name in ("fp32", scheme)))["median"]
    except Exception as error:  # whatever keeps them from being compared, it is not what the card claims
        return _check(f"{scheme} embeddings", False, f"they can't be compared: {first_line(error)}")
    told = f"their cosine with fp32's is {found:.4f} in the median, the card says {claimed:.4f} (at most {TYPICAL_DC} less)"
    return _check(f"{scheme} embeddings", found >= claimed - TYPICAL_DC, told)


def _check(what: str, holds: bool, told: str) -> dict:
    return {"what": what, "holds": holds, "told": told}


def _unknown(what: str, why: str) -> dict:
    return {"what": what, "holds": None, "told": f"not recomputed: {why}"}
