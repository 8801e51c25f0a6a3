"""The processor that this process runs on."""

import platform
import re
from pathlib import Path


def cpu_model() -> str:
    """Return the processor's name."""
    return _field("model name") or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """Return the processor's features, as the kernel names them."""
    return set(_field("flags|Features").split())


def _field(name: str) -> str:
    try:
        found = re.search(rf"^(?:{name})\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), flags=re.M)
    except OSError:
        return ""
    return found.group(1).strip() if found else ""
