"""What a training tells: `metrics.jsonl`, TensorBoard and a line an epoch; rank 0 only."""

import json
from pathlib import Path

import tensorflow as tf


class Log:
    """Appends events to a run's `metrics.jsonl`; silent on the other ranks."""

    def __init__(self, run: Path, is_first: bool):
        self._run, self._is_first = run, is_first

    def __call__(self, event: str, **row) -> None:
        if not self._is_first:
            return
        with open(self._run / "metrics.jsonl", "ab+") as file:
            file.seek(max(0, file.tell() - 1))
            cut_short = file.read() not in (b"", b"\n")  # by a kill
            file.write(b"\n" * cut_short + json.dumps({"event": event, **row}).encode() + b"\n")
        if event == "epoch":
            _to_tensorboard(self._run / "tensorboard", row)
            _show(row)

    def warn(self, text: str) -> None:
        if self._is_first:
            print(text, flush=True)


def read_events(run: Path, event: str) -> list[dict]:
    """Return the rows of one kind; a line that a kill cut short is passed over."""
    if not (run / "metrics.jsonl").is_file():
        return []
    rows = []
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if isinstance(row, dict) and row.get("event") == event]


def _show(row: dict) -> None:
    val = f", validation {row['val_accuracy']:.1%}" if "val_accuracy" in row else ""
    print(f"{row['phase']} epoch {row['epoch']}: loss {row['loss']:.3f}, training accuracy {row['accuracy']:.1%}{val}, "
          f"{row['images_per_s']:.0f} images/s", flush=True)  # fmt: skip


def _to_tensorboard(folder: Path, row: dict) -> None:
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=row["step"]):
        for name in ("loss", "accuracy", "val_accuracy", "rate", "images_per_s"):
            if name in row:
                tf.summary.scalar(f"{row['phase']}/{name}", row[name])
    writer.close()
