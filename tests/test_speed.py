"""Whether int8 is faster: on a clock that goes on only when somebody works, and with a neighbour that makes noise."""

import random

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
from export.speed import N_ROUNDS, compare_speed, tell_speed  # noqa: E402

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
