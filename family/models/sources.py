"""Where pretrained weights come from. No TensorFlow here."""

from pathlib import Path

NONE = "none"
DOWNLOADS = ("imagenet", "noisy-student")


def weights_path(source: str) -> Path:
    """Return the file that a source names: itself, or the weights of a run folder."""
    return Path(source) / "weights.h5" if Path(source).is_dir() else Path(source)
