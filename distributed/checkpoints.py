"""Checkpoints: arrays and a JSON state in one file, written whole; the newest that is sound is the one to resume from."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np

_BEST = "best.npz"


def save(folder: Path, step: int, arrays: dict[str, np.ndarray], state: dict, n_kept: int = 2) -> Path:
    """Write `step-N.npz`; keep the last `n_kept`, and nothing of a later step: it was passed over, or belongs to another course.

    Raises:
        ValueError: an array holds what is no number; what was saved before stays.
    """
    for leftover in folder.glob(".step-*.partial"):  # of a kill while one was written
        leftover.unlink()
    path = _write(folder / f"step-{step:09d}.npz", arrays, state)
    there = sorted(folder.glob("step-*.npz"))
    last = there.index(path)
    for old in there[: max(0, last + 1 - n_kept)] + there[last + 1 :]:
        old.unlink()
    return path


def save_best(folder: Path, arrays: dict[str, np.ndarray], state: dict) -> Path:
    """Write `best.npz` in place of the one before; raises as `save` does."""
    return _write(folder / _BEST, arrays, state)


def _write(path: Path, arrays: dict[str, np.ndarray], state: dict) -> Path:
    """Write arrays and a state beside `path` and rename; a kill leaves the old file or the new one."""
    broken = [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if broken:
        raise ValueError(f"{len(broken)} of {len(arrays)} arrays for {path.name} hold what is no number")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    packed = {**arrays, "state": np.frombuffer(json.dumps(state).encode(), np.uint8)}
    with open(partial, "wb") as file:
        np.savez(file, **packed)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return path


def load_newest(folder: Path) -> tuple[dict[str, np.ndarray], dict] | None:
    """Return the arrays and the state of the newest sound checkpoint; a damaged one is named and passed over."""
    return next((found for path in sorted(folder.glob("step-*.npz"), reverse=True) if (found := _read(path))), None)


def load_best(folder: Path) -> tuple[dict[str, np.ndarray], dict] | None:
    """Return the arrays and the state of the best checkpoint, if there is a sound one."""
    return _read(folder / _BEST) if (folder / _BEST).is_file() else None


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict] | None:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return arrays, json.loads(arrays.pop("state").tobytes())
    except Exception as error:  # whatever a damaged archive makes the reader do: a resume goes on with an older one
        print(f"warning: the checkpoint {path} is damaged ({type(error).__name__}: {error}) and passed over", file=sys.stderr)
        return None
