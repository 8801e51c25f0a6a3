"""What the NVIDIA GPU did while members were timed: its clock, its temperature, and whether it slowed down. Asked of `nvidia-smi`; never run on one here.

*Source*: nvidia-smi --help-query-gpu; NVML, nvmlClocksEventReasons.
"""

import csv
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PROVIDERS = ("cuda", "tensorrt")
_FIELDS = ("clocks.sm", "clocks.max.sm", "temperature.gpu", "clocks_throttle_reasons.active")
_HOT_OR_BRAKED = 0x8 | 0x20 | 0x40 | 0x80  # hardware slowdown, software and hardware thermal slowdown, power brake
_EVERY_S, _ANSWER_S = 1.0, 10
_MOST_SLOWED = 0.1  # of the readings


@dataclass(frozen=True)
class Reading:
    sm_mhz: float
    max_sm_mhz: float
    celsius: float
    is_slowed: bool


def read_gpu() -> Reading | None:
    """Ask the GPU that providers use, the first visible one; None where it can't be asked, or where it is not known which one that is."""
    command, device = shutil.which("nvidia-smi"), _device()
    if command is None or device is None:
        return None
    words = [command, f"--id={device}", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(words, capture_output=True, text=True, timeout=_ANSWER_S, check=True).stdout
        sm, most, celsius, reasons = next(csv.reader([told.strip()], skipinitialspace=True))
        return Reading(float(sm), float(most), float(celsius), bool(int(reasons, 16) & _HOT_OR_BRAKED))
    except (OSError, subprocess.SubprocessError, ValueError, StopIteration):
        return None


def _device() -> str | None:
    """Return what nvidia-smi calls the first visible GPU. By number CUDA counts the fastest first, and nvidia-smi by the bus, unless it is told to."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    is_by_bus = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) <= 1
    return visible if visible.startswith("GPU-") or (visible.isdigit() and is_by_bus) else None


@dataclass
class Watch:
    """Asks the GPU behind turns of members that run on one, at most once a second; a reading is the member's whose turn it was."""

    is_on: bool
    clock: Callable[[], float] = time.monotonic
    readings: dict[int, list[Reading]] = field(default_factory=dict)
    _asked_at: float | None = None

    def look(self, member: int) -> None:
        if self.is_on and (self._asked_at is None or self.clock() - self._asked_at >= _EVERY_S):
            found = read_gpu()
            self.readings.setdefault(member, []).extend([found] if found else [])
            self._asked_at = self.clock()

    def conditions(self, member: int) -> dict | None:
        """Return what is told of the GPU in a member's row; None where it told nothing."""
        found = self.readings.get(member) or [reading for some in self.readings.values() for reading in some]  # its turns were too short for one of its own
        if not found:
            return None
        clocks = sorted(reading.sm_mhz for reading in found)
        return {
            "sm_mhz": clocks[len(clocks) // 2], "least_sm_mhz": clocks[0], "max_sm_mhz": max(reading.max_sm_mhz for reading in found),
            "most_celsius": max(reading.celsius for reading in found), "n_readings": len(found), "n_slowed": sum(reading.is_slowed for reading in found),
        }  # fmt: skip

    def faults(self, member: int) -> list[str]:
        """Return why what was timed on the GPU doesn't count, with what to do about it."""
        told = self.conditions(member)
        if told is None or told["n_slowed"] <= _MOST_SLOWED * told["n_readings"]:
            return []
        return [f"the GPU slowed its clock down in {told['n_slowed']} of {told['n_readings']} readings, by heat or a power brake: let it cool, or lower its "
                "clock (`nvidia-smi --lock-gpu-clocks`)"]  # fmt: skip
