"""The machine that a measurement was taken on."""

import datetime
import importlib.metadata
import os
import platform
import re
from pathlib import Path

from family.machine import cpu_flags, cpu_model, governor, n_cores

# What decides the speed of float and int8 kernels.
_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm")
_PACKAGES = ("onnxruntime-gpu", "onnxruntime", "numpy", "pillow")


def describe_machine(name: str | None = None) -> dict:
    """Return name, processor, cores that this process owns, features, memory, system and versions."""
    cpu, flags = cpu_model(), cpu_flags()
    cores = n_cores()
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package.removesuffix("-gpu")] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "name": name or f"{re.sub(r'[^a-z0-9]+', '-', cpu.lower()).strip('-')[:24]}-{cores}",
        "cpu": cpu,
        "cores": cores,
        "features": [flag for flag in _FEATURES if flag in flags],
        "memory_gb": round(memory_gb, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "gpu": _gpu(),
        "governor": governor(),
        "versions": versions,
    }


def now() -> str:
    """Return the time, UTC, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _gpu() -> str | None:
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        model = re.search(r"Model:\s*(.+)", path.read_text())
        return model.group(1).strip() if model else "NVIDIA GPU"
    return None
