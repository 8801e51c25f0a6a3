"""What the system tells of a process's memory. Each is asked in a process of its own: what a long run of tests has freed is used again unseen."""

import os
import subprocess
import sys

import numpy as np
import pytest


def told_by(source: str, *args) -> list[float]:
    ran = subprocess.run([sys.executable, "-c", source, *map(str, args)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return [float(number) for number in ran.stdout.split()]


PEAKS = """
import mmap
from family.machine import forget_peak_memory, peak_memory_mb

def hold(mb):  # touched pages that go back to the system when they are closed
    held = mmap.mmap(-1, mb * 2**20)
    for at in range(0, len(held), mmap.PAGESIZE):
        held[at] = 1
    return held

print(peak_memory_mb())
hold(60).close()
print(peak_memory_mb())
forget_peak_memory()
print(peak_memory_mb())
hold(40).close()
print(peak_memory_mb())
"""


def test_the_peak_is_of_what_was_held_since_it_was_forgotten():
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("/proc/self/clear_refs can't be written here")
    first, held, forgotten, held_again = told_by(PEAKS)
    assert 55 < held - first < 70 and held - forgotten > 50  # the 60 MB count, then no more
    assert 35 < held_again - forgotten < 50


MAPPED = """
import sys
import numpy as np
from family.machine import mapped_memory_mb

np.ones(1).sum()  # the library's own pages are there before
before = mapped_memory_mb()
mapped = np.load(sys.argv[1], mmap_mode="r")
assert mapped.sum()
print(mapped_memory_mb() - before)
"""


def test_files_that_are_mapped_are_told_apart(tmp_path):
    np.save(tmp_path / "features.npy", np.ones(40 * 2**17))  # 40 MB
    (mapped,) = told_by(MAPPED, tmp_path / "features.npy")
    assert 38 < mapped < 45
