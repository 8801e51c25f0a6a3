"""Where pretrained weights come from, and which runs can teach. No TensorFlow here."""

from collections.abc import Iterable
from pathlib import Path

from family.card import read_card
from family.errors import UserError
from family.models.variants import Variant, variant

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


def check_teacher(run: Path, leaves: Iterable[str]) -> None:
    """Hold that a run can teach a model of these leaves.

    Raises:
        UserError: it is not finished, or does not know all of them.
    """
    if not (run / "weights.h5").is_file():
        raise UserError(f"the teacher {run} is no finished run (it has no weights.h5)")
    check_knows(str(run), read_card(run)["classes"], leaves)


def check_knows(teacher: str, known: Iterable[str], leaves: Iterable[str]) -> None:
    """Hold that a teacher knows all leaves that it is asked about; it may know more.

    Raises:
        UserError: it does not.
    """
    unknown = sorted(set(leaves) - set(known))
    if unknown:
        raise UserError(f"the teacher {teacher} does not know {len(unknown)} of the categories: {', '.join(unknown[:3])}"
                        + " ..." * (len(unknown) > 3))  # fmt: skip


def check_source(row: Variant, source: str) -> None:
    """Hold that a source is none, a download that the variant has, or a file that is there.

    Raises:
        UserError: it is none of these.
    """
    if source in DOWNLOADS:
        download_file(row, source)
    elif source != NONE and not weights_path(source).is_file():
        raise UserError(f"no weights at {weights_path(source)}; wanted none, {', '.join(DOWNLOADS)}, a Keras 2 HDF5 file, or a run folder")


def check_activation_kept(row: Variant, activation: str, source: str) -> None:
    """Hold that a trunk was trained with the activation that it gets, for a phase in which it, or its BatchNorm's statistics, stay as they are.

    A run's card tells what its trunk has; a file and a download are taken to have the variant's own.

    Raises:
        UserError: it was trained with another one.
    """
    had = row.activation
    if Path(source).is_dir():
        card = read_card(source)
        had = card.get("activation") or variant(card["variant"]).activation
    if had != (activation or row.activation):
        ways = [f"keep it (--set activation={'' if had == row.activation else had})"] if row.activation in ("swish", had) else []
        ways.append("train all of it (--recipe cheaper, or --set head_epochs=0 --set batchnorm=train)")
        raise UserError(
            f"the trunk of {source} was trained with {had} and would get {activation or row.activation}. This recipe keeps the trunk, or its BatchNorm "
            f"statistics, as they are loaded: {', or '.join(ways)}"
        )
