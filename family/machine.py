"""The processor that this process runs on."""

import contextlib
import os
import platform
import re
from pathlib import Path

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cpu_model() -> str:
    """Return the processor's name."""
    return _field("model name") or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """Return the processor's features, as the kernel names them."""
    return set(_field("flags|Features").split())


def n_cores() -> int:
    """Return how many processors this process may keep busy: those that it may run on, but no more than a container's quota allows.

    A quota of 1.5 counts as 1: threads beyond it are stopped in turns. Source: cgroups(7), cpu.max and cpu.cfs_quota_us.
    """
    quota = _quota()
    own = len(os.sched_getaffinity(0))
    return own if quota is None else max(1, min(own, int(quota)))


def _quota(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float | None:
    """Return the processors that the smallest quota of the cgroups around this process is worth, None where there is none."""
    found = []
    for folder in cgroups(root, own):
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            try:
                words = " ".join((folder / name).read_text() for name in names).split()
                limit, period = map(float, words[:2])
            except (OSError, ValueError):  # not told here, or "max"
                continue
            found += [limit / period] if limit > 0 and period > 0 else []
    return min(found, default=None)


def cgroups(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> list[Path]:
    """Return the folders of the cgroups that this process is in, with those around them, of the controller of processor time: a batch system's or a
    service's quota may stand at any of them. Source: cgroups(7), /proc/[pid]/cgroup."""
    places = [(root, "/"), (root / "cpu", "/")]
    try:
        told = [line.split(":", 2) for line in own.read_text().splitlines()]
    except (OSError, ValueError):
        told = []
    for _, controllers, path in (words for words in told if len(words) == 3):
        if not controllers or "cpu" in controllers.split(","):
            places.append((root / "cpu" if controllers else root, path))
    found: dict[Path, None] = {}
    for base, path in places:
        parts = [part for part in path.split("/") if part]
        parts = [] if ".." in parts else parts  # of a namespace around ours
        found |= dict.fromkeys(base.joinpath(*parts[:n]) for n in range(len(parts), -1, -1))
    return [folder for folder in found if os.path.isdir(folder)]  # which no name and no right that is missing makes fail


def governor() -> str | None:
    """Return how the kernel sets the processor's clock ("performance", "powersave", ...), None where it doesn't tell, as on most virtual machines."""
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip() or None
    except OSError:
        return None


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
