"""What a GPU tells while members are timed, by an `nvidia-smi` that is made up: no GPU was at hand."""

import pytest

from benchmarks.timing import gpu

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
from benchmarks.timing.rows import _misplaced  # noqa: E402


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """Let nvidia-smi answer with a text, or fail."""

    def make(text: str, code: int = 0) -> None:
        command = tmp_path / "nvidia-smi"
        command.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho "{text}"\nexit {code}\n')
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    make.asked = tmp_path / "asked"
    return make


def test_clock_temperature_and_slowing_are_read_of_the_gpu_that_is_used(answer, monkeypatch):
    answer("1410, 1980, 61, 0x0000000000000001")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert gpu.read_gpu() == gpu.Reading(1410, 1980, 61, False), "idle is no fault"
    assert "--id=2 " in answer.asked.read_text()
    for reasons, is_slowed in (("0x0000000000000040", True), ("0x0000000000000020", True), ("0x0000000000000004", False), ("0x0000000000000088", True)):
        answer(f"1410, 1980, 61, {reasons}")
        assert gpu.read_gpu().is_slowed == is_slowed


@pytest.mark.parametrize(("text", "code"), [("", 0), ("No devices were found", 6), ("1410, [N/A], 61, 0x1", 0), ("1, 2", 0)])
def test_a_gpu_that_tells_nothing_is_not_taken_to_be_fine(answer, text, code):
    answer(text, code)
    watch = gpu.Watch(True)
    watch.look(0)
    assert gpu.read_gpu() is None and watch.conditions(0) is None and watch.faults(0) == []


@pytest.mark.parametrize(
    ("visible", "order", "device"),
    [("2,3", "PCI_BUS_ID", "2"), ("GPU-8f6b,1", "", "GPU-8f6b"), ("0", "PCI_BUS_ID", "0"), ("-1", "PCI_BUS_ID", None), ("MIG-1", "PCI_BUS_ID", None),
     ("", "PCI_BUS_ID", None)],
)  # fmt: skip
def test_the_first_visible_gpu_is_asked_and_no_other(monkeypatch, visible, order, device):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    assert gpu._device() == device


def test_it_is_asked_once_a_second_and_a_reading_is_the_members_whose_turn_it_was(answer):
    answer("1400, 1980, 61, 0x0")
    now = iter([0.0, 0.4, 1.2, 1.2])
    watch = gpu.Watch(True, clock=lambda: next(now))
    watch.look(0)
    answer("900, 1980, 88, 0x40")
    watch.look(1)
    watch.look(1)
    assert {member: len(found) for member, found in watch.readings.items()} == {0: 1, 1: 1}
    assert watch.conditions(1) == {"sm_mhz": 900, "least_sm_mhz": 900, "max_sm_mhz": 1980, "most_celsius": 88, "n_readings": 1, "n_slowed": 1}
    assert watch.faults(0) == [] and "in 1 of 1 readings" in watch.faults(1)[0] and "--lock-gpu-clocks" in watch.faults(1)[0]
    asked = len(answer.asked.read_text().splitlines())
    off = gpu.Watch(False)
    off.look(0)
    assert len(answer.asked.read_text().splitlines()) == asked and off.readings == {}


@pytest.mark.parametrize(
    ("provider", "where", "fault"),
    [("cuda", {"cuda": 33}, False), ("cuda", {"cuda": 30, "cpu": 3}, True), ("cuda", {"cpu": 33}, True), ("cpu", {"cpu": 33}, False),
     ("tensorrt", {"tensorrt": 1, "cuda": 2}, False), ("tensorrt", {"cuda": 32, "cpu": 1}, True), ("tensorrt", {}, False)],
)  # fmt: skip
def test_convolutions_that_ran_elsewhere_make_a_row_invalid(provider, where, fault):
    found = _misplaced({"provider": provider, "placement": {"convolutions": where}})
    assert bool(found) == fault and all("did not run on" in why for why in found)
