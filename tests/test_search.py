"""The search for int8: what is tried, what is taken, and that labels have no part in it."""

import csv

import numpy as np
import pytest

ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("sympy", reason="sympy, which ONNX Runtime's quantizer imports, is not installed")
from networks import draw_images, write_network  # noqa: E402

from export.calibrate import RANGES  # noqa: E402
from export.proof import prove, why_not_int8  # noqa: E402
from export.quantize import write_int8  # noqa: E402
from export.search import (  # noqa: E402
    EXCHANGE,
    MOST_IN_FLOAT,
    NEGLIGIBLE,
    SAME_TIME,
    join_halves,
    report_accuracy,
    score,
    search,
    summary,
    tell_choice,
    write_candidates,
)
from export.verify import gate, is_refused  # noqa: E402


@pytest.fixture(scope="module", params=[True, False], ids=["blocks", "no blocks"])
def found(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("search")
    write_network(folder / "fp32.onnx", block_names=request.param)
    images = draw_images(48)
    return search(folder / "fp32.onnx", images[:16], images[16:], folder)


def test_the_choice_is_the_least_divergence_against_time_of_what_was_timed(found):
    _, rows = found
    (chosen,) = (row for row in rows if row["chosen"])
    timed = [row for row in rows if row["relative_time"] is not None]
    best = min((row for row in timed if row["format"] == "QDQ"), key=score)
    (fused,) = (row for row in timed if row["format"] == "QOperator")
    is_faster = fused["relative_time"] < (1 - SAME_TIME) * best["relative_time"]
    assert chosen is (fused if is_faster and score(fused) < score(best) else best)
    everything = [row for row in timed if not row["blocks_in_float"] and row["format"] == "QDQ"]
    assert [row["relative_time"] for row in everything] == [1.0]


def test_every_range_is_tried_with_every_set_of_blocks_and_the_choice_in_both_formats(found):
    _, rows = found
    assert {row["ranges"] for row in rows if not row["blocks_in_float"]} == set(RANGES)
    for blocks in {tuple(row["blocks_in_float"]) for row in rows if row["relative_time"] is not None}:
        alike = [row for row in rows if (tuple(row["blocks_in_float"]), row["format"], row["n_images"]) == (blocks, "QDQ", 32)]
        assert {row["ranges"] for row in alike} == set(RANGES)
        (timed,) = (row for row in alike if row["relative_time"] is not None and row in alike[-5:])
        assert timed["divergence"] == min(row["divergence"] for row in alike[-5:])
    (fused,) = (row for row in rows if row["format"] == "QOperator")
    (twin,) = (row for row in rows if row["format"] == "QDQ" and row["relative_time"] and row["blocks_in_float"] == fused["blocks_in_float"])
    assert (fused["ranges"], fused["divergence"]) == (twin["ranges"], twin["divergence"])


def test_most_convolutions_stay_in_int8_though_float_diverges_by_nothing(found, tmp_path):
    trials, rows = found
    assert all(row["convolutions_in_float"] <= MOST_IN_FLOAT * 6 for row in rows) and any(row["convolutions_in_float"] for row in rows)
    (chosen,) = (row for row in rows if row["chosen"])
    assert why_not_int8(prove(trials.write(chosen)), chosen["convolutions_in_float"]) == ""


def test_a_percent_of_time_is_worth_several_of_divergence():
    row = {"divergence": 0.1, "relative_time": 1.0}
    for slower in (1.01, 1.1):
        assert score({"divergence": 0.1 / slower ** (EXCHANGE + 0.5), "relative_time": slower}) < score(row)
        assert score({"divergence": 0.1 / slower ** (EXCHANGE - 0.5), "relative_time": slower}) > score(row)


def test_of_divergences_that_nobody_can_see_the_faster_file_is_taken():
    tiny, none = {"divergence": NEGLIGIBLE / 2, "relative_time": 0.99}, {"divergence": 0.0, "relative_time": 1.0}
    assert score(tiny) < score(none) < score({"divergence": 2 * NEGLIGIBLE, "relative_time": 0.99})


def test_a_joined_image_has_the_left_half_of_one_and_the_right_half_of_another():
    images = np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None, None, None], (6, 5, 5, 3))
    joined = join_halves(images)
    assert joined[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5] and joined[:, 4, 4, 2].tolist() == [3, 4, 5, 0, 1, 2]
    assert (joined[:, :, :2] == images[:, :, :2]).all() and not (joined[:, :, 2:] == images[:, :, 2:]).any()
    assert (join_halves(images[:1]) == images[:1]).all() and (images[:, 0, 4, 0] == np.arange(6)).all()


def test_labels_are_reported_and_change_nothing(found):
    trials, rows = found
    images, chosen = draw_images(20, seed=9), [row["chosen"] for row in rows]
    timed = [row for row in rows if row["relative_time"] is not None]
    best = timed[-1]
    for labels in (np.zeros(20, int), np.arange(20) % 5):
        report_accuracy(trials, rows, images, labels)
        assert [row["chosen"] for row in rows] == chosen and all(0 <= row["val_micro"] <= 1 for row in timed)
        assert not any("val_micro" in row for row in rows if row["relative_time"] is None)
    assert {"val_micro", "val_macro"} <= set(best)


def test_the_table_and_the_card_tell_the_same(found, tmp_path):
    trials, rows = found
    write_candidates(tmp_path / "candidates.csv", rows)
    with open(tmp_path / "candidates.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    made = summary(trials, rows, 16)
    assert len(table) == len(rows) == made["n_candidates"] and [row["chosen"] for row in table].count("True") == 1
    assert table[0]["chosen"] == "True" and float(table[0]["divergence"]) == made["divergence"]
    assert table[0]["blocks_in_float"].split() == made["blocks_in_float"]
    assert (made["n_calibrated_on"], made["n_ranked_on"]) == (16, 32) and str(EXCHANGE) in made["ranked_by"]
    assert made["ranges"] in tell_choice(made, rows)


def test_the_gate_refuses_an_int8_file_whose_ranges_are_bad(found):
    """Ranges a twentieth as wide: the file is int8, is fast, and is wrong."""
    trials, rows = found
    images = draw_images(400, seed=11)

    def answers(path):
        return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(["probabilities"], {"image": images})[0]

    good = trials.write(next(row for row in rows if row["chosen"]), "good")
    fp32 = answers(good.parent / "fp32.onnx")
    labels = fp32.argmax(1)
    narrow = {name: (low / 20, high / 20) for name, (low, high) in trials.ranges["min-max"].items()}
    write_int8(trials.model, narrow, trials.always, good.parent / "bad.onnx")
    assert why_not_int8(prove(good.parent / "bad.onnx"), 0) == ""
    levels = [(np.arange(5), 5)]
    verdicts = {path.name: gate(fp32, answers(path), labels, 5.0, levels, np.arange(400)) for path in (good, good.parent / "bad.onnx")}
    assert not is_refused(verdicts[good.name], strict=False)
    assert is_refused(verdicts["bad.onnx"], strict=False) and verdicts["bad.onnx"]["verdict"] == "fail"
