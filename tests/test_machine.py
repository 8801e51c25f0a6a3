"""What the system tells of this process's memory."""

import os

import numpy as np
import pytest

from family.machine import forget_peak_memory, mapped_memory_mb, peak_memory_mb


def test_the_peak_is_of_what_was_held_since_it_was_forgotten(tmp_path):
    before = peak_memory_mb()
    held = np.ones(40 * 2**17)  # 40 MB
    assert peak_memory_mb() > 40 and before is not None
    del held
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("/proc/self/clear_refs can't be written here")
    forget_peak_memory()
    low = peak_memory_mb()
    held = np.ones(60 * 2**17)
    assert 55 < peak_memory_mb() - low < 80 and held.any()


def test_files_that_are_mapped_are_told_apart(tmp_path):
    np.save(tmp_path / "features.npy", np.ones(40 * 2**17))
    before = mapped_memory_mb()
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert mapped.sum() and 38 < mapped_memory_mb() - before < 45
