"""Trainings for tests: real ones, of a tiny model on made-up listings, in processes of their own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from family.machine import cpu_flags

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
# BatchNorm in inference mode, so that rows don't see one another; dropout and stochastic depth stay on; all branches count from the first step.
EXACT = ["--variant", "lite0", "--weights", "none", "--recipe", "scratch", "--set", "resolution_px=32", "--set", "batchnorm=inference",
         "--set", "deterministic=true", "--set", "batch_size=16", "--set", "finetune_rate=0.002", "--set", "residual_gamma=1"]  # fmt: skip


def family(*words, timeout_s: int = 400, code: int = 0) -> subprocess.CompletedProcess:
    """Run a command line in a process of its own and hold its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "family.cli", *map(str, words)], capture_output=True, text=True, timeout=timeout_s, env=ENVIRONMENT
    )
    assert done.returncode == code, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def events(run: Path, kind: str) -> list[dict]:
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.is_file() else []
    return [row for row in rows if row["event"] == kind]


def weights_of(run: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(run / "weights.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def children_of(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found += map(int, (task / "children").read_text().split())
    return found


def rank_of(pid: int) -> str:
    words = dict(item.partition("=")[::2] for item in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    return words.get("HOROVOD_RANK", "")


def start(*words, environment: dict | None = None) -> subprocess.Popen:
    """Start a command line and give its process; its standard error can be read."""
    return subprocess.Popen(
        [sys.executable, "-m", "family.cli", *map(str, words)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**ENVIRONMENT, **(environment or {})},
    )  # fmt: skip


def wait_until(condition: Callable[[], bool], process: subprocess.Popen, what: str, timeout_s: float = 300) -> None:
    """Wait for something that a running process is about to do."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, f"it ended with {process.returncode} before {what}:\n{process.stderr.read()[-3000:]}"
        assert time.monotonic() < deadline, f"not in {timeout_s:.0f} s: {what}"
        time.sleep(0.05)


def rounding(strict: float, without_avx512: float) -> float:
    """Return how far apart runs on other numbers of ranks may lie: their sums round otherwise, further where the processor has no AVX-512."""
    return strict if "avx512f" in cpu_flags() else without_avx512


def last_step(run: Path, event: str) -> int:
    """Return the highest step among the events of a kind; 0 without any."""
    return max((row["step"] for row in events(run, event)), default=0)


def kill_all(process: subprocess.Popen) -> None:
    """Kill a process and wait until those that it had started, which end with it, have gone too."""
    children = children_of(process.pid)
    kill(process)
    deadline = time.monotonic() + 30
    while [pid for pid in children if _runs(pid)]:
        assert time.monotonic() < deadline, "a process outlived the one that started it"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
