"""Bundles: what is run is the file of the card, by the provider that was asked for."""

import json
import re
import shutil

import numpy as np
import pytest

from export.bundle import SAMPLES, card_ontology, open_bundle, sha256_of, write_samples
from family.cli import main
from family.data.images import decode_image
from family.data.ontology import from_leaves
from family.errors import Failure, UserError
from family.outputs import read_json, write_json

ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
from export.opening import open_model  # noqa: E402
from export.runtime import Predictor, Settings, default_settings, in_parts, part_size  # noqa: E402

TREE = from_leaves([("1", "A/B"), ("2", "A/C"), ("3", "D"), ("9", "A")])
PX = 32


@pytest.fixture(scope="module")
def whole(tmp_path_factory, write_bundle):
    return write_bundle(tmp_path_factory.mktemp("whole") / "bundle", TREE, PX, schemes=("fp32", "int8"))


@pytest.fixture
def bundle(whole, tmp_path):
    """Return a copy that may be broken."""
    return shutil.copytree(whole, tmp_path / "bundle")


def change_card(folder, **changes):
    write_json(folder / "card.json", {**read_json(folder / "card.json"), **changes})


def test_answers_are_those_of_the_model_for_any_batch(whole, tiny_answers):
    predictor = Predictor(open_bundle(whole), Settings())
    images = np.random.default_rng(0).integers(0, 256, (7, PX, PX, 3), np.uint8)
    wanted = tiny_answers(images, 3)
    for n in (1, 2, 7):
        found = predictor.predict(images[:n])
        assert found.shape == (n, 3) and found.dtype == np.float32
        assert found == pytest.approx(wanted[:n], abs=1e-5)
    assert predictor.embed(images).shape == (7, 3)


def test_a_request_is_decode_then_predict(whole, photo):
    predictor = Predictor(open_bundle(whole), Settings())
    one = predictor.predict_bytes(photo(5))
    assert one.shape == (3,) and one.tolist() == predictor.predict(decode_image(photo(5), predictor.how)[None])[0].tolist()


def test_the_stored_inputs_get_their_answers_again(whole):
    bundle = open_bundle(whole)
    images, answers = bundle.samples("fp32")
    predictor = Predictor(bundle, Settings())
    assert np.stack([predictor.predict_bytes(data) for data in images]) == pytest.approx(answers, abs=1e-5)


def test_stored_inputs_that_are_not_the_cards_prove_nothing(bundle):
    card = read_json(bundle / "card.json")
    write_json(bundle / "card.json", card | {"files": {SAMPLES: sha256_of(bundle / SAMPLES)}})
    images, answers = open_bundle(bundle).samples("fp32")
    write_samples(bundle, images[:2], {"fp32": answers[:2]})
    with pytest.raises(UserError, match="is not the file of the card"):
        open_bundle(bundle).samples("fp32")


@pytest.mark.parametrize(("flags", "bits", "warned"), [({"avx2"}, 8, True), ({"avx2"}, 7, False), ({"avx512_vnni"}, 8, False), ({"avx2"}, None, False)])
def test_weights_that_this_processor_can_not_add_are_told(bundle, monkeypatch, capsys, flags, bits, warned):
    monkeypatch.setattr("export.runtime.cpu_flags", lambda: flags)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    card = read_json(bundle / "card.json")
    if bits:
        card["schemes"]["fp32"]["made"] = {"weight_bits": bits}
    write_json(bundle / "card.json", card)
    Predictor(open_bundle(bundle), Settings())
    assert ("its weights have 8 bits, and x86_64 without VNNI" in capsys.readouterr().err) == warned


def test_the_tree_of_a_card_has_its_inner_ids(whole):
    tree = card_ontology(open_bundle(whole).card)
    assert tree == TREE and tree.id_of["A"] == "9"


def test_a_file_that_was_changed_is_refused_with_both_digests(bundle):
    path = bundle / "model.fp32.onnx"
    before = sha256_of(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError) as error:
        open_bundle(bundle).model_path("fp32")
    assert before[:12] in str(error.value) and sha256_of(path)[:12] in str(error.value)
    assert main(["predict", str(bundle), "x.jpg"]) == 2
    assert open_bundle(bundle).model_path("int8") == bundle / "model.int8.onnx"


def test_a_file_that_is_gone_or_no_model_is_told(bundle):
    (bundle / "model.int8.onnx").unlink()
    with pytest.raises(UserError, match="model.int8.onnx is missing"):
        Predictor(open_bundle(bundle), Settings("int8"))
    (bundle / "model.fp32.onnx").write_bytes(b"junk")
    change_card(bundle, schemes={"fp32": {"file": "model.fp32.onnx", "sha256": sha256_of(bundle / "model.fp32.onnx"), "size_mb": 0}})
    with pytest.raises(Failure, match="ONNX Runtime can't open it"):
        Predictor(open_bundle(bundle), Settings())


@pytest.mark.parametrize("name", ["../secret.onnx", "/etc/passwd", "a/../../x", "sub/model.onnx", "..", ""])
def test_a_file_name_that_leaves_the_folder_is_refused(bundle, name):
    change_card(bundle, schemes={"fp32": {"file": name, "sha256": "0" * 64, "size_mb": 0}})
    with pytest.raises(UserError, match="outside|missing"):
        open_bundle(bundle).model_path("fp32")


@pytest.mark.parametrize("entry", [{}, {"file": "model.fp32.onnx"}, {"file": 3, "sha256": "0"}, None, []])
def test_a_scheme_without_its_fields_is_refused(bundle, entry):
    change_card(bundle, schemes={"fp32": entry})
    with pytest.raises(UserError, match="no file or no sha256|lacks schemes"):
        open_bundle(bundle)


def test_a_newer_card_and_a_run_are_refused(bundle):
    change_card(bundle, schema=2)
    with pytest.raises(UserError, match="card schema 2; this version reads up to 1"):
        open_bundle(bundle)
    change_card(bundle, schema=1, schemes={})
    with pytest.raises(UserError, match="is a run, not a bundle"):
        open_bundle(bundle)


def test_an_unknown_scheme_gets_the_nearest_one(whole):
    with pytest.raises(UserError, match="Did you mean 'int8'"):
        open_bundle(whole).model_path("int")


@pytest.mark.skipif(ort.get_device() == "GPU" and __import__("os").path.exists("/dev/nvidiactl"), reason="a GPU is here, so CUDA runs")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_does_not_run_is_an_error_and_never_the_cpu(whole, provider):
    with pytest.raises((Failure, UserError), match=f"the provider '{provider}'"):
        Predictor(open_bundle(whole), Settings(provider=provider))


def test_a_provider_or_number_of_threads_that_is_none_is_exit_2(whole, photo, tmp_path, capsys):
    (tmp_path / "x.jpg").write_bytes(photo(1))
    words = ["predict", str(whole), str(tmp_path / "x.jpg")]
    assert main([*words, "--provider", "cdua"]) == 2
    assert "Did you mean 'cuda'" in capsys.readouterr().err
    assert main([*words, "--threads", "-1"]) == 2
    assert "--threads" in capsys.readouterr().err
    assert main([*words, "--provider", "cpu", "--threads", "1"]) == 0


def test_auto_says_what_runs(whole):
    predictor = Predictor(open_bundle(whole), Settings(provider="auto", threads=1))
    assert predictor.provider in ("cpu", "cuda")
    assert predictor.session.get_session_options().intra_op_num_threads == 1


def test_what_pick_chose_is_used_unless_told_otherwise(bundle):
    assert default_settings(open_bundle(bundle), None, None, None) == Settings("fp32", "auto", 0)
    change_card(bundle, serve={"scheme": "int8", "provider": "cpu", "threads": 1})
    assert open_model(bundle).about == {
        "scheme": "int8", "provider": "cpu", "threads": 1, "model_sha256": sha256_of(bundle / "model.int8.onnx"),
    }  # fmt: skip
    assert default_settings(open_bundle(bundle), "fp32", "auto", 0) == Settings("fp32", "auto", 0)


def test_predict_answers_the_contracts_objects(whole, photo, tmp_path, capsys, tiny_answers):
    for k in range(2):
        (tmp_path / f"{k}.jpg").write_bytes(photo(k))
    assert main(["predict", str(whole), str(tmp_path / "0.jpg"), str(tmp_path / "1.jpg"), "--json", "--top", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["image"] for row in found] == [str(tmp_path / f"{k}.jpg") for k in range(2)]
    for k, row in enumerate(found):
        p = tiny_answers(decode_image(photo(k), open_bundle(whole).preprocessing)[None], 3)[0]
        best = int(p.argmax())
        assert (row["category_id"], row["path"]) == (TREE.leaves[best], TREE.path_of[TREE.leaves[best]])
        assert row["probability"] == pytest.approx(p[best], abs=1e-5) and len(row["top"]) == 2
        a = p[0] + p[1]
        first = row["levels"][0]
        assert (first["category_id"], first["path"]) == (("9", "A") if a > p[2] else ("3", "D"))
        assert first["probability"] == pytest.approx(max(a, p[2]), abs=1e-5)
        assert [node["path"].count("/") <= k for k, node in enumerate(row["levels"])] == [True, True]


def test_predict_answers_what_it_can_and_fails_for_the_rest(whole, photo, tmp_path, capsys):
    (tmp_path / "good.jpg").write_bytes(photo(1))
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    assert main(["predict", str(whole), *(str(tmp_path / f"{n}.jpg") for n in ("bad", "good", "none")), "--json"]) == 1
    captured = capsys.readouterr()
    assert [row["image"] for row in json.loads(captured.out)] == [str(tmp_path / "good.jpg")]
    assert "bad.jpg: " in captured.err and "none.jpg: No such file" in captured.err


def test_parts_hold_all_images_in_order_and_fewer_of_large_ones():
    assert [part_size(px) for px in (32, 224, 299, 480, 600, 2000)] == [16, 16, 8, 3, 2, 1]
    images = np.arange(19 * 480 * 480 * 3, dtype=np.uint32).astype(np.uint8).reshape(19, 480, 480, 3)
    parts = list(in_parts(images))
    assert [len(part) for part in parts] == [3] * 6 + [1]
    np.testing.assert_array_equal(np.concatenate(parts), images)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"preprocessing": {"resolution_px": 64, "aspect": "stretch", "filter": "bilinear"}}, "image should be tensor(uint8) [N, 64, 64, 3]"),
        ({"classes": ["1"], "paths": ["A"]}, "probabilities should be tensor(float) [N, 1]"),
    ],
)
def test_a_file_that_takes_or_gives_something_else_than_its_card_says_is_not_asked(bundle, changes, said):
    change_card(bundle, **changes)
    with pytest.raises(Failure, match=re.escape(said)):
        Predictor(open_bundle(bundle), Settings())


@pytest.mark.parametrize(
    "changes",
    [
        {"preprocessing": {"resolution_px": px, "aspect": "stretch", "filter": "bilinear"}} for px in ("32", 0, 200_000, 32.5, True, None)
    ]
    + [{"node_ids": ["1"]}, {"node_ids": {"A": 1}}, {"schemes": ["fp32"]}, {"serve": "int8"}, {"serve": {"threads": "2"}}, {"serve": {"scheme": 8}},
       {"dataset": "photos"}, {"files": {"labels.json": None}}, {"classes": [1, 2, 3]}, {"export": []}, {"training": 1},
       {"refused": {"int8": None}}],
)  # fmt: skip
def test_a_card_with_another_kind_of_value_is_refused_in_one_line(bundle, changes, capsys):
    change_card(bundle, **changes)
    (bundle / "photo.jpg").write_bytes(b"")
    for words in (["show", str(bundle)], ["predict", str(bundle), str(bundle / "photo.jpg")], ["verify", str(bundle)]):
        assert main(words) == 2
        assert "the card lacks" in capsys.readouterr().err
