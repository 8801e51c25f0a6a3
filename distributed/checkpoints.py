"""Checkpoints: arrays and a JSON state in one file, written whole; the newest that is sound is the one to resume from."""

import io
import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np

KEPT = 2


def save(folder: Path, step: int, arrays: dict[str, np.ndarray], state: dict) -> Path:
    """Write `step-N.npz` beside and rename it; keep the last few."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:09d}.npz"
    partial = folder / f".{path.name}.partial"
    packed = {**arrays, "state": np.frombuffer(json.dumps(state).encode(), np.uint8)}
    with open(partial, "wb") as file:
        np.savez(file, **packed)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    for old in sorted(folder.glob("step-*.npz"))[:-KEPT]:
        old.unlink()
    return path


def load_newest(folder: Path) -> tuple[dict[str, np.ndarray], dict] | None:
    """Return the arrays and the state of the newest sound checkpoint; a damaged one is named and passed over."""
    for path in sorted(folder.glob("step-*.npz"), reverse=True):
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return arrays, json.loads(arrays.pop("state").tobytes())
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            print(f"warning: the checkpoint {path} is damaged ({error}); trying the one before", file=sys.stderr)
    return None
