"""Whether int8 is faster: on a clock that goes on only when somebody works, and with a neighbour that makes noise."""

import random

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
from export.speed import N_ROUNDS, compare_speed, tell_speed  # noqa: E402
from family.cli import main  # noqa: E402
from family.data.ontology import from_leaves  # noqa: E402
from family.outputs import read_json, write_json  # noqa: E402

IMAGES = np.zeros((3, 4, 4, 3), np.uint8)


def compared(fp32_ms: float, int8_ms: float, noise=lambda: 1.0) -> dict:
    now = [0.0]

    def worker(ms: float):
        def predict(images):
            assert images.shape == (1, 4, 4, 3)
            now[0] += ms / 1000 * noise()

        return predict

    return compare_speed(worker(fp32_ms), worker(int8_ms), IMAGES, clock=lambda: now[0])


@pytest.mark.parametrize(("fp32_ms", "int8_ms"), [(20, 10), (10, 20), (3000, 1000)])
def test_the_ratio_is_that_of_the_times(fp32_ms, int8_ms):
    found = compared(fp32_ms, int8_ms)
    assert found["ratio"] == pytest.approx(fp32_ms / int8_ms) and found["interval"] == pytest.approx([fp32_ms / int8_ms] * 2)
    assert found["rounds"] == N_ROUNDS and 1 <= found["images_a_round"] <= 8


def test_a_neighbour_that_makes_noise_widens_the_interval_and_moves_the_ratio_little():
    noise = random.Random(0)
    found = compared(20, 10, lambda: 1 if noise.random() < 0.8 else noise.uniform(1, 5))
    assert found["interval"][0] < 2 < found["interval"][1] and found["ratio"] == pytest.approx(2, rel=0.15)


def test_what_is_not_faster_is_said():
    assert tell_speed(compared(20, 10)).startswith("2.00 times the speed of fp32 here (2.00 to 2.00")
    assert "slower than fp32" in tell_speed(compared(10, 20))
    noise = random.Random(1)
    assert "is not shown" in tell_speed(compared(10, 10, lambda: noise.uniform(0.5, 1.5)))


@pytest.mark.parametrize(("int8_ms", "warned"), [(5, False), (20, True)])
def test_a_card_warns_of_a_scheme_that_is_not_faster(int8_ms, warned, tmp_path, write_bundle, capsys):
    bundle = write_bundle(tmp_path / "bundle", from_leaves([("1", "A"), ("2", "B")]), schemes=("fp32", "int8"))
    card = read_json(bundle / "card.json")
    card["schemes"]["int8"]["speed"] = compared(10, int8_ms)
    write_json(bundle / "card.json", card)
    assert main(["show", str(bundle)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("scheme int8")]
    assert f"{10 / int8_ms:.2f} times the speed of fp32" in line and ("NOT SHOWN to be faster" in line) == warned
