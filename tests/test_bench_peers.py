"""`bench --peers` without any peer: rounds, ratios and their table, what is refused, and what takes the place of what."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
from benchmarks.measurements import check_row  # noqa: E402
from benchmarks.peers import table as peer_table  # noqa: E402
from benchmarks.peers.comparing import (  # noqa: E402
    LEAST_ROUNDS,
    PLAIN,
    PYTORCH,
    SAVED_MODEL,
    SIDES,
    compare,
    same_measurement,
    time_rounds,
    wanted_sides,
)
from benchmarks.report import write_report  # noqa: E402
from benchmarks.training.sides import check_installed  # noqa: E402
from export.bundle import Bundle, open_bundle  # noqa: E402
from family.cli import main  # noqa: E402
from family.data.dataset import open_dataset  # noqa: E402
from family.data.importing import import_dataset  # noqa: E402
from family.errors import UserError  # noqa: E402


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def peer_row(side: str = "openvino-fp32", **changes) -> dict:
    over_int8 = {"ratio": 2.0, "interval": [1.9, 2.1], "processor_time": {"ratio": 1.5, "interval": [1.4, 1.6]}}
    row = {
        "schema": 1, "kind": "peer", "at": "2026-11-28T10:00:00Z", "member": "b0-64-general-fp32", "variant": "b0", "scope": "general",
        "scheme": "fp32", "model_sha256": sha("fp32"), "bundle": "b", "side": side, "title": SIDES[side].title, "precision": SIDES[side].precision,
        "versions": {"openvino": "1.0"}, "threads": 1, "rounds": 200, "images_a_round": 8, "machine": {"name": "desk", "cpu": "CPU", "cores": 2},
        "model_ms": 12.0, "against": {"int8": over_int8, "fp32": {"ratio": 0.9, "interval": [0.8, 0.95]}},
        "answers": {"n": 4, "agreement": 0.75}, "refused": None, "dataset": {"name": "d", "digest": "x", "split": "test"},
        "metrics": {"top1": {"micro": 0.5, "macro": 0.4}}, "load_before_and_after": [3.0, 4.0],
    }  # fmt: skip
    return {**row, **changes}


def accuracy_row() -> dict:
    return {
        "schema": 1, "kind": "accuracy", "member": "b0-64-general-int8", "variant": "b0", "scope": "general", "scheme": "int8", "at": "2026-11-28",
        "model_sha256": sha("int8"), "n": 4, "dataset": {"name": "d", "digest": "x", "split": "test"}, "metrics": {"top1": {"micro": 0.61, "macro": 0.6}},
    }  # fmt: skip


def spent(s: float, processor_s: float) -> dict:
    return {"s": s, "processor_s": processor_s}


def test_a_ratio_is_a_sides_time_over_ours_in_the_same_round():
    slow = [1.0, 1.5, 1.2, 4.0, 1.1, 1.0, 1.3]  # how busy the machine is: both wait in the same round
    rounds = [{"ours-int8": spent(w, 0.5), "openvino-fp32": spent(3 * w, 1.0)} for w in slow]
    found = compare(rounds, "openvino-fp32", "ours-int8")
    assert found["ratio"] == pytest.approx(3) and found["interval"] == pytest.approx([3, 3])
    assert found["processor_time"]["ratio"] == 2
    assert compare(rounds, "ours-int8", "openvino-fp32")["ratio"] == pytest.approx(1 / 3)


@given(st.lists(st.floats(0.1, 10), min_size=LEAST_ROUNDS, max_size=60))
def test_the_interval_holds_the_median_and_is_there_from_the_least_rounds_on(ratios):
    rounds = [{"a": spent(ratio, ratio), "b": spent(1, 1)} for ratio in ratios]
    found = compare(rounds, "a", "b")
    low, high = found["interval"]
    assert low <= found["ratio"] <= high and found["ratio"] == pytest.approx(np.median(ratios))
    assert compare(rounds[: LEAST_ROUNDS - 1], "a", "b")["interval"] is None


def test_each_side_has_one_turn_a_round_and_none_is_always_first():
    calls, names = [], ["a", "b", "c"]

    def take_turn(name: str, turn: int) -> dict:
        calls.append((turn, name))
        return spent(turn, 0)

    rounds = time_rounds(take_turn, names, 60)
    assert [list(found) for found in rounds] == [names] * 60 and [found["b"]["s"] for found in rounds] == list(range(60))
    assert all(sorted(calls[3 * k : 3 * k + 3]) == [(k, name) for name in names] for k in range(60))
    first, follows = Counter(name for _, name in calls[::3]), Counter(zip((n for _, n in calls), (n for _, n in calls[1:]), strict=False))
    assert min(first[name] for name in names) >= 10 and min(follows[pair] for pair in (("a", "b"), ("b", "a"), ("c", "a"))) >= 10


@pytest.fixture(scope="module")
def folders(tmp_path_factory, write_source, write_bundle):
    folder = tmp_path_factory.mktemp("peers")
    rows = [{"listing_id": str(k), "image": f"{k}.jpg", "category": ("cat", "dog", "art")[k % 3], "split": "test"} for k in range(6)]
    import_dataset(write_source(folder / "src", rows), folder / "data")
    write_bundle(folder / "bundle", open_dataset(folder / "data").ontology, schemes=("fp32", "int8"))
    write_bundle(folder / "no-fp32", open_dataset(folder / "data").ontology, schemes=("int8",))
    return folder


def test_sides_are_those_that_can_be(folders):
    bundle = open_bundle(folders / "bundle")
    torch = [PYTORCH] if bundle.card["variant"] == "b0" else []
    assert wanted_sides(bundle, False, False) == ["ours-fp32", "ours-int8", *torch, "openvino-fp32", "openvino-bf16"]
    assert wanted_sides(bundle, True, True, True) == [name for name in SIDES if name != SAVED_MODEL and (torch or name != PYTORCH)]
    assert SAVED_MODEL in wanted_sides(Bundle(bundle.folder, {**bundle.card, "saved_model": {}}), False, False)
    assert PYTORCH not in wanted_sides(Bundle(bundle.folder, {**bundle.card, "variant": "v2-b0"}), False, False)
    assert wanted_sides(open_bundle(folders / "no-fp32"), False, True)[:2] == ["ours-int8", PLAIN]


def test_the_plain_export_is_the_same_model_without_our_changes(tmp_path):
    pytest.importorskip("tf_keras", reason="TensorFlow is not installed")
    import onnx

    from benchmarks.peers.plain import convert_plainly
    from export.onnx import convert
    from family.models.builders import build_variant

    model = build_variant("b0", 5, 32)
    convert(model, tmp_path / "ours.onnx")
    convert_plainly(model, tmp_path / "plain.onnx")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    answers = [
        ort.InferenceSession(str(tmp_path / name), providers=["CPUExecutionProvider"]).run(["probabilities"], {"image": images.astype(dtype)})[0]
        for name, dtype in (("ours.onnx", np.uint8), ("plain.onnx", np.float32))
    ]
    np.testing.assert_allclose(*answers, atol=1e-5)
    ours, plain = (Counter(node.op_type for node in onnx.load(tmp_path / name).graph.node) for name in ("ours.onnx", "plain.onnx"))
    assert plain["Reshape"] > 0 == ours["Reshape"] and plain["Mul"] == ours["Mul"] + 1 and plain["Conv"] == ours["Conv"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--plain x.onnx", "give one, and --peers"),
        ("--peers --plain x.onnx", "x.onnx is missing; `python -m benchmarks.peers.plain RUN x.onnx` writes it"),
        ("--peers --rounds 5", "fewer than 6 have no 95 % interval"),
        ("--peers --provider cuda", "leave out --provider cuda"),
        ("--peers --scheme int8", "leave out --scheme int8"),
    ],
)
def test_what_cannot_be_compared_is_exit_2_before_anything_is_timed(folders, tmp_path, capsys, words, told):
    assert main(["bench", str(folders / "bundle"), "--out", str(tmp_path / "r.jsonl"), *words.split()]) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "r.jsonl").exists()


def test_a_plain_file_is_of_one_bundle(folders, tmp_path, capsys):
    bundle = str(folders / "bundle")
    assert main(["bench", bundle, bundle, "--out", str(tmp_path / "r"), "--peers", "--plain", f"{bundle}/model.fp32.onnx"]) == 2
    assert "is a peer of one bundle" in capsys.readouterr().err


def test_what_is_not_installed_is_told_with_the_remedy():
    with pytest.raises(UserError, match=r"needs no-such-package, not installed here; pip install '\.\[peers\]'"):
        check_installed(["pytest", "no-such-package", "no-such-package"])


def test_a_row_gives_way_to_one_of_the_same_bundle_side_threads_and_machine():
    assert same_measurement(peer_row(), peer_row(model_sha256=sha("exported anew"), rounds=6))
    for changed in (
        peer_row("openvino-bf16"),
        peer_row(threads=2),
        peer_row(bundle="c"),
        peer_row(machine={"name": "other"}),
        accuracy_row(),
    ):
        assert not same_measurement(changed, peer_row())


def test_the_table_says_what_was_measured():
    ours = peer_row("ours-int8", scheme="int8", model_sha256=sha("int8"), member="b0-64-general-int8", metrics=None, against={})
    refused = peer_row("openvino-bf16", model_ms=None, against={}, answers=None, metrics=None, refused="no kernels", model_sha256=sha("int8"))
    elsewhere = peer_row(machine={"name": "other"})
    (name, lines, note), (other, *_) = peer_table.groups([accuracy_row(), ours, peer_row(), refused, elsewhere])
    assert name == "b0-64-general on desk, 1 thread" and other == "b0-64-general on other, 1 thread"
    assert [line["side"] for line in lines] == ["ours", "OpenVINO", "OpenVINO, REFUSED"]
    assert lines[0]["top1"] == 0.61, "ours have their accuracy in a row of its own"
    assert lines[1]["int8"] == "2.00× (1.90 to 2.10)" and lines[1]["int8_processor"] == "1.50× (1.40 to 1.60)"
    assert lines[1]["fp32"] == "0.90× (0.80 to 0.95)" and lines[1]["top1"] == 0.5 and lines[1]["agreement"] == 0.75
    assert lines[2]["model_ms"] is None and lines[2]["int8"] == "–" and lines[2]["top1"] is None, "it has no answers"
    assert "200 rounds of 8 single images" in note and "OpenVINO, bf16: REFUSED, no kernels." in note and "3.0 and 4.0" in note


def test_the_report_shows_peers_beside_members(tmp_path):
    page = write_report([accuracy_row(), peer_row(title="<b>Open</b>")], tmp_path)
    assert peer_table.TITLE in page.read_text() and "&lt;b&gt;Open" in page.read_text() and "<b>Open" not in page.read_text()
    assert "2.00× (1.90 to 2.10)" in (tmp_path / "report.md").read_text()
    assert peer_table.TITLE not in write_report([accuracy_row()], tmp_path).read_text()
    assert "of other kinds" not in page.read_text()


@pytest.mark.parametrize("changes", [{"against": 3}, {"machine": None}, {"versions": []}, {"member": None}])
def test_a_crooked_row_is_refused_by_its_place(changes):
    with pytest.raises(UserError, match=f"line 3: '{next(iter(changes))}' is"):
        check_row(peer_row(**changes), "line 3")


@given(
    st.sampled_from(sorted(peer_row())),
    st.sampled_from([None, 3, "x", [], {}, [1, "x"], {"int8": 4}, {"int8": {"ratio": 1, "interval": ["x", None]}}]),
)
def test_a_row_that_is_read_is_shown_whatever_else_is_in_it(key, value):
    row = {**peer_row(), key: value}
    try:
        check_row(row, "here")
    except UserError:
        return
    assert isinstance(peer_table.markdown([row]), str) and isinstance(peer_table.html([row]), str)
