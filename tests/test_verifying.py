"""`family verify`: a bundle holds what its card claims, and each way to tamper with it is told."""

import json
import shutil

import numpy as np
import pytest

from export.bundle import SAMPLES, open_bundle, sha256_of, write_samples
from family.cli import main
from family.data.ontology import from_leaves
from family.errors import first_line
from family.outputs import read_json, write_json

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")
TREE = from_leaves([("1", "A/B"), ("2", "A/C"), ("3", "D"), ("9", "A")])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, write_bundle):
    folder = write_bundle(tmp_path_factory.mktemp("whole") / "bundle", TREE, schemes=("fp32", "fp16"), dataset={"ontology_digest": TREE.digest})
    labels = [{"class": k, "category_id": i, "path": TREE.path_of[i]} for k, i in enumerate(TREE.leaves)]
    write_json(folder / "labels.json", labels)
    seal(folder)
    return folder


@pytest.fixture
def bundle(whole, tmp_path):
    """Return a copy that may be broken."""
    return shutil.copytree(whole, tmp_path / "bundle")


def seal(folder, **changes):
    """Let the card say what the files are now, as somebody who tampers would."""
    card = {**read_json(folder / "card.json"), **changes}
    card["files"] = {name: sha256_of(folder / name) for name in ("labels.json", SAMPLES)}
    for entry in card["schemes"].values():
        path = folder / entry["file"]
        entry |= {"sha256": sha256_of(path), "size_mb": round(path.stat().st_size / 1e6, 3)}
    write_json(folder / "card.json", card)


def verified(folder, capsys) -> tuple[int, list[str], str]:
    """Return the exit code, what does not hold, and all that was said."""
    capsys.readouterr()
    code = main(["verify", str(folder), "--json"])
    said = capsys.readouterr()
    return code, [check["what"] for check in json.loads(said.out)["checks"] if check["holds"] is False], said.out + said.err


def test_a_whole_bundle_holds(whole, capsys):
    assert verified(whole, capsys)[:2] == (0, [])
    assert main(["verify", str(whole)]) == 0
    said = capsys.readouterr().out
    assert "WRONG" not in said and "next: " in said and "100.0% of 4 stored inputs" in said and "image uint8 [N, 32, 32, 3]" in said


def test_stored_answers_of_other_categories_are_told(bundle, capsys):
    images, answers = open_bundle(bundle).samples("fp32")
    write_samples(bundle, images, {"fp32": answers, "fp16": answers[:, :-1]})
    seal(bundle)
    code, found, said = verified(bundle, capsys)
    assert (code, found) == (1, ["fp16 answers"]) and "the stored ones are of shape (4, 2)" in said


def test_answers_that_are_no_numbers_are_a_failure(bundle, capsys, photo):
    def spoil(model):
        weights = model.graph.initializer[0]
        weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) * np.float32("nan"), weights.name))

    rewrite(bundle, spoil)
    seal(bundle)
    code, found, said = verified(bundle, capsys)
    assert (code, found) == (1, ["fp16 answers"]) and "the answers of 1 of 1 images are no numbers" in said
    (bundle / "photo.jpg").write_bytes(photo(1))
    assert main(["predict", str(bundle), str(bundle / "photo.jpg"), "--scheme", "fp16", "--json"]) == 1
    assert "are no numbers" in capsys.readouterr().err


def test_classes_in_another_order_than_the_trees_are_refused(bundle, capsys, photo):
    """Of which the best category and the levels above it would be told of different ones."""
    card = read_json(bundle / "card.json")
    seal(bundle, classes=card["classes"][::-1], paths=card["paths"][::-1])
    (bundle / "photo.jpg").write_bytes(photo(1))
    assert main(["predict", str(bundle), str(bundle / "photo.jpg")]) == 2
    assert "not in the order of their tree's leaves" in capsys.readouterr().err
    assert main(["verify", str(bundle)]) == 2


def test_brackets_without_end_are_no_card(bundle, capsys):
    (bundle / "card.json").write_text("[" * 200_000)
    assert main(["verify", str(bundle)]) == 2 and "is not valid JSON" in capsys.readouterr().err


def test_a_file_outside_of_the_bundle_is_none_of_it(bundle, capsys):
    (bundle.parent / "secret").write_text("x")
    card = read_json(bundle / "card.json")
    card["files"]["../secret"] = sha256_of(bundle.parent / "secret")
    write_json(bundle / "card.json", card)
    code, found, said = verified(bundle, capsys)
    assert (code, found) == (1, ["../secret"]) and "no file of the bundle" in said


def rewrite(folder, change, scheme="fp16"):
    path = folder / f"model.{scheme}.onnx"
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def other_answers(folder):
    images, answers = open_bundle(folder).samples("fp32")
    write_samples(folder, images, {"fp32": answers[:, ::-1], "fp16": answers})
    seal(folder)


def swap_labels(folder):
    write_json(folder / "labels.json", list(reversed(read_json(folder / "labels.json"))))
    seal(folder)


def rename_output(folder):
    def change(model):
        for node in model.graph.node:
            node.output[:] = ["p" if name == "probabilities" else name for name in node.output]
            node.input[:] = ["p" if name == "probabilities" else name for name in node.input]
        next(value for value in model.graph.output if value.name == "probabilities").name = "p"

    rewrite(folder, change)
    seal(folder)


def outside(folder, scheme="fp16"):
    def change(model):
        model.opset_import.append(onnx.helper.make_opsetid("somebody.else", 1))
        name = model.graph.node[-1].output[0]
        model.graph.node.append(onnx.helper.make_node("Trick", [name], ["tricked"], domain="somebody.else"))

    rewrite(folder, change, scheme)
    seal(folder)


def tricked(name: str) -> onnx.GraphProto:
    """Return a graph that needs somebody's library."""
    made = onnx.helper.make_node("Trick", [name], ["inner"], domain="somebody.else")
    return onnx.helper.make_graph([made], "inner", [], [onnx.helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)])


def outside_of_a_branch(folder):
    """Hide it in both branches of a condition, where a look at the nodes of the graph alone does not come."""

    def change(model):
        model.opset_import.append(onnx.helper.make_opsetid("somebody.else", 1))
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "always"))
        inside = tricked(model.graph.node[-1].output[0])
        model.graph.node.append(onnx.helper.make_node("If", ["always"], ["tricked"], then_branch=inside, else_branch=inside))

    rewrite(folder, change)
    seal(folder)


def in_another_file(folder):
    """Let the weights lie in a file beside the model, which the card's sha256 says nothing of."""

    def change(model):
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "weights")
        (folder / "weights.bin").write_bytes(tensor.raw_data)
        onnx.external_data_helper.set_external_data(tensor, "weights.bin")
        tensor.ClearField("raw_data")

    rewrite(folder, change)
    seal(folder)


def empty(folder):
    (folder / "model.fp16.onnx").write_bytes(b"")
    seal(folder)


def untyped(folder):
    def change(model):
        next(value for value in model.graph.output if value.name == "embedding").ClearField("type")

    rewrite(folder, change)
    seal(folder)


def cut_short(folder):
    path = folder / "model.fp16.onnx"
    path.write_bytes(path.read_bytes()[:-40])
    seal(folder)


def claim_int8(folder, **entry):
    """Claim int8 of a file whose answers are right and which runs in float."""
    card = read_json(folder / "card.json")
    images, answers = open_bundle(folder).samples("fp16")
    write_samples(folder, images, {"fp32": answers, "int8": answers})
    card["schemes"]["int8"] = {**card["schemes"].pop("fp16"), **entry}
    write_json(folder / "card.json", card)
    seal(folder)


def claim_convolutions(folder):
    claim_int8(folder, made={"convolutions_in_float": 0}, proof={"int8_convolutions": 3, "float_convolutions": 0})


def sharpen(folder):
    """Make the head three times as sure: the best categories stay."""

    def change(model):
        weights = next(tensor for tensor in model.graph.initializer if tensor.name == "weights")
        weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) * 3, weights.name))

    rewrite(folder, change, "fp32")
    seal(folder)


def claim_embeddings(folder):
    card = read_json(folder / "card.json")
    card["schemes"]["fp16"]["embedding_cosine"] = {"n": 4, "median": 1.0, "least": 1.0}
    write_json(folder / "card.json", card)


def turn_embeddings(folder):
    """Turn those that are given away, and not those that are answered from."""

    def change(model):
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = ["inside" if name == "embedding" else name for name in names]
        model.graph.node.append(onnx.helper.make_node("Neg", ["inside"], ["embedding"]))

    rewrite(folder, change)
    seal(folder)
    claim_embeddings(folder)


def other_labels_inside(folder):
    from export.metadata import write_metadata

    card = read_json(folder / "card.json")
    write_metadata(folder / "model.fp16.onnx", {**card, "paths": [f"{path}s" for path in card["paths"]]}, "fp16")
    seal(folder)


def no_digests(folder):
    card = read_json(folder / "card.json")
    del card["files"]
    write_json(folder / "card.json", card)


def claim_size(folder):
    card = read_json(folder / "card.json")
    card["schemes"]["fp16"]["size_mb"] = 1.5
    write_json(folder / "card.json", card)


def claim_operators(folder):
    card = read_json(folder / "card.json")
    card["schemes"]["fp16"]["operators"] = {"QLinearConv": 49}
    write_json(folder / "card.json", card)


def claim_opset(folder):
    card = read_json(folder / "card.json")
    card["schemes"]["fp16"]["opset"] = 99
    write_json(folder / "card.json", card)


def other_saved_model(folder):
    """In the place of one that the card tells of; were it loaded, it could not be read."""
    place = folder / "saved_model" / "1" / "saved_model.pb"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"as it was exported")
    seal(folder, saved_model={"folder": "saved_model/1"})
    card = read_json(folder / "card.json")
    card["files"]["saved_model/1/saved_model.pb"] = sha256_of(place)
    write_json(folder / "card.json", card)
    place.write_bytes(b"as it is now")


def more_saved_model(folder):
    other_saved_model(folder)
    place = folder / "saved_model" / "1" / "saved_model.pb"
    place.write_bytes(b"as it was exported")
    place.with_name("fingerprint.pb").write_bytes(b"which the card does not know")


def no_saved_model(folder):
    other_saved_model(folder)
    (folder / "saved_model" / "1" / "saved_model.pb").unlink()


def linked_saved_model(folder):
    """As sealed, but elsewhere."""
    other_saved_model(folder)
    (folder / "saved_model" / "1" / "saved_model.pb").write_bytes(b"as it was exported")
    (folder / "saved_model").rename(folder.parent / "elsewhere")
    (folder / "saved_model").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("tamper", "wrong"),
    [
        (lambda folder: (folder / "model.fp16.onnx").write_bytes(b"other"), ["fp16 file"]),
        (lambda folder: (folder / "model.fp16.onnx").unlink(), ["fp16 file"]),
        (lambda folder: (folder / SAMPLES).write_bytes(b"cut"), [SAMPLES, "fp32 answers", "fp16 answers"]),
        (lambda folder: (folder / "labels.json").write_text("[{"), ["labels.json", "labels"]),
        (swap_labels, ["labels"]),
        (other_answers, ["fp32 answers"]),
        (outside, ["fp16 graph", "fp16 answers"]),
        (outside_of_a_branch, ["fp16 graph", "fp16 answers"]),
        (in_another_file, ["fp16 graph", "fp16 answers"]),
        (cut_short, ["fp16 graph", "fp16 answers"]),
        (empty, ["fp16 graph", "fp16 answers"]),
        (claim_int8, ["int8 proof"]),
        (claim_convolutions, ["int8 proof"]),
        (sharpen, ["fp32 answers"]),
        (turn_embeddings, ["fp16 embeddings"]),
        (other_labels_inside, ["fp16 metadata"]),
        (no_digests, ["files"]),
        (claim_size, ["fp16 file"]),
        (claim_operators, ["fp16 operators"]),
        (claim_opset, ["fp16 opset"]),
        (other_saved_model, ["saved_model/1/saved_model.pb", "saved_model answers"]),
        (more_saved_model, ["saved_model answers"]),
        (linked_saved_model, ["saved_model/1/saved_model.pb", "saved_model answers"]),
        (lambda folder: seal(folder, dataset={"ontology_digest": "0" * 64}), ["tree"]),
    ],
)
def test_what_was_tampered_with_is_told(bundle, tamper, wrong, capsys):
    tamper(bundle)
    code, found, said = verified(bundle, capsys)
    assert (code, found) == (1, wrong) and "export the run anew" in said


@pytest.mark.parametrize("tamper", [other_saved_model, more_saved_model, no_saved_model, linked_saved_model])
def test_a_saved_model_that_is_not_the_cards_is_not_loaded(bundle, tamper, capsys):
    tamper(bundle)
    assert "not asked for: saved_model/1/" in verified(bundle, capsys)[2]


def test_what_needs_the_run_or_its_images_is_said_not_to_be_recomputed(bundle, capsys):
    card = read_json(bundle / "card.json")
    card["schemes"]["fp16"] |= {"gate": {"verdict": "pass"}, "speed": {"ratio": 2.0}}
    write_json(bundle / "card.json", card)
    code, wrong, _ = verified(bundle, capsys)
    assert (code, wrong) == (0, []) and main(["verify", str(bundle)]) == 0
    said = capsys.readouterr().out
    assert "fp16 gate: not recomputed: it takes the validation images" in said and "fp16 speed: not recomputed" in said and "fp32 gate" not in said


def test_embeddings_are_held_against_fp32s_where_that_may_be_opened(bundle, capsys):
    claim_embeddings(bundle)
    assert main(["verify", str(bundle)]) == 0
    assert "ok    fp16 embeddings: their cosine with fp32's is 1.0000 in the median, the card says 1.0000" in capsys.readouterr().out
    outside(bundle, "fp32")
    code, wrong, said = verified(bundle, capsys)
    assert (code, wrong) == (1, ["fp32 graph", "fp32 answers"]) and "the bundle has no fp32 that they can be held against" in said


def test_files_that_the_card_does_not_know_are_named(bundle, capsys):
    (bundle / "weights.bin").write_bytes(b"x")
    code, found, said = verified(bundle, capsys)
    assert (code, found) == (0, []) and "the card tells nothing of weights.bin" in said


def test_one_scheme_alone_is_asked_and_another_name_is_refused(whole, capsys):
    assert main(["verify", str(whole), "--scheme", "fp16", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "fp16 answers" in said and "fp32 answers" not in said and "fp32 file" in said
    assert main(["verify", str(whole), "--scheme", "fp61"]) == 2 and "Did you mean 'fp16'" in capsys.readouterr().err


def test_an_output_without_a_type_is_told(bundle, capsys):
    untyped(bundle)
    code, found, said = verified(bundle, capsys)
    assert (code, found) == (1, ["fp16 inputs and outputs"]) and "embedding untyped" in said


def test_an_error_without_a_text_is_told_by_its_kind():
    assert first_line(MemoryError()) == "MemoryError" and first_line(ValueError("a\nb")) == "a"


def test_an_output_of_another_name_is_told(bundle, capsys):
    rename_output(bundle)
    code, found, said = verified(bundle, capsys)
    assert (code, found) == (1, ["fp16 inputs and outputs", "fp16 answers"]) and "it can't be run" in said


@pytest.mark.parametrize("change", [outside, outside_of_a_branch, in_another_file])
def test_a_graph_that_needs_others_is_told_and_never_opened(bundle, change, capsys):
    change(bundle)
    _, _, said = verified(bundle, capsys)
    assert "from elsewhere" in said and "such a graph is not opened" in said
    assert ("somebody.else.Trick" in said) == (change is not in_another_file) and ("needs weights from" in said) == (change is in_another_file)


@pytest.mark.parametrize("card", ["[]", '{"schema": 99}', "{"])
def test_what_is_no_bundle_of_this_version_is_refused(bundle, card, capsys):
    (bundle / "card.json").write_text(card)
    assert main(["verify", str(bundle)]) == 2
