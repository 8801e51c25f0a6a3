"""The processor that this process runs on."""

import contextlib
import platform
import re
from pathlib import Path


def cpu_model() -> str:
    """Return the processor's name."""
    return _field("model name") or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """Return the processor's features, as the kernel names them."""
    return set(_field("flags|Features").split())


def peak_memory_mb() -> float | None:
    """Return the most memory that this process has held at once (VmHWM), in units of 2^20 bytes; None where the system doesn't tell.

    Not `ru_maxrss`: that of a started process begins with what the one that started it held.
    """
    return _status_mb("VmHWM")


def mapped_memory_mb() -> float | None:
    """Return how much of the memory that this process holds now is of files that it maps (libraries, features), which the system takes back
    when it is short of memory; in units of 2^20 bytes, None where the system doesn't tell."""
    return _status_mb("RssFile")


def _status_mb(key: str) -> float | None:
    try:
        found = re.search(rf"^{key}:\s*(\d+)", Path("/proc/self/status").read_text(), flags=re.M)
    except OSError:
        return None
    return int(found.group(1)) / 1024 if found else None


def forget_peak_memory() -> None:
    """Let `peak_memory_mb` begin anew with what this process holds now, where the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _field(name: str) -> str:
    try:
        found = re.search(rf"^(?:{name})\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), flags=re.M)
    except OSError:
        return ""
    return found.group(1).strip() if found else ""
