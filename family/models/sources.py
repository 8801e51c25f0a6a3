"""Where pretrained weights come from. No TensorFlow here."""

from pathlib import Path

from family.errors import UserError
from family.models.variants import Variant

NONE = "none"
DOWNLOADS = ("imagenet", "noisy-student")


def weights_path(source: str) -> Path:
    """Return the file that a source names: itself, or the weights of a run folder."""
    return Path(source) / "weights.h5" if Path(source).is_dir() else Path(source)


def download_file(row: Variant, source: str) -> str:
    """Return the name of the file, without head, that a variant's library downloads for a source of DOWNLOADS.

    Raises:
        UserError: the library publishes none.
    """
    if source in row.downloads:
        return row.downloads[source]
    if row.downloads:
        raise UserError(
            f"{row.name} has no published {source} weights; there are: {', '.join(row.downloads)}. Or give --weights FILE or RUN"
        )
    raise UserError(
        f"{row.name} has no published weights to download; got --weights {source}. Give a run, a Keras 2 HDF5 file "
        "(of an EfficientNet of the same width the convolutions fit by name), or none"
    )


def check_source(row: Variant, source: str) -> None:
    """Hold that a source is none, a download that the variant has, or a file that is there.

    Raises:
        UserError: it is none of these.
    """
    if source in DOWNLOADS:
        download_file(row, source)
    elif source != NONE and not weights_path(source).is_file():
        raise UserError(f"no weights at {weights_path(source)}; wanted none, {', '.join(DOWNLOADS)}, a Keras 2 HDF5 file, or a run folder")
